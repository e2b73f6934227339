"""Pairs that are drawn from an index."""

from __future__ import annotations

from collections import Counter
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttriplet import draw_pairs
from fasttriplet.verify._draw import _first_draws


def frame(labels: list[int], keys: list[int] | None = None) -> pl.DataFrame:
    return pl.DataFrame({"key": keys or list(range(len(labels))), "label": labels})


def drawn_keys(index: pl.DataFrame, count: int, seed: int = 0) -> list[tuple[int, int, bool]]:
    drawn, keys = draw_pairs(index, count, seed), index["key"].to_list()
    return [(keys[a], keys[b], bool(s)) for a, b, s in zip(*drawn, strict=True)]


@settings(deadline=None)
@given(
    st.lists(st.integers(-2, 4), min_size=3, max_size=30).filter(lambda x: 1 < len(set(x)) < len(x)),
    st.integers(1, 300),
    st.integers(0, 2**64 - 1),
    st.randoms(use_true_random=False),
)
def test_drawn_pairs(labels: list[int], count: int, seed: int, random: Any) -> None:
    keys = random.sample(range(1000), len(labels))
    of = dict(zip(keys, labels, strict=True))
    pairs = drawn_keys(frame(labels, keys), count, seed)
    assert all(a != b and (of[a] == of[b]) == s for a, b, s in pairs)
    assert len({frozenset(pair[:2]) for pair in pairs}) == len(pairs)
    sizes = Counter(labels).values()
    genuine = sum(n * (n - 1) // 2 for n in sizes)
    impostors = len(labels) * (len(labels) - 1) // 2 - genuine
    same = [s for *_, s in pairs]
    assert sum(same) == min(count, genuine)
    assert len(same) - sum(same) == min(count, genuine, impostors)
    # Any run of consecutive pairs has of each kind what its share would be.
    for start in range(0, len(same), 7):
        part = same[start : start + 7]
        assert abs(sum(part) - len(part) * sum(same) / len(same)) <= 1
    rows = list(zip(labels, keys, strict=True))
    random.shuffle(rows)
    assert drawn_keys(frame([row[0] for row in rows], [row[1] for row in rows]), count, seed) == pairs


def test_drawn_pairs_are_frozen() -> None:
    index = frame([key // 5 for key in range(100)])
    assert drawn_keys(index, 4, seed=7) == FROZEN
    assert drawn_keys(index, 4, seed=8) != FROZEN
    # More than half of all genuine pairs takes the other way through the code.
    assert drawn_keys(index, 150, seed=7)[:4] == FROZEN_OF_MANY


FROZEN = [
    (6, 8, True), (27, 97, False), (87, 88, True), (4, 12, False),
    (56, 58, True), (16, 49, False), (5, 7, True), (6, 75, False),
]  # fmt: skip
FROZEN_OF_MANY = [(41, 43, True), (13, 20, False), (93, 94, True), (59, 88, False)]


def test_every_pair_is_drawn_equally_often() -> None:
    index = frame([0, 0, 0, 1, 1, 2, 2, 2, 2])
    for count in (2, 7):  # 10 genuine pairs: drawn, or left out
        seen = Counter(frozenset(pair[:2]) for seed in range(2000) for pair in drawn_keys(index, count, seed))
        genuine = [n for pair, n in seen.items() if len({index["label"][key] for key in pair}) == 1]
        impostors = [n for pair, n in seen.items() if len({index["label"][key] for key in pair}) == 2]
        assert (len(genuine), len(impostors)) == (10, 26)
        for counts in (genuine, impostors):
            expected = 2000 * count / len(counts)
            chi = sum((n - expected) ** 2 / expected for n in counts)
            assert chi < 60  # 25 degrees of freedom: 1e-4


def test_as_many_of_both_kinds_alternate() -> None:
    drawn = draw_pairs(frame([key // 5 for key in range(1000)]), 700)
    assert drawn.same.tolist() == [True, False] * 700


def test_shards_and_indexes_without_pairs() -> None:
    shards = pl.DataFrame({"key": [1, 2, 1, 2], "label": [0, 1, 0, 1], "file": [0, 0, 1, 1]})
    drawn = draw_pairs(shards.with_columns(pl.col("file").cast(pl.UInt32)), 9)
    genuine = {frozenset((int(a), int(b))) for a, b, s in zip(*drawn, strict=True) if s}
    assert genuine == {frozenset((0, 2)), frozenset((1, 3))}
    for labels in ([5, 5, 5], [5]):
        with pytest.raises(
            ValueError, match=r"no impostor pair .* the label of all images is 5; .* two ident"
        ):
            draw_pairs(frame(labels), 9)
    for labels in ([1, 2, 3], [1, 2]):
        with pytest.raises(
            ValueError, match=rf"no genuine pair .* each of the {len(labels)} identities has one"
        ):
            draw_pairs(frame(labels))
    with pytest.raises(ValueError, match="no images"):
        draw_pairs(frame([]).cast(pl.Int64))
    with pytest.raises(ValueError, match="label not found"):
        draw_pairs(pl.DataFrame({"key": [1]}))
    with pytest.raises(ValueError, match="no nulls, in the column 'label', not Float64"):
        draw_pairs(frame([1, 1]).with_columns(label=pl.lit(0.5)))
    with pytest.raises(ValueError, match="pairs_per_kind"):
        draw_pairs(frame([1, 1]), 0)


def test_draws_are_fair() -> None:
    """Those of SplitMix64 that would favour small numbers are left out, here a quarter of all."""
    total, count, state = 2**62 + 1, 500, 2**64 - 5
    fair = 2**64 - 2**64 % total
    found, number, left_out = list[int](), 0, 0
    while len(found) < count:
        number += 1
        draw = mixed((number * 0x9E3779B97F4A7C15 + state) % 2**64)
        if draw < fair:
            found.append(draw % total)
        left_out += draw >= fair
    assert 100 < left_out < 300
    assert _first_draws(total, count, state).tolist() == sorted(found)


def mixed(number: int) -> int:
    """The mixer of SplitMix64."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        number = (number ^ number >> shift) * factor % 2**64
    return number ^ number >> 31
