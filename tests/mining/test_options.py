"""Options of mining by themselves: what is refused, what is kept, and which depend on the seed."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet import _core
from fasttriplet.mining._mine import COLLAPSE
from fasttriplet.mining._options import MiningOptions, scale_of
from tests.mining.defined import rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pick": "nearest"}, "pick must be one of 'random', 'hardest', 'distance', 'all', not 'nearest'"),
        ({"fallback": "nearest"}, "fallback must be one of None, 'farthest', not 'nearest'"),
        ({"fallback": False}, "fallback must be one of None, 'farthest', not False"),
        ({"pairs": "any"}, "pairs must be one of 'unordered', 'ordered', 'hardest', 'easiest', not 'any'"),
        ({"metric": "l2"}, "metric must be one of 'sqeuclidean', 'euclidean', 'cosine', not 'l2'"),
        ({"normalize": None}, "normalize must be True or False, not None"),
        (
            {"metric": "cosine", "normalize": False},
            "metric 'cosine' compares directions: it needs normalize=True",
        ),
        ({"negatives_per_pair": 0}, "negatives_per_pair must be a whole number >= 1, not 0"),
        ({"negatives_per_pair": None}, "negatives_per_pair must be a whole number >= 1, not None"),
        ({"positives_per_anchor": 0}, "positives_per_anchor must be a whole number >= 1, not 0"),
        ({"triplets_per_anchor": 0}, "triplets_per_anchor must be a whole number >= 1, not 0"),
        ({"ranks": 3}, "ranks must be (first, end), end perhaps None, not 3"),
        ({"ranks": (3,)}, "ranks must be (first, end), end perhaps None, not (3,)"),
        ({"ranks": (1, 2, 3)}, "ranks must be (first, end), end perhaps None, not (1, 2, 3)"),
        ({"ranks": (-1, 3)}, "ranks must be a whole number >= 0, not -1"),
        ({"ranks": (None, 3)}, "ranks must be a whole number >= 0, not None"),
        ({"ranks": (0, 0)}, "ranks must end above the first of them, 0, not at 0"),
        ({"ranks": (5, 4)}, "ranks must end above the first of them, 5, not at 4"),
        ({"ranks": (0, 2.5)}, "ranks must be a whole number >= 0, not 2.5"),
        ({"margin": -1}, "margin must be a number >= 0, not -1"),
        ({"max_ap": math.nan}, "max_ap must be a number >= 0, not nan"),
        ({"band": 3}, "band must be a text such as 'semihard', not 3"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ft.OptionError) as caught:
        MiningOptions(**options)
    assert str(caught.value) == message


def test_the_least_and_the_most_of_each() -> None:
    least: dict[str, Any] = {
        **{"negatives_per_pair": 1, "positives_per_anchor": 1, "triplets_per_anchor": 1},
        **{"margin": 0, "max_ap": 0, "ranks": (0, 1)},
    }
    most: dict[str, Any] = {"margin": math.inf, "max_ap": math.inf, "ranks": (7, 8)}
    for name, value in [*least.items(), *most.items()]:
        alone: dict[str, Any] = {name: value}
        assert getattr(MiningOptions(**alone), name) == value


def test_ranks_of_json_are_those_of_a_call() -> None:
    of_json: Any = [2, 5]
    assert MiningOptions(ranks=of_json) == MiningOptions(ranks=(2, 5))
    of_json = [np.int64(2), None]
    found = MiningOptions(ranks=of_json).ranks
    assert found == (2, None)
    assert type(found[0]) is int


def test_numbers_beyond_all_rows_are_no_limit() -> None:
    rng = np.random.default_rng(0)
    embeddings, labels = rng.standard_normal((40, 5)).astype(np.float32), np.arange(40) // 4
    how: dict[str, Any] = {"band": "any", "pairs": "ordered", "pick": "hardest"}
    for huge in (2**40, 2**63, 10**30):
        every = ft.mine(embeddings, labels, **how | {"pick": "all"})
        assert rows(ft.mine(embeddings, labels, negatives_per_pair=huge, **how)) == rows(every)
        limits: dict[str, Any] = {"positives_per_anchor": huge, "triplets_per_anchor": huge}
        assert rows(ft.mine(embeddings, labels, **limits, **how)) == rows(ft.mine(embeddings, labels, **how))
        assert rows(ft.mine(embeddings, labels, ranks=(0, huge), **how)) == rows(
            ft.mine(embeddings, labels, **how)
        )
        for ranks in ((huge, None), (huge, huge + 1)):
            assert len(ft.mine(embeddings, labels, ranks=ranks, **how)) == 0


def test_ids_of_64_bits() -> None:
    ids = np.array([2**63 - 1, 0, 5], np.uint64)
    found = ft.mine(np.eye(3, dtype=np.float32), [0, 0, 1], band="any", ids=ids)
    assert [role.tolist() for role in found] == [[2**63 - 1], [0], [5]]
    with pytest.raises(ValueError, match=r"^ids must be below 2\*\*63$"):
        ft.mine(np.eye(3, dtype=np.float32), [0, 0, 1], band="any", ids=ids + np.uint64(1))
    nothing = ft.mine(np.empty((0, 3), np.float32), [], ids=np.array([], np.uint64))
    assert len(nothing) == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, True),
        ({"pick": "distance"}, True),
        ({"pick": "hardest"}, False),
        ({"pick": "all"}, False),
        ({"pick": "all", "triplets_per_anchor": 2}, True),
        ({"pick": "hardest", "triplets_per_anchor": 2}, True),
        ({"pick": "all", "positives_per_anchor": 2}, True),
        ({"pick": "all", "pairs": "ordered", "positives_per_anchor": 2}, True),
        ({"pick": "all", "pairs": "ordered"}, False),
        ({"pick": "all", "pairs": "hardest", "positives_per_anchor": 2}, False),
        ({"pick": "hardest", "pairs": "easiest"}, False),
        ({"pairs": "easiest"}, True),
    ],
)
def test_which_options_depend_on_the_seed(options: dict[str, Any], expected: bool) -> None:
    """As triplets show, where no distances are equal."""
    rng = np.random.default_rng(0)
    embeddings, labels = rng.standard_normal((40, 5)).astype(np.float32), np.arange(40) // 5
    found = [rows(ft.mine(embeddings, labels, band="any", seed=seed, **options)) for seed in range(4)]
    assert any(one != found[0] for one in found) == MiningOptions(**options).is_random() == expected


def test_scales_in_words() -> None:
    assert [scale_of(metric) for metric in ("sqeuclidean", "euclidean", "cosine")] == [
        *("squared L2", "L2", "1 - cosine")
    ]


def test_threads_are_as_many_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int | None] = []

    def noted(name: str) -> Any:
        function = getattr(_core, name)

        def call(*arguments: Any) -> Any:
            used.append(arguments[-1])
            return function(*arguments)

        return call

    for name in ("mine", "collect"):
        monkeypatch.setattr(_core, name, noted(name))
    embeddings, labels = np.eye(6, dtype=np.float32), np.arange(6) // 2
    for threads in (3, None):
        for call in (
            lambda threads: ft.mine(embeddings, labels, threads=threads),
            lambda threads: ft.neighbors(embeddings, labels, 1, threads=threads),
            lambda threads: ft.neighbors(embeddings, labels, 1, of="identities", threads=threads),
        ):
            used.clear()
            call(threads)
            assert used
            assert set(used) == {threads}


def test_the_time_of_a_call() -> None:
    stats = ft.mine(np.eye(6, dtype=np.float32), np.arange(6) // 2).stats
    assert 0 < stats.seconds < 5


def test_who_is_warned_of_a_collapse() -> None:
    """Where there are pairs, and rows of different identities are nearly equal."""
    equal, apart = np.ones((6, 3), np.float32), np.eye(6, dtype=np.float32)
    pairs, singles = np.arange(6) // 2, np.arange(6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for embeddings, labels in ((equal, singles), (apart, pairs), (apart, singles)):
            ft.mine(embeddings, labels)
        assert caught == []
        ft.mine(equal, pairs)
    assert [(str(one.message), one.filename) for one in caught] == [(COLLAPSE, __file__)]
