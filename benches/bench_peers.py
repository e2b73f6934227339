"""Mining beside pytorch-metric-learning (PML) and faiss on the CPU: seconds, memory, and whether they agree.

Three questions, each put to all in turn, on the same rows with the same threads; a time is the median of
the runs. Peak memory is what one call adds in a process of its own. A peer that is not installed is left
out.

1. All semi-hard triplets of a batch, margin 0.2 on L2 of unit rows, which is PML's default distance.
2. The batch-hard triplet of each row, by the same distance.
3. The 10 nearest rows of another label, for each of 7,200. That is `mine(pairs="easiest", band="any",
   pick="hardest", negatives_per_pair=10)`, which looks for the nearest positive besides. faiss knows no
   labels: it is asked for as many rows more as an identity has, and NumPy drops those of the label. Its
   time is that of filling the index, searching and dropping.

Rows lie around the centre of their identity: on unit rows about 1.1 from each other, and 1.4 from others.
Where the answers differ, float64 must find the distances within 1e-5 of an edge of the band, or of each
other: float32 cannot tell those. Anything else ends the bench with an error.
"""

from __future__ import annotations

import argparse
import os

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
parser.add_argument("--rows", type=int, nargs="*", default=[300, 600, 1200], help="of a batch (300 600 1200)")
parser.add_argument("--dim", type=int, default=128, help="of a batch (128)")
parser.add_argument("--search-rows", type=int, nargs="*", default=[7200], help="(7200)")
parser.add_argument("--search-dim", type=int, default=512, help="(512)")
parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
parser.add_argument("--runs", type=int, default=5)
parser.add_argument("--child", nargs=4, metavar=("QUESTION", "WAY", "ROWS", "DIM"), help=argparse.SUPPRESS)

if __name__ == "__main__":
    arguments = parser.parse_args()
    # BLAS and OpenMP read their thread count when they are loaded.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    # Threads of OpenMP that spin while they wait would take the cores from whoever is next in turn, and on a
    # busy machine from each other: a call of PML that takes 3 ms then takes 100 to 300.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fasttriplet as ft
from machine import peak_memory, report

MARGIN = 0.2
NEAREST = 10
EDGE = 1e-5
SEMI_HARD, BATCH_HARD, SEARCH = "semi-hard", "batch hard", f"{NEAREST} nearest negatives"
EACH = {SEMI_HARD: 4, BATCH_HARD: 4, SEARCH: 5}  # rows of an identity

Rows = NDArray[np.float32]
Ints = NDArray[np.int64]
Call = Callable[[], Any]
Way = Callable[[Rows, Ints], Call]  # imports and prepares, so that a call only mines


def identities(count: int, dim: int, each: int) -> tuple[Rows, Ints]:
    rng = np.random.default_rng(0)
    labels = np.arange(count) // each
    rows = rng.normal(size=(count, dim))[labels] + 1.2 * rng.normal(size=(count, dim))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32), labels


def with_mine(**options: Any) -> Way:
    return lambda rows, labels: lambda: ft.mine(rows, labels, threads=arguments.threads, **options)


def with_tensors(miner: Callable[[], Any]) -> Way:
    """Way of a miner that is called with tensors."""

    def prepare(rows: Rows, labels: Ints) -> Call:
        import torch  # noqa: PLC0415

        torch.set_num_threads(arguments.threads)
        call, batch = miner(), (torch.from_numpy(rows), torch.from_numpy(labels))
        return lambda: call(*batch)

    return prepare


def triplet_miner(**options: Any) -> Callable[[], Any]:
    def make() -> Any:
        from fasttriplet.torch import TripletMiner  # noqa: PLC0415

        return TripletMiner(threads=arguments.threads, **options)

    return make


def pml(name: str, *options: Any) -> Callable[[], Any]:
    def make() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what it imports
            from pytorch_metric_learning import miners  # noqa: PLC0415

        return getattr(miners, name)(*options)

    return make


