"""Rows on which products of low precision go wrong: the miner still equals the float64 definition.

The miner drops candidates by a bound on the error of float32 or 8-bit products. Each set below makes that
error as large as the inputs can make it, or makes what is decided as small as float64 can tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from tests import reference
from tests.mining.defined import assert_defined, rows
from tests.strategies import BANDS, METRICS, PAIRS, PICKS

Floats = NDArray[np.float64]
Maker = Callable[[np.random.Generator, int, int], Floats]  # (generator, rows, width)


def collapsed(spread: float) -> Maker:
    """Unit vectors within `spread` of each other: at 1e-7 many are equal after rounding to float32."""

    def make(rng: np.random.Generator, n: int, dim: int) -> Floats:
        mean = rng.normal(size=dim)
        mean /= np.linalg.norm(mean)
        return mean + spread * rng.normal(size=(n, dim))

    return make


def scaled(scale: float) -> Maker:
    return lambda rng, n, dim: scale * rng.normal(size=(n, dim))


def grid(scale: float) -> Maker:
    """Few values: many distances are equal, exactly where the scale is a power of two."""
    return lambda rng, n, dim: scale * rng.integers(-2, 3, size=(n, dim))


def huge_of_one_sign(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """The largest floats: their sums, means and products overflow float32."""
    return rng.uniform(0.9, 1, size=(n, dim)) * np.finfo(np.float32).max


def denormal(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """Small multiples of the smallest float; a CPU that flushes denormals makes them zero."""
    return rng.integers(-40, 41, size=(n, dim)) * 2.0**-149


def norms_of_all_sizes(rng: np.random.Generator, n: int, dim: int) -> Floats:
    return rng.normal(size=(n, dim)) * 10.0 ** rng.uniform(-44, 37, size=(n, 1))


def coordinates_of_all_sizes(rng: np.random.Generator, n: int, dim: int) -> Floats:
    return rng.normal(size=(n, dim)) * 10.0 ** rng.integers(-6, 7, size=dim)


def dominating_coordinate(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """One coordinate takes all of an 8-bit scale, and is the same for most rows."""
    made = rng.normal(size=(n, dim))
    made[:, dim // 2] = rng.choice([1e5, 1e5, 1e5, -1e5], size=n)
    return made


def dominating_row(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """Collapsed rows and a very long one, that a mean or a common scale would follow."""
    made = collapsed(1e-3)(rng, n, dim)
    made[n // 2] *= 1e25
    return made


def dominating_rows_that_cancel(rng: np.random.Generator, n: int, dim: int) -> Floats:
    made = collapsed(1e-3)(rng, n, dim)
    made[n // 3], made[n // 2] = 1e25 * made[n // 3], -1e25 * made[n // 3]
    return made


def swallowed(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """Integers whose float32 products with a first one of 2^24 swallow what is added: errors all one way."""
    made = rng.integers(0, 2, size=(n, dim)).astype(np.float64)
    made[:, : min(16, dim // 2)] = 4096 * rng.choice([-1, 1], size=(n, 1))
    return made


def half_steps(steps: int, low: int, high: int) -> Maker:
    """On a scale of `steps` every coordinate but one is rounded by nearly half a step, the same way in a row.

    What products lose by it has one sign for all of a row, as its coordinates have: nothing cancels, and a
    bound below the worst case drops what it must not. Every row has its opposite, for a mean of 0.
    """

    def make(rng: np.random.Generator, n: int, dim: int) -> Floats:
        half = rng.integers(low, high + 1, size=(n // 2, dim)) + rng.choice([0.49999, 0.50001], (n // 2, 1))
        half[:, 0] = steps
        made = np.zeros((n, dim))
        made[rng.permutation(n)[: n // 2 * 2]] = np.concatenate([half, -half])
        return made

    return make


def near_duplicates(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """Rows that differ from one of them in the last bits of float32."""
    made: Floats = rng.normal(size=dim) * (1 + 2e-7 * rng.integers(-1, 2, size=(n, dim)))
    return made


def far_from_the_origin(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """Squared norms of 10^10 dim, squared distances of dim."""
    made: Floats = 1e5 * rng.choice([-1, 1], size=dim) + np.round(rng.normal(size=(n, dim)) * 8) / 8
    return made


def two_clouds(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """Half of the rows around one point, half around its opposite: the mean of all is near neither."""
    made: Floats = collapsed(1e-4)(rng, n, dim) * rng.choice([-1, 1], size=(n, 1))
    return made


def zeros_and_duplicates(rng: np.random.Generator, n: int, dim: int) -> Floats:
    """Few rows, again and again, with zeros of both signs."""
    few: Floats = rng.normal(size=(max(1, n // 12), dim)) * rng.choice([0.0, -0.0, 1.0], size=dim)
    few[0] = -0.0
    made: Floats = few[rng.integers(0, len(few), n)]
    return made


MAKERS: dict[str, Maker] = {
    "normal": scaled(1),
    "huge": scaled(5e37),
    "huge of one sign": huge_of_one_sign,
    "tiny": scaled(1e-30),
    "squares below float32": scaled(1e-21),
    "squares above float32": scaled(1e19),
    "denormal": denormal,
    "norms of all sizes": norms_of_all_sizes,
    "coordinates of all sizes": coordinates_of_all_sizes,
    "dominating coordinate": dominating_coordinate,
    "dominating row": dominating_row,
    "dominating rows that cancel": dominating_rows_that_cancel,
    "swallowed": swallowed,
    "half steps": half_steps(127, 0, 5),
    "half steps at the top": half_steps(127, 124, 126),
    "half steps of 63": half_steps(63, 58, 62),
    "collapsed 1e-4": collapsed(1e-4),
    "collapsed 1e-5": collapsed(1e-5),
    "collapsed 1e-6": collapsed(1e-6),
    "collapsed 1e-7": collapsed(1e-7),
    "near duplicates": near_duplicates,
    "far from the origin": far_from_the_origin,
    "two clouds": two_clouds,
    "zeros and duplicates": zeros_and_duplicates,
    "grid": grid(1),
    "grid of tenths": grid(0.1),
    "grid of tiny powers of two": grid(2.0**-130),
    "grid of huge powers of two": grid(2.0**120),
}

ROWS = (1, 2, 11, 12, 13, 23, 24, 25, 31, 32, 33, 49, 65, 97, 200)
WIDTHS = (
    1,
    2,
    3,
    7,
    8,
    9,
    15,
    16,
    17,
    31,
    33,
    63,
    64,
    65,
    72,
    127,
    129,
    255,
    257,
    511,
    513,
    1024,
    1025,
    2049,
)


def made(name: str, n: int, dim: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows of a set, and labels in any order: about four rows for each."""
    rng = np.random.default_rng([seed, list(MAKERS).index(name), n, dim])
    return MAKERS[name](rng, n, dim).astype(np.float32), rng.integers(0, max(1, n // 4), n)


def gap(embeddings: NDArray[np.float32], wanted: dict[str, Any]) -> float:
    """A distance that few differences of two distances are below: the twelfth part of a usual one."""
    prepared = reference.normalized(embeddings) if wanted["normalize"] else embeddings
    from_first = np.sort(reference.distances(prepared[0], prepared, wanted["metric"])[1:])
    return float(np.abs(from_first[:, None] - from_first).mean() / 12) if len(from_first) else 1.0


def split(embeddings: NDArray[np.float32], labels: NDArray[np.int64], n: int) -> dict[str, Any]:
    """The first n rows as embeddings, the others as references."""
    return {
        "embeddings": embeddings[:n], "labels": labels[:n],
        "references": embeddings[n:], "reference_labels": labels[n:],
    }  # fmt: skip


@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "unit"])
@pytest.mark.parametrize("name", MAKERS)
def test_rows_of_every_kind(name: str, normalize: bool) -> None:
    embeddings, labels = made(name, 129, 67)
    found = 0
    for band, pick, pairs in (
        ("semihard", "random", "unordered"),
        ("semihard", "hardest", "ordered"),
        ("violating", "hardest", "easiest"),
        ("hard", "random", "hardest"),
    ):
        wanted: dict[str, Any] = {
            "band": band, "pick": pick, "pairs": pairs, "normalize": normalize, "metric": "sqeuclidean",
            "negatives_per_pair": 2,
        }  # fmt: skip
        found += assert_defined(embeddings, labels, **wanted, margin=gap(embeddings, wanted))
    assert found > 0


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", MAKERS)
def test_metrics_and_references_on_rows_of_every_kind(name: str, metric: str) -> None:
    embeddings, labels = made(name, 200, 67, seed=1)
    wanted: dict[str, Any] = {"metric": metric, "normalize": metric == "cosine" or name == "normal"}
    wanted["margin"] = gap(embeddings, wanted)
    found = assert_defined(embeddings[:101], labels[:101], **wanted, pairs="hardest", pick="hardest")
    found += assert_defined(**split(embeddings, labels, 101), **wanted)
    found += assert_defined(
        **split(embeddings, labels, 99), **wanted, pairs="easiest", band="violating", pick="hardest"
    )
    assert found > 0


