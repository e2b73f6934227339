"""Each metric equals its float64 definition, and the metrics agree with each other where they must."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from tests import reference
from tests.mining.defined import assert_defined, each_kind_of_values, rows
from tests.strategies import (
    BANDS,
    METRICS,
    PAIRS,
    PICKS,
    VALUES,
    datasets,
    datasets_with_references,
    options,
)

SCALES = {"sqeuclidean": 1.0, "euclidean": 0.5, "cosine": 0.5}  # of a margin near distances of unit rows


def triplets_of(found: list[reference.Triplet]) -> list[tuple[int, int, int]]:
    return [triplet[:3] for triplet in found]


def identities(n: int, dim: int, per_identity: int = 3, spread: float = 1.6) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(n * dim)
    labels = np.arange(n) // per_identity
    rng.shuffle(labels)
    centres = rng.normal(size=(n, dim))
    return {
        "embeddings": (centres[labels] + spread * rng.normal(size=(n, dim))).astype(np.float32),
        "labels": labels,
    }


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("band", BANDS)
def test_combinations_on_enough_rows_to_fill_tiles(band: str, metric: str) -> None:
    """Past one block of anchors (96), one panel (32) and the probe's tries: all of the kernel runs."""
    dataset = identities(105, 130)
    for case, pick in enumerate(PICKS):
        wanted: dict[str, Any] = {
            "band": band, "pick": pick, "metric": metric, "pairs": PAIRS[(case + BANDS.index(band)) % 4],
            "margin": 0.2 * SCALES[metric], "max_ap": {"euclidean": 1.3}.get(metric, 1.7 * SCALES[metric]),
            "negatives_per_pair": 2,
        }  # fmt: skip
        assert assert_defined(**dataset, **wanted) > 0


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_rows_that_are_not_normalised(metric: str) -> None:
    """Distances far from 1, so that a margin on the wrong scale picks others."""
    dataset: dict[str, Any] = identities(120, 40)
    for factor in (1e-3, 30.0):
        embeddings = dataset["embeddings"] * np.float32(factor)
        margin = {"sqeuclidean": 8 * factor**2, "euclidean": 0.5 * factor}[metric]
        for band, pick in (("semihard", "random"), ("semihard", "hardest"), ("violating", "all")):
            wanted: dict[str, Any] = {"band": band, "pick": pick, "metric": metric, "margin": margin}
            assert assert_defined(embeddings, dataset["labels"], **wanted, normalize=False) > 0


def test_the_default_is_sqeuclidean() -> None:
    dataset: dict[str, Any] = identities(60, 8)
    assert rows(ft.mine(**dataset)) == rows(ft.mine(**dataset, metric="sqeuclidean")) != []


@each_kind_of_values
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_cosine_is_half_of_sqeuclidean(values: st.SearchStrategy[Any], data: st.DataObject) -> None:
    """Halving is exact, so with half the margin and half of max_ap every comparison is the same."""
    sets = data.draw(datasets(values) | datasets_with_references(values))
    band = data.draw(st.sampled_from(BANDS))  # one with numbers in it would have to be halved, too
    wanted = data.draw(options()) | {"normalize": True, "metric": "cosine", "band": band}
    twice = wanted | {"metric": "sqeuclidean", "margin": 2 * wanted["margin"]}
    if wanted["max_ap"] is not None:
        twice["max_ap"] = 2 * wanted["max_ap"]
    squared = rows(ft.mine(**sets, **twice))
    assert rows(ft.mine(**sets, **wanted)) == [(a, p, n, ap / 2, an / 2) for a, p, n, ap, an in squared]


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize(
    "wanted",
    [
        {"band": "hard"},
        {"band": "any"},
        {"band": "violating", "margin": 0.0},
        {"band": "semihard", "margin": float("inf")},
    ],
    ids=lambda wanted: wanted["band"],
)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_euclidean_agrees_with_sqeuclidean_where_no_margin_counts(
    wanted: dict[str, Any], pairs: str, data: st.DataObject
) -> None:
    """A square root keeps the order of distances, except that it can make close ones equal."""
    values = data.draw(st.sampled_from(list(VALUES.values())))
    sets = data.draw(datasets(values) | datasets_with_references(values))
    options = wanted | {"pairs": pairs, "pick": data.draw(st.sampled_from(PICKS)), "normalize": False}
    reach = data.draw(st.none() | st.integers(0, 5))  # its square is exact
    everything = reference.mine(**sets, band="any", pick="all", pairs="ordered", normalize=False)
    squares = {distance for triplet in everything for distance in triplet[3:]}
    assume(len({np.sqrt(square) for square in squares}) == len(squares))
    squared = rows(ft.mine(**sets, **options, max_ap=None if reach is None else reach**2))
    options |= {"metric": "euclidean", "max_ap": reach}
    found = rows(ft.mine(**sets, **options))
    assert found == [(a, p, n, float(np.sqrt(ap)), float(np.sqrt(an))) for a, p, n, ap, an in squared]


