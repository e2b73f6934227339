"""A hundred bags take no more memory, threads and files than twenty."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

import fasttriplet as ft
from tests.processes import run_python

BAG = 200 * 112 * 112 * 3  # bytes of decoded images: 7.5 MB
BAGS = 100
WARM = 20  # bags until buffers have the size that they keep
# Measured 50 times, half of them with both cores busy: -0.4 to 14 MB more at bag 100 than at bag 20. A bag's
# pixels that are kept every five bags make it 111 to 136 MB, and 60 MB at bag 60 (6 times).
MOST_MORE = 30e6


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

    def more(self) -> int:
        """How many more bytes the last bags take than the first ones: the most of five bags each."""
        first, last = self.samples[WARM - 5 : WARM], self.samples[-5:]
        return int(max(s["rss"] for s in last) - max(s["rss"] for s in first))


def soak(body: str, rec: Path, folder: Path, *, bags: int = BAGS, leak: int = 0) -> Soaked:
    code = f"BAGS, LEAK = {bags}, {leak}\n{HEAD}{body}{TAIL}"
    return Soaked(**json.loads(run_python(code, rec, folder / "t.parquet", timeout=120)))


@pytest.mark.parametrize("body", [MINE_RECS, FEED], ids=["mine_rec", "feed"])
def test_a_hundred_bags(faces: Path, tmp_path: Path, body: str) -> None:
    soaked = soak(body, faces, tmp_path)
    assert len(soaked.samples) == BAGS
    assert soaked.more() < MOST_MORE, [s["rss"] for s in soaked.samples]
    assert soaked.after["threads"] == soaked.before["threads"] == ["MainThread"]
    assert soaked.after["tasks"] <= soaked.before["tasks"]
    assert soaked.after["files"] <= soaked.before["files"]
    # They do not grow while it runs either.
    early, late = soaked.samples[:WARM], soaked.samples[-WARM:]
    for what, more in (("files", 0), ("tasks", 6)):  # a call's pool may be about to end or to begin
        assert max(s[what] for s in late) <= max(s[what] for s in early) + more


def test_a_leak_would_be_seen(faces: Path, tmp_path: Path) -> None:
    """The test above fails where an embedder keeps the images of every fifth bag; 60 bags show it."""
    soaked = soak(MINE_RECS, faces, tmp_path, bags=60, leak=5)
    assert soaked.more() > MOST_MORE
