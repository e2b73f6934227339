"""A feed hands out the batches of the plain computation, however much is prepared ahead."""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.run import _stages, _summary, _timeline
from tests.run.leftovers import nothing_left
from tests.run.plain_feed import (
    EVERYTHING,
    IMAGE,
    Pictures,
    Plain,
    Rows,
    Watched,
    check,
    plain_of,
)
from tests.small_rec import Table, identities, random_table, write_rec


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


def written(folder: Path, shards: Sequence[dict[int, int]], damaged: frozenset[int]) -> list[Path]:
    """The files of :func:`sharded`."""
    return [
        write_rec(
            folder / f"train-{file}.rec",
            labels,
            frozenset(id_ & (2**48 - 1) for id_ in damaged if id_ >> 48 == file),
        )
        for file, labels in enumerate(shards)
    ]


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


@settings(max_examples=70, deadline=None)
@given(data=st.data())
def test_batches_are_those_of_the_plain_computation(data: st.DataObject) -> None:
    shards, damaged = data.draw(sharded())
    one_path = len(shards) == 1 and data.draw(st.booleans())
    images_per_identity = data.draw(st.integers(1, 6))
    with tempfile.TemporaryDirectory() as folder:
        paths = written(Path(folder), shards, damaged)
        plain = Plain(
            paths[0] if one_path else paths,
            Rows(
                len(shards),
                60,
                data.draw(st.integers(4, 8)),  # random unit rows of fewer numbers may be nearly equal
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


def test_what_was_carried_comes_before_the_error_of_an_epoch_without_triplets(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(4, 3), side=8)

    class Forgets(Table):
        """From the second bag on, identities are so far apart that no negative is semi-hard."""

        bags = 0

        def embed(self, rows: pl.DataFrame, images: Any) -> NDArray[np.float32]:  # noqa: ARG002
            self.bags += 1
            apart = np.eye(4, dtype=np.float32)[rows["label"].to_numpy()]
            return super().embed(rows, None) if self.bags == 1 else apart

    rows = random_table(keys=13, size=4).rows
    index = ft.index_rec(rec)
    mining: dict[str, Any] = {"margin": 2.0, "pairs": "ordered"}
    triplets = len(ft.mine(rows[1:], index["label"], **mining))
    handed_out = 0
    how: dict[str, Any] = {"images_per_identity": 3, "batch_size": 15, "epochs": 2, **mining}
    with (
        pytest.raises(ft.NoTripletsError, match="no triplet in an epoch"),
        ft.Feed(rec, model=Forgets(rows), **how) as feed,
    ):
        for batch in feed:
            handed_out += len(batch.ids) // 3
    assert handed_out == triplets
    assert triplets % 5 > 0


@pytest.mark.parametrize("batch_size", [3, 27, 90])
def test_dropped_tails(rec: Path, batch_size: int) -> None:
    """Each epoch of 60 images has two bags of 25; ten images are dropped, and no triplet is carried over."""
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
    """Both files have the same keys, and share identities."""
    shards = [
        write_rec(tmp_path / f"train-{file}.rec", {key: key % 7 for key in range(1, 40)}) for file in range(2)
    ]
    plain = Plain(shards, Rows(2, 40, 8, 0), batch_size=30, epochs=2, bag_size=10)
    batches = check(plain, EVERYTHING)
    files = {id_ >> 48 for batch in batches for id_ in batch.ids.tolist()}
    assert files == {0, 1}


def keys_of(batches: Sequence[ft.TripletBatch]) -> list[tuple[list[int], int, int]]:
    return [(batch.ids.tolist(), batch.epoch, batch.bag) for batch in batches]


def test_an_endless_feed_begins_as_any(rec: Path) -> None:
    plain = plain_of(rec, epochs=3)
    with nothing_left(), ft.Feed(rec, model=plain.model, **plain.options() | {"epochs": None}) as feed:
        batches = list(islice(feed, len(plain.batches) - 1))  # the last batch of a feed that ends is smaller
    assert keys_of(batches) == [
        ([triplet[role] for role in range(3) for triplet in batch.triplets], batch.epoch, batch.bag)
        for batch in plain.batches[:-1]
    ]


def test_another_picture_in_each_epoch(rec: Path) -> None:
    """Images are augmented anew in each epoch; what is embedded does not change."""
    seen: dict[int, set[bytes]] = {}
    with ft.Feed(
        rec, model=random_table(), augment=ft.Augment(brightness=0.9), epochs=4, bag_size=15
    ) as feed:
        for batch in feed:
            for id_, image in zip(batch.ids.tolist(), batch.images, strict=True):
                seen.setdefault(id_, set()).add(image.tobytes())
    # At most one picture per epoch, and one more where a batch has triplets of two epochs.
    assert max(len(pictures) for pictures in seen.values()) <= 7
    assert all(len(pictures) >= 2 for pictures in seen.values())


def test_batches_are_the_callers(rec: Path) -> None:
    """What the caller writes into a batch does not show in later batches that hold the same images."""
    plain = plain_of(rec, epochs=2)
    pictures = Pictures(rec)
    with ft.Feed(rec, model=plain.model, augment=EVERYTHING, **plain.options()) as feed:
        for batch, expected in zip(feed, plain.batches, strict=True):
            pictures.check(batch, expected, EVERYTHING, plain.seed)
            batch.images[:] = np.nan
            batch.labels[:] = -1
            batch.ids[:] = -1


def test_two_feeds_of_a_file_at_once(rec: Path) -> None:
    options: dict[str, Any] = {"model": random_table(), "bag_size": 15, "batch_size": 9}
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
    with nothing_left(), pytest.raises(ft.OptionError, match="memory must be at least"):
        ft.Feed(rec, memory=15 * IMAGE - short, **options)
    check(plain, memory=15 * IMAGE, prefetch=prefetch)


class Held:
    """Counts the images that were decoded when the first ones are embedded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, expected: int) -> None:
        self.decoded, self.first, self._expected = 0, 0, expected
        decode = ft.Dataset.decode

        def counted(dataset: ft.Dataset, rows: Any, **options: Any) -> Any:
            self.decoded += len(rows)
            return decode(dataset, rows, **options)

        monkeypatch.setattr(ft.Dataset, "decode", counted)

    def look(self, number: int) -> None:
        if number == 1:
            until = time.monotonic() + 5
            while self.decoded < self._expected and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(0.02)  # for what would be too much
            self.first = self.decoded


# Images that memory is for, and those held when the first bag of 15 is embedded: that bag, and whole ones.
@pytest.mark.parametrize(
    ("memory", "held"), [(15, 15), (29, 15), (30, 30), (44, 30), (45, 45), (60, 60), (75, 60), (None, 60)]
)
def test_no_more_bags_are_decoded_ahead_than_fit_the_memory(
    rec: Path, monkeypatch: pytest.MonkeyPatch, memory: int | None, held: int
) -> None:
    images = Held(monkeypatch, held)
    options = plain_of(rec, epochs=2).options() | {"model": Watched(random_table().rows, images.look)}
    list(ft.Feed(rec, prefetch=3, memory=None if memory is None else memory * IMAGE, **options))
    assert images.first == held


# Of a run, half of the memory is for the part in use. Parts do not go beyond the end of a bag.
@pytest.mark.parametrize(
    ("memory", "held"),
    [(1, 1), (2, 2), (3, 3), (4, 4), (14, 14), (15, 14), (20, 15), (29, 15), (30, 30), (60, 60)],
)
def test_no_more_images_of_a_run_are_decoded_ahead_than_fit_the_memory(
    rec: Path, monkeypatch: pytest.MonkeyPatch, memory: int, held: int
) -> None:
    images = Held(monkeypatch, held)
    model = Watched(random_table().rows, images.look)
    ft.mine_rec(rec, model=model, bag_size=15, seed=5, prefetch=3, memory=memory * IMAGE)
    assert images.first == held


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_memory_for_a_dataset_that_is_smaller_than_a_bag(rec: Path, prefetch: int) -> None:
    """The whole dataset fits, whatever `bag_size` would allow."""
    check(plain_of(rec, bag_size=7200, epochs=2), memory=60 * IMAGE, prefetch=prefetch)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_the_last_batch_is_from_where_its_last_triplet_is_from(rec: Path, prefetch: int) -> None:
    """The second bag has one identity, and so no triplet."""
    plain = plain_of(rec, bag_size=55, batch_size=60)
    assert plain.in_bags[0] > plain.in_bags[1] == 0
    batches = check(plain, prefetch=prefetch)
    assert (batches[-1].epoch, batches[-1].bag) == (0, 0)


def test_bags_are_logged(rec: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A training with a bag of minutes is not silent, if the program that uses the feed shows its log."""
    with caplog.at_level(logging.INFO, logger="fasttriplet"):
        feed = ft.Feed(rec, model=random_table(), batch_size=12, bag_size=48, band="any", epochs=2)
        assert caplog.messages == []
        batches = list(feed)
    summary = feed.summary
    assert caplog.messages[0] == (
        "72 images of 12 identities; each bag, at most 48 images, is decoded, embedded and mined before its "
        "first batch"
    )
    bags = [re.match(_OF_BAG, message) for message in caplog.messages[1:]]
    assert len(bags) == summary.bags
    assert [bag and (int(bag[1]), int(bag[2])) for bag in bags] == sorted(
        {(batch.epoch, batch.bag) for batch in batches}
    )
    assert sum(int(bag[3]) for bag in bags if bag) == summary.images
    assert sum(int(bag[4]) for bag in bags if bag) == summary.triplets


_OF_BAG = (
    r"epoch (\d+), bag (\d+) \(\d in all\): (\d+) images, (\d+) triplets, "
    r"\d+% of \d+ pairs without a negative; "
    r"waited \d+\.\d s for decoding, \d+\.\d s for embedding, \d+\.\d s for mining$"
)


def test_the_log_has_the_numbers_of_each_bag(
    rec: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that embedding a bag moves by 1.5 s, and mining it by 0.7 s."""
    now, mine, table = 7.0, vars(_stages)["mine_rows"], random_table()

    def embeds(_: int) -> None:
        nonlocal now
        now += 1.5

    def slowly(*arguments: Any, **options: Any) -> Any:
        nonlocal now
        now += 0.7
        return mine(*arguments, **options)

    monkeypatch.setattr(_stages, "mine_rows", slowly)
    for module in (_summary, _timeline):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now))
    options: dict[str, Any] = {"bag_size": 30, "epochs": 2, "seed": 5}
    with caplog.at_level(logging.INFO, logger="fasttriplet"):
        batches = list(ft.Feed(rec, model=Watched(table.rows, embeds), batch_size=12, **options))
    assert batches
    expected = []
    for epoch in range(2):
        for bag in ft.bags(ft.triplet_seq(ft.index_rec(rec), 5, 5, epoch), 30):
            keys, labels = bag.rows["key"].to_numpy(), bag.rows["label"].to_numpy()
            stats = ft.mine(table.rows[keys], labels, ids=keys, seed=ft.epoch_seed(5, epoch)).stats
            none = stats.pairs_without_negative
            assert 0 < none < stats.pairs == 60
            expected.append(
                f"epoch {epoch}, bag {bag.number} (2 in all): 30 images, "
                f"{60 - none} triplets, {none / 60:.0%} of 60 pairs without a negative; "
                "waited 0.0 s for decoding, 1.5 s for embedding, 0.7 s for mining"
            )
    assert caplog.messages[1:] == expected
