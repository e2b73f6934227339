"""The order of an epoch and its bags, against definitions in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fasttriplet as ft
from fasttriplet.dataset._order import epoch_seed
from tests import reference

GOLDEN, MASK64 = reference.GOLDEN, reference.MASK64


def plain_seed(seed: int, epoch: int) -> int:
    return reference.mix64((reference.mix64((seed + GOLDEN) & MASK64) + epoch) & MASK64)


def plain_seq(
    rows: list[dict[str, int]], images_per_identity: int, seed: int, epoch: int
) -> list[dict[str, int]]:
    """Sort identities by hash, and in each the images by hash; keep the first few."""
    state = plain_seed(seed, epoch)
    image_state = reference.mix64((state + GOLDEN) & MASK64)

    def identity(label: int) -> int:
        return reference.mix64((label & MASK64) ^ state)

    def image(row: dict[str, int]) -> tuple[int, ...]:
        hashed = reference.mix64((row["key"] & MASK64) ^ image_state)
        if "file" not in row:
            return (hashed,)
        return (reference.mix64(row["file"] ^ hashed), row["file"], row["key"])

    order = []
    for label in sorted({row["label"] for row in rows}, key=identity):
        order += sorted((row for row in rows if row["label"] == label), key=image)[:images_per_identity]
    return order


whole = st.integers(-(2**63), 2**63 - 1)


@st.composite
def indexes(draw: st.DrawFn) -> pl.DataFrame:
    keys = draw(st.lists(st.integers(0, 40) | whole, unique=True, max_size=40))
    labels = draw(st.lists(st.integers(-3, 8) | whole, min_size=len(keys), max_size=len(keys)))
    frame = pl.DataFrame({"key": keys, "label": labels}, schema={"key": pl.Int64, "label": pl.Int64})
    if draw(st.booleans()):
        files = draw(st.lists(st.integers(0, 3), min_size=len(keys), max_size=len(keys)))
        frame = frame.with_columns(pl.Series("file", files, dtype=pl.UInt32))
    return frame


@settings(max_examples=200, deadline=None)
@given(indexes(), st.integers(1, 6), st.integers(0, 2**64 - 1), st.integers(0, 100), st.randoms())
def test_seq_equals_the_definition_for_any_order_of_rows(
    index: pl.DataFrame, images: int, seed: int, epoch: int, random: Any
) -> None:
    expected = plain_seq(index.to_dicts(), images, seed, epoch)
    order = list(range(index.height))
    random.shuffle(order)
    for frame in (index, index[order]):
        seq = ft.triplet_seq(frame, images, seed, epoch)
        assert seq.schema == index.schema
        assert seq.to_dicts() == expected


def identity_index(identities: int = 50, images: int = 7) -> pl.DataFrame:
    return pl.DataFrame(
        {"key": np.arange(identities * images), "label": np.arange(identities * images) // images}
    )


def test_more_images_than_there_are() -> None:
    index = identity_index(5, 3)
    for images in (3, 15, 16, 2**70):
        assert ft.triplet_seq(index, images).equals(ft.triplet_seq(index, 4))
    assert ft.triplet_seq(index[:0], 2**70).height == 0


def test_order_is_frozen() -> None:
    """Orders are a promise between versions: these values must not change."""
    assert ft.triplet_seq(identity_index(5, 3), 2)["key"].to_list() == [4, 5, 1, 2, 13, 12, 6, 7, 11, 10]
    assert ft.triplet_seq(identity_index(5, 3), 2, seed=7, epoch=3)["key"].to_list() == [
        14,
        12,
        5,
        3,
        1,
        0,
        7,
        6,
        10,
        9,
    ]
    assert epoch_seed(0, 0) == 0x48218226FF3CD4BF


def test_seeds_and_epochs_give_other_orders_and_other_images() -> None:
    index = identity_index()
    orders = {(s, e): ft.triplet_seq(index, 5, s, e)["key"].to_list() for s in range(3) for e in range(3)}
    assert len({tuple(order) for order in orders.values()}) == 9
    assert len({frozenset(order) for order in orders.values()}) == 9


def test_identities_and_images_are_shuffled_evenly() -> None:
    """Mean position of each identity and image over 400 epochs: within five standard errors."""
    index = identity_index(12, 6)
    keys = np.stack([ft.triplet_seq(index, 6, 1, epoch)["key"].to_numpy() for epoch in range(400)])
    place = np.argsort(keys, axis=1)  # (epochs, keys): where each key stands
    identity_place = place[:, ::6] // 6
    image_place = place % 6
    for places, count in ((identity_place, 12), (image_place, 6)):
        error = np.sqrt((count**2 - 1) / 12 / 400)
        assert np.abs(places.mean(0) - (count - 1) / 2).max() < 5 * error


def plain_bags(labels: list[int], size: int, boundary: str, tail: str) -> list[list[int]]:
    if boundary == "split":
        pieces = [[row] for row in range(len(labels))]
    else:
        pieces = []
        for row, label in enumerate(labels):
            if row and labels[row - 1] == label:
                pieces[-1].append(row)
            else:
                pieces.append([row])
    result: list[list[int]] = []
    for piece in pieces:
        if not result or len(result[-1]) + len(piece) > size:
            result.append([])
        result[-1] += piece
    if tail == "drop" and result and len(result[-1]) < size:
        result.pop()
    return result


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(1, 4), max_size=30),
    st.integers(4, 12),
    st.sampled_from(["keep", "split"]),
    st.sampled_from(["keep", "drop"]),
)
def test_bags_equal_the_definition(runs: list[int], size: int, boundary: Any, tail: Any) -> None:
    labels = [label for label, count in enumerate(runs) for _ in range(count)]
    seq = pl.DataFrame(
        {"key": range(len(labels)), "label": labels}, schema={"key": pl.Int64, "label": pl.Int64}
    )
    found = list(ft.bags(seq, size, boundary, tail))
    assert [bag.rows["key"].to_list() for bag in found] == plain_bags(labels, size, boundary, tail)
    assert [bag.number for bag in found] == list(range(len(found)))


def test_an_epoch_uses_every_identity_and_cuts_none() -> None:
    seq = ft.triplet_seq(identity_index(100, 7), 5)
    found = list(ft.bags(seq, 42))
    assert sum(bag.rows.height for bag in found) == 500
    assert all(bag.rows.height <= 42 for bag in found)
    owners = [set(bag.rows["label"]) for bag in found]
    assert sum(len(owner) for owner in owners) == len(set().union(*owners)) == 100


@pytest.mark.parametrize("at", [0, 1, 2])
def test_identity_larger_than_a_bag_is_named(at: int) -> None:
    runs = [2, 2, 2]
    runs[at] = 5
    labels = [10 + label for label, count in enumerate(runs) for _ in range(count)]
    seq = pl.DataFrame({"key": range(len(labels)), "label": labels})
    with pytest.raises(
        ValueError, match=f"identity {10 + at} has more images .* bag_size of 4: raise bag_size"
    ):
        list(ft.bags(seq, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ft.triplet_seq(pl.DataFrame({"key": [1]})), "columns key and label; label not found"),
        (
            lambda: ft.triplet_seq(identity_index(), 0),
            "images_per_identity must be a whole number >= 1, not 0",
        ),
        (lambda: ft.triplet_seq(identity_index(), 5, seed=-1), "seed must be a whole number >= 0"),
        (lambda: ft.triplet_seq(identity_index(), 5, epoch=0.5), "epoch must be a whole number"),  # type: ignore[arg-type]
        (lambda: ft.triplet_seq(identity_index(), epoch=2**64), "epoch must be a whole number up to"),
        (lambda: ft.triplet_seq("train.rec"), "index must be a DataFrame of polars, not a str"),  # type: ignore[arg-type]
        (
            lambda: ft.triplet_seq(identity_index().with_columns(label=pl.col("label") + 0.5)),
            "the index must have integers, and no nulls, in the column 'label', not Float64",
        ),
        (
            lambda: ft.triplet_seq(identity_index().with_columns(label=pl.lit(None, pl.Int64))),
            "the index must have integers, and no nulls, in the column 'label', not Int64 with nulls",
        ),
        (
            lambda: ft.triplet_seq(identity_index().with_columns(label=pl.lit(2**63, pl.UInt64))),
            r"the index must have integers, and no nulls, in the column 'label', not UInt64 from 2\^63 on",
        ),
        (
            lambda: ft.triplet_seq(identity_index().with_columns(file=pl.lit("a"))),
            "the index must have integers, and no nulls, in the column 'file', not String",
        ),
        (lambda: list(ft.bags(identity_index().lazy())), "seq must be a DataFrame of polars, not a Lazy"),  # type: ignore[arg-type]
        (lambda: list(ft.bags(identity_index().drop("label"))), "needs the columns label; label not found"),
        (lambda: list(ft.bags(identity_index(), None)), "bag_size must be a whole number >= 1, not None"),  # type: ignore[arg-type]
        (lambda: list(ft.bags(identity_index(), 0)), "bag_size must be a whole number >= 1"),
        (lambda: list(ft.bags(identity_index(), 10, "cut")), "boundary must be one of 'keep', 'split', not"),  # type: ignore[arg-type]
        (lambda: list(ft.bags(identity_index(), 10, tail="use")), "tail must be one of 'keep', 'drop'"),  # type: ignore[arg-type]
    ],
)
def test_bad_options_are_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
