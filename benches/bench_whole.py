"""Mining a whole dataset at once, from embeddings on the disk: seconds and memory up to a million images.

Separated rows as trained embeddings are, 512 columns, 5 images of each identity, semi-hard, random pick, with
a margin that a few pairs have a negative in. Files are written by the bench, and only what
`mine_rec(bag_size=None)` does with them is timed: two passes over the embeddings, which tell whether they
change, and all steps. Memory is what the call adds at its peak, in a process of its own. Beside it, up to
`--most-at-once` rows: `mine` with all of them in memory, and the 10 nearest rows of each by faiss. Products
are those of each pair of rows, once.
"""

from __future__ import annotations

import shutil
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import fasttriplet as ft
from data import PER_IDENTITY, identities, separated_rows
from harness import CORES, Bench
from process import Way
from tables import Cell, Table

WRITTEN = 100_000  # rows that are made at once; each of these has identities of its own
NEAREST = 10
MARGIN = 0.8
WHOLE, AT_ONCE, FAISS = "mine_rec, whole", "mine, in memory", f"faiss IndexFlatIP, {NEAREST} nearest"

bench = Bench(__file__, __doc__, packages=["faiss-cpu"])
bench.option("--rows", [100_000, 300_000, 1_000_000], "of the dataset", quick=[1_000])
bench.option("--dim", 512, "columns", quick=32)
bench.option("--memory", 0, "megabytes for the rows of two blocks; 0 for the default")
bench.option("--most-at-once", 100_000, "rows that are mined in one call, and searched by faiss, too")
bench.option("--threads", CORES, "of each")


def write(folder: Path, rows: int, dim: int) -> None:
    """Write a dataset whose images are never decoded, and its embeddings."""
    labels = identities(rows, PER_IDENTITY)
    with ft.RecordWriter(folder / "train.rec") as writer:
        for key, label in enumerate(labels.tolist()):
            writer.write(key, ft.IRHeader(0, float(label), key, 0), b"no image")
    ft.index_rec(folder / "train.rec")
    shape: Any = (rows, dim)
    embeddings = np.lib.format.open_memmap(folder / "e.npy", "w+", np.float32, shape)  # type: ignore[no-untyped-call]
    for first in range(0, rows, WRITTEN):
        count = min(WRITTEN, rows - first)
        embeddings[first : first + count] = separated_rows(count, dim, PER_IDENTITY, seed=first)
    embeddings.flush()


def ways(folder: str, rows: int, most_at_once: int, memory: int, threads: int) -> dict[str, Way]:
    place = Path(folder)

    def whole() -> Any:
        return ft.mine_rec(
            place / "train.rec",
            model=f"npy:{place / 'e.npy'}",
            out=place / "t.parquet",
            overwrite=True,
            bag_size=None,
            memory=memory * 10**6 or None,
            margin=MARGIN,
            threads=threads,
        )

    found = {WHOLE: Way(whole, facts=lambda result: {"triplets": result.summary.triplets})}
    if rows <= most_at_once:
        embeddings, labels = np.load(place / "e.npy"), identities(rows, PER_IDENTITY)
        found[AT_ONCE] = Way(
            lambda: ft.mine(embeddings, labels, margin=MARGIN, threads=threads),
            facts=lambda found: {"triplets": len(found)},
        )
        if find_spec("faiss") is not None:
            found[FAISS] = Way(lambda: search(embeddings, threads), peer=True)
    return found


def search(embeddings: Any, threads: int) -> None:
    import faiss  # noqa: PLC0415

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatIP(embeddings.shape[1])
    index.add(embeddings)
    index.search(embeddings, NEAREST + PER_IDENTITY)


def tables(options: Namespace) -> Iterator[Table]:
    table = Table("Seconds, and megabytes at the peak")
    for rows in options.rows:
        folder = Path(tempfile.mkdtemp(prefix="fasttriplet-bench-"))
        try:
            write(folder, rows, options.dim)
            took = bench.measure(
                ways,
                f"{rows:,} rows",
                rounds=1,
                warm_up=False,
                fresh=True,
                folder=str(folder),
                rows=rows,
                most_at_once=options.most_at_once,
                memory=options.memory,
                threads=options.threads,
            )
        finally:
            shutil.rmtree(folder)
        products = rows * (rows - 1) / 2 * options.dim
        for name, found in took.items():
            cells: dict[str, Cell] = {
                "seconds": found.best,
                "10^9 products/s": products / found.best / 1e9,
                "MB": found.added,
                "bytes per number": found.added * 1e6 / (rows * options.dim),
            }
            table.rows[f"{rows:,} x {options.dim}: {name}"] = cells | dict(found.facts)
    yield table


if __name__ == "__main__":
    bench.main(tables)
