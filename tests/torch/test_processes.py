"""Embedders of PyTorch in other processes, interrupted, and where memory is short."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import run_python
from tests.torch.small_modules import module_in

pytest.importorskip("torch")

pytestmark = pytest.mark.torch

# The network is large enough for PyTorch to compute with several threads, which a fork does not copy.
_PROCESSES = """
import multiprocessing, os, signal, sys, warnings
import numpy as np, polars as pl, torch
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: a fork while threads run
import fasttriplet as ft
from fasttriplet.torch import TorchEmbedder

def make_net():
    nn = torch.nn
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 64, 3, padding=1), nn.PReLU(64), nn.Conv2d(64, 64, 3, padding=1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten()).eval()

def digest(embedder, images):
    return embedder.embed(pl.DataFrame({"key": range(len(images))}), images).tobytes()

def work(embedders, images, expected):
    signal.alarm(60)
    for embedder, found in zip(embedders, expected):
        assert digest(embedder, images) == found

class Images(torch.utils.data.Dataset):
    def __init__(self, embedder, images):
        self.embedder, self.images = embedder, images
    def __len__(self):
        return len(self.images)
    def __getitem__(self, at):
        return self.embedder.embed(pl.DataFrame({"key": [at]}), self.images[at : at + 1])[0]

if __name__ == "__main__":
    os.chdir(sys.argv[1])
    torch.set_num_threads(2)
    embedders = [TorchEmbedder(make_net()), ft.load_embedder("torch:processes:make_net", devices="cpu")]
    images = np.random.default_rng(0).integers(0, 256, (20, 64, 48, 3), dtype=np.uint8)
    expected = [digest(embedder, images) for embedder in embedders]
    child = multiprocessing.get_context("fork").Process(target=work, args=(embedders, images, expected))
    child.start()
    child.join()
    assert child.exitcode == 0, child.exitcode
    loader = torch.utils.data.DataLoader(
        Images(embedders[1], images), batch_size=5, num_workers=1, multiprocessing_context="spawn"
    )
    found = torch.cat(list(loader)).numpy()
    assert np.allclose(found, np.frombuffer(expected[1], np.float32).reshape(20, -1), atol=1e-5)
    work(embedders, images, expected)
    print("done")
"""


def test_forked_and_spawned_processes(tmp_path: Path) -> None:
    (tmp_path / "processes.py").write_text(_PROCESSES)
    done = subprocess.run(
        [sys.executable, tmp_path / "processes.py", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


_INTERRUPTED = """
import signal, sys
import numpy as np, polars as pl, torch
from fasttriplet.torch import TorchEmbedder

signal.signal(signal.SIGINT, signal.default_int_handler)
net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.Flatten()).train()
embedder = TorchEmbedder(net, batch_size=1)
images = np.zeros((100_000, 24, 24, 3), np.uint8)
rows = pl.DataFrame({"key": range(len(images))})
before = embedder.embed(rows[:2], images[:2])
print("ready", flush=True)
try:
    embedder.embed(rows, images)
except KeyboardInterrupt:
    print("interrupted")
assert all(part.training for part in net.modules())
assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
assert (embedder.embed(rows[:2], images[:2]) == before).all()
"""


def test_ctrl_c_ends_it_between_two_batches() -> None:
    with subprocess.Popen([sys.executable, "-c", _INTERRUPTED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "interrupted\n"
        assert process.returncode == 0


def test_a_limit_on_memory(tmp_path: Path) -> None:
    """The message is one, whether Python, NumPy or PyTorch fails; and with less it works."""
    module_in(tmp_path, "mynet")
    code = """
import os, resource, sys
os.chdir(sys.argv[1]); sys.path.insert(0, sys.argv[1])
import numpy as np, polars as pl, torch
import fasttriplet as ft
torch.set_num_threads(1)
images = np.zeros((4, 32, 24, 3), np.uint8)
rows = pl.DataFrame({"key": range(4)})
small = ft.load_embedder("torch:mynet:net", devices="cpu", batch_size=2)
small.embed(rows, images)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
for batch_size in (20_000, 2_000_000, 2**31 - 1):
    try:
        ft.load_embedder("torch:mynet:net", devices="cpu", batch_size=batch_size).embed(rows, images)
    except MemoryError as error:
        print(error)
small.embed(rows, images)
"""
    lines = run_python(code, tmp_path).splitlines()
    for line, count in zip(lines, ("20,000", "2,000,000", "2,147,483,647"), strict=True):
        assert line.startswith(
            f"not enough memory on cpu for {count} images of 32 x 24 at a time in mynet:net,"
        )
        assert line.endswith("; lower batch_size")