def test_square_roots_that_are_equal_are_ties() -> None:
    """1 and 1 + 2^-52 have the same square root: ties for the metric, not for the squares."""
    embeddings = np.array([[0, 0], [1, 0], [1, 2**-26], [5, 5]], dtype=np.float32)
    wanted: dict[str, Any] = {"normalize": False, "pick": "all", "pairs": "ordered", "margin": 1.0}
    near_and_far = [0, 0, 1, 1]

    def mined(metric: Any, band: Any) -> bool:
        """Is (0, 1, 2), with the distances 1 and sqrt(1 + 2^-52), a triplet of the band?"""
        triplets = ft.mine(embeddings, near_and_far, metric=metric, band=band, **wanted)
        return (0, 1, 2) in triplets_of(rows(triplets))

    assert mined("sqeuclidean", "semihard")
    assert not mined("sqeuclidean", "hard")
    assert not mined("euclidean", "semihard")
    assert mined("euclidean", "hard")
    # The farthest positive of row 0 is row 2, unless both are as far: then the smaller id.
    for metric, positive in (("sqeuclidean", 2), ("euclidean", 1)):
        farthest: Any = {"metric": metric, "pairs": "hardest", "band": "any"}
        triplets = ft.mine(embeddings, [0, 0, 0, 1], **(wanted | farthest))
        assert triplets.positive[0] == positive
    # The nearest negative of row 3 (moved to the origin) is row 1, unless both are as near: then the hash.
    moved = np.concatenate([embeddings[1:3], np.zeros((2, 2), np.float32)])
    nearest: Any = {"pairs": "unordered", "band": "any", "pick": "hardest"}
    for metric, expected in (("sqeuclidean", {0}), ("euclidean", {0, 1})):
        nearest["metric"] = metric
        picked = [ft.mine(moved, [0, 1, 2, 2], **(wanted | nearest), seed=seed) for seed in range(20)]
        assert {int(triplets.negative[0]) for triplets in picked} == expected


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("length", [1.0, 1.375, 1.75])
@pytest.mark.parametrize("spread", [1, 2**20], ids=["equal roots", "close roots"])
def test_many_square_roots_in_a_few_last_places(band: str, length: float, spread: int) -> None:
    """References at sqrt(length^2 + k^2 2^-54) from anchors at the origin: many squares, few roots."""
    rng = np.random.default_rng(spread)
    references = np.zeros((150, 9), np.float32)
    references[:, 4] = length
    references[:, 7] = rng.integers(0, 9, 150) * np.float32(2**-27 * np.sqrt(spread))
    sets: dict[str, Any] = {
        "embeddings": np.zeros((40, 9), np.float32), "labels": np.arange(40) % 30,
        "references": references, "reference_labels": rng.integers(0, 40, 150),
        "metric": "euclidean", "normalize": False, "band": band,
    }  # fmt: skip
    step = spread * 2.0**-52  # of the roots: one last place, and a distance that ties are at
    for pick, pairs, margin in (
        ("random", "ordered", 2 * step), ("hardest", "hardest", 3 * step),
        ("all", "easiest", 2 * step), ("hardest", "ordered", 3.5 * step),
    ):  # fmt: skip
        assert assert_defined(**sets, pick=pick, pairs=pairs, margin=margin, negatives_per_pair=2) > 0


