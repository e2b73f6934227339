"""How long mining one bag takes, beside one float32 matrix product and the loop it replaces.

7,200 x 512 float32, 5 images an identity, margin 0.3, semi-hard, random pick: one bag of InsightFace's
`triplet` configuration. Every time is the median of runs taken in turn with numpy's `E @ F.T` on the same
threads and arrays; the ratio to it is what carries over to other machines. The product has two times: as
written, and into memory that is there already, which is what the multiplications alone take.

Rows are *random* (half of the negatives of a pair qualify), *separated* around the centres of their
identities (none does), and *real* where a file of embeddings is at hand: 5 of each identity, turned at random
and called new identities as often as it takes. "72 identities" are the random rows, 100 to an identity.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
parser.add_argument("--rows", type=int, default=7200)
parser.add_argument("--dim", type=int, default=512)
parser.add_argument("--images-per-identity", type=int, default=5)
parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
parser.add_argument("--runs", type=int, default=7)
parser.add_argument(
    "--embeddings",
    type=Path,
    default=Path(__file__).parents[2] / "shared/data/lfw112-a/emb_a.npy",
    help="(N, D) float32 of a trained network, left out where there is no such file",
)
parser.add_argument(
    "--labels", type=Path, default=Path(__file__).parents[2] / "shared/data/lfw112-a/lab_a.npy"
)
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

Call = Callable[[], Any]


def alternate(work: dict[str, Call], runs: int) -> dict[str, float]:
    """Median seconds of each, all taken in turn; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for run in range(runs + 1):
        for name, call in work.items():
            started = time.perf_counter()
            call()
            if run:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def unit_rows(count: int, dim: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(0).normal(size=(count, dim)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def separated_rows(count: int, dim: int, per_identity: int) -> NDArray[np.float32]:
    """Like a trained network's: identities far apart, few negatives in the band."""
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(count // per_identity, dim))
    rows = np.repeat(centres, per_identity, axis=0) + 0.7 * rng.normal(size=(count, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def real_rows(count: int, per_identity: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A trained network's: turned at random, the same people make new identities of the same geometry."""
    rows = np.load(arguments.embeddings)
    labels = np.load(arguments.labels).ravel().astype(np.int64)
    keep = np.concatenate([np.flatnonzero(labels == label)[:per_identity] for label in np.unique(labels)])
    rng = np.random.default_rng(2)
    turns = [np.linalg.qr(rng.normal(size=(rows.shape[1],) * 2))[0] for _ in range(-(-count // len(keep)))]
    turned = np.concatenate([rows[keep] @ turn for turn in turns])[:count].astype(np.float32)
    identities = np.concatenate([labels[keep] + 10**9 * number for number in range(len(turns))])[:count]
    return turned, identities


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
    separated = separated_rows(rows, dim, per_identity)
    labels = np.arange(rows) // per_identity

    def miner(data: NDArray[np.float32], of: NDArray[np.int64] = labels, **options: Any) -> Call:
        return lambda: ft.mine(data, of, threads=threads, **options)

    def products(data: NDArray[np.float32], name: str) -> dict[str, Call]:
        other = data.copy()  # a different array, or numpy takes the symmetric product
        ready = np.empty((len(data), len(data)), np.float32)
        return {
            name: lambda: data @ other.T,
            f"{name}, into ready memory": lambda: np.matmul(data, other.T, out=ready),
        }

    before = peak_memory()
    miner(embeddings)()
    memory = (peak_memory() - before) / 1e6
    mined: dict[str, Call] = {
        "random rows": miner(embeddings),
        "separated rows": miner(separated),
        "random rows, hardest negatives": miner(embeddings, pick="hardest"),
        "separated rows, hardest negatives": miner(separated, pick="hardest"),
        "72 identities": miner(embeddings, np.arange(rows) // max(1, rows // 72)),
    }
    peers = products(embeddings, "E @ F.T")
    if arguments.embeddings.is_file():
        real, identities = real_rows(rows, per_identity)
        mined["real rows"] = miner(real, identities)
        peers |= products(real, "E @ F.T of real rows")
    times = alternate({**peers, **mined}, arguments.runs)
    results: dict[str, Any] = {
        "rows": rows,
        "dim": dim,
        "images per identity": per_identity,
        "threads": threads,
        "peak memory of mine beyond its input, MB": memory,
    }
    for name in peers:
        results[f"{name}, s"] = times[name]
    for name, call in mined.items():
        triplets = call()
        stats = triplets.stats
        results[f"{name}, s"] = times[name]
        for peer in peers:
            if (name == "real rows") == ("real rows" in peer):
                results[f"{name} / {peer}"] = times[name] / times[peer]
        results[f"{name}: triplets"] = len(triplets)
        results[f"{name}: pairs"] = stats.pairs
        results[f"{name}: pairs settled by the lowest draws, %"] = 100 * (
            1 - stats.pairs_screened / max(1, stats.pairs)
        )
        results[f"{name}: exact distances a pair"] = stats.exact_distances / max(1, stats.pairs)
        results[f"{name}: exact distances, % of pairs x negatives"] = (
            100 * stats.exact_distances / max(1, stats.pairs * rows)
        )
    results["72 identities / random rows"] = times["72 identities"] / times["random rows"]
    if not arguments.no_loop:
        started = time.perf_counter()
        original_loop(embeddings, per_identity, 0.3)
        results["original's loop in NumPy, s"] = time.perf_counter() - started
        results["original's loop / mine"] = results["original's loop in NumPy, s"] / times["random rows"]
    report("mine one bag", results, as_json=arguments.json)


if __name__ == "__main__":
    main()
