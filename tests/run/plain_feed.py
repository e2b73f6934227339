"""The batches that a feed must hand out, computed stage by stage, and embedders that are tables."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from tests.run.leftovers import nothing_left
from tests.small_rec import Table, random_table

IMAGE = 24 * 24 * 3  # bytes
EVERYTHING = ft.Augment(mirror=True, cutoff=9, brightness=0.2, contrast=0.3, saturation=0.4)


class Rows(Table):
    """An embedder that gives row `key` of matrix `file`, and checks the images that it gets."""

    def __init__(self, files: int, keys: int, size: int, seed: int, *, needs_images: bool = False) -> None:
        rng = np.random.default_rng(seed)
        super().__init__(rng.standard_normal((files, keys, size)).astype(np.float32))
        self.needs_images = needs_images

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        if self.needs_images:
            assert images is not None
            assert images.shape == (rows.height, 24, 24, 3)
            assert images.dtype == np.uint8
        else:
            assert images is None
        file = rows["file"].to_numpy() if "file" in rows.columns else np.zeros(rows.height, np.uint32)
        chosen: NDArray[np.float32] = self.rows[file, rows["key"].to_numpy()]
        return chosen


def ids_of(rows: pl.DataFrame) -> NDArray[np.int64]:
    keys: NDArray[np.int64] = rows["key"].to_numpy()
    if "file" in rows.columns:
        keys = keys + rows["file"].to_numpy().astype(np.int64) * 2**48
    return keys


@dataclass(frozen=True)
class PlainBatch:
    triplets: list[tuple[int, int, int]]
    epoch: int
    bag: int


@dataclass
class Plain:
    """The batches that a feed must hand out, by the definitions of its stages."""

    rec: Path | list[Path]
    model: Table
    batch_size: int = 60
    epochs: int = 1
    images_per_identity: int = 5
    bag_size: int = 7200
    boundary: Any = "keep"
    tail: Any = "keep"
    seed: int = 0
    damaged: frozenset[int] = frozenset()
    mining: dict[str, Any] = field(default_factory=dict)

    embedded: list[int] = field(default_factory=list)
    batches: list[PlainBatch] = field(default_factory=list)
    in_bags: list[int] = field(default_factory=list)
    largest_bag: int = 0
    ended: bool = False  # by an epoch that gave nothing

    def __post_init__(self) -> None:
        index = ft.index_rec(self.rec, labels="shared")
        waiting: list[tuple[tuple[int, int, int], int, int]] = []
        for epoch in range(self.epochs):
            seq = ft.triplet_seq(index, self.images_per_identity, self.seed, epoch)
            in_epoch, before = 0, len(self.batches)
            for bag in ft.bags(seq, self.bag_size, self.boundary, self.tail):
                self.largest_bag = max(self.largest_bag, bag.rows.height)
                mined = self.mine(bag, epoch)
                waiting += [(triplet, epoch, bag.number) for triplet in mined]
                self.in_bags.append(len(mined))
                in_epoch += len(mined)
                while len(waiting) >= self.batch_size // 3:
                    self.cut(waiting)
                if self.tail == "drop":
                    waiting.clear()
            # Dropped triplets do not count; those that are kept go into a later batch.
            if in_epoch == 0 or (self.tail == "drop" and len(self.batches) == before):
                self.ended = True
                break
        if waiting:  # also before the error
            self.cut(waiting)

    def mine(self, bag: ft.Bag, epoch: int) -> list[tuple[int, int, int]]:
        good = [i for i, id_ in enumerate(ids_of(bag.rows)) if id_ not in self.damaged]
        rows = bag.rows[good]
        self.embedded += ids_of(rows).tolist()
        if rows.height == 0:
            return []
        seed = ft.epoch_seed(self.seed, epoch)
        embeddings = self.model.embed(
            rows, np.zeros((rows.height, 24, 24, 3), np.uint8) if self.model.needs_images else None
        )
        mined = ft.mine(embeddings, rows["label"], ids=ids_of(rows), seed=seed, **self.mining)
        columns = [column.tolist() for column in mined.shuffle(seed)]
        return list(zip(*columns, strict=True))

    def cut(self, waiting: list[tuple[tuple[int, int, int], int, int]]) -> None:
        size = self.batch_size // 3
        _, epoch, bag = waiting[:size][-1]
        self.batches.append(PlainBatch([triplet for triplet, _, _ in waiting[:size]], epoch, bag))
        del waiting[:size]

    def options(self) -> dict[str, Any]:
        names = ("batch_size", "epochs", "images_per_identity", "bag_size", "boundary", "tail", "seed")
        return {name: getattr(self, name) for name in names} | self.mining


class Pictures:
    """Decoded images and labels of files, by id."""

    def __init__(self, rec: Path | Sequence[Path]) -> None:
        self.files = [ft.RecordFile(path) for path in ([rec] if isinstance(rec, Path) else rec)]
        self.decoded: dict[int, NDArray[np.uint8]] = {}
        index = ft.index_rec(rec, labels="shared")
        self.labels = dict(zip(ids_of(index).tolist(), index["label"].to_list(), strict=True))

    def pixels(self, ids: Sequence[int]) -> NDArray[np.uint8]:
        new = sorted(set(ids) - set(self.decoded))
        for number, file in enumerate(self.files):
            keys = [id_ & (2**48 - 1) for id_ in new if id_ >> 48 == number]
            if keys:
                ids_of_file = (key + (number << 48) for key in keys)
                self.decoded |= zip(ids_of_file, file.decode(keys, threads=1), strict=True)
        return np.stack([self.decoded[id_] for id_ in ids])

    def check(
        self, batch: ft.TripletBatch, expected: PlainBatch, augment: ft.Augment | None, seed: int
    ) -> None:
        ids = [triplet[role] for role in range(3) for triplet in expected.triplets]
        assert batch.ids.dtype == np.int64
        assert batch.ids.shape == (len(ids),)
        assert batch.ids.tolist() == ids
        assert (batch.epoch, batch.bag) == (expected.epoch, expected.bag)
        assert batch.labels.dtype == np.int64
        assert batch.labels.tolist() == [self.labels[id_] for id_ in ids]
        images = ft.assemble(
            self.pixels(ids), augment=augment, ids=ids, seed=ft.epoch_seed(seed, batch.epoch)
        )
        assert batch.images.dtype == np.float32
        assert batch.images.flags.c_contiguous
        np.testing.assert_array_equal(batch.images, images)


def check(plain: Plain, augment: ft.Augment | None = None, **options: Any) -> list[ft.TripletBatch]:
    """Run a feed and compare each batch with the plain one."""
    with nothing_left():
        try:
            feed = ft.Feed(
                plain.rec, labels="shared", model=plain.model, augment=augment, **plain.options() | options
            )
        except ft.NoTripletsError:  # what the index says holds for every bag
            assert plain.ended
            assert sum(plain.in_bags) == 0
            return []
        batches = []
        try:
            for batch in feed:
                batches.append(batch)  # noqa: PERF402 - those before an error count
        except ft.NoTripletsError:
            assert plain.ended
        else:
            assert not plain.ended
        with pytest.raises(StopIteration):
            next(feed)
    pictures = Pictures(plain.rec)
    assert len(batches) == len(plain.batches)
    for batch, expected in zip(batches, plain.batches, strict=True):
        pictures.check(batch, expected, augment, plain.seed)
    summary = feed.summary
    assert summary.batches == len(batches)
    assert summary.images == len(plain.embedded)
    assert summary.bags == len(plain.in_bags)
    assert summary.bags_without_triplets == plain.in_bags.count(0)
    assert summary.triplets == sum(plain.in_bags)
    if not plain.ended:
        assert summary.epochs == plain.epochs
    return batches


def plain_of(rec: Path, model: Table | None = None, **options: Any) -> Plain:
    """The plain batches of 12 identities of 6 images in 4 bags of 15."""
    return Plain(rec, model or random_table(), **{"bag_size": 15, "batch_size": 9, "seed": 5} | options)


def bags_of(rec: Path, *, epoch: int = 0) -> list[list[int]]:
    seq = ft.triplet_seq(ft.index_rec(rec), 5, 5, epoch)
    return [bag.rows["key"].to_list() for bag in ft.bags(seq, 15)]


class Watched(Table):
    """An embedder that records its calls, and runs `call` in each of them."""

    needs_images = True

    def __init__(self, rows: NDArray[np.float32], call: Callable[[int], object] = lambda _: None) -> None:
        super().__init__(rows)
        self.calls: list[tuple[list[int], NDArray[np.uint8]]] = []
        self.threads: set[int] = set()
        self.call = call

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        assert images is not None
        self.threads.add(threading.get_ident())
        self.calls.append((rows["key"].to_list(), images.copy()))
        self.call(len(self.calls))
        return super().embed(rows, None)


def stop(error: BaseException, at: int) -> Callable[[int], None]:
    def call(number: int) -> None:
        if number == at:
            raise error

    return call
