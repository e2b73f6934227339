"""The keyed hash picks uniformly and independently (chi-square over seeds, pairs and ids)."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from tests import reference


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
