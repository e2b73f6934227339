"""Feeds of several processes: together they hand out what one would, and none of them fails alone."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.run._group import Alone
from tests.run.leftovers import collected, nothing_left
from tests.run.plain_feed import EVERYTHING, Pictures, Plain, PlainBatch, Rows, ids_of
from tests.run.test_feed_batches import minings, sharded, written
from tests.run.test_feed_state import same, stored
from tests.run.thread_group import ThreadGroup, in_threads, results
from tests.small_rec import Table, identities, random_table, write_rec

Triplet = tuple[int, int, int]


class PlainGroup:
    """The batches that each process must hand out, triplet by triplet."""

    def __init__(self, plain: Plain, size: int) -> None:
        self.plain, self.size = plain, size
        self.waiting: list[list[Triplet]] = [[] for _ in range(size)]
        self.batches: list[list[PlainBatch]] = [[] for _ in range(size)]
        index = ft.index_rec(plain.rec, labels="shared")
        last = (0, 0)
        for epoch in range(plain.epochs):
            gained = 0
            seq = ft.triplet_seq(index, plain.images_per_identity, plain.seed, epoch)
            for bag in ft.bags(seq, plain.bag_size, plain.boundary, plain.tail):
                mined = plain.mine(bag, epoch)
                if mined:
                    last = epoch, bag.number
                    self.deal(mined, self.holders(bag))
                full = min(map(len, self.waiting)) // (plain.batch_size // 3)
                gained += full if plain.tail == "drop" else len(mined)
                for _ in range(full):
                    self.cut(plain.batch_size // 3, last)
                if plain.tail == "drop":
                    self.waiting = [[] for _ in range(size)]
            if not gained:
                break
        if all(self.waiting):
            self.cut(plain.batch_size // 3, last)

    def holders(self, bag: ft.Bag) -> dict[int, int]:
        """The process that embeds each image."""
        labels = bag.rows["label"].to_list()
        starts = [0, *(i for i in range(1, len(labels)) if labels[i] != labels[i - 1]), len(labels)]
        cuts = [min(starts, key=lambda at: abs(at - len(labels) * r / self.size)) for r in range(self.size)]
        return {
            id_: max(rank for rank, cut in enumerate(cuts) if cut <= at)
            for at, id_ in enumerate(ids_of(bag.rows).tolist())
        }

    def deal(self, mined: list[Triplet], holders: dict[int, int]) -> None:
        total = sum(map(len, self.waiting)) + len(mined)
        surplus: list[Triplet] = []
        for rank, waiting in enumerate(self.waiting):
            waiting += [triplet for triplet in mined if holders[triplet[0]] == rank]
            wanted = total // self.size + (rank < total % self.size)
            surplus += waiting[wanted:]
            del waiting[wanted:]
        for rank, waiting in enumerate(self.waiting):
            while len(waiting) < total // self.size + (rank < total % self.size):
                waiting.append(surplus.pop(0))
        assert not surplus

    def cut(self, size: int, last: tuple[int, int]) -> None:
        for waiting, batches in zip(self.waiting, self.batches, strict=True):
            batches.append(PlainBatch(waiting[:size], *last))
            del waiting[:size]


@pytest.mark.heavy
@settings(max_examples=40, deadline=None)
@given(data=st.data(), size=st.integers(1, 4))
def test_batches_are_those_of_the_plain_computation(data: st.DataObject, size: int) -> None:
    shards, damaged = data.draw(sharded())
    images_per_identity = data.draw(st.integers(1, 6))
    with tempfile.TemporaryDirectory() as folder:
        paths = written(Path(folder), shards, damaged)
        plain = Plain(
            paths,
            Rows(len(shards), 60, 8, data.draw(st.integers(0, 9))),
            batch_size=3 * data.draw(st.integers(1, 12)),
            epochs=data.draw(st.integers(1, 3)),
            images_per_identity=images_per_identity,
            bag_size=data.draw(st.integers(images_per_identity, 30)),
            boundary=data.draw(st.sampled_from(["keep", "split"])),
            tail=data.draw(st.sampled_from(["keep", "drop"])),
            damaged=damaged,
            mining=data.draw(minings),
        )
        augment = data.draw(st.sampled_from([None, EVERYTHING]))
        mined = sum(plain.in_bags)
        expected = PlainGroup(plain, size)
        pictures = Pictures(plain.rec)

        def work(group: ThreadGroup) -> list[ft.TripletBatch]:
            batches = []
            try:
                with ft.Feed(
                    paths, labels="shared", model=plain.model, augment=augment, group=group,
                    on_error="skip" if damaged else "raise", threads=1, **plain.options(),
                ) as feed:  # fmt: skip
                    for batch in feed:
                        batches.append(batch)  # noqa: PERF402 - those before an error count
            except ft.NoTripletsError:
                assert plain.ended or not expected.batches[0]
            else:
                assert feed.summary.triplets == mined
            return batches

        with nothing_left():
            found = results(size, work)
        assert len({len(batches) for batches in found}) == 1
        for batches, plain_batches in zip(found, expected.batches, strict=True):
            assert len(batches) == len(plain_batches)
            for batch, plain_batch in zip(batches, plain_batches, strict=True):
                pictures.check(batch, plain_batch, augment, plain.seed)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_together_they_have_the_triplets_of_one(rec: Path, size: int) -> None:
    options: dict[str, Any] = {"model": random_table(), "bag_size": 15, "batch_size": 9, "band": "any"}
    alone = list(ft.Feed(rec, **options))
    found = results(size, lambda group: list(ft.Feed(rec, group=group, **options)))
    triplets = [tuple(triplet) for one in found for batch in one for triplet in batch.ids.reshape(3, -1).T]
    expected = [tuple(triplet) for batch in alone for triplet in batch.ids.reshape(3, -1).T]
    assert sorted(triplets) == sorted(expected)
    assert len(expected) == 120
    if size == 1:
        assert all(map(same, found[0], alone))


class Counting(Table):
    """Records the keys that it embeds."""

    needs_images = True

    def __init__(self) -> None:
        super().__init__(random_table().rows)
        self.keys: list[int] = []

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        assert images is not None
        self.keys += rows["key"].to_list()
        return super().embed(rows, None)


def test_each_image_is_embedded_once(rec: Path, caplog: pytest.LogCaptureFixture) -> None:
    def work(group: ThreadGroup) -> tuple[list[int], ft.Summary]:
        model = Counting()
        with ft.Feed(rec, model=model, bag_size=30, batch_size=9, group=group) as feed:
            for _ in feed:
                assert 8 <= feed.images_of_bag <= 12
        return model.keys, feed.summary

    with caplog.at_level(logging.INFO, logger="fasttriplet"):
        found = results(3, work)
    keys = [keys for keys, _ in found]
    assert len(set(chain(*keys))) == 60
    assert list(map(len, keys)) == [20, 20, 20]
    assert len(caplog.messages) == 3  # of one process: the dataset, and two bags
    for _, summary in found:
        assert (summary.images, summary.bags) == (60, 2)
        assert summary.seconds["gather"] > 0
        assert summary.seconds["fetch"] > 0  # negatives that others embedded


# States


@pytest.mark.heavy
@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(2, 3),
    batch_size=st.sampled_from([3, 6, 18, 60]),
    bag_size=st.sampled_from([12, 30, 72]),
    tail=st.sampled_from(["keep", "drop"]),
    epochs=st.sampled_from([1, 3, None]),
    behind=st.integers(0, 25),
)
def test_the_rest_is_the_same(rec: Path, size: int, behind: int, **options: Any) -> None:
    def run(group: ThreadGroup, state: Any, most: int) -> tuple[list[ft.TripletBatch], dict[str, Any]]:
        model = random_table()
        with ft.Feed(rec, model=model, group=group, state=state, threads=1, **options) as feed:
            found = list(islice(feed, most))
            return found, stored(feed.state_dict())

    def errors_are_none(found: list[Any]) -> list[Any] | None:
        if any(isinstance(one, ft.NoTripletsError) for one in found):
            return None
        assert not [one for one in found if isinstance(one, BaseException)], found
        return found

    expected = errors_are_none(in_threads(size, lambda group: run(group, None, behind + 10)))
    if expected is None:
        return
    first = results(size, lambda group: run(group, None, behind))
    states = [state for _, state in first]
    assert all(np.array_equal(state["triplets"], states[0]["triplets"]) for state in states)
    assert len({str({**state, "triplets": None}) for state in states}) == 1
    state = states[0]  # that of one process is that of all
    rest = results(size, lambda group: run(group, state, behind + 10 - len(first[0][0])))
    for (before, _), (after, _), (all_, _) in zip(first, rest, expected, strict=True):
        assert len(before) + len(after) == len(all_)
        assert all(map(same, before + after, all_))


def test_a_state_of_other_processes(rec: Path) -> None:
    options: dict[str, Any] = {"model": random_table(), "bag_size": 36, "batch_size": 6}

    def state_of(group: Any) -> dict[str, Any]:
        with ft.Feed(rec, group=group, **options) as feed:
            next(feed)
            return feed.state_dict()

    alone, of_two = state_of(None), results(2, state_of)[0]
    message = "state is of a training in {} processes, and this one has {}"
    for error in in_threads(2, lambda group: ft.Feed(rec, group=group, state=alone, **options)):
        assert message.format(1, 2) in str(error)
    for error in in_threads(3, lambda group: ft.Feed(rec, group=group, state=of_two, **options)):
        assert message.format(2, 3) in str(error)
    with pytest.raises(ft.OptionError, match=message.format(2, 1)):
        ft.Feed(rec, state=of_two, **options)
    del alone["arguments"]["processes"]  # as those of earlier versions
    ft.Feed(rec, state=alone, **options).close()


# Failures


def fails(size: int, work: Callable[[ThreadGroup], object], failing: int) -> tuple[BaseException, set[str]]:
    """The error of the process that fails, and the messages of all others, which are PeerErrors."""
    with nothing_left():
        found = in_threads(size, work)
    own = found.pop(failing)
    assert isinstance(own, BaseException)
    assert not isinstance(own, ft.PeerError), own
    assert all(isinstance(one, ft.PeerError) for one in found), found
    return own, {str(one) for one in found}


class Broken(Table):
    """Raises, or gives something wrong, in one process."""

    def __init__(self, at: int, result: Any = None) -> None:
        super().__init__(random_table().rows)
        self.at, self.result = at, result

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        self.at -= 1
        if self.at >= 0:
            return super().embed(rows, images)
        if self.result is None:
            raise ZeroDivisionError("broken")
        chosen: NDArray[np.float32] = self.result(super().embed(rows, images))
        return chosen


OPTIONS: dict[str, Any] = {"bag_size": 15, "batch_size": 9, "threads": 1}


@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("failing", [0, 2])
def test_an_embedder_that_raises(rec: Path, at: int, failing: int) -> None:
    def work(group: ThreadGroup) -> None:
        model = Broken(at) if group.rank == failing else random_table()
        list(ft.Feed(rec, model=model, group=group, **OPTIONS))

    own, others = fails(3, work, failing)
    assert isinstance(own, ZeroDivisionError)
    assert others == {f"process {failing} failed: ZeroDivisionError: broken"}


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda rows: rows[:, None], "expected a vector for each of 5 images"),
        (lambda rows: rows * np.nan, "holds NaN or infinity"),
    ],
)
def test_embeddings_of_another_kind(rec: Path, result: Any, message: str) -> None:
    def work(group: ThreadGroup) -> None:
        model = Broken(0, result) if group.rank == 1 else random_table()
        list(ft.Feed(rec, model=model, group=group, **OPTIONS))

    own, others = fails(3, work, 1)
    assert message in str(own)
    assert others == {f"process 1 failed: ValueError: {own}"}


def test_embeddings_of_different_lengths(rec: Path) -> None:
    def work(group: ThreadGroup) -> None:
        model = Broken(0, lambda rows: rows[:, :8]) if group.rank == 1 else random_table()
        list(ft.Feed(rec, model=model, group=group, **OPTIONS))

    for error in in_threads(2, work):
        assert str(error) == "a table: vectors of 8 numbers in process 1, and of 16 in process 0"


def test_a_damaged_image_ends_all(tmp_path: Path) -> None:
    """It is in the share of one process."""
    rec = write_rec(tmp_path / "train.rec", identities(12, 6), frozenset({40}))
    found = in_threads(
        3, lambda group: list(ft.Feed(rec, model=random_table(), group=group, images_per_identity=6))
    )
    failing = next(rank for rank, error in enumerate(found) if isinstance(error, ft.RecordError))
    assert {str(one) for one in found if isinstance(one, ft.PeerError)} == {
        f"process {failing} failed: RecordError: {found[failing]}"
    }


def test_the_users_step_fails_or_leaves(rec: Path) -> None:
    def work(group: ThreadGroup, how: str) -> None:
        with ft.Feed(rec, model=random_table(), group=group, **OPTIONS) as feed:
            for number, _ in enumerate(feed):
                if group.rank == 1 and number == 1:
                    if how == "raise":
                        raise KeyError("of the step")
                    return
            if group.rank == 1:
                pytest.fail("it has left")

    own, others = fails(3, lambda group: work(group, "raise"), 1)
    assert isinstance(own, KeyError)
    assert others == {"process 1 failed: KeyError: 'of the step'"}
    found = in_threads(3, lambda group: work(group, "break"))
    assert found[1] is None
    assert {str(found[rank]) for rank in (0, 2)} == {"process 1 closed its feed before the end"}


def test_feeds_that_are_not_begun(rec: Path) -> None:
    def work(group: ThreadGroup) -> int:
        with ft.Feed(rec, model=random_table(), group=group, **OPTIONS) as feed:
            return len(list(feed)) if group.rank else 0

    found = in_threads(2, work)
    assert found[0] == 0
    assert str(found[1]) == "process 0 closed its feed before the end"


def test_a_feed_that_nobody_holds_any_more(rec: Path) -> None:
    """It tells the other processes that it has ended, as one that is closed does."""

    def work(group: ThreadGroup) -> None:
        feed = ft.Feed(rec, model=random_table(), group=group, **OPTIONS)
        next(feed)
        if group.rank == 1:
            del feed
            collected()
            return
        list(feed)

    found = in_threads(2, work)
    assert found[1] is None
    assert str(found[0]) == "process 1 closed its feed before the end"


class Told(Alone):
    """A group of one process, and the reasons with which it leaves."""

    def __init__(self) -> None:
        self.reasons: list[str | None] = []

    def leave(self, reason: str | None) -> None:
        self.reasons.append(reason)


def test_with_which_words_a_feed_leaves(rec: Path) -> None:
    """The first ones count: at the end nothing, as nobody waits any more."""
    ended, closed, failed = Told(), Told(), Told()
    with ft.Feed(rec, model=random_table(), group=ended, **OPTIONS) as feed:
        list(feed)
    with ft.Feed(rec, model=random_table(), group=closed, **OPTIONS) as feed:
        next(feed)
    with pytest.raises(ZeroDivisionError), ft.Feed(rec, model=Broken(1), group=failed, **OPTIONS) as feed:
        list(feed)
    assert [group.reasons[0] for group in (ended, closed, failed)] == [
        None, "closed its feed before the end", "failed: ZeroDivisionError: broken",
    ]  # fmt: skip


def test_processes_that_disagree(rec: Path, tmp_path: Path) -> None:
    def message(**of_second: Any) -> str:
        def work(group: ThreadGroup) -> None:
            options: dict[str, Any] = {"rec": rec, "batch_size": 9, **(of_second if group.rank else {})}
            ft.Feed(model=random_table(), group=group, **options)

        first, second = in_threads(2, work)
        assert str(second) in str(first)
        return str(first)

    assert message(batch_size=12) == "batch_size must be the same in processes 0 and 1 of the group: 9 and 12"
    assert message(epochs=3) == "epochs must be the same in processes 0 and 1 of the group: 1 and 3"
    assert message(first_epoch=3).startswith("first_epoch must be the same in processes 0 and 1")
    other = write_rec(tmp_path / "train.rec", identities(12, 5))
    assert message(rec=other) == "dataset must be the same in processes 0 and 1 of the group"
    assert message(rec=tmp_path / "no.rec").startswith("process 1 failed: FileNotFoundError")


@pytest.mark.filterwarnings("ignore::fasttriplet.CollapseWarning")
def test_what_all_find_out_is_the_error_of_all(rec: Path) -> None:
    def work(group: ThreadGroup, **options: Any) -> None:
        list(ft.Feed(rec, group=group, **options))

    ones = Table(np.ones((80, 4), np.float32))
    for error in in_threads(2, lambda group: work(group, model=ones)):
        assert isinstance(error, ft.CollapsedError)
    for error in in_threads(2, lambda group: work(group, model=random_table(), batch_size=3000, tail="drop")):
        assert isinstance(error, ft.NoTripletsError)


def test_fewer_triplets_than_processes(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", {1: 0, 2: 0, 3: 1})
    options: dict[str, Any] = {"model": random_table(), "band": "any"}
    assert len(list(ft.Feed(rec, **options))) == 1
    for error in in_threads(2, lambda group: list(ft.Feed(rec, group=group, **options))):
        assert isinstance(error, ft.NoTripletsError)
        assert str(error) == "only 1 triplet for 2 processes of the group"
