"""The keyed hash picks uniformly and independently (chi-square over seeds, pairs and ids)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from tests import reference
from tests.mining.defined import rows


def chi_square(counts: NDArray[np.int64]) -> float:
    """Standard deviations by which Pearson's statistic leaves its mean, for equal expectations."""
    expected = counts.sum() / counts.size
    statistic = float((((counts - expected) ** 2) / expected).sum())
    freedom = counts.size - 1
    return float((statistic - freedom) / np.sqrt(2 * freedom))


def dataset(negatives: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Two identities of 3 rows, and `negatives` singletons; `band="any"` lets all qualify."""
    n = 6 + negatives
    labels = np.concatenate([[0, 0, 0, 1, 1, 1], np.arange(2, negatives + 2)])
    return np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32), labels


PAIRS = [(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5)]  # of the two identities


def picks_by_seed(negatives: int, seeds: int) -> NDArray[np.int64]:
    """(seeds, pairs): the negative that each pair of `dataset` picks, for each seed from 0.

    By the reference, and for every 40th seed by `mine` too, which gives the same: thousands of calls would
    spend their time on starting threads.
    """
    embeddings, labels = dataset(negatives)
    seed = np.arange(seeds, dtype=np.uint64)[:, None]
    codes = reference.code(seed, np.arange(len(labels), dtype=np.uint64))
    assert codes.dtype == np.uint64
    picks = np.empty((seeds, len(PAIRS)), dtype=np.int64)
    for pair, (anchor, positive) in enumerate(PAIRS):
        others = np.flatnonzero(labels != labels[anchor])
        draw, tie = reference.draws(codes[:, [anchor]], codes[:, [positive]], codes[:, others])
        tie[draw > draw.min(axis=1, keepdims=True)] = reference.MASK64
        picks[:, pair] = others[tie.argmin(axis=1)]
    for s in range(0, seeds, 40):
        triplets = ft.mine(embeddings, labels, band="any", seed=s, threads=1)
        assert list(zip(triplets.anchor, triplets.positive, strict=True)) == PAIRS
        assert triplets.negative.tolist() == picks[s].tolist()
    return picks


@pytest.mark.parametrize("negatives", [5, 60])
def test_picks_are_uniform_over_seeds(negatives: int) -> None:
    for of_pair in picks_by_seed(negatives, 4000).T:
        counts = np.bincount(of_pair)
        allowed = counts[counts > 0]
        assert len(allowed) == negatives + 3
        assert abs(chi_square(allowed)) < 5


def test_picks_of_two_pairs_are_independent() -> None:
    """The joint table of two pairs' picks, over seeds: a shared anchor, and a shared positive."""
    picks = picks_by_seed(5, 12_000)
    columns = np.arange(3, 11)  # the negatives of identity 0: the other identity and the singletons
    for first, second in ((0, 1), (0, 2), (1, 2)):
        joint = np.zeros((11, 11), dtype=np.int64)
        np.add.at(joint, (picks[:, first], picks[:, second]), 1)
        assert abs(chi_square(joint[np.ix_(columns, columns)].ravel())) < 5


@pytest.mark.parametrize("stride", [1, 2, 1 << 20, 1 << 32, -(1 << 40)])
def test_picks_are_uniform_over_pairs_whatever_the_ids(stride: int) -> None:
    """One seed, many pairs: regular ids must not make some negatives favourites."""
    labels = np.concatenate([np.zeros(90, dtype=np.int64), np.arange(1, 65)])
    embeddings = np.ones((len(labels), 2), dtype=np.float32)
    ids = np.arange(len(labels), dtype=np.int64) * stride
    triplets = ft.mine(embeddings, labels, band="any", ids=ids)
    counts = np.unique(triplets.negative, return_counts=True)[1]
    assert len(counts) == 64
    assert counts.sum() == 90 * 89 // 2
    assert abs(chi_square(counts)) < 5


def test_frozen_hash() -> None:
    """Picks are a promise between versions: these values must not change."""
    assert reference.code(0, 0) == 0x7FC37233DFCA105F
    anchor, positive, negative = (reference.code(1, identifier) for identifier in (2, 3, 4))
    assert reference.draws(anchor, positive, negative) == (22311, 6283571321438880358)


def test_seeds_differ_and_repeat() -> None:
    embeddings, labels = dataset(60)
    picks = [
        tuple(ft.mine(embeddings, labels, band="any", seed=seed).negative) for seed in (0, 1, 2**64 - 1, 0)
    ]
    assert picks[0] == picks[3]
    assert len(set(picks)) == 3


def test_distance_weighted_picks_follow_their_weights() -> None:
    """Over seeds, a negative is picked as often as its weight says: 1 / q(d) of Wu et al. 2017, section 4."""
    dim = 8
    embeddings = np.zeros((12, dim), dtype=np.float32)
    embeddings[:2, 0] = 1
    angles = np.linspace(0.2, 3.0, 10)  # from below the cutoff of 0.5 to nearly opposite
    embeddings[2:, 0], embeddings[2:, 1] = np.cos(angles), np.sin(angles)
    labels = np.concatenate([[0, 0], np.arange(1, 11)])
    d = np.clip(2 * np.sin(angles / 2), 0.5, np.sqrt(2))
    weights = 1 / (d ** (dim - 2) * (1 - d**2 / 4) ** ((dim - 3) / 2))
    seeds = 4000
    counts = np.zeros(10)
    for seed in range(seeds):
        found = ft.mine(embeddings, labels, band="any", pick="distance", seed=seed, threads=1)
        counts[found.negative[0] - 2] += 1
    expected = seeds * weights / weights.sum()
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert expected.min() > 5
    assert statistic < 9 + 5 * np.sqrt(18), counts  # 9 degrees of freedom


def test_pairs_and_triplets_of_an_anchor_are_chosen_uniformly() -> None:
    labels = np.repeat([0, 1], 8)
    embeddings = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    positives, triplets = np.zeros(8, dtype=int), np.zeros((8, 16), dtype=int)
    for seed in range(2000):
        wanted: dict[str, Any] = {"band": "any", "pairs": "ordered", "seed": seed, "threads": 1}
        one = ft.mine(embeddings, labels, positives_per_anchor=2, **wanted)
        of_first = one.positive[one.anchor == 0]
        assert len(of_first) == 2
        positives[of_first] += 1
        every = ft.mine(embeddings, labels, pick="all", triplets_per_anchor=3, **wanted)
        of_first = every.anchor == 0
        assert of_first.sum() == 3
        triplets[every.positive[of_first], every.negative[of_first]] += 1
    assert positives[0] == 0
    assert abs(chi_square(positives[1:])) < 5
    assert abs(chi_square(triplets[1:, 8:].ravel())) < 5


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("dim", "band"),
    [
        *(
            (dim, band)
            for dim in (4, 64)
            for band in ("any", "semihard", "d_an > d_ap + 0.05 and d_an < 1.9")
        ),
        (512, "any"),
    ],
)
def test_distance_weighted_picks_among_many(dim: int, band: str) -> None:
    """More candidates than a stretch has, near and far, against the definition for some anchors."""
    rng = np.random.default_rng(dim)
    n = 11_000
    labels = rng.integers(0, n // 4, n)
    centers = rng.normal(size=(n // 4, dim))
    embeddings = (centers[labels] + rng.normal(size=(n, dim))).astype(np.float32)
    some = np.flatnonzero(np.isin(labels, labels[: 12 if dim < 512 else 3]))
    sets: dict[str, Any] = {
        "embeddings": embeddings[some], "labels": labels[some], "ids": some,
        "references": embeddings, "reference_labels": labels, "reference_ids": np.arange(n),
    }  # fmt: skip
    more: dict[str, Any]
    for more in ({}, {"ranks": (3, None), "negatives_per_pair": 2}):
        wanted: dict[str, Any] = {"pick": "distance", "band": band, "margin": 1.0, "seed": 5, **more}
        expected = reference.mine(**sets, **wanted)
        assert len(expected) > 0
        assert rows(ft.mine(**sets, **wanted)) == expected
        if not more and dim < 512:  # it takes seconds
            whole = ft.mine(embeddings, labels, **wanted, pairs="ordered")
            assert [t for t in rows(whole) if t[0] in some] == expected
