"""What a run tells of how far it is, and the memory that it asks for before it takes it."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from tests.run.machines import Disorderly, in_place_of_ray
from tests.run.plain_feed import Watched
from tests.run.test_whole import SMALL, dataset
from tests.small_rec import identities, random_table

BAGS: dict[str, Any] = {"bag_size": 20, "epochs": 2, "band": "any", "images_per_identity": 4}


def of_bags(rec: Path, **how: Any) -> tuple[list[ft.Progress], ft.Summary]:
    """What is told of 12 identities of 4 images, in 3 bags of 20, 20 and 8."""
    told: list[ft.Progress] = []
    summary = ft.mine_rec(rec, model=random_table(), progress=told.append, **BAGS | how).summary
    assert (summary.images, summary.bags) == (96, 6)
    for now in told:
        assert (now.epochs, now.bags, now.images_in_all, now.steps, now.steps_in_all) == (2, 3, 96, 0, 0)
    for name in ("images", "triplets", "bags_mined"):
        counts = [getattr(now, name) for now in told]
        assert counts == sorted(counts)
    places = [(now.epoch, now.bag) for now in told]
    assert places == sorted(places)
    assert (places[0], places[-1]) == ((1, 1), (2, 3))
    assert (told[0].images, told[0].triplets, told[0].bags_mined) == (0, 0, 0)
    assert (told[-1].images, told[-1].triplets, told[-1].bags_mined) == (96, summary.triplets, 6)
    return told, summary


def test_of_bags(rec: Path) -> None:
    told, _ = of_bags(rec)
    ends = [0, 20, 40, 48, 68, 88, 96]
    assert {now.images for now in told} == {*ends}
    for now in told[1:]:  # a bag is mined while the next one is embedded
        assert now.images in (ends[3 * now.epoch + now.bag - 3], 0)
        assert now.bags_mined <= ends.index(now.images)


def test_of_bags_on_machines(rec: Path) -> None:
    """The bag that is told is the first that is not done."""
    for seed in range(3):
        with in_place_of_ray(Disorderly(seed, 2)):
            told, _ = of_bags(rec, ray="disorderly")
        assert len(told) == 7
        for before, now in pairwise(told):
            assert now.images - before.images in (8, 20)  # one bag more, whichever
            # Those before the one that is told are taken, but the last one of all.
            assert now.bags_mined == 3 * now.epoch + now.bag - 4 or now is told[-1]


def test_of_a_whole_dataset(tmp_path: Path) -> None:
    rec, file = dataset(tmp_path, identities(80, 4))
    told: list[ft.Progress] = []
    how: dict[str, Any] = {"bag_size": None, "memory": SMALL, "progress": told.append}
    found = ft.mine_rec(rec, model=f"npy:{file}", **how).summary
    steps = told[-1].steps
    assert steps > 10
    assert [*dict.fromkeys(now.steps for now in told)] == [*range(steps + 1)]
    counts = [now.triplets for now in told]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, found.triplets)
    one = ft.Progress(1, 1, 1, 1, 320, 320, 0, 0, 0, steps)
    assert [replace(now, steps=0, triplets=0) for now in told] == [one] * len(told)
    assert (found.epochs, found.bags, found.images) == (1, 1, 320)
    told.clear()
    ft.mine_rec(rec, model="pixels", bag_size=None, margin=1.0, progress=told.append)
    assert told[:2] == [ft.Progress(1, 1, 1, 1, done, 320, 0, 0) for done in (0, 320)]
    assert told[2:]
    assert all(now.steps_in_all for now in told[2:])


def test_memory_is_asked_for_what_is_made(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, int] = {}
    monkeypatch.setattr("fasttriplet._core.probe_memory", lambda size, what: asked.update({what: size}))
    each = []
    for bag_size in (20, 48):
        asked.clear()
        ft.mine_rec(rec, model=random_table(), **BAGS | {"bag_size": bag_size, "epochs": 1})
        rows = {
            int(what.split()[-2].replace(",", "")): size for what, size in asked.items() if "rows" in what
        }
        each += [size / triplets for triplets, size in rows.items() if triplets]
    assert len(set(each)) == 1
    assert len(each) > 1
    assert each[0] > 9 * 4  # nine columns
    with ft.Feed(rec, model=random_table(), bag_size=20, band="any", neighbors="running") as feed:
        next(feed)
    assert asked["running means of 12 identities"] == 12 * 16 * 4


def test_a_speed_is_that_of_the_images_of_this_run(tmp_path: Path) -> None:
    done = ft.Embedded(
        out=tmp_path / "e.npy", files=["a.rec"], embedder="x", images=100, size=3, dtype="float32", bytes=9,
        skipped=[], resumed_after=40, seconds={"decode": 3.0, "embed": 0.0, "total": 9.0},
    )  # fmt: skip
    speeds = [done.images_per_second(stage) for stage in ("decode", "embed", "write")]
    assert speeds == [20.0, None, None]
    assert replace(done, resumed_after=100).images_per_second("decode") is None
    assert done.to_dict()["images_per_second"] == {"decode": 20.0, "embed": None}


def test_where_time_stands_still_nothing_takes_any(
    rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 1000.0)
    done = ft.embed_rec(rec, model="pixels", out=tmp_path / "e.npy")
    assert done.seconds == dict.fromkeys(("index", "decode", "embed", "write", "total"), 0.0)


def test_a_feed_is_not_closed_while_another_thread_waits(rec: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def waits(_: int) -> None:
        begun.set()
        assert go_on.wait(20)

    feed = ft.Feed(rec, model=Watched(random_table().rows, waits), bag_size=15, epochs=1)
    thread = threading.Thread(target=lambda: next(feed))
    thread.start()
    assert begun.wait(20)
    with pytest.raises(RuntimeError, match="another thread is waiting for a batch; close the Feed there"):
        feed.close()
    for wait in (feed.__next__, feed.one_epoch().__next__):
        with pytest.raises(
            RuntimeError, match="another thread is waiting for a batch; iterate over a Feed in"
        ):
            wait()
    go_on.set()
    thread.join(20)
    feed.close()
    assert next(feed, None) is None


def test_states_that_do_not_fit_the_dataset(rec: Path) -> None:
    how: dict[str, Any] = {"model": random_table(), "bag_size": 15, "batch_size": 9, "epochs": 2}
    with ft.Feed(rec, **how) as feed:
        next(feed)
        state = feed.state_dict()
    with (
        ft.Feed(rec, state=state | {"bag": 5}, **how) as feed,
        pytest.raises(ValueError, match=r"^state: bag is 5, and epoch 0 has 4 bags$"),
    ):
        list(feed)
    none = np.empty((0, 3), np.int64)
    with ft.Feed(rec, state=state | {"bag": 4, "triplets": none}, **how) as feed:
        assert next(feed).epoch == 1
    for wrong in (0, 73):
        triplets = np.where(np.arange(9).reshape(3, 3) == 4, wrong, 1 + np.arange(9).reshape(3, 3))
        with (
            ft.Feed(rec, state=state | {"triplets": triplets}, **how) as feed,
            pytest.raises(ValueError, match=rf"^state: {rec} has no image with the id {wrong}, of which"),
        ):
            next(feed)