def test_edges_of_the_euclidean_band_are_open() -> None:
    """Distances 3 and 5: a margin of 2 does not reach, nor do those that 3 + margin rounds to 5."""
    embeddings = np.array([[0, 0], [3, 0], [3, 4]], dtype=np.float32)
    wanted: dict[str, Any] = {"normalize": False, "metric": "euclidean"}
    for band in ("semihard", "violating"):
        for margin, expected in ((2.0, 0), (np.nextafter(2.0, 3), 0), (2.000000000000001, 1)):
            assert len(ft.mine(embeddings, [0, 0, 1], band=band, margin=margin, **wanted)) == expected
    assert len(ft.mine(embeddings, [0, 1, 0], band="semihard", **wanted)) == 0
    assert rows(ft.mine(embeddings, [0, 1, 0], band="hard", **wanted)) == [(0, 2, 1, 5, 3)]
    assert len(ft.mine(embeddings, [0, 0, 1], band="any", max_ap=3, **wanted)) == 1
    assert len(ft.mine(embeddings, [0, 0, 1], band="any", max_ap=np.nextafter(3.0, 0), **wanted)) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_edges_of_the_band_are_float64(metric: Any) -> None:
    """Margins and max_ap that are a distance to the last bit, and their neighbours."""
    dataset: dict[str, Any] = identities(40, 12)
    everything = ft.mine(**dataset, band="any", pick="all", metric=metric)
    rng = np.random.default_rng(0)
    counts = set()
    for i in rng.choice(len(everything), 25, replace=False):
        gap, d_ap = abs(everything.d_an[i] - everything.d_ap[i]), everything.d_ap[i]
        for margin in (np.nextafter(gap, 0), gap, np.nextafter(gap, 9)):
            for max_ap in (d_ap, np.nextafter(d_ap, 0)):
                wanted: dict[str, Any] = {"margin": margin, "max_ap": max_ap, "metric": metric}
                triplets = ft.mine(**dataset, band="semihard", pick="all", **wanted)
                low, high = everything.d_ap, everything.d_ap + margin
                qualify = (low <= max_ap) & (low < everything.d_an) & (everything.d_an < high)
                expected = [
                    row for row, wanted_row in zip(rows(everything), qualify, strict=True) if wanted_row
                ]
                assert rows(triplets) == expected
                counts.add(len(triplets))
    assert len(counts) > 25


def test_cosine_is_one_minus_the_cosine() -> None:
    dataset: dict[str, Any] = identities(60, 20)
    wanted: dict[str, Any] = {"band": "any", "pick": "all", "metric": "cosine"}
    triplets = ft.mine(**dataset, **wanted)
    wide = dataset["embeddings"].astype(np.float64)
    unit = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.testing.assert_allclose(triplets.d_ap, 1 - cosines[triplets.anchor, triplets.positive], atol=1e-6)
    np.testing.assert_allclose(triplets.d_an, 1 - cosines[triplets.anchor, triplets.negative], atol=1e-6)
    longer = dataset | {"embeddings": dataset["embeddings"] * np.float32(1024)}  # exact: the same unit rows
    assert rows(ft.mine(**longer, **wanted)) == rows(triplets)


def test_a_zero_row_is_at_half_of_its_squared_distance() -> None:
    """A row without a direction stays zero: 1/2 from every other, 0 from another zero row."""
    embeddings = np.array([[0, 0], [0, 0], [2, 0], [0, 3]], dtype=np.float32)
    wanted: dict[str, Any] = {"band": "any", "pick": "all", "metric": "cosine"}
    triplets = ft.mine(embeddings, [0, 0, 1, 0], **wanted)
    assert rows(triplets) == [(0, 1, 2, 0.0, 0.5), (0, 3, 2, 0.5, 0.5), (1, 3, 2, 0.5, 0.5)]


