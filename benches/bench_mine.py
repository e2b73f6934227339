"""How long mining one bag takes, beside one float32 matrix product and the loop that it replaces.

7,200 x 512 float32, 5 images of each identity, margin 0.3, semi-hard, random pick: one bag of InsightFace's
`triplet` configuration, on each instruction set of the machine. The ratio to NumPy's `E @ F.T` on the same
threads and arrays is what carries over to other machines. The product has two times: as written, and into
memory that is there already, which is what the multiplications alone take. NumPy chooses its own instruction
set.

Rows are *random* (half of the negatives of a pair qualify), *separated* around the centres of their
identities (none does), and *real* where files of embeddings are at hand: 5 of each identity, turned at random
and called new identities as often as it takes. *Hardest*, *distance* and *all* are other picks. "100 of
each" are the random rows, 100 to an identity.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fasttriplet as ft
import original
from data import BAG, PER_IDENTITY, SHARED, identities, random_rows, separated_rows
from fasttriplet import _core
from harness import CORES, Bench
from process import Way
from tables import Table

PRODUCTS = ("E @ F.T", "E @ F.T into ready memory")
RANDOM, SEPARATED, REAL, LARGE = "random", "separated", "real", "random, 100 of each"
HARDEST, DISTANCE, ALL = ", hardest", ", distance", ", all"

bench = Bench(__file__, __doc__, rounds=5, against=True)
bench.option("--rows", BAG, "of the bag", quick=600)
bench.option("--dim", 512, "columns", quick=64)
bench.option("--each", PER_IDENTITY, "images of an identity")
bench.option("--threads", CORES, "of mining and of the product")
bench.option("--kernels", _core.instruction_sets()[::-1], "instruction sets")
bench.option(
    "--embeddings",
    [SHARED / "lfw112-a" / "emb_a.npy"],
    "(N, D) float32 of trained networks, named by their files; left out if absent",
)
bench.option("--labels", [SHARED / "lfw112-a" / "lab_a.npy"], "(N,) of each of these")
bench.option("--loop", True, "the original's loop, too (20 s)", quick=False)


def on(name: str, what: str) -> str:
    """The name of a way on an instruction set, or of a product on some rows."""
    return f"{name}, {what}" if what else name


def real_rows(
    embeddings: str, labels: str, count: int, each: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A trained network's: turned at random, the same people make new identities of the same geometry."""
    rows, of = np.load(embeddings), np.load(labels).ravel().astype(np.int64)
    keep = np.concatenate([np.flatnonzero(of == label)[:each] for label in np.unique(of)])
    rng = np.random.default_rng(2)
    turns = [np.linalg.qr(rng.normal(size=(rows.shape[1],) * 2))[0] for _ in range(-(-count // len(keep)))]
    turned = np.concatenate([rows[keep] @ turn for turn in turns])[:count].astype(np.float32)
    return turned, np.concatenate([of[keep] + 10**9 * number for number in range(len(turns))])[:count]


def products(data: NDArray[np.float32], of: str) -> dict[str, Way]:
    other = data.copy()  # a different array, or NumPy takes the symmetric product
    ready = np.empty((len(data), len(data)), np.float32)
    calls = (lambda: data @ other.T, lambda: np.matmul(data, other.T, out=ready))
    return {on(name, of): Way(call, peer=True) for name, call in zip(PRODUCTS, calls, strict=True)}


def ways(
    *, rows: int, dim: int, each: int, threads: int, kernels: list[str], real: dict[str, list[str]]
) -> dict[str, Way]:
    random, separated, of = random_rows(rows, dim), separated_rows(rows, dim, each), identities(rows, each)
    bags = {RANDOM: (random, of), SEPARATED: (separated, of)}
    bags |= {name + pick: bag for name, bag in bags.items() for pick in (HARDEST, DISTANCE)}
    bags[LARGE] = (random, identities(rows, 100))
    found = products(random, "")
    for name, (embeddings, labels) in real.items():
        bag = real_rows(embeddings, labels, rows, each)
        bags |= dict.fromkeys([name, name + HARDEST, name + DISTANCE, name + ALL], bag)
        found |= products(bag[0], name)

    def mining(kernel: str, name: str) -> Way:
        data, of = bags[name]
        pick: Any = {HARDEST: "hardest", DISTANCE: "distance", ALL: "all"}.get(
            name[name.rfind(", ") :], "random"
        )

        def force() -> None:
            os.environ["FASTTRIPLET_ISA"] = kernel

        def facts(triplets: ft.Triplets) -> dict[str, Any]:
            stats = triplets.stats
            pairs = max(1, stats.pairs)
            return {
                "pairs": stats.pairs,
                "triplets": len(triplets),
                "settled by the lowest draws, %": 100 * (1 - stats.pairs_screened / pairs),
                "distances": stats.exact_distances / pairs,
            }

        return Way(lambda: ft.mine(data, of, pick=pick, threads=threads), before=force, facts=facts)

    return found | {on(name, kernel): mining(kernel, name) for kernel in kernels for name in bags}


def one_bag(rows: int, dim: int, each: int, threads: int) -> dict[str, Way]:
    random, of = random_rows(rows, dim), identities(rows, each)
    return {"mine": Way(lambda: ft.mine(random, of, threads=threads))}


def loop(rows: int, dim: int, each: int) -> dict[str, Way]:
    random = random_rows(rows, dim)
    return {"the original's loop": Way(lambda: original.mining(random, each, 0.3), peer=True)}


def tables(options: Namespace) -> Iterator[Table]:
    shape = {"rows": options.rows, "dim": options.dim, "each": options.each}
    memory = bench.measure(
        one_bag,
        "memory",
        rounds=1,
        warm_up=False,
        fresh=True,
        small={"rows": 100},
        threads=options.threads,
        **shape,
    )
    real = {
        f"{REAL}, {embeddings.stem}": [str(embeddings), str(labels)]
        for embeddings, labels in zip(options.embeddings, options.labels, strict=True)
        if embeddings.is_file()
    }
    took = bench.measure(ways, kernels=options.kernels, threads=options.threads, real=real, **shape)
    # What is mined, and the rows of the product beside it.
    baseline = {name + pick: "" for pick in ("", HARDEST, DISTANCE) for name in (RANDOM, SEPARATED)}
    baseline |= {LARGE: ""} | {name + pick: name for name in real for pick in ("", HARDEST, DISTANCE, ALL)}
    names = list(baseline)
    yield Table(
        "Seconds",
        {product: {name: took[on(product, of)].best for name, of in baseline.items()} for product in PRODUCTS}
        | {kernel: {name: took[on(name, kernel)].best for name in names} for kernel in options.kernels},
    )
    for product in PRODUCTS:
        ratios = Table(f"Times as long as `{product}`")
        for kernel in options.kernels:
            ratios.rows[kernel] = {
                name: took[on(name, kernel)].over(took[on(product, of)]) for name, of in baseline.items()
            }
        yield ratios
    needed = Table("Pairs, and the float64 distances that it took to decide each")
    for name in names:
        facts = {kernel: dict(took[on(name, kernel)].facts) for kernel in options.kernels}
        distances = {f"distances, {kernel}": found.pop("distances") for kernel, found in facts.items()}
        needed.rows[name] = facts[options.kernels[0]] | distances
    yield needed
    best = options.kernels[0]
    usual = took[on(RANDOM, best)]
    rest = Table(
        "Random rows",
        {f"`mine`, {best}": {"seconds": usual.best, "MB beyond its input": memory["mine"].added}},
    )
    if options.loop:
        slow = bench.measure(loop, rounds=1, warm_up=False, **shape)["the original's loop"]
        rest.rows["the original's loop in NumPy"] = {"seconds": slow.best, "times as long": slow.over(usual)}
    yield rest


if __name__ == "__main__":
    bench.main(tables)
