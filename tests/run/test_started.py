"""Embedders whose device works beside the caller, and those that write into one array again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.run import _stages
from tests.small_rec import Table, identities, random_table, write_rec


class Beside(Table):
    """A table whose device is slow: nothing is done before somebody waits for it."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        super().__init__(rows)
        self.log: list[str] = []

    def start_embedding(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> _Later:
        self.log.append("start")
        return _Later(self, rows, images)


class _Later:
    def __init__(self, table: Beside, *arguments: Any) -> None:
        self._table, self._arguments = table, arguments

    def done(self) -> bool:
        return False

    def result(self) -> NDArray[np.float32]:
        self._table.log.append("result")
        return self._table.embed(*self._arguments)


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    return write_rec(tmp_path / "train.rec", identities(20, 4))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stages, "PART", 8)
    monkeypatch.setattr("fasttriplet.run._bag.PART", 8)


OPTIONS: dict[str, Any] = {"bag_size": 40, "images_per_identity": 4, "band": "any", "pick": "all"}


def test_the_triplets_of_a_run_are_the_same(rec: Path) -> None:
    table = random_table()
    expected = ft.mine_rec(rec, model=table, epochs=2, **OPTIONS)
    found = ft.mine_rec(rec, model=Beside(table.rows), epochs=2, **OPTIONS)
    assert found.triplets.collect().equals(expected.triplets.collect())
    assert found.summary.images == expected.summary.images == 160


class Again(Table):
    """Writes all embeddings into one array."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        super().__init__(rows)
        self._found = np.empty_like(rows)

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        found = self._found[: rows.height]
        found[:] = super().embed(rows, images)
        return found


def test_an_embedder_may_use_its_array_again(rec: Path) -> None:
    table = random_table()
    mined = [
        ft.mine_rec(rec, model=model, **OPTIONS).triplets.collect() for model in (table, Again(table.rows))
    ]
    assert mined[0].equals(mined[1])
    handed_out = []
    for model in (table, Again(table.rows)):
        with ft.Feed(rec, model=model, **OPTIONS) as feed:
            handed_out.append([batch.ids.tolist() for batch in feed])
    assert handed_out[0] == handed_out[1]


def test_the_next_part_is_started_before_a_run_waits(rec: Path) -> None:
    beside = Beside(random_table().rows)
    ft.mine_rec(rec, model=beside, **OPTIONS)
    assert beside.log == ["start", *["start", "result"] * 9, "result"]  # 10 parts of 8, across both bags


def test_all_parts_of_a_bag_are_started_before_a_feed_waits(rec: Path) -> None:
    beside = Beside(random_table().rows)
    with ft.Feed(rec, model=beside, batch_size=3, epochs=1, **OPTIONS) as feed:
        next(iter(feed))
    assert beside.log[:10] == ["start"] * 5 + ["result"] * 5


def test_a_failure_names_its_own_bag(rec: Path) -> None:
    class Full(Beside):
        def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
            if self.log.count("result") == 5:  # the last part of bag 0, when bag 1 was started
                raise MemoryError("not enough memory: 1 byte")
            return super().embed(rows, images)

    with pytest.raises(MemoryError, match=r"^epoch 0, bag 0: not enough memory: 1 byte$"):
        ft.mine_rec(rec, model=Full(random_table().rows), **OPTIONS)


def test_damaged_parts_are_left_out_in_their_places(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "damaged.rec", identities(20, 4), frozenset(range(1, 41)))
    table = random_table()
    table.needs_images = True
    runs = []
    for embedder in (table, Beside(table.rows)):
        embedder.needs_images = True
        embedder.embed = lambda rows, _: table.rows[rows["key"].to_numpy()]  # type: ignore[method-assign,assignment]
        runs.append(ft.mine_rec(rec, model=embedder, on_error="skip", **OPTIONS).triplets.collect())
    assert runs[0].equals(runs[1])


def test_a_run_that_has_enough_stops(rec: Path) -> None:
    found = ft.mine_rec(rec, model=Beside(random_table().rows), max_triplets=3, **OPTIONS)
    assert found.triplets.collect().height == 3
    assert found.summary.stopped_at_max_triplets
