"""How long mining one bag takes, beside one float32 matrix product and the loop it replaces.

7,200 x 512 float32, 5 images an identity, margin 0.3, semi-hard, random pick: one bag of InsightFace's
`triplet` configuration. Every time is the median of runs taken in turn with numpy's `E @ F.T` on the
same threads and arrays, and its ratio to that product is what carries over to other machines.
"""

from __future__ import annotations

import argparse
import os

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
parser.add_argument("--rows", type=int, default=7200)
parser.add_argument("--dim", type=int, default=512)
parser.add_argument("--images-per-identity", type=int, default=5)
parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
parser.add_argument("--runs", type=int, default=7)
parser.add_argument("--no-loop", action="store_true", help="leave out the original's loop (20 s)")

if __name__ == "__main__":
    arguments = parser.parse_args()
    # BLAS reads its thread count when it is loaded.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fasttriplet as ft
from machine import peak_memory, report


def unit_rows(count: int, dim: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def separated_rows(count: int, dim: int, per_identity: int) -> NDArray[np.float32]:
    """Like a trained network's: identities far apart, few negatives in the band."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(count // per_identity, dim))
    rows = np.repeat(centres, per_identity, axis=0) + 0.7 * rng.normal(size=(count, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def original_loop(embeddings: NDArray[np.float32], per_identity: int, margin: float) -> int:
    """What the original does, in NumPy on the CPU: one distance row at a time, then Python loops."""
    rng = np.random.default_rng(0)
    distances = np.empty((len(embeddings), len(embeddings)), dtype=np.float32)
    for i, row in enumerate(embeddings):
        distances[i] = np.square(embeddings - row).sum(axis=1)
    picked = 0
    for first in range(0, len(embeddings), per_identity):
        for a in range(first, first + per_identity - 1):
            to_negatives = distances[a].copy()
            to_negatives[first : first + per_identity] = np.nan
            for p in range(a + 1, first + per_identity):
                d_ap = distances[a, p]
                band = np.flatnonzero((to_negatives > d_ap) & (to_negatives - d_ap < margin))
                if len(band):
                    rng.integers(len(band))
                    picked += 1
    return picked


def main() -> None:
    rows, dim, per_identity, threads = (
        arguments.rows, arguments.dim, arguments.images_per_identity, arguments.threads,
    )  # fmt: skip
    embeddings = unit_rows(rows, dim)
    others = embeddings.copy()  # a different array, or numpy takes the symmetric product
    separated = separated_rows(rows, dim, per_identity)
    labels = np.arange(rows) // per_identity

    def miner(data: NDArray[np.float32], **options: Any) -> Callable[[], ft.Triplets]:
        return lambda: ft.mine(data, labels, threads=threads, **options)

    before = peak_memory()
    triplets = miner(embeddings)()
    results: dict[str, Any] = {
        "rows": rows,
        "dim": dim,
        "images per identity": per_identity,
        "threads": threads,
        "triplets": len(triplets),
        "pairs screened": triplets.stats.pairs_screened,
        "peak memory of mine beyond its input, MB": (peak_memory() - before) / 1e6,
    }
    work: dict[str, Callable[[], object]] = {
        "numpy E @ F.T": lambda: embeddings @ others.T,
        "mine, random rows": miner(embeddings),
        "mine, separated rows": miner(separated),
        "mine, hardest negatives": miner(embeddings, pick="hardest"),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for run in range(arguments.runs + 1):
        for name, call in work.items():
            started = time.perf_counter()
            call()
            if run:
                times[name].append(time.perf_counter() - started)
    product = statistics.median(times["numpy E @ F.T"])
    for name, seconds in times.items():
        results[f"{name}, s"] = statistics.median(seconds)
    for name in list(work)[1:]:
        results[f"{name} / E @ F.T"] = statistics.median(times[name]) / product
    if not arguments.no_loop:
        started = time.perf_counter()
        original_loop(embeddings, per_identity, 0.3)
        results["original's loop in NumPy, s"] = time.perf_counter() - started
        results["original's loop / mine"] = (
            results["original's loop in NumPy, s"] / results["mine, random rows, s"]
        )
    report("mine one bag", results, as_json=arguments.json)


if __name__ == "__main__":
    main()
