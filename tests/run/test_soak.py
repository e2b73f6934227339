"""Bags and forks without end take no more memory, threads and files than the first ones."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

import fasttriplet as ft
from tests.processes import run_python
from tests.summary import TOLD

BAG = 200 * 112 * 112 * 3  # bytes of decoded images: 7.5 MB
BAGS = 60
WARM = 20  # bags until buffers have the size that they keep
# Measured 50 times, half of them with both cores busy: -0.4 to 14 MB more at bag 100 than at bag 20. A bag's
# pixels that are kept every five bags make it 60 MB at bag 60 (6 times), and 111 to 136 MB at bag 100.
MOST_MORE = 30e6

FORKS = 120


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 identities of 5 images of blurred noise, which compresses as photographs do."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("soak") / "train.rec"
    with ft.RecordWriter(path) as writer:
        for key in range(1, 401):
            noise = rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)
            encoded = io.BytesIO()
            Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.5)).save(encoded, "JPEG", quality=90)
            writer.write(key, ft.IRHeader(0, float(key % 80), key, 0), encoded.getvalue())
    return path


HEAD = """
import gc, json, os, sys, threading, time
from contextlib import suppress
import numpy as np
import fasttriplet as ft

rec, out = sys.argv[1:]
leaked = []

class Model:
    description = "colours of the corners"
    needs_images = True
    bags = 0
    projection = np.random.default_rng(0).standard_normal((16 * 16 * 3, 64)).astype(np.float32)

    def prepare(self, index): pass

    def embed(self, rows, images):
        self.bags += 1
        if LEAK and self.bags % LEAK == 0:
            leaked.append(images.copy())
        return images[:, ::7, ::7].reshape(len(images), -1).astype(np.float32) @ self.projection

def status(field):
    with open("/proc/self/status") as lines:
        return int(next(line for line in lines if line.startswith(field + ":")).split()[1])

# Threads of this process, of any language; those of Polars (tokio's stay for 10 s) have names of their own.
def tasks():
    names = []
    for task in os.listdir("/proc/self/task"):
        with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/self/task/{task}/comm") as name:
            names.append(name.read())
    with open("/proc/self/comm") as own:
        return names.count(own.read())

