"""How the time of mining grows: with rows, images of an identity, columns and threads.

Semi-hard, random pick, margin 0.3. One thing is varied at a time around one bag of InsightFace's `triplet`
configuration: 7,200 x 512, 5 images of each identity, all cores. Random rows are the easy case, where half of
all negatives qualify; of separated rows none does, and all must be ruled out. Each call is in a process of
its own; memory is what it adds to the embeddings at its peak.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

import fasttriplet as ft
from data import BAG, PER_IDENTITY, identities, random_rows, separated_rows
from harness import CORES, Bench
from process import Way
from tables import Table

USUAL = {"rows": BAG, "dim": 512, "each": PER_IDENTITY}
MANY = 20_000  # rows, from where one call is enough

bench = Bench(__file__, __doc__, rounds=3, against=True)
bench.option("--rows", [2_000, 7_200, 20_000, 50_000, 100_000, 200_000], "of the bag", quick=[500, 1000])
bench.option("--each", [2, 5, 20, 100], "images of an identity", quick=[2])
bench.option("--dim", [64, 128, 256, 512, 1024], "columns", quick=[64])
bench.option("--thread-counts", sorted({1, 2, CORES}), "threads")
bench.option("--most-separated", 100_000, "rows that are separated, as their time is quadratic")


def ways(kind: str, rows: int, dim: int, each: int, threads: int) -> dict[str, Way]:
    embeddings = random_rows(rows, dim) if kind == "random" else separated_rows(rows, dim, each)
    labels = identities(rows, each)
    return {
        kind: Way(
            lambda: ft.mine(embeddings, labels, threads=threads),
            facts=lambda mined: {"pairs": mined.stats.pairs},
        )
    }


def tables(options: Namespace) -> Iterator[Table]:
    cases = [
        *((f"{rows:,} rows", {"rows": rows}) for rows in options.rows),
        *((f"{each} images of an identity", {"each": each}) for each in options.each),
        *((f"{dim:,} columns", {"dim": dim}) for dim in options.dim),
        *((f"{count} thread{'s' * (count > 1)}", {"threads": count}) for count in options.thread_counts),
    ]
    found = Table("Seconds, and megabytes beyond the embeddings")
    for title, varied in cases:
        case = USUAL | {"threads": CORES} | varied
        for kind in ("random", "separated"):
            if kind == "separated" and case["rows"] > options.most_separated:
                continue
            rounds = None if case["rows"] <= MANY else 1
            took = bench.measure(
                ways, title, kind=kind, rounds=rounds, warm_up=False, fresh=True, small={"rows": 100}, **case
            )[kind]
            cells = found.rows.setdefault(title, {"pairs": took.facts["pairs"]})
            cells |= {f"{kind}, s": took.best, f"{kind}, MB": took.added}
    yield found


if __name__ == "__main__":
    bench.main(tables)
