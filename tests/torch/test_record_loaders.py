"""`RecordDataset` in the workers of a DataLoader: the same images, errors, and the memory of each worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fasttriplet as ft
from tests.processes import compiled
from tests.small_rec import identities, write_rec

pytest.importorskip("torch")

pytestmark = [pytest.mark.heavy, pytest.mark.torch]


def run_script(folder: Path, code: str, *arguments: str | Path, **environment: str) -> str:
    """Run the code as a module that spawned workers can import; return what it prints."""
    (folder / "script.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", folder / "script.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )
    # A worker that was forked before an iterator that had failed was freed frees it, too; PyTorch complains.
    complaint = "can only test a child process" in done.stderr
    assert (done.returncode, done.stderr if not complaint else "") == (0, ""), done.stderr
    return done.stdout


_SAME = """
import sys
import torch
from torch.utils.data import DataLoader
from fasttriplet.torch import RecordDataset

def described(image):
    return torch.cat([image.flatten().float(), torch.tensor([float(torch.get_num_threads())])])

def all_of(loader):
    batches = list(loader)
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])

def same(a, b):
    return all(map(torch.equal, a, b))

if __name__ == "__main__":
    rec = sys.argv[1]
    dataset = RecordDataset(rec, mirror=True, exclude=[2], renumber=True, seed=3)
    dataset.set_epoch(0)
    epochs = [all_of(DataLoader(dataset, batch_size=4))]
    dataset.set_epoch(1)
    epochs.append(all_of(DataLoader(dataset, batch_size=4)))
    assert not same(*epochs)
    for method, workers in (("fork", 2), ("forkserver", 1), ("spawn", 1)):  # the last two import PyTorch
        how = {"batch_size": 4, "num_workers": workers, "multiprocessing_context": method}
        loader = DataLoader(dataset, persistent_workers=True, **how)
        for epoch in (0, 1, 0):
            dataset.set_epoch(epoch)
            assert same(all_of(loader), epochs[epoch]), (method, epoch)
        del loader
    # Without an epoch, workers draw anew each time, whether they persist or not.
    random = RecordDataset(rec, mirror=True)
    for persistent in (False, True):
        loader = DataLoader(random, batch_size=4, num_workers=1, persistent_workers=persistent)
        assert len({tuple(all_of(loader)[0].flatten().tolist()) for _ in range(4)}) > 1
    print("done")
"""


def test_workers_give_the_same(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(4, 3))
    assert run_script(tmp_path, _SAME, rec) == "done\n"


# 786,432 rows of the index, which all lead to the same 12 images: 24 MiB of columns and 6 of targets. They
# are private memory of a worker that copies them, but not where they are shared.
_MEMORY = """
import re, sys
import numpy as np, torch
from torch.utils.data import DataLoader
import fasttriplet as ft
from fasttriplet.torch import RecordDataset

def private(image):
    with open("/proc/self/smaps_rollup") as file:
        found = re.findall(r"Private_\\w+: +(\\d+)", file.read())
    return torch.tensor([sum(map(int, found)) / 1024])

def dataset_of(rec, rows):
    dataset = ft.Dataset(rec)
    dataset._take({name: np.tile(column, rows // 12) for name, column in dataset._columns.items()})
    return RecordDataset(dataset, transform=private)

if __name__ == "__main__":
    for method in ("fork", "spawn"):
        found = []
        for rows in (12, 12 * 2**16):
            dataset = dataset_of(sys.argv[1], rows)
            loader = DataLoader(
                dataset, batch_sampler=[[at % rows] * 4 for at in range(0, 50 * 99_991, 99_991)],
                num_workers=1, multiprocessing_context=method,
            )
            found.append(torch.stack([megabytes.max() for megabytes, _ in loader]))
            del loader
        small, large = found
        print(method, float(large.max() - small.max()), float(large[-4:].max() - large[:4].max()))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="Linux tells the memory of a process"
)
def test_workers_share_the_index(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(4, 3))
    for line in run_script(tmp_path, _MEMORY, rec).splitlines():
        method, more, growth = line.split()
        assert float(more) < 6, f"{method}: megabytes of an index of 30 that a worker does not share"
        assert float(growth) < 3, f"{method}: megabytes that a worker grows by over an epoch"


_ERRORS = """
import os, signal, sys, warnings
import torch
from torch.utils.data import DataLoader
import fasttriplet as ft
from fasttriplet.torch import RecordDataset

def kill(image):
    os.kill(os.getpid(), signal.SIGKILL)

def message_of(dataset, method="fork"):
    try:
        list(DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context=method))
    except Exception as error:
        return f"{type(error).__name__}: {error}".strip().splitlines()

if __name__ == "__main__":
    good, damaged, unreadable = sys.argv[1:]
    found = message_of(RecordDataset(damaged))
    assert found[0].startswith("RecordError: Caught RecordError in DataLoader worker process 0"), found
    assert "key 3" in found[-1], found
    print("damaged")
    found = message_of(RecordDataset(unreadable, cache=False))
    assert found[0].startswith("OSError: Caught OSError in DataLoader worker process 0"), found
    assert "Input/output error, key 6" in found[-1] and unreadable in found[-1], found
    print("unreadable")
    [found] = message_of(RecordDataset(good, transform=kill))
    assert "DataLoader worker (pid" in found, found  # is killed by signal, or exited unexpectedly
    print("killed")
    dataset = RecordDataset(good)
    os.rename(good, good + ".away")
    found = message_of(dataset, "spawn")
    assert found[0].startswith("FileNotFoundError: Caught FileNotFoundError in DataLoader worker"), found
    assert good in found[-1], found
    print("gone")
"""


def test_errors_of_workers(tmp_path: Path) -> None:
    good = write_rec(tmp_path / "good.rec", identities(4, 3))
    damaged = write_rec(tmp_path / "damaged.rec", identities(4, 3), damaged=frozenset({3}))
    bad = write_rec(tmp_path / "bad.rec", identities(4, 3))
    place = int(ft.Dataset(bad, cache=False).offsets[5]) + 200
    library = compiled(Path(__file__).parents[1] / "dataset" / "bad_block.c", tmp_path)
    block = {"LD_PRELOAD": str(library), "BAD_BLOCK": f"{place}:{place}:{bad}"}
    out = run_script(tmp_path, _ERRORS, good, damaged, bad, **block)
    assert out == "damaged\nunreadable\nkilled\ngone\n"


_NO_MEMORY = """
import os, sys
from torch.utils.data import DataLoader
from fasttriplet.torch import RecordDataset, _shared

def full(descriptor, start, size):
    raise OSError(28, "No space left on device")

if __name__ == "__main__":
    os.posix_fallocate = full
    try:
        dataset = RecordDataset(sys.argv[1])
        list(DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="fork"))
    except OSError as error:
        print(str(error).replace(chr(10), " "))
"""


def test_shared_memory_that_is_full(tmp_path: Path) -> None:
    """By default a process that writes there gets a SIGBUS."""
    printed = run_script(tmp_path, _NO_MEMORY, write_rec(tmp_path / "a.rec", identities(4, 3)))
    assert "no shared memory is left for a batch, 4 images of 24 x 24 (H x W), 27,648 bytes" in printed
    assert "docker run --shm-size" in printed
