"""Batches for training against a plain computation, what overlaps, and what is left when it ends."""

from __future__ import annotations

import gc
import json
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from tests.small_rec import Table, identities, picture, write_rec

IMAGE = 24 * 24 * 3  # bytes
EVERYTHING = ft.Augment(mirror=True, cutoff=9, brightness=0.2, contrast=0.3, saturation=0.4)


def table(keys: int = 100, size: int = 16, seed: int = 0) -> Table:
    return Table(np.random.default_rng(seed).standard_normal((keys, size)).astype(np.float32))


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    """12 identities of 6 images, keys 1 to 72."""
    return write_rec(tmp_path / "train.rec", identities(12, 6))


# What is left of a run


def threads() -> list[str]:
    """The package's threads that run."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("fasttriplet")]


def open_files() -> Counter[str]:
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:  # the one that lists the folder
            continue
    return Counter(found)


def mapped(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


@contextmanager
def nothing_left() -> Iterator[None]:
    """Of the block, no thread and no open file."""
    before = open_files()
    assert threads() == []
    yield
    assert threads() == []
    assert open_files() - before == Counter()


def collected() -> None:
    """Wait for the threads of feeds that nobody holds: what a thread is doing holds its feed."""
    gc.collect()
    until = time.monotonic() + 5
    while threads() and time.monotonic() < until:
        time.sleep(0.001)
        gc.collect()


@pytest.fixture(autouse=True)
def _nothing_left_of_a_test() -> Iterator[None]:
    yield
    if threads():
        collected()
    assert threads() == []


# The plain computation


class Rows(Table):
    """An embedder that gives row `key` of matrix `file`, and looks at the images if it is to."""

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
    """What a feed must hand out, by the definitions of its parts."""

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
    ended: bool = False  # with an epoch that gave nothing

    def __post_init__(self) -> None:
        index = ft.index_rec(self.rec)
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
            # dropped triplets are nothing, while those that are kept go into a later batch
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
        index = ft.index_rec(rec)
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


def keys_of(batches: Sequence[ft.TripletBatch]) -> list[tuple[list[int], int, int]]:
    return [(batch.ids.tolist(), batch.epoch, batch.bag) for batch in batches]


def check(plain: Plain, augment: ft.Augment | None = None, **options: Any) -> list[ft.TripletBatch]:
    """Run a feed, and compare each batch with the plain one."""
    with nothing_left():
        feed = ft.Feed(plain.rec, model=plain.model, augment=augment, **plain.options() | options)
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


@st.composite
def sharded(draw: st.DrawFn) -> tuple[list[dict[int, int]], frozenset[int]]:
    """Labels by key of one to three files, with identities that lie in several, and some damaged ids."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=9))
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    files = draw(st.integers(1, min(3, len(labels))))
    shards: list[dict[int, int]] = [{} for _ in range(files)]
    for i, label in enumerate(labels):
        shards[i % files][i // files + 1] = label
    ids = [key + (file << 48) for file, shard in enumerate(shards) for key in shard]
    damaged = draw(st.just(frozenset()) | st.frozensets(st.sampled_from(ids), max_size=len(ids)))
    return shards, damaged


minings = st.fixed_dictionaries(
    {},
    optional={
        "margin": st.sampled_from([0.0, 0.3, 2.0]),
        "band": st.sampled_from(["semihard", "violating", "hard", "any"]),
        "pick": st.sampled_from(["random", "hardest", "all"]),
        "negatives_per_pair": st.integers(1, 3),
        "pairs": st.sampled_from(["unordered", "ordered", "hardest", "easiest"]),
        "max_ap": st.sampled_from([0.5, 3.0]),
        "normalize": st.booleans(),
    },
)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_batches_are_those_of_the_plain_computation(data: st.DataObject) -> None:
    shards, damaged = data.draw(sharded())
    one_path = len(shards) == 1 and data.draw(st.booleans())
    images_per_identity = data.draw(st.integers(1, 6))
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write_rec(
                Path(folder) / f"train-{file}.rec",
                labels,
                frozenset(id_ & (2**48 - 1) for id_ in damaged if id_ >> 48 == file),
            )
            for file, labels in enumerate(shards)
        ]
        plain = Plain(
            paths[0] if one_path else paths,
            Rows(
                len(shards),
                60,
                data.draw(st.integers(1, 4)),
                data.draw(st.integers(0, 9)),
                needs_images=data.draw(st.booleans()),
            ),
            batch_size=3 * data.draw(st.integers(1, 30)),
            epochs=data.draw(st.integers(1, 3)),
            images_per_identity=images_per_identity,
            bag_size=data.draw(st.integers(images_per_identity, 30)),
            boundary=data.draw(st.sampled_from(["keep", "split"])),
            tail=data.draw(st.sampled_from(["keep", "drop"])),
            seed=data.draw(st.sampled_from([0, 1, 2**64 - 1])),
            damaged=damaged,
            mining=data.draw(minings),
        )
        bags = data.draw(st.none() | st.integers(1, 4), label="memory in bags")
        check(
            plain,
            data.draw(st.sampled_from([None, ft.Augment(), ft.Augment(mirror=True), EVERYTHING])),
            on_error="skip" if damaged else data.draw(st.sampled_from(["skip", "raise"])),
            threads=data.draw(st.sampled_from([None, 1, 2])),
            prefetch=data.draw(st.sampled_from([0, 1, 3])),
            memory=None if bags is None else bags * plain.bag_size * IMAGE,
        )