def sample():
    return {
        "rss": 1024 * status("VmRSS"),
        "tasks": tasks(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "files": len(os.listdir("/proc/self/fd")),
    }

samples = []
options = {"model": Model(), "bag_size": 200, "prefetch": 1, "epochs": BAGS // 2,
           "band": "violating", "pairs": "easiest"}
# What Polars starts once is there before the first sample.
ft.mine_rec(rec, out=out.replace("t.parquet", "warm.parquet"), model=Model(), bag_size=200)
before = sample()
"""

MINE_RECS = """
now_in = []

def progress(now):
    if now_in[-1:] != [(now.epoch, now.bag)]:  # after each bag
        now_in.append((now.epoch, now.bag))
        samples.append(sample())

ft.mine_rec(rec, out=out, progress=progress, **options)
"""

FEED = """
augment = ft.Augment(mirror=True, cutoff=20, brightness=0.2, contrast=0.2, saturation=0.2)
last = None
with ft.Feed(rec, batch_size=60, augment=augment, **options) as feed:
    for batch in feed:
        if (batch.epoch, batch.bag) != last:
            last = batch.epoch, batch.bag
            samples.append(sample())
del feed  # and the file that it has open
"""

# Children decode with the parent's handle and mine; during the second half two threads are in such calls.
FORK = """
import signal, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: a fork while threads run
file, keys = ft.RecordFile(rec), list(range(1, 9))
pixels = file.decode(keys)
rows, labels = Model.projection[:60], np.arange(60) // 3
mined = ft.mine(rows, labels)

def child(number):
    signal.alarm(60)
    assert (file.decode(keys) == pixels).all()
    assert (ft.mine(rows, labels).negative == mined.negative).all()
    if number % 10:
        os._exit(7)
    sys.exit(7)  # the whole shutdown of the interpreter

ended = threading.Event()

def busy():
    while not ended.is_set():
        file.decode(keys)
        ft.mine(rows, labels)
        time.sleep(0.002)  # the children need the cores, too

threads = [threading.Thread(target=busy) for _ in range(2)]
for number in range(FORKS):
    if number == FORKS // 2:
        for thread in threads:
            thread.start()
    pid = os.fork()
    if pid == 0:
        child(number)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7, number
    if number % (FORKS // BAGS) == 0:
        samples.append(sample())
ended.set()
for thread in threads:
    thread.join()
del file
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    pass
else:
    raise AssertionError("a child that is not waited for")
"""

TAIL = """
gc.collect()
until = time.monotonic() + 5
while tasks() > before["tasks"] and time.monotonic() < until:
    time.sleep(0.01)  # threads of a call's pool end after the call
print(json.dumps({"before": before, "samples": samples, "after": sample()}))
"""


@dataclass(frozen=True)
class Soaked:
    before: dict[str, Any]
    samples: list[dict[str, Any]]
    after: dict[str, Any]

    def more(self, first: int = WARM) -> int:
        """How many more bytes the last bags take than those up to the `first`: the most of five bags each."""
        before, last = self.samples[first - 5 : first], self.samples[-5:]
        return int(max(s["rss"] for s in last) - max(s["rss"] for s in before))

    def ends_as_it_began(self) -> None:
        assert self.after["threads"] == self.before["threads"] == ["MainThread"]
        assert self.after["tasks"] <= self.before["tasks"]
        assert self.after["files"] <= self.before["files"]


def _tell(request: pytest.FixtureRequest, what: str, soaked: Soaked, first: int) -> None:
    """Let the summary at the end of all tests say how much more memory the last samples take."""
    last, half = soaked.samples[-1], [s["rss"] / 1e3 for s in soaked.samples[len(soaked.samples) // 2 :]]
    slope = np.polyfit(np.arange(len(half)), half, 1)[0]
    figures = (
        f"{soaked.more(first) / 1e6:+.1f} MB of {last['rss'] / 1e6:.0f} MB, in the second half {slope:+.1f} "
        f"kB per sample; {last['files']} open files, {last['tasks']} threads"
    )
    request.node.user_properties.append((TOLD, f"{what}: {figures}"))


def _shared_memory() -> set[str]:
    """What is in shared memory, without the temporary folders that other tests have there."""
    return {path.name for path in Path("/dev/shm").iterdir() if not path.name.startswith("tmp")}


def soak(
    body: str, rec: Path, folder: Path, *, bags: int = BAGS, leak: int = 0, forks: int = 0, minutes: int = 2
) -> Soaked:
    """Run it in a process of its own, which leaves no temporary file and no shared memory."""
    temporary = folder / "temporary"
    temporary.mkdir(exist_ok=True)
    shared = _shared_memory()
    code = f"import tempfile\ntempfile.tempdir = {str(temporary)!r}\n"
    code += f"BAGS, LEAK, FORKS = {bags}, {leak}, {forks}\n{HEAD}{body}{TAIL}"
    soaked = Soaked(**json.loads(run_python(code, rec, folder / "t.parquet", timeout=60 * minutes)))
    assert list(temporary.iterdir()) == []
    assert _shared_memory() <= shared
    assert {path.name for path in folder.iterdir()} <= {"temporary", "t.parquet", "warm.parquet"}
    return soaked


@pytest.mark.slow
@pytest.mark.parametrize("body", [MINE_RECS, FEED], ids=["mine_rec", "feed"])
def test_sixty_bags(faces: Path, tmp_path: Path, body: str) -> None:
    soaked = soak(body, faces, tmp_path)
    assert len(soaked.samples) == BAGS
    assert soaked.more() < MOST_MORE, [s["rss"] for s in soaked.samples]
    soaked.ends_as_it_began()
    # They do not grow while it runs either.
    early, late = soaked.samples[:WARM], soaked.samples[-WARM:]
    for what, more in (("files", 0), ("tasks", 6)):  # a call's pool may be about to end or to begin
        assert max(s[what] for s in late) <= max(s[what] for s in early) + more


@pytest.mark.slow
def test_forks(faces: Path, tmp_path: Path) -> None:
    soaked = soak(FORK, faces, tmp_path, bags=FORKS, forks=FORKS)
    assert soaked.more(FORKS // 2 + WARM) < MOST_MORE  # the threads of the second half take some
    soaked.ends_as_it_began()


@pytest.mark.slow
def test_a_thousand_bags_mined_and_fed(faces: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """All in one process: 1,000 bags from mine_rec, then 1,000 from a feed."""
    soaked = soak(MINE_RECS + FEED, faces, tmp_path, bags=1000, minutes=30)
    assert len(soaked.samples) == 2000
    mined, fed = (replace(soaked, samples=part) for part in (soaked.samples[:1000], soaked.samples[1000:]))
    for name, part in (("mined", mined), ("fed", fed)):
        _tell(request, f"{name} 1,000 bags", part, 100)
        assert part.more(100) < MOST_MORE, [s["rss"] for s in part.samples[::20]]
    soaked.ends_as_it_began()


@pytest.mark.slow
def test_ten_thousand_forks(faces: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    soaked = soak(FORK, faces, tmp_path, bags=1000, forks=10_000, minutes=30)
    _tell(request, "10,000 forks", soaked, 550)
    assert soaked.more(550) < MOST_MORE, [s["rss"] for s in soaked.samples[::20]]
    soaked.ends_as_it_began()


def test_a_leak_would_be_seen(faces: Path, tmp_path: Path) -> None:
    """The tests above fail where an embedder keeps the images of every fifth bag."""
    soaked = soak(MINE_RECS, faces, tmp_path, leak=5)
    assert soaked.more() > MOST_MORE
