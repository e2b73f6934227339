"""How a feed ends: by errors, damaged records or epochs without a triplet; and it leaves nothing behind."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from tests.run.leftovers import alarm, collected, is_open, nothing_left, threads
from tests.run.plain_feed import (
    Pictures,
    Rows,
    Watched,
    bags_of,
    plain_of,
    stop,
)
from tests.small_rec import Table, identities, picture, random_table, write_rec

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt(), SystemExit()])
def test_an_exception_of_the_embedder(rec: Path, error: BaseException, at: int, prefetch: int) -> None:
    plain = plain_of(rec)
    batches = []
    with nothing_left():
        feed = ft.Feed(
            rec, model=Watched(plain.model.rows, stop(error, at)), prefetch=prefetch, **plain.options()
        )
        with pytest.raises(type(error)) as caught:
            for batch in feed:
                batches.append(batch)  # noqa: PERF402 - those before the error count
        assert caught.value is error
        assert threads() == []
        with pytest.raises(StopIteration):
            next(feed)
    assert len(batches) == len([None for batch in plain.batches if batch.bag < at - 1])


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("bag", [0, 1, 3])
def test_a_damaged_record(rec: Path, tmp_path: Path, bag: int, prefetch: int) -> None:
    """The batches before the damaged record come first."""
    key = bags_of(rec)[bag][7]
    bad = write_rec(tmp_path / "train-bad.rec", identities(12, 6), frozenset({key}))
    plain = plain_of(rec)
    batches = []
    with nothing_left():
        feed = ft.Feed(bad, model=plain.model, prefetch=prefetch, **plain.options())
        with pytest.raises(ft.RecordError, match=rf"{bad}, key {key}, offset \d+") as caught:
            for batch in feed:
                batches.append(batch)  # noqa: PERF402 - those before the error count
        assert caught.value.key == key
        assert threads() == []
        with pytest.raises(StopIteration):
            next(feed)
    pictures = Pictures(rec)
    for found, expected in zip(batches, plain.batches, strict=False):
        pictures.check(found, expected, None, plain.seed)
    assert len(batches) == len([None for batch in plain.batches if batch.bag < bag])


def test_a_record_of_a_second_file_that_is_damaged(tmp_path: Path) -> None:
    shards = [
        write_rec(tmp_path / "train-0.rec", {1: 0, 2: 0, 3: 1}),
        write_rec(tmp_path / "train-1.rec", {1: 1, 2: 2, 3: 2}, frozenset({2})),
    ]
    with nothing_left(), pytest.raises(ft.RecordError, match=rf"{shards[1]}, key 2, offset"):
        next(ft.Feed(shards, model=Rows(2, 9, 4, 0)))


def test_an_image_of_another_size(rec: Path, tmp_path: Path) -> None:
    labels = identities(12, 6)
    with ft.RecordWriter(tmp_path / "train-odd.rec") as writer:
        for key, label in labels.items():
            content = picture(1000 * label + key, side=32 if key == 40 else 24)
            writer.write(key, ft.IRHeader(0, float(label), key, 0), content)
    odd = tmp_path / "train-odd.rec"
    with nothing_left(), pytest.raises(ft.RecordError, match=rf"{odd}, key 40, .*32 x 32 pixels .*24 x 24"):
        list(ft.Feed(odd, model=random_table(), images_per_identity=6))
    plain = plain_of(rec, damaged=frozenset({40}), images_per_identity=6, bag_size=18, epochs=2)
    with nothing_left():
        feed = ft.Feed(odd, model=plain.model, on_error="skip", **plain.options())
        batches = list(feed)
    pictures = Pictures(rec)
    for batch, expected in zip(batches, plain.batches, strict=True):
        pictures.check(batch, expected, None, plain.seed)
    assert len(feed.summary.skipped) == 1  # of two epochs
    assert "key 40" in feed.summary.skipped[0]


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("how", ["close", "with", "body raises", "del", "end", "not begun"])
def test_nothing_is_left(tmp_path: Path, how: str, prefetch: int) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(12, 6))  # which nothing else has open
    plain = plain_of(rec)
    options: dict[str, Any] = plain.options() | {"prefetch": prefetch}
    for taken in (1, len(plain.batches) - 1):
        with nothing_left():
            feed = ft.Feed(rec, model=Watched(plain.model.rows), **options)
            if how == "close":
                assert len(list(islice(feed, taken))) == taken
                assert prefetch == 0 or threads()
                feed.close()
                assert threads() == []
                feed.close()
            elif how == "with":
                with feed as same:
                    assert same is feed
                    list(islice(feed, taken))
            elif how == "body raises":
                with pytest.raises(ZeroDivisionError), feed:
                    list(islice(feed, taken))
                    raise ZeroDivisionError
            elif how == "end":
                list(feed)
            if how in ("close", "with", "body raises", "end"):
                assert threads() == []
                for _ in range(2):
                    with pytest.raises(StopIteration):
                        next(feed)
            else:
                if how == "del":
                    list(islice(feed, taken))
                else:
                    assert threads() == []
                del feed
                collected()
    if how in ("del", "not begun"):
        assert not is_open(rec)


def test_a_with_block_of_a_feed_that_was_not_begun(rec: Path) -> None:
    with nothing_left():
        with ft.Feed(rec, model=random_table()) as feed:
            pass
        with pytest.raises(StopIteration):
            next(feed)


@pytest.mark.filterwarnings("ignore::fasttriplet.CollapseWarning")
@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize(
    ("labels", "options", "why"),
    [
        (identities(3, 4), {"model": Table(np.ones((20, 4), np.float32))}, "nearly equal"),
        (identities(3, 4), {"model": Table(np.ones((20, 4), np.float32)), "bag_size": 8}, "nearly equal"),
        (identities(1, 12), {"images_per_identity": 12}, "one identity"),
        (identities(12, 1), {}, "one image"),
        (identities(3, 4), {"tail": "drop"}, "no bag has 7,200 images"),
        (identities(3, 4), {"tail": "drop", "bag_size": 13, "band": "any"}, "no bag has 13 images"),
        (identities(3, 4), {"band": "any", "max_ap": 0.0}, "max_ap"),
    ],
)
def test_an_epoch_without_a_triplet_is_the_end(
    tmp_path: Path, labels: Mapping[int, int], options: dict[str, Any], why: str, prefetch: int
) -> None:
    rec = write_rec(tmp_path / "train.rec", labels)
    for epochs in (1, None):
        no_triplets(rec, {"model": random_table(20), "prefetch": prefetch, "epochs": epochs} | options, why)


def no_triplets(rec: Path, options: dict[str, Any], why: str) -> None:
    with nothing_left(), alarm():
        if "one i" in why:  # the index says so
            with pytest.raises(ft.NoTripletsError, match=why):
                ft.Feed(rec, **options)
            return
        feed = ft.Feed(rec, **options)
        with pytest.raises(ft.NoTripletsError, match=why):
            next(feed)
        assert threads() == []
        with pytest.raises(StopIteration):
            next(feed)


@pytest.mark.filterwarnings("ignore::fasttriplet.CollapseWarning")
@pytest.mark.parametrize("epochs", [3, None])
def test_a_network_that_collapses_in_training(rec: Path, epochs: int | None) -> None:
    """The first epoch gives triplets; in the second, all embeddings are equal."""
    plain = plain_of(rec, batch_size=3)
    model = Table(plain.model.rows)
    batches = []
    with nothing_left(), alarm():
        feed = ft.Feed(rec, model=model, **plain.options() | {"epochs": epochs})
        with pytest.raises(ft.CollapsedError, match=r"epoch 1, every bag: .* collapsed"):
            for batch in feed:
                batches.append(batch)
                if len(batches) == len(plain.batches):
                    model.rows = np.ones_like(model.rows)
    assert len(batches) == len(plain.batches)
    assert {batch.epoch for batch in batches} == {0}


@pytest.mark.parametrize("epochs", [1, 3, None])
def test_bags_that_never_fill_a_batch_are_no_reason_to_go_on_for_ever(rec: Path, epochs: int | None) -> None:
    """Each bag has triplets, and ``tail="drop"`` drops them."""
    with nothing_left(), alarm(3):
        feed = ft.Feed(rec, model=random_table(), batch_size=3000, bag_size=15, tail="drop", epochs=epochs)
        with pytest.raises(ft.NoTripletsError, match="filled a batch of 1,000 triplets: lower batch_size"):
            next(feed)
        with pytest.raises(StopIteration):
            next(feed)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_feed_stays_where_it_is(rec: Path, way: Callable[[ft.Feed], object]) -> None:
    with nothing_left(), ft.Feed(rec, model=random_table(), batch_size=9) as feed:
        with pytest.raises(
            TypeError, match=r"^a Feed cannot be copied, nor sent to another process, such as a"
        ):
            way(feed)
        assert len(next(feed).ids) == 9