@pytest.mark.parametrize("normalize", [False, True], ids=["raw", "unit"])
@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("normal", "huge"),
        ("tiny", "normal"),
        ("denormal", "huge of one sign"),
        ("collapsed 1e-4", "far from the origin"),
        ("far from the origin", "normal"),
        ("collapsed 1e-5", "collapsed 1e-6"),
        ("half steps", "dominating coordinate"),
        ("grid", "swallowed"),
    ],
)
def test_two_sets_that_are_far_apart(name: str, other: str, normalize: bool) -> None:
    """Nothing about one set (mean, scale, largest norm) is true of the other."""
    embeddings, labels = made(name, 97, 40)
    references, reference_labels = made(other, 129, 40)
    sets = split(np.concatenate([embeddings, references]), np.concatenate([labels, reference_labels]), 97)
    square = sets | {"metric": "sqeuclidean", "normalize": normalize}
    from_first = reference.mine(**square, band="any", pick="all", pairs="hardest")
    margin = float(np.std([d_an for *_, d_an in from_first[:100]])) / 6
    found = 0
    for band, pick, pairs in (("semihard", "hardest", "ordered"), ("violating", "random", "easiest")):
        found += assert_defined(**square, band=band, pick=pick, pairs=pairs, margin=margin)
    assert found > 0


