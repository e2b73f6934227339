"""A feed resumes after any batch, with the batches that it would have handed out."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fasttriplet as ft
from fasttriplet.run._place import Place
from tests.small_rec import identities, random_table, write_rec

TABLE = random_table()


def stored(state: dict[str, Any]) -> dict[str, Any]:
    """The state as it comes back from a file."""
    numbers = json.dumps({name: value for name, value in state.items() if name != "triplets"})
    return {**json.loads(numbers), "triplets": state["triplets"].copy()}


def same(one: ft.TripletBatch, other: ft.TripletBatch) -> bool:
    arrays = all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("images", "labels", "ids")
    )
    return arrays and (one.epoch, one.bag) == (other.epoch, other.bag)


@settings(max_examples=40, deadline=None)
@given(
    batch_size=st.sampled_from([6, 12, 18, 60, 240]),
    devices=st.sampled_from([1, 2]),
    bag_size=st.sampled_from([12, 20, 30, 72]),
    band=st.sampled_from(["semihard", "violating", "hard"]),
    tail=st.sampled_from(["keep", "drop"]),
    epochs=st.sampled_from([1, 3, None]),
    first_epoch=st.sampled_from([0, 2]),
    mirror=st.booleans(),
    behind=st.integers(0, 40),
    again=st.integers(0, 10),
)
def test_the_rest_is_the_same(rec: Path, mirror: bool, behind: int, again: int, **options: Any) -> None:
    options["augment"] = ft.Augment(mirror=mirror)

    def run(state: dict[str, Any] | None, most: int) -> tuple[list[ft.TripletBatch], dict[str, Any], bool]:
        found = []
        with ft.Feed(rec, model=TABLE, state=state, **options) as feed:
            try:
                found = list(islice(feed, most))
                nothing = False
            except ft.NoTripletsError:
                nothing = True
            return found, stored(feed.state_dict()), nothing

    expected, _, nothing = run(None, behind + again + 30)
    if nothing:
        return
    first, state, _ = run(None, behind)
    second, state, _ = run(state, again)  # which may be no batch at all
    rest, _, nothing = run(state, behind + again + 30 - len(first) - len(second))
    assert not nothing
    found = first + second + rest
    assert len(found) == len(expected)
    assert all(map(same, found, expected))


def test_what_is_left_of_a_bag_is_named_by_ids(rec: Path) -> None:
    feed = ft.Feed(rec, model=TABLE, batch_size=6, bag_size=36)
    fresh = feed.state_dict()
    assert (fresh["epoch"], fresh["bag"], fresh["triplets"].shape) == (0, 0, (0, 3))
    next(feed)
    state = feed.state_dict()
    rest = list(feed)
    of_bag = [batch.ids.reshape(3, -1).T for batch in rest if batch.bag == 0]
    assert (state["epoch"], state["bag"], state["triplets_bag"]) == (0, 1, 0)
    assert np.array_equal(state["triplets"][: 2 * len(of_bag)], np.concatenate(of_bag))
    assert len(feed.state_dict()["triplets"]) == 0  # at the end


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"seed": 1}, "state is of a Feed with seed 0, and this one has 1"),
        ({"augment": ft.Augment(cutoff=3)}, "with augment None"),
        ({"bag_size": 30}, "with bag_size 36, and this one has 30"),
    ],
)
def test_arguments_must_be_the_same(rec: Path, change: dict[str, Any], message: str | None) -> None:
    options: dict[str, Any] = {"batch_size": 6, "bag_size": 36}
    with ft.Feed(rec, model=TABLE, **options) as feed:
        next(feed)
        state = feed.state_dict()
    if message is None:
        ft.Feed(rec, model=TABLE, state=state, threads=1, prefetch=0, **options | change).close()
        return
    with pytest.raises(ValueError, match=message):
        ft.Feed(rec, model=TABLE, state=state, **options | change)


def test_a_state_holds_no_numbers_of_numpy(rec: Path) -> None:
    changes: Any = {"mirror": np.True_, "cutoff": np.int16(3), "brightness": np.float32(0.5)}
    numpy: dict[str, Any] = {
        **{
            "batch_size": np.int64(12),
            "devices": np.uint8(2),
            "first_epoch": np.int32(1),
            "seed": np.uint64(3),
        },
        **{"margin": np.float32(0.25), "normalize": np.False_, "band": np.str_("violating")},
        "augment": ft.Augment(**changes),
    }
    python = {name: value.item() for name, value in numpy.items() if name != "augment"}
    python["augment"] = ft.Augment(mirror=True, cutoff=3, brightness=0.5)
    states = []
    for options in (numpy, python):
        with ft.Feed(rec, model=TABLE, **options) as feed:
            states.append(feed.state_dict())
    texts = [json.dumps({name: value for name, value in one.items() if name != "triplets"}) for one in states]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bag": -1}, "state: bag"),
        ({"bag": 1.5}, "state: bag"),
        ({"triplets": np.zeros((2, 2), np.int64)}, r"triplets must be \(T, 3\) int64"),
        ({"triplets": np.zeros((2, 3))}, r"triplets must be \(T, 3\) int64"),
        ({"more": 1}, "what state_dict"),
        ({"arguments": ["seed", 0]}, "what state_dict"),
    ],
)
def test_a_state_that_is_none(rec: Path, change: dict[str, Any], message: str) -> None:
    with ft.Feed(rec, model=TABLE) as feed:
        state = feed.state_dict()
    with pytest.raises(ValueError, match=message):
        ft.Feed(rec, model=TABLE, state=state | change)


@pytest.mark.parametrize("state", [7, "a file", ["epoch", "bag"]])
def test_what_is_no_mapping_is_no_state(rec: Path, state: Any) -> None:
    with pytest.raises(ValueError, match=r"^state must be what state_dict"):
        ft.Feed(rec, model=TABLE, state=state)


def test_of_another_dataset(rec: Path, tmp_path: Path) -> None:
    with ft.Feed(rec, model=TABLE) as feed:
        state = feed.state_dict()
    other = write_rec(tmp_path / "other.rec", identities(10, 6))
    with pytest.raises(ft.OptionError, match="state is of another dataset: its keys, labels or sizes"):
        ft.Feed(other, model=TABLE, state=state)


def test_processes_that_begin_at_different_places_notice_it() -> None:
    """They compare the digests."""
    place = Place(0, 0, triplets=np.array([[1, 2, 3]]))
    names = ("epoch", "bag", "sound_bags", "triplets_epoch", "triplets_bag")
    changes: list[dict[str, Any]] = [{name: 1} for name in names]
    changes += [{"triplets": np.array(triplets)} for triplets in ([[1, 3, 2]], [[1, 2, 3]] * 2)]
    digests = {place.digest, *(replace(place, **change).digest for change in changes)}
    assert len(digests) == 8
    assert replace(place, triplets=place.triplets.copy()).digest == place.digest


def test_images_that_are_gone(rec: Path) -> None:
    with ft.Feed(rec, model=TABLE) as feed:
        state = feed.state_dict() | {"triplets": np.array([[1, 2, 99]])}
    with (
        ft.Feed(rec, model=TABLE, state=state) as feed,
        pytest.raises(ValueError, match="no image with the id 99"),
    ):
        next(feed)


# What a state of an earlier version does not have, as it was then, and another value.
SINCE = [
    ("metric", "sqeuclidean", "cosine"),
    ("processes", 1, 2),
    ("exclude", None, "ab"),
    ("neighbors", None, "ab"),
    ("random_share", 0.0, 0.5),
    ("refresh_epochs", 1, 2),
]


@pytest.mark.parametrize(("name", "then", "other"), SINCE, ids=[name for name, *_ in SINCE])
def test_a_state_of_an_earlier_version(rec: Path, name: str, then: Any, other: Any) -> None:
    with ft.Feed(rec, model=TABLE, batch_size=6, bag_size=20, band="any") as feed:
        next(feed)
        state = feed.state_dict()
    arguments = state["arguments"]
    assert arguments[name] == then
    del (old := {**state, "arguments": {**arguments}})["arguments"][name]
    assert Place.of(old, arguments).bag == state["bag"]
    with pytest.raises(ValueError, match=name):
        Place.of(old, {**arguments, name: other})