def plain_of(rec: Path, model: Table | None = None, **options: Any) -> Plain:
    """Of 12 identities of 6 images in 4 bags of 15."""
    return Plain(rec, model or table(), **{"bag_size": 15, "batch_size": 9, "seed": 5} | options)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("memory", [15, 30, 10_000, None])  # in images
def test_the_same_whatever_is_ahead(rec: Path, prefetch: int, memory: int | None) -> None:
    plain = plain_of(rec, epochs=2)
    assert plain.largest_bag == 15
    assert len(plain.in_bags) == 8
    bytes_ = None if memory is None else memory * IMAGE
    check(plain, EVERYTHING, prefetch=prefetch, memory=bytes_, threads=1 if memory == 30 else 2)


@pytest.mark.parametrize("prefetch", [0, 1])
@pytest.mark.parametrize("batch_size", [3, 90, 240, 3000])
def test_triplets_are_carried_over_bags_and_epochs(rec: Path, batch_size: int, prefetch: int) -> None:
    plain = plain_of(rec, epochs=3, batch_size=batch_size, mining={"band": "any"})
    assert plain.in_bags == 12 * [30]
    batches = check(plain, EVERYTHING, prefetch=prefetch)
    assert sum(len(batch.ids) for batch in batches) == 3 * 12 * 30
    assert len(batches) == -(-3 * 12 * 30 // batch_size)
    assert {len(batch.ids) for batch in batches[:-1]} <= {batch_size}
    assert (batches[-1].epoch, batches[-1].bag) == (2, 3)
    if batch_size == 240:  # of 80 triplets: the first ends in the third bag
        assert [(batch.epoch, batch.bag) for batch in batches[:3]] == [(0, 2), (1, 1), (1, 3)]


@pytest.mark.parametrize("batch_size", [3, 27, 90])
def test_dropped_tails(rec: Path, batch_size: int) -> None:
    """Bags of 25 of the 60 images of an epoch, so that ten are left over, and no triplet is carried."""
    plain = plain_of(
        rec,
        epochs=2,
        batch_size=batch_size,
        bag_size=25,
        tail="drop",
        mining={"band": "any", "pairs": "ordered"},
    )
    assert plain.in_bags == 4 * [100]
    batches = check(plain, EVERYTHING)
    assert len(batches) == 4 * (100 // (batch_size // 3))
    assert {len(batch.ids) for batch in batches} == {batch_size}
    assert [(b.epoch, b.bag) for b in batches] == sorted((b.epoch, b.bag) for b in batches)


def test_several_files(tmp_path: Path) -> None:
    """The same keys in both, and identities that lie in both."""
    shards = [
        write_rec(tmp_path / f"train-{file}.rec", {key: key % 7 for key in range(1, 40)}) for file in range(2)
    ]
    plain = Plain(shards, Rows(2, 40, 8, 0), batch_size=30, epochs=2, bag_size=10)
    batches = check(plain, EVERYTHING)
    files = {id_ >> 48 for batch in batches for id_ in batch.ids.tolist()}
    assert files == {0, 1}


def test_an_endless_feed_begins_as_any(rec: Path) -> None:
    plain = plain_of(rec, epochs=3)
    with nothing_left(), ft.Feed(rec, model=plain.model, **plain.options() | {"epochs": None}) as feed:
        batches = list(islice(feed, len(plain.batches) - 1))  # of a feed that ends, the last is smaller
    assert keys_of(batches) == [
        ([triplet[role] for role in range(3) for triplet in batch.triplets], batch.epoch, batch.bag)
        for batch in plain.batches[:-1]
    ]


def test_another_picture_in_each_epoch(rec: Path) -> None:
    """Augmented anew, while what is embedded is not changed."""
    seen: dict[int, set[bytes]] = {}
    with ft.Feed(rec, model=table(), augment=ft.Augment(brightness=0.9), epochs=4, bag_size=15) as feed:
        for batch in feed:
            for id_, image in zip(batch.ids.tolist(), batch.images, strict=True):
                seen.setdefault(id_, set()).add(image.tobytes())
    # at most one for each epoch, and one more where a batch has triplets of two epochs
    assert max(len(pictures) for pictures in seen.values()) <= 7
    assert all(len(pictures) >= 2 for pictures in seen.values())


def test_batches_are_the_callers(rec: Path) -> None:
    """What the caller does to a batch is not seen in others: they hold the same images."""
    plain = plain_of(rec, epochs=2)
    pictures = Pictures(rec)
    with ft.Feed(rec, model=plain.model, augment=EVERYTHING, **plain.options()) as feed:
        for batch, expected in zip(feed, plain.batches, strict=True):
            pictures.check(batch, expected, EVERYTHING, plain.seed)
            batch.images[:] = np.nan
            batch.labels[:] = -1
            batch.ids[:] = -1


def test_two_feeds_of_a_file_at_once(rec: Path) -> None:
    options: dict[str, Any] = {"model": table(), "bag_size": 15, "batch_size": 9}
    with nothing_left(), ft.Feed(rec, **options) as one, ft.Feed(rec, seed=1, **options) as other:
        assert iter(one) is one
        pairs = list(zip(one, other, strict=False))
    assert keys_of([a for a, _ in pairs]) == keys_of(list(ft.Feed(rec, **options)))[: len(pairs)]
    assert keys_of([b for _, b in pairs]) == keys_of(list(ft.Feed(rec, seed=1, **options)))[: len(pairs)]


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("short", [1, IMAGE, 14 * IMAGE, 15 * IMAGE - 1])
def test_memory_must_hold_a_bag(rec: Path, short: int, prefetch: int) -> None:
    plain = plain_of(rec)
    options = plain.options() | {"model": plain.model, "prefetch": prefetch}
    with nothing_left(), pytest.raises(ValueError, match="memory"):
        list(ft.Feed(rec, memory=15 * IMAGE - short, **options))
    check(plain, memory=15 * IMAGE, prefetch=prefetch)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_memory_for_a_dataset_that_is_smaller_than_a_bag(rec: Path, prefetch: int) -> None:
    """All there is fits, whatever `bag_size` would allow."""
    check(plain_of(rec, bag_size=7200, epochs=2), memory=60 * IMAGE, prefetch=prefetch)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_the_last_batch_is_from_where_its_last_triplet_is_from(rec: Path, prefetch: int) -> None:
    """The second bag has one identity, and so no triplet."""
    plain = plain_of(rec, bag_size=55, batch_size=60)
    assert plain.in_bags[0] > plain.in_bags[1] == 0
    batches = check(plain, prefetch=prefetch)
    assert (batches[-1].epoch, batches[-1].bag) == (0, 0)


# The embedder


class Watched(Table):
    """Notes what it is called with, and is called back."""

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


@pytest.mark.parametrize("what", ["feed", "mine_rec"])
def test_each_image_is_embedded_once_an_epoch_in_small_calls(tmp_path: Path, what: str) -> None:
    labels = identities(600, 5)
    some = [picture(seed, side=8) for seed in range(50)]
    with ft.RecordWriter(tmp_path / "train.rec") as writer:
        for key, label in labels.items():
            writer.write(key, ft.IRHeader(0, float(label), key, 0), some[key % 50])
    model = Watched(table(3001).rows)
    options: dict[str, Any] = {"model": model, "bag_size": 2500, "epochs": 2, "images_per_identity": 5}
    if what == "feed":
        with ft.Feed(tmp_path / "train.rec", batch_size=300, augment=EVERYTHING, **options) as feed:
            list(feed)
    else:
        ft.mine_rec(tmp_path / "train.rec", **options)
    assert Counter(key for keys, _ in model.calls for key in keys) == dict.fromkeys(labels, 2)
    pixels = ft.RecordFile(tmp_path / "train.rec").decode(list(range(1, 51)))
    for keys, images in model.calls:
        assert 1 <= len(keys) <= 1024
        assert images.shape == (len(keys), 8, 8, 3)
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, pixels[(np.array(keys) - 1) % 50])
    assert model.threads == {threading.get_ident()}


def test_the_embedder_is_called_in_the_thread_that_iterates(rec: Path) -> None:
    model = Watched(table().rows)
    feed = ft.Feed(rec, model=model, bag_size=15, batch_size=9, epochs=2)
    next(feed)
    main = threading.get_ident()
    assert model.threads == {main}
    model.threads.clear()
    ran: list[int] = []

    def rest() -> None:
        ran.append(threading.get_ident())
        list(feed)

    thread = threading.Thread(target=rest)
    thread.start()
    thread.join(20)
    assert model.threads == set(ran) == {thread.ident}


@pytest.mark.parametrize("tail", ["keep", "drop"])
@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_bag_is_embedded_with_the_model_as_it_is_then(rec: Path, prefetch: int, tail: str) -> None:
    """The model is another one after each batch, and a bag is embedded when those before are used up."""
    tables = [table(seed=seed).rows for seed in range(60)]
    model = table()
    model.rows = tables[0]
    plain = plain_of(rec, batch_size=24, mining={"band": "violating"}, epochs=0, tail=tail)
    index = ft.index_rec(rec)
    expected: list[tuple[int, int, int]] = []
    handed = 0
    options = {"bag_size": 15, "batch_size": 24, "band": "violating", "epochs": 2, "seed": 5}
    waiting: list[tuple[int, int, int]] = []
    embedded_with = []
    for epoch in range(2):
        for bag in ft.bags(ft.triplet_seq(index, 5, 5, epoch), 15):
            plain.model = Table(tables[handed])
            embedded_with.append(handed)
            waiting += plain.mine(bag, epoch)
            while len(waiting) >= 8:
                expected += waiting[:8]
                del waiting[:8]
                handed += 1
            if tail == "drop":
                waiting.clear()
    expected += waiting
    assert len(set(embedded_with)) == len(embedded_with) == 8

    found: list[tuple[int, int, int]] = []
    with ft.Feed(rec, model=model, prefetch=prefetch, tail=tail, **options) as feed:  # type: ignore[arg-type]
        for number, batch in enumerate(feed, 1):
            time.sleep(0.005 if number % 3 == 0 else 0)  # time to go too far ahead
            found += [tuple(triplet) for triplet in batch.ids.reshape(3, -1).T.tolist()]
            model.rows = tables[number]
    assert found == expected


# Errors and the end


def stop(error: BaseException, at: int) -> Callable[[int], None]:
    def call(number: int) -> None:
        if number == at:
            raise error

    return call


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


def bags_of(rec: Path, *, epoch: int = 0) -> list[list[int]]:
    seq = ft.triplet_seq(ft.index_rec(rec), 5, 5, epoch)
    return [bag.rows["key"].to_list() for bag in ft.bags(seq, 15)]


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("bag", [0, 1, 3])
def test_a_damaged_record(rec: Path, tmp_path: Path, bag: int, prefetch: int) -> None:
    """The batches before it come first."""
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
        list(ft.Feed(odd, model=table(), images_per_identity=6))
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
def test_nothing_is_left(rec: Path, how: str, prefetch: int) -> None:
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
        assert not mapped(rec)


def test_a_with_block_of_a_feed_that_was_not_begun(rec: Path) -> None:
    with nothing_left():
        with ft.Feed(rec, model=table()) as feed:
            pass
        with pytest.raises(StopIteration):
            next(feed)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize(
    ("labels", "options", "why"),
    [
        (identities(3, 4), {"model": Table(np.ones((20, 4), np.float32))}, "all but equal"),
        (identities(3, 4), {"model": Table(np.ones((20, 4), np.float32)), "bag_size": 8}, "all but equal"),
        (identities(1, 12), {"images_per_identity": 12}, "one identity"),
        (identities(12, 1), {}, "one image"),
        (identities(3, 4), {"tail": "drop"}, "no bag has 7200 images"),
        (identities(3, 4), {"tail": "drop", "bag_size": 13, "band": "any"}, "no bag has 13 images"),
        (identities(3, 4), {"band": "any", "max_ap": 0.0}, "max_ap"),
    ],
)
def test_an_epoch_without_a_triplet_is_the_end(
    tmp_path: Path, labels: Mapping[int, int], options: dict[str, Any], why: str, prefetch: int
) -> None:
    rec = write_rec(tmp_path / "train.rec", labels)
    for epochs in (1, None):
        no_triplets(rec, {"model": table(20), "prefetch": prefetch, "epochs": epochs} | options, why)


def no_triplets(rec: Path, options: dict[str, Any], why: str) -> None:
    with nothing_left(), alarm():
        feed = ft.Feed(rec, **options)
        with pytest.raises(ft.NoTripletsError, match=why):
            next(feed)
        assert threads() == []
        with pytest.raises(StopIteration):
            next(feed)


@pytest.mark.parametrize("epochs", [3, None])
def test_a_network_that_collapses_in_training(rec: Path, epochs: int | None) -> None:
    """The first epoch goes well."""
    plain = plain_of(rec, batch_size=3)
    model = Table(plain.model.rows)
    batches = []
    with nothing_left(), alarm():
        feed = ft.Feed(rec, model=model, **plain.options() | {"epochs": epochs})
        with pytest.raises(ft.NoTripletsError, match="collapsed"):
            for batch in feed:
                batches.append(batch)
                if len(batches) == len(plain.batches):
                    model.rows = np.ones_like(model.rows)
    assert len(batches) == len(plain.batches)
    assert {batch.epoch for batch in batches} == {0}


@pytest.mark.parametrize("epochs", [1, 3, None])
def test_bags_that_never_fill_a_batch_are_no_reason_to_go_on_for_ever(rec: Path, epochs: int | None) -> None:
    """Each has triplets, and ``tail="drop"`` drops them."""
    with nothing_left(), alarm(3):
        feed = ft.Feed(rec, model=table(), batch_size=3000, bag_size=15, tail="drop", epochs=epochs)
        with pytest.raises(ft.NoTripletsError, match="the 1000 triplets of a batch: lower batch_size"):
            next(feed)
        with pytest.raises(StopIteration):
            next(feed)


@contextmanager
def alarm(seconds: int = 20) -> Iterator[None]:
    """Make of a hang a failure."""

    def ring(*_: object) -> None:
        pytest.fail(f"it still runs after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 4},
        {"batch_size": 0},
        {"batch_size": -3},
        {"batch_size": True},
        {"batch_size": 60.0},
        {"epochs": 0},
        {"epochs": True},
        {"epochs": 1.5},
        {"augment": "mirror"},
        {"augment": True},
        {"memory": 0},
        {"memory": -1},
        {"memory": True},
        {"memory": 1e9},
        {"prefetch": -1},
        {"prefetch": True},
        {"prefetch": 1.0},
        {"prefetch": None},
        {"images_per_identity": 0},
        {"bag_size": 0},
        {"boundary": "cut"},
        {"tail": "cut"},
        {"margin": -1},
        {"band": "soft"},
        {"pick": "best"},
        {"negatives_per_pair": 0},
        {"pairs": "all"},
        {"max_ap": "far"},
        {"on_error": "ignore"},
        {"seed": -1},
        {"threads": 0},
    ],
)
def test_wrong_options_are_named_before_anything_is_read(tmp_path: Path, options: dict[str, Any]) -> None:
    (name,) = options
    with nothing_left(), pytest.raises(ValueError, match=name):
        ft.Feed(tmp_path / "no.rec", **{"model": table()} | options)