@pytest.mark.parametrize("dim", WIDTHS)
def test_widths(dim: int) -> None:
    """Integers with a margin that is one, so that ties lie on both edges of the band; and floats."""
    embeddings, labels = made("grid", 97, dim)
    wanted: dict[str, Any] = {"margin": 2.0, "normalize": False}
    found = assert_defined(embeddings, labels, **wanted, pick="hardest")
    found += assert_defined(embeddings, labels, **wanted, pick="random", band="hard", pairs="hardest")
    for name in ("collapsed 1e-4", "half steps"):
        embeddings, labels = made(name, 97, dim)
        wanted = {"metric": "sqeuclidean", "normalize": dim > 1}
        found += assert_defined(embeddings, labels, **wanted, margin=gap(embeddings, wanted), pick="hardest")
    assert found > 0


@pytest.mark.parametrize("n", ROWS)
def test_numbers_of_rows(n: int) -> None:
    for name in ("grid", "swallowed", "collapsed 1e-4"):
        embeddings, labels = made(name, n, 24)
        for normalize in (False, True):
            wanted: dict[str, Any] = {"metric": "sqeuclidean", "normalize": normalize}
            wanted["margin"] = 2.0 if name == "grid" else gap(embeddings, wanted)
            assert_defined(embeddings, labels, **wanted)
            assert_defined(embeddings, labels, **wanted, pick="hardest", pairs="ordered")
        wanted = {"metric": "euclidean", "normalize": False, "margin": 1.0, "pick": "hardest"}
        for part in {1, n // 3, n - 1} & set(range(1, n)):
            assert_defined(**split(embeddings, labels, part), **wanted)


@pytest.mark.parametrize("scale", [1.0, 0.1, 2.0**-130, 2.0**120], ids=["1", "0.1", "2^-130", "2^120"])
@pytest.mark.parametrize("band", BANDS[:3])
def test_ties_at_both_edges_of_the_band(band: str, scale: float) -> None:
    """On a grid, a margin that is a distance puts many negatives exactly on an edge."""
    rng = np.random.default_rng(7)
    embeddings = (rng.integers(-1, 2, size=(98, 20)) * scale).astype(np.float32)
    labels = rng.permutation(98) // 4
    step = float(embeddings.max()) ** 2
    everything = ft.mine(embeddings, labels, band="any", pick="all", normalize=False)
    for steps in (0, 1, 5) if band != "hard" else (0,):
        edge = steps * step
        if scale != 0.1:
            assert (everything.d_an == everything.d_ap + edge).sum() > 200
        for margin in (np.nextafter(edge, 0), edge, edge + 1e-9 * step):
            for pick, pairs in (("random", "unordered"), ("hardest", "hardest")):
                wanted: dict[str, Any] = {"band": band, "pick": pick, "pairs": pairs, "margin": margin}
                assert_defined(embeddings, labels, **wanted, normalize=False)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "name", ["normal", "collapsed 1e-4", "near duplicates", "half steps", "dominating coordinate"]
)
def test_edges_between_two_neighbours_of_float64(name: str, metric: str) -> None:
    """The margin is a difference of two distances, or its neighbour: one negative is at the very edge."""
    embeddings, labels = made(name, 66, 33, seed=2)
    normalize = metric == "cosine"
    prepared = reference.normalized(embeddings) if normalize else embeddings
    rng = np.random.default_rng(3)
    different = []
    for a in rng.permutation(66)[:6]:
        d = reference.distances(prepared[a], prepared, metric)
        same = labels == labels[a]
        nearer, farther = np.sort(d[~same & (d > d[same].max())])[:1], d[same].max()
        if len(nearer) == 0 or same.sum() < 2:
            continue
        edge = float(nearer[0] - farther)
        counts = [
            assert_defined(
                embeddings,
                labels,
                metric=metric,
                normalize=normalize,
                pairs="hardest",
                pick="hardest",
                margin=m,
            )
            for m in (
                np.nextafter(edge, 0),
                edge,
                float(np.nextafter(edge, np.inf)) + 2 * np.spacing(nearer[0]),
            )
        ]
        different.append(counts[0] < counts[2])
    assert any(different)


