"""How many images a second a DataLoader of PyTorch gives, beside InsightFace's dataset for it.

`RecordDataset` and `MXFaceDataset` of `recognition/arcface_torch/dataset.py` read the same `.rec` (the images
of `--rec` again and again, by default 2,375 real faces: JPEGs of 112 x 112, quality 95) in the same random
order, in batches of 128, mirrored at random, through the same DataLoader with the same workers. The peer is
that file of a checkout of InsightFace (`--insightface`, or INSIGHTFACE), as it is, and needs MXNet and
torchvision; without a checkout it is left out. (With this PyTorch it cannot read records with several labels,
such as InsightFace's own.)

Without workers, `RecordDataset` decodes with a thread on each core; in a worker with one. Workers are started
before, and persist. Their memory is what they have for themselves, and with their share of what several
processes have together (PSS).
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import original
from data import FACES, write_dataset
from harness import CORES, Bench
from process import Way
from tables import Cell, Table

BATCH = 128
WORKERS = {0: "no worker", 1: "1 worker", 2: "2 workers"}
FLOAT, UINT8, THEIRS = "RecordDataset, float32", "RecordDataset, uint8", "MXFaceDataset, float32"

bench = Bench(__file__, __doc__, rounds=3, packages=["torch", "torchvision", "mxnet"])
bench.option("--rec", FACES, "file of JPEGs of one size")
bench.option("--images", 12_000, "of an epoch, which begins and ends with idle workers", quick=300)
bench.option("--threads", CORES, "threads of PyTorch and OpenMP")
bench.option("--insightface", None, "checkout, or INSIGHTFACE of the environment", kind=Path)


def ways(rec: str, insightface: str | None) -> dict[str, Way]:
    import torch  # noqa: PLC0415  not in the process that prints
    from fasttriplet.torch import RecordDataset  # noqa: PLC0415

    datasets: dict[str, Any] = {
        FLOAT: RecordDataset(rec, mirror=True),
        UINT8: RecordDataset(rec, mirror=True, image="uint8"),
    }
    if insightface is not None:
        original.mxnet()  # so that `import mxnet` works with NumPy 1.24 and later
        sys.path.insert(0, str(Path(insightface, "recognition", "arcface_torch")))
        theirs: Any = importlib.import_module("dataset")
        datasets[THEIRS] = theirs.MXFaceDataset(str(Path(rec).parent), local_rank=0)
    order = np.random.default_rng(0).permutation(len(datasets[FLOAT])).tolist()

    def way(name: str, workers: int) -> Way:
        loader = torch.utils.data.DataLoader(
            datasets[name],
            batch_size=BATCH,
            sampler=order,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context="fork" if workers else None,
        )

        def epoch() -> Any:
            images = sum(len(labels) for _, labels in loader)
            assert images == len(order)
            return loader._iterator

        return Way(epoch, peer=name == THEIRS, facts=memory_of_workers if workers else None)

    return {f"{name}, {text}": way(name, workers) for workers, text in WORKERS.items() for name in datasets}


def memory_of_workers(iterator: Any) -> dict[str, float]:
    """Megabytes of one worker: its own, and with its share of what it has in common with others."""
    found = []
    for worker in iterator._workers:
        lines = Path(f"/proc/{worker.pid}/smaps_rollup").read_text().splitlines()[1:]
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines}
        found.append((sizes["Private_Clean"] + sizes["Private_Dirty"], sizes["Pss"]))
    own, share = np.max(found, axis=0)
    return {"own": float(own), "PSS": float(share)}


def tables(options: Namespace) -> Iterator[Table]:
    checkout = options.insightface or os.environ.get("INSIGHTFACE")
    count = options.images
    with tempfile.TemporaryDirectory() as folder:
        rec = write_dataset(options.rec, Path(folder) / "train.rec", count)
        took = bench.measure(ways, rec=str(rec), insightface=checkout and str(checkout))
    names = [name for name in (FLOAT, UINT8, THEIRS) if f"{name}, {WORKERS[0]}" in took]
    speeds = Table(f"Images a second of {count:,}, in batches of {BATCH}")
    for name in names:
        speeds.rows[name] = {text: took[f"{name}, {text}"].per_second(count) for text in WORKERS.values()}
    yield speeds
    ratios = Table("Times as fast")
    if THEIRS in names:
        of_theirs: dict[str, Cell] = {
            text: took[f"{THEIRS}, {text}"].over(took[f"{FLOAT}, {text}"]) for text in WORKERS.values()
        }
        ratios.rows[f"{FLOAT} / {THEIRS}"] = of_theirs
    without = took[f"{FLOAT}, {WORKERS[0]}"]
    ratios.rows[f"{FLOAT}, without workers / with them"] = {
        text: took[f"{FLOAT}, {text}"].over(without) for workers, text in WORKERS.items() if workers
    }
    yield ratios
    memory = Table("Megabytes of a worker")
    for name in names:
        memory.rows[name] = {
            f"{text}, {what}": took[f"{name}, {text}"].facts[what]
            for workers, text in WORKERS.items()
            if workers
            for what in ("own", "PSS")
        }
    yield memory


if __name__ == "__main__":
    bench.main(tables)