def test_a_model_that_is_none_and_a_file_that_is_none(rec: Path, tmp_path: Path) -> None:
    with pytest.raises(ft.SpecError, match="resnet"):
        ft.Feed(tmp_path / "no.rec", model="resnet")
    with nothing_left(), pytest.raises(FileNotFoundError, match=r"no\.rec"):
        next(ft.Feed(tmp_path / "no.rec", model=table()))
    with nothing_left(), ft.Feed(rec, model="pixels", batch_size=9) as feed:
        assert next(feed).images.shape == (9, 3, 24, 24)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[1:], "59"),
        (lambda rows: rows[0], "2-D"),
        (lambda rows: rows * np.float32("nan"), "finite"),
        (lambda rows: rows.astype(str), "floating point"),
    ],
)
def test_embeddings_that_do_not_fit(rec: Path, change: Callable[[Any], Any], message: str) -> None:
    class Wrong(Table):
        def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
            return change(super().embed(rows, images))  # type: ignore[no-any-return]

    with nothing_left(), pytest.raises(ValueError, match=message):
        next(ft.Feed(rec, model=Wrong(table().rows)))


# What overlaps in mine_rec


class Slow(Rows):
    """Sleeps for each row."""

    def __init__(self, seconds: float) -> None:
        super().__init__(1, 100, 16, 0, needs_images=True)
        self.seconds = seconds

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        time.sleep(self.seconds * rows.height)
        return super().embed(rows, images)