def test_screens_are_used() -> None:
    """The sets above reach the screen: not all pairs are settled by trials in the order of the hash."""
    for name in MAKERS:
        embeddings, labels = made(name, 129, 67)
        wanted: dict[str, Any] = {"metric": "sqeuclidean", "normalize": False}
        wanted["margin"] = gap(embeddings, wanted)
        for pick in ("random", "hardest"):
            stats = ft.mine(embeddings, labels, **wanted, pick=pick).stats
            assert stats.pairs_screened > 0, name


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_rows_with_any_options(data: st.DataObject) -> None:
    name, n = data.draw(st.sampled_from(sorted(MAKERS))), data.draw(st.sampled_from(ROWS))
    dim = data.draw(st.integers(1, 80))
    embeddings, labels = made(name, n, dim, seed=data.draw(st.integers(0, 2**32)))
    metric = data.draw(st.sampled_from(METRICS))
    wanted: dict[str, Any] = {
        "band": data.draw(st.sampled_from(BANDS[:3])),
        "pick": data.draw(st.sampled_from(PICKS)),
        "pairs": data.draw(st.sampled_from(PAIRS)),
        "metric": metric,
        "normalize": metric == "cosine" or data.draw(st.booleans()),
        "seed": data.draw(st.integers(0, 2**64 - 1)),
    }
    wanted["margin"] = gap(embeddings, wanted) * data.draw(st.sampled_from([0.0, 0.01, 1.0, 12.0]))
    if data.draw(st.booleans()):
        assert_defined(embeddings, labels, **wanted)
    else:
        assert_defined(**split(embeddings, labels, data.draw(st.integers(0, n))), **wanted)


