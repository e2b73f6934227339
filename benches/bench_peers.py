"""Mining beside pytorch-metric-learning (PML) and faiss on the CPU: seconds, memory, and whether they agree.

Four questions on the same rows with the same threads. Memory is what one call adds at its peak in a process
of its own. A peer that is not installed is left out.

1. All semi-hard triplets of a batch, margin 0.2 on L2 of unit rows, which is PML's default distance.
2. The batch-hard triplet of each row, by the same distance.
3. The same in small batches of P identities with K images each, as trainings have them.
4. The 10 nearest rows of another label, for each of 7,200. That is `mine(pairs="easiest", band="any",
   pick="hardest", negatives_per_pair=10)`, which looks for the nearest positive besides. faiss knows no
   labels: it is asked for as many more rows as an identity has, and NumPy drops those of the label. Its
   time is that of filling the index, searching and dropping.

Rows lie around the centre of their identity: on unit rows about 1.1 from each other, and 1.4 from others.
Where the answers differ, float64 must find the distances within 1e-5 of an edge of the band, or of each
other: float32 cannot tell those. Anything else ends the bench with an error.
"""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fasttriplet as ft
from data import BAG, identities, separated_rows
from harness import CORES, Bench
from process import Way
from tables import Cell, Table

MARGIN = 0.2
NEAREST = 10
EDGE = 1e-5
SEMI_HARD, BATCH_HARD = "All semi-hard triplets", "The batch-hard triplet of each row"
SMALL = f"{BATCH_HARD} in batches of P identities x K images"
SEARCH = f"The {NEAREST} nearest rows of another label"
EACH = {SEMI_HARD: 4, BATCH_HARD: 4, SEARCH: 5}  # rows of an identity
SMALL_ROUNDS = 20  # for each of other questions: a call takes a millisecond

bench = Bench(__file__, __doc__, rounds=5, packages=["torch", "pytorch-metric-learning", "faiss-cpu"])
bench.option("--rows", [300, 600, 1200], "of a batch", quick=[60])
bench.option("--small", ["16x4", "32x4", "32x8", "64x8"], "small batches, P x K", quick=["5x4"])
bench.option("--dim", 128, "columns of a batch", quick=16)
bench.option("--search-rows", [BAG], "of a search", quick=[300])
bench.option("--search-dim", 512, "columns of a search", quick=16)
bench.option("--threads", CORES, "of each")

Rows = NDArray[np.float32]
Ints = NDArray[np.int64]
Call = Callable[[], Any]
Prepare = Callable[[Rows, Ints, int], Call]  # imports, so that a call only mines; the number is of threads


def asked_for(threads: int) -> int | None:
    """The option for that number: all cores are the default, with which short calls start no threads."""
    return None if threads == CORES else threads


def with_mine(**options: Any) -> Prepare:
    return lambda rows, labels, threads: lambda: ft.mine(rows, labels, threads=asked_for(threads), **options)


def with_tensors(miner: Callable[[int], Any]) -> Prepare:
    """For a miner that is called with tensors."""

    def prepare(rows: Rows, labels: Ints, threads: int) -> Call:
        import torch  # noqa: PLC0415

        torch.set_num_threads(threads)
        call, batch = miner(threads), (torch.from_numpy(rows), torch.from_numpy(labels))
        return lambda: call(*batch)

    return prepare


def triplet_miner(**options: Any) -> Callable[[int], Any]:
    def make(threads: int) -> Any:
        from fasttriplet.torch import TripletMiner  # noqa: PLC0415

        return TripletMiner(threads=asked_for(threads), **options)

    return make


def pml(name: str, *options: Any) -> Callable[[int], Any]:
    def make(_: int) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what it imports
            from pytorch_metric_learning import miners  # noqa: PLC0415

        return getattr(miners, name)(*options)

    return make


def with_faiss(kind: str) -> Prepare:
    def prepare(rows: Rows, labels: Ints, threads: int) -> Call:
        import faiss  # noqa: PLC0415

        faiss.omp_set_num_threads(threads)

        def search() -> Ints:
            index = getattr(faiss, kind)(rows.shape[1])
            index.add(rows)
            found = index.search(rows, NEAREST + EACH[SEARCH])[1]
            same = labels[found] == labels[:, None]
            others_first = np.argsort(same, axis=1, kind="stable")[:, :NEAREST]
            return np.take_along_axis(found, others_first, axis=1)

        return search

    return prepare


ALL: dict[str, Any] = {"metric": "euclidean", "margin": MARGIN, "band": "semihard", "pick": "all"}
HARD: dict[str, Any] = {"metric": "euclidean", "band": "any", "pick": "hardest", "pairs": "hardest"}
CONTENDERS: dict[str, dict[str, Prepare]] = {
    SEMI_HARD: {
        "mine": with_mine(**ALL, pairs="ordered"),
        "TripletMiner": with_tensors(triplet_miner(**ALL)),
        "PML TripletMarginMiner": with_tensors(pml("TripletMarginMiner", MARGIN, "semihard")),
    },
    BATCH_HARD: {
        "mine": with_mine(**HARD),
        "TripletMiner": with_tensors(triplet_miner(**HARD)),
        "PML BatchHardMiner": with_tensors(pml("BatchHardMiner")),
    },
    SEARCH: {
        "mine": with_mine(
            pairs="easiest", band="any", pick="hardest", negatives_per_pair=NEAREST, normalize=False
        ),
        "faiss IndexFlatL2": with_faiss("IndexFlatL2"),
        "faiss IndexFlatIP": with_faiss("IndexFlatIP"),
    },
}
CONTENDERS[SMALL] = CONTENDERS[BATCH_HARD]
NEEDS = {
    "mine": (),
    "TripletMiner": ("torch",),
    "PML": ("torch", "pytorch_metric_learning"),
    "faiss": ("faiss",),
}  # by the first word of a contender


