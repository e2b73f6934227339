"""Nearest rows and identities, and bags of similar identities.

The rows are Gaussian around the centres of their identities. The peer is the product of all rows in blocks,
with NumPy's `argpartition`: float32, so its neighbors are not always the nearest. A file is read in blocks;
beside that it is loaded as an array. Memory is what this adds at its peak, in a process of its own. For the
bags, identities lie around the centres of groups.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import fasttriplet as ft
from harness import Bench
from process import Way
from tables import Table

bench = Bench(__file__, __doc__, rounds=3)
bench.option("--rows", 20_000, "rows", quick=400)
bench.option("--dim", 512, "numbers of a row", quick=32)
bench.option("--k", [10, 50], "neighbors", quick=[5])
bench.option("--file-rows", 100_000, "rows of a file", quick=2_000)
bench.option("--memory", [256, 64], "megabytes for the rows of two blocks of it", quick=[1])
bench.option("--identities", 100_000, "identities to arrange", quick=1000)
bench.option("--similar", 10_000, "identities in groups", quick=500)
bench.option("--bag-size", 800, "images of a bag of these", quick=80)

_BLOCK = 1024
_OF_IDENTITY = 4  # images of each identity in groups


def made(rows: int, dim: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % (rows // 20)
    embeddings = rng.standard_normal((rows // 20, dim))[labels] + 0.9 * rng.standard_normal((rows, dim))
    return embeddings.astype(np.float32), labels


def searches(rows: int, dim: int, k: int) -> dict[str, Way]:
    embeddings, labels = made(rows, dim)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)

    def product() -> None:
        for start in range(0, rows, _BLOCK):
            np.argpartition(-(unit[start : start + _BLOCK] @ unit.T), k + 1, axis=1)

    neighbors = ft.neighbors
    return {
        "`E @ E.T`, `argpartition`": Way(product, peer=True),
        "rows of other identities": Way(lambda: neighbors(embeddings, labels, k)),
        "all rows": Way(lambda: neighbors(embeddings, labels, k, other_identities=False)),
        "identities of 20 rows": Way(lambda: neighbors(embeddings, labels, k, of="identities")),
    }


def of_file(path: str, rows: int, memory: list[int]) -> dict[str, Way]:
    labels = np.arange(rows) % (rows // 20)

    def way(of: Any, megabytes: int | None) -> Way:
        if megabytes is None:
            return Way(lambda: ft.neighbors(np.load(path), labels, of=of))
        return Way(lambda: ft.neighbors(path, labels, of=of, memory=megabytes * 10**6))

    return {
        f"{of}, {'an array' if megabytes is None else f'blocks, {megabytes} MB'}": way(of, megabytes)
        for of in ("rows", "identities")
        for megabytes in (None, *memory)
    }


def orders(identities: int, k: int) -> dict[str, Way]:
    """Identities on a circle, each with k near it; the graph is read anew for each order."""
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(identities), k)
    near = (of + rng.choice([-1, 1], len(of)) * rng.integers(1, 8 * k, len(of))) % identities
    graph = pl.DataFrame({"label": of, "neighbor_label": near, "rank": np.tile(np.arange(k), identities)})
    labels = np.repeat(np.arange(identities), rng.integers(1, 8, identities))
    index = pl.DataFrame({"key": np.arange(len(labels)), "label": labels})
    return {
        "random order": Way(lambda: ft.triplet_seq(index)),
        "by a graph": Way(lambda: ft.triplet_seq(index, neighbors=graph)),
    }


def bags_of(options: Namespace) -> Table:
    """What a graph and a share of random identities change about the bags of an epoch."""
    found = Table(
        f"{options.similar:,} identities in {options.similar // 100:,} groups, bags of {options.bag_size}"
    )
    rng, count, k = np.random.default_rng(0), options.similar, 20
    groups = rng.standard_normal((count // 100, 64))
    people = groups[rng.integers(0, len(groups), count)] + 0.5 * rng.standard_normal((count, 64))
    labels = np.repeat(np.arange(count), _OF_IDENTITY)
    embeddings = (people[labels] + 0.4 * rng.standard_normal((len(labels), 64))).astype(np.float32)
    near = ft.neighbors(embeddings, labels, k, of="identities")
    index, graph = pl.DataFrame({"key": np.arange(len(labels)), "label": labels}), near.to_frame()
    hows: dict[str, dict[str, Any]] = {
        "random order": {},
        "by a graph": {"neighbors": graph},
        "a fifth at random": {"neighbors": graph, "random_share": 0.2},
        "half at random": {"neighbors": graph, "random_share": 0.5},
    }
    for name, how in hows.items():
        seq = ft.triplet_seq(index, bag_size=options.bag_size, **how)
        bag_of, violating, pairs = np.empty(count, np.int64), 0, 0
        for bag in ft.bags(seq, options.bag_size):
            bag_of[bag.rows["label"].to_numpy()] = bag.number
            rows = bag.rows["key"].to_numpy()
            mined = ft.mine(embeddings[rows], labels[rows], band="violating", margin=0.1)
            violating, pairs = violating + len(mined), pairs + mined.stats.pairs
        together: NDArray[np.bool_] = bag_of[near.positions] == bag_of[:, None]
        found.rows[name] = {
            "nearest 20 in the bag, %": 100 * float(together.mean()),
            "first bag": 100 * float(together[bag_of == 0].mean()),
            "last bag": 100 * float(together[bag_of == bag_of.max()].mean()),
            "pairs with a violating negative, %": 100 * violating / pairs,
        }
    return found


def tables(options: Namespace) -> Iterator[Table]:
    found = Table(f"Seconds for the nearest of {options.rows:,} rows of {options.dim}")
    for k in options.k:
        for name, took in bench.measure(
            searches, f"{k} neighbors", rows=options.rows, dim=options.dim, k=k
        ).items():
            found.rows.setdefault(name, {})[f"{k} neighbors"] = took.best
    yield found
    stored = Table(f"10 neighbors of a file of {options.file_rows:,} rows of {options.dim}")
    with tempfile.TemporaryDirectory(prefix="fasttriplet-bench-") as folder:
        path = Path(folder) / "e.npy"
        np.save(path, made(options.file_rows, options.dim)[0])
        case: dict[str, Any] = {"path": str(path), "rows": options.file_rows, "memory": options.memory}
        found_in_file = bench.measure(of_file, "a file", rounds=1, warm_up=False, fresh=True, **case)
        for name, took in found_in_file.items():
            stored.rows[name] = {"seconds": took.best, "MB": took.added}
    yield stored
    arranged = Table(f"Seconds for an order of {options.identities:,} identities with 50 neighbors")
    for name, took in bench.measure(orders, "orders", identities=options.identities, k=50).items():
        arranged.rows[name] = {"seconds": took.best}
    yield arranged
    yield bags_of(options)


if __name__ == "__main__":
    bench.main(tables)