def test_order_of_rows_changes_nothing() -> None:
    """Blocks, panels and their scales hold other rows; ids stay with the rows."""
    rng = np.random.default_rng(0)
    for name in MAKERS:
        embeddings, labels = made(name, 129, 19)
        ids, order = np.arange(129), rng.permutation(129)
        wanted: dict[str, Any] = {"metric": "sqeuclidean", "normalize": False, "pairs": "ordered"}
        wanted["margin"] = gap(embeddings, wanted)
        plain = ft.mine(embeddings, labels, ids=ids, **wanted)
        moved = ft.mine(embeddings[order], labels[order], ids=order, **wanted)
        assert rows(plain) == rows(moved)


def test_more_candidates_than_are_kept_at_once() -> None:
    """The kernel goes through candidates in stretches of 10,240; the best may be in any of them."""
    rng = np.random.default_rng(7)
    anchors = rng.normal(size=(30, 8)).astype(np.float32)
    references = rng.normal(size=(20_500, 8)).astype(np.float32)  # two stretches and a piece
    labels, reference_labels = np.arange(30) % 10, rng.integers(0, 2000, 20_500)
    for wanted in (
        {"negatives_per_pair": 3},
        {"margin": 1e-4},
        {"pick": "hardest", "negatives_per_pair": 2},
        {"pick": "hardest", "band": "any", "pairs": "easiest", "negatives_per_pair": 5},
        {"pick": "all", "margin": 1e-3},
    ):
        against: dict[str, Any] = {"references": references, "reference_labels": reference_labels}
        assert assert_defined(anchors, labels, **against, **wanted) > 0


@pytest.mark.parametrize("dim", [65_536, 65_537])
def test_as_many_columns_as_the_sums_hold_and_one_more(dim: int) -> None:
    rng = np.random.default_rng(dim)
    embeddings = rng.normal(size=(40, dim)).astype(np.float32)
    embeddings[5:9] = np.float32(1)  # every product has the same sign
    embeddings[9:12] = np.float32(-1)
    labels = np.arange(40)
    labels[4:12] = [-1] * 4 + [-2] * 4  # rows of both signs, and pairs across
    for pick in PICKS:
        assert assert_defined(embeddings, labels, pick=pick, band="any") > 0
    assert ft.mine(embeddings, labels, pick="hardest", band="any").stats.pairs_screened > 0


@pytest.mark.parametrize("margin", [0.0, 1e-300])
def test_a_band_that_holds_nothing_costs_nothing(margin: float) -> None:
    embeddings = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float32)
    triplets = ft.mine(embeddings, np.arange(3000) // 30, margin=margin)
    assert len(triplets) == 0
    assert triplets.stats.pairs_without_negative == triplets.stats.pairs == 43_500
    assert triplets.stats.exact_distances == 0


@pytest.mark.parametrize(("margin", "each"), [(0.02, 5), (0.05, 30), (0.3, 5), (1.0, 20)])
def test_few_negatives_of_many_qualify(margin: float, each: int) -> None:
    """Enough rows near the band that pairs draw among them, in rounds, before they look at all."""
    rng = np.random.default_rng(each)
    labels = np.arange(600) // each
    centres = rng.normal(size=(labels[-1] + 1, 12))
    embeddings = (centres[labels] + 0.5 * rng.normal(size=(600, 12))).astype(np.float32)
    for count in (1, 3):
        wanted: dict[str, Any] = {"margin": margin, "negatives_per_pair": count, "seed": count}
        assert assert_defined(embeddings, labels, **wanted) > 0
