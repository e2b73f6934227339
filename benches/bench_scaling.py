"""How the time of mining grows: with rows, images of an identity, columns and threads.

Semi-hard, random pick, margin 0.3. One thing is varied at a time around one bag of InsightFace's `triplet`
configuration: 7,200 x 512, 5 images an identity, all cores. Random rows are the easy case, where half of all
negatives qualify; of separated rows none does, and all must be ruled out. Memory is the peak of a fresh
process beyond the embeddings.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fasttriplet as ft
from machine import peak_memory, report

ROWS, DIM, EACH = 7200, 512, 5
CORES = len(os.sched_getaffinity(0))

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
parser.add_argument("--runs", type=int, default=3)
parser.add_argument("--rows", type=int, nargs="*", default=[2_000, 7_200, 20_000, 50_000, 100_000, 200_000])
parser.add_argument("--images-per-identity", type=int, nargs="*", default=[2, 5, 20, 100])
parser.add_argument("--dim", type=int, nargs="*", default=[64, 128, 256, 512, 1024])
parser.add_argument("--threads", type=int, nargs="*", default=sorted({1, 2, CORES}))
parser.add_argument("--most-separated", type=int, default=100_000, help="rows, as their time is quadratic")
parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)


def dataset(kind: str, rows: int, dim: int, each: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    labels = np.arange(rows) // each
    embeddings = rng.standard_normal((rows, dim), dtype=np.float32)
    if kind == "separated":
        embeddings *= np.float32(0.7)
        embeddings += rng.standard_normal((rows // each + 1, dim), dtype=np.float32)[labels]
    return embeddings, labels


def child(kind: str, rows: int, dim: int, each: int, threads: int) -> None:
    """Print seconds, megabytes, pairs and triplets: in a process of its own, for the memory."""
    embeddings, labels = dataset(kind, rows, dim, each)
    ft.mine(embeddings[:100], labels[:100], threads=threads)
    before = peak_memory()
    seconds = []
    for _ in range(arguments.runs if rows <= 20_000 else 1):
        started = time.perf_counter()
        triplets = ft.mine(embeddings, labels, threads=threads)
        seconds.append(time.perf_counter() - started)
    megabytes = (peak_memory() - before) / 1e6
    print(statistics.median(seconds), megabytes, triplets.stats.pairs, len(triplets))


def measured(
    kind: str, rows: int = ROWS, dim: int = DIM, each: int = EACH, threads: int = CORES
) -> list[float]:
    wanted = [str(value) for value in (kind, rows, dim, each, threads)]
    command = [sys.executable, __file__, "--runs", str(arguments.runs), "--child", *wanted]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(value) for value in printed.split()]


def main() -> None:
    cases: list[tuple[str, dict[str, int]]] = [
        *((f"{rows:,} rows", {"rows": rows}) for rows in arguments.rows),
        *((f"{each} images an identity", {"each": each}) for each in arguments.images_per_identity),
        *((f"{dim:,} columns", {"dim": dim}) for dim in arguments.dim),
        *((f"{threads} threads", {"threads": threads}) for threads in arguments.threads),
    ]
    results: dict[str, Any] = {}
    for name, varied in cases:
        for kind in ("random", "separated"):
            if kind == "separated" and varied.get("rows", 0) > arguments.most_separated:
                continue
            seconds, megabytes, pairs, triplets = measured(kind, **varied)
            results[f"{name}, {kind}, s"] = seconds
            if kind == "random":  # to make the others takes more memory than to mine them
                results[f"{name}, MB"] = megabytes
            results[f"{name}, {kind}: pairs"] = int(pairs)
            results[f"{name}, {kind}: triplets"] = int(triplets)
    report("how mining scales", results, as_json=arguments.json)


if __name__ == "__main__":
    arguments = parser.parse_args()
    if arguments.child:
        kind, *numbers = arguments.child
        child(kind, *(int(number) for number in numbers))
    else:
        main()