def table(dataset: dict[str, Any], metric: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which rows share a label, and their distances by the textbook."""
    wide = dataset["embeddings"].astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    if metric == "cosine":
        distances = 1 - wide @ wide.T
    else:
        distances = np.linalg.norm(wide[:, None] - wide, axis=2) ** {"euclidean": 1, "sqeuclidean": 2}[metric]
    return dataset["labels"][:, None] == dataset["labels"], distances


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("pairs", ["hardest", "easiest"])
def test_batch_hard_and_easy_positive(pairs: Any, metric: Any) -> None:
    """Batch hard (arXiv:1703.07737) and easy positive mining with hard negatives (arXiv:1904.04370)."""
    dataset: dict[str, Any] = identities(60, 10, per_identity=4)
    same, distances = table(dataset, metric)
    positives = same & ~np.eye(60, dtype=bool)
    positive = np.where(positives, distances, -np.inf).argmax(1)
    if pairs == "easiest":
        positive = np.where(positives, distances, np.inf).argmin(1)
    negative = np.where(same, np.inf, distances).argmin(1)
    triplets = ft.mine(**dataset, metric=metric, pairs=pairs, band="any", pick="hardest")
    np.testing.assert_array_equal(np.stack(list(triplets)), [np.arange(60), positive, negative])
    np.testing.assert_allclose(triplets.d_ap, distances[np.arange(60), positive], atol=1e-6)
    np.testing.assert_allclose(triplets.d_an, distances[np.arange(60), negative], atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_all_triplets_of_each_band(metric: Any) -> None:
    dataset: dict[str, Any] = identities(30, 6)
    same, distances = table(dataset, metric)
    triples = (same & ~np.eye(30, dtype=bool))[:, :, None] & ~same[:, None, :]
    d_ap, d_an, margin = distances[:, :, None], distances[:, None, :], 0.3 * SCALES[metric]
    qualify = {
        "any": triples,
        "hard": triples & (d_an <= d_ap),
        "violating": triples & (d_an < d_ap + margin),
        "semihard": triples & (d_ap < d_an) & (d_an < d_ap + margin),
    }
    for band, expected in qualify.items():
        kind: Any = {"band": band, "pick": "all", "pairs": "ordered"}
        triplets = ft.mine(**dataset, **kind, metric=metric, margin=margin)
        assert len(triplets) > 0
        np.testing.assert_array_equal(np.stack(list(triplets), 1), np.argwhere(expected))


@pytest.mark.parametrize("metric", METRICS)
def test_several_hard_negatives(metric: Any) -> None:
    dataset: dict[str, Any] = identities(40, 6)
    same, distances = table(dataset, metric)
    expected = []
    for a, p in np.argwhere(np.triu(same, 1)):
        nearest = np.where(same[a], np.inf, distances[a]).argsort()[:4]
        expected += [(a, p, n) for n in sorted(nearest)]
    triplets = ft.mine(**dataset, metric=metric, band="any", pick="hardest", negatives_per_pair=4)
    assert list(zip(*triplets, strict=True)) == expected


@pytest.mark.parametrize("metric", METRICS)
def test_largest_pair_is_measured_by_the_metric(metric: Any) -> None:
    dataset: dict[str, Any] = identities(60, 8)
    same, distances = table(dataset, metric)
    reach = float(np.median(distances[np.triu(same, 1)])) + 1e-4
    triplets = ft.mine(**dataset, metric=metric, band="any", max_ap=reach)
    expected = np.argwhere(np.triu(same, 1) & (distances <= reach))
    assert 0 < len(expected) < 60
    np.testing.assert_array_equal(np.stack([triplets.anchor, triplets.positive], 1), expected)
    assert triplets.stats.pairs_over_max_ap == 60 - len(expected)


GOOD: dict[str, Any] = {"embeddings": np.eye(4, dtype=np.float32), "labels": [0, 0, 1, 1]}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"metric": "manhattan"}, "metric must be one of .*'euclidean'.* not 'manhattan'"),
        ({"metric": None}, "metric must be one of .* not None"),
        ({"metric": "cosine", "normalize": False}, r"(?s)(?=.*cosine)(?=.*normalize)"),
        (
            {"metric": "cosine", "normalize": False, "references": np.eye(4, dtype=np.float32),
             "reference_labels": [0, 0, 1, 1]},
            r"(?s)(?=.*cosine)(?=.*normalize)",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ft.mine(**(GOOD | wrong))