def distances(rows: Rows, a: Ints, b: Ints) -> NDArray[np.float64]:
    """L2 in float64, of some pairs at a time."""
    squared = np.empty(a.size)
    for part in np.array_split(np.arange(a.size), a.size // 20_000 + 1):
        difference = rows[a.flat[part]].astype(np.float64) - rows[b.flat[part]]
        squared[part] = np.einsum("ij,ij->i", difference, difference)
    return np.sqrt(squared).reshape(a.shape)


def columns(question: str, answer: Any) -> Ints:
    """The answer as an array: (T, 3) triplets, or (N, NEAREST) neighbours in any order."""
    if question != SEARCH:
        return np.stack([np.asarray(indices) for indices in answer], axis=1)
    if isinstance(answer, ft.Triplets):
        answer = answer.negative.reshape(-1, NEAREST)
    return np.sort(answer, axis=1)


def compare(question: str, rows: Rows, ours: Ints, theirs: Ints) -> tuple[int, float]:
    """How many answers differ, and by how much at most float32 would have to err for that."""
    if question == SEMI_HARD:
        base = len(rows) ** np.arange(3)[::-1]
        a, p, n = np.setxor1d(ours @ base, theirs @ base) // base[:, None] % len(rows)
        apart = distances(rows, a, n) - distances(rows, a, p)
        return len(a), float(np.minimum(np.abs(apart), np.abs(apart - MARGIN)).max(initial=0))
    search = question == SEARCH
    anchors = np.arange(len(rows))[:, None] if search else ours[:, :1]
    if not search and not np.array_equal(anchors, theirs[:, :1]):
        raise SystemExit("other anchors have a batch-hard triplet")
    others = [found if search else found[:, 1:] for found in (ours, theirs)]
    d, e = (distances(rows, np.broadcast_to(anchors, found.shape), found) for found in others)
    if search:
        d.sort(axis=1)
        e.sort(axis=1)
    return int((ours != theirs).any(axis=1).sum()), float(np.abs(d - e).max())


def ways(question: str, rows: int, dim: int, each: int, threads: int) -> dict[str, Way]:
    drawn, labels = separated_rows(rows, dim, each, noise=1.2), identities(rows, each)
    ours = columns(question, CONTENDERS[question]["mine"](drawn, labels, threads)())

    def facts(name: str) -> Callable[[Any], dict[str, int]]:
        def found(answer: Any) -> dict[str, int]:
            differing, error = compare(question, drawn, ours, columns(question, answer))
            if error > EDGE:
                raise SystemExit(
                    f"{question}, {rows} x {dim}: {name} and mine differ by distances of {error}"
                )
            return {"answers": len(ours), "differ": differing}

        return found

    return {
        name: Way(prepare(drawn, labels, threads), facts=facts(name))
        for name, prepare in CONTENDERS[question].items()
        if all(find_spec(package) for package in NEEDS[name.partition(" ")[0]])
    }


def large(question: str, shapes: list[tuple[int, int]], threads: int) -> Table:
    """Seconds and megabytes."""
    found = Table(question)
    for count, dim in shapes:
        case: dict[str, Any] = {"question": question, "dim": dim, "each": EACH[question], "threads": threads}
        case["rows"], title = count, f"{count:,} x {dim}"
        small = {"rows": 20 * EACH[question]}
        memory = bench.measure(
            ways, f"{question}, {title}, memory", rounds=1, warm_up=False, fresh=True, small=small, **case
        )
        took = bench.measure(ways, f"{question}, {title}", **case)
        cells: dict[str, Cell] = {"answers": took["mine"].facts["answers"]}
        cells |= {f"`{name}`, s": one.best for name, one in took.items()}
        cells |= {f"`{name}`, MB": memory[name].added for name in took}
        cells["answers that differ"] = max(one.facts["differ"] for one in took.values())
        found.rows[title] = cells
    return found


def small(batches: list[str], options: Namespace) -> Table:
    """Milliseconds, by the fastest calls and by the median ones, in which other work on the machine shows."""
    found = Table(f"{SMALL}, {options.dim} columns")
    for batch in batches:
        identities, each = map(int, batch.split("x"))
        case: dict[str, Any] = {"question": SMALL, "dim": options.dim, "each": each}
        case |= {"rows": identities * each, "threads": options.threads}
        took = bench.measure(ways, f"{SMALL}, {batch}", rounds=SMALL_ROUNDS * options.rounds, **case)
        cells: dict[str, Cell] = {f"`{name}`, ms": 1e3 * one.best for name, one in took.items()}
        cells |= {f"`{name}`, median ms": 1e3 * one.median for name, one in took.items()}
        found.rows[f"{identities} x {each}"] = cells
    return found


def tables(options: Namespace) -> Iterator[Table]:
    batches = [(count, options.dim) for count in options.rows]
    yield large(SEMI_HARD, batches, options.threads)
    yield large(BATCH_HARD, batches, options.threads)
    yield small(options.small, options)
    yield large(SEARCH, [(count, options.search_dim) for count in options.search_rows], options.threads)


if __name__ == "__main__":
    bench.main(tables)