def with_faiss(kind: str) -> Way:
    def prepare(rows: Rows, labels: Ints) -> Call:
        import faiss  # noqa: PLC0415

        faiss.omp_set_num_threads(arguments.threads)

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
WAYS: dict[str, dict[str, Way]] = {
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
NEEDS = {
    "mine": (),
    "TripletMiner": ("torch",),
    "PML": ("torch", "pytorch_metric_learning"),
    "faiss": ("faiss",),
}  # by the first word of a way


def installed(way: str) -> bool:
    return all(find_spec(package) for package in NEEDS[way.split(maxsplit=1)[0]])


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
    anchors = ours[:, :1] if question == BATCH_HARD else np.arange(len(rows))[:, None]
    if question == BATCH_HARD and not np.array_equal(anchors, theirs[:, :1]):
        raise SystemExit("other anchors have a batch-hard triplet")
    others = [found[:, 1:] if question == BATCH_HARD else found for found in (ours, theirs)]
    d, e = (distances(rows, np.broadcast_to(anchors, found.shape), found) for found in others)
    if question == SEARCH:
        d.sort(axis=1)
        e.sort(axis=1)
    return int((ours != theirs).any(axis=1).sum()), float(np.abs(d - e).max())


def peak(question: str, way: str, count: int, dim: int) -> int:
    """Bytes that a call takes at most beyond its input, in a process that has made a small call before."""
    prepare, each = WAYS[question][way], EACH[question]
    prepare(*identities(20 * each, dim, each))()
    call = prepare(*identities(count, dim, each))
    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held now
    before = peak_memory()
    call()
    return peak_memory() - before


def in_child(*child: object) -> int:
    command = [sys.executable, __file__, "--threads", str(arguments.threads), "--child", *map(str, child)]
    return int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def measure(question: str, count: int, dim: int) -> dict[str, Any]:
    rows, labels = identities(count, dim, EACH[question])
    calls = {way: prepare(rows, labels) for way, prepare in WAYS[question].items() if installed(way)}
    answers = {way: columns(question, call()) for way, call in calls.items()}
    times: dict[str, list[float]] = {way: [] for way in calls}
    for _ in range(arguments.runs):
        for way, call in calls.items():
            started = time.perf_counter()
            call()
            times[way].append(time.perf_counter() - started)
    seconds = {way: statistics.median(runs) for way, runs in times.items()}
    results: dict[str, Any] = {"answers": len(answers["mine"])}
    for way in calls:
        results[f"{way}, s"] = seconds[way]
        if way == "mine":
            continue
        results[f"{way} / mine"] = seconds[way] / seconds["mine"]
        differing, error = compare(question, rows, answers["mine"], answers[way])
        if error > EDGE:
            raise SystemExit(f"{question}, {count} x {dim}: {way} differs from mine, by distances of {error}")
        results[f"{way}, answers that differ"] = differing
    return results


def main() -> None:
    if arguments.child:
        question, way, count, dim = arguments.child
        print(peak(question, way, int(count), int(dim)))
        return
    cases = [
        (question, count, arguments.dim) for question in (SEMI_HARD, BATCH_HARD) for count in arguments.rows
    ]
    cases += [(SEARCH, count, arguments.search_dim) for count in arguments.search_rows]
    ways = sorted({way for question, _, _ in cases for way in WAYS[question]})
    results: dict[str, Any] = {
        "threads": arguments.threads,
        "left out, not installed": ", ".join(way for way in ways if not installed(way)) or "nothing",
    }
    # First, while this process is small: the kernel counts a parent's memory as its child's peak.
    memory = {
        case: {way: in_child(case[0], way, *case[1:]) for way in WAYS[case[0]] if installed(way)}
        for case in cases
    }
    for case in cases:
        title = f"{case[0]}, {case[1]} x {case[2]}"
        results |= {f"{title}: {name}": value for name, value in measure(*case).items()}
        results |= {f"{title}: {way}, MB": added / 1e6 for way, added in memory[case].items()}
    report("mining beside its peers", results, as_json=arguments.json)


if __name__ == "__main__":
    main()