@pytest.mark.parametrize("needs_images", [True, False])
def test_mine_rec_is_the_same_whatever_is_ahead(rec: Path, tmp_path: Path, needs_images: bool) -> None:
    model = Rows(1, 100, 8, 0, needs_images=needs_images)
    options: dict[str, Any] = {"bag_size": 15, "epochs": 3, "model": model, "band": "violating"}
    with nothing_left():
        expected = ft.mine_rec(rec, **options).triplets.collect()
    assert expected.height
    for number, (prefetch, memory, threads_) in enumerate(
        [(p, m, t) for p in (0, 1, 3) for m, t in ((1, 1), (2, 2), (15, 1), (None, 2))]
    ):
        with nothing_left():
            result = ft.mine_rec(
                rec,
                out=tmp_path / f"{number}.parquet" if number % 2 else None,
                prefetch=prefetch,
                memory=None if memory is None else memory * IMAGE,
                threads=threads_,
                **options,
            )
            assert result.triplets.collect().equals(expected)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_memory_of_mine_rec_must_hold_an_image(rec: Path, prefetch: int) -> None:
    model = Rows(1, 100, 8, 0, needs_images=True)
    with nothing_left(), pytest.raises(ValueError, match="memory"):
        ft.mine_rec(rec, model=model, memory=IMAGE - 1, prefetch=prefetch)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_damaged_record_of_a_later_bag_ends_mine_rec(rec: Path, tmp_path: Path, prefetch: int) -> None:
    key = bags_of(rec)[3][7]
    bad = write_rec(tmp_path / "train-bad.rec", identities(12, 6), frozenset({key}))
    model = Rows(1, 100, 8, 0, needs_images=True)
    with nothing_left(), pytest.raises(ft.RecordError, match=rf"{bad}, key {key}, offset \d+"):
        ft.mine_rec(bad, model=model, seed=5, bag_size=15, prefetch=prefetch, out=tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_an_exception_of_the_embedder_ends_mine_rec(
    rec: Path, tmp_path: Path, error: BaseException, at: int
) -> None:
    model = Watched(table().rows, stop(error, at))
    (tmp_path / "out").mkdir()
    with nothing_left(), pytest.raises(type(error)) as caught:
        ft.mine_rec(rec, model=model, bag_size=15, out=tmp_path / "out" / "t.parquet")
    assert caught.value is error
    assert model.threads == {threading.get_ident()}
    assert list((tmp_path / "out").iterdir()) == []


def check_times(summary: ft.Summary, stages: set[str]) -> None:
    told = json.loads(json.dumps(summary.to_dict()))
    assert set(summary.seconds) == stages | {"total"}
    assert all(seconds >= 0 for seconds in [*summary.seconds.values(), *summary.waited.values()])
    assert set(summary.waited) <= stages
    assert told["seconds"] == summary.seconds
    assert told["waited"] == summary.waited
    width, busy = told["timeline"]["seconds_per_part"], told["timeline"]["busy"]
    assert set(busy) == stages
    for stage, shares in busy.items():
        assert 1 <= len(shares) <= 64
        assert all(0 <= share <= 1 for share in shares)
        # of the last part only a piece may lie in the run
        assert sum(shares) * width == pytest.approx(summary.seconds[stage], abs=width + 1e-6)
        assert len(shares) * width == pytest.approx(summary.seconds["total"], abs=2 * width)
    # they do not overlap, and a stage is not waited for longer than the run takes
    assert sum(summary.waited.values()) <= summary.seconds["total"]


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_slow_embedder_is_what_mine_rec_waits_for(rec: Path, tmp_path: Path, prefetch: int) -> None:
    summary = ft.mine_rec(
        rec, model=Slow(0.005), bag_size=15, prefetch=prefetch, out=tmp_path / "t.parquet"
    ).summary
    slept = 60 * 0.005
    check_times(summary, {"index", "decode", "embed", "mine", "write"})
    assert summary.waited_most_for == "embed"
    assert max(summary.waited, key=lambda stage: summary.waited[stage]) == "embed"
    assert slept <= summary.seconds["embed"] <= summary.seconds["total"]
    assert slept <= summary.waited["embed"] <= summary.seconds["total"]


@pytest.mark.parametrize("prefetch", [0, 1])
def test_a_slow_embedder_is_what_a_feed_waits_for(rec: Path, prefetch: int) -> None:
    with ft.Feed(rec, model=Slow(0.005), bag_size=15, batch_size=9, prefetch=prefetch) as feed:
        for _ in feed:
            pass
    summary = feed.summary
    check_times(summary, {"index", "decode", "embed", "mine", "assemble", "train"})
    assert summary.waited_most_for == "embed"
    assert 60 * 0.005 <= summary.waited["embed"] <= summary.seconds["embed"] + 1e-6


def test_a_slow_training_is_what_a_feed_waits_for(rec: Path) -> None:
    batches = 0
    with ft.Feed(rec, model=table(), bag_size=15, batch_size=9) as feed:
        for _ in feed:
            time.sleep(0.02)
            batches += 1
    summary = feed.summary
    assert batches * 0.02 <= summary.seconds["train"] <= summary.seconds["total"]
    assert summary.waited_most_for == "train"


def test_what_was_not_done_is_not_waited_for(rec: Path) -> None:
    """A table needs no images, and so nothing is decoded."""
    summary = ft.mine_rec(rec, model=table(), bag_size=15).summary
    assert "decode" not in summary.seconds
    assert "decode" not in summary.waited


def test_the_index_is_a_part_of_the_whole_time(tmp_path: Path) -> None:
    """No stage before the first batch is left out of the wall time."""
    encoded = picture(0, side=8)
    with ft.RecordWriter(tmp_path / "train.rec") as writer:
        for key in range(1, 20_001):
            writer.write(key, ft.IRHeader(0, float(key % 10), key, 0), encoded)
    with ft.Feed(tmp_path / "train.rec", model=table(20_001), images_per_identity=2, batch_size=3) as feed:
        next(feed)
    summary = feed.summary
    assert summary.seconds["index"] <= summary.seconds["total"]
    assert sum(summary.waited.values()) <= summary.seconds["total"]
