"""When a feed calls its embedder: with which images, in which thread, with which weights."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from tests.run.leftovers import nothing_left
from tests.run.plain_feed import (
    EVERYTHING,
    Watched,
    plain_of,
)
from tests.small_rec import Table, identities, picture, random_table


@pytest.mark.parametrize("what", ["feed", "mine_rec"])
def test_each_image_is_embedded_once_an_epoch_in_small_calls(tmp_path: Path, what: str) -> None:
    labels = identities(600, 5)
    some = [picture(seed, side=8) for seed in range(50)]
    with ft.RecordWriter(tmp_path / "train.rec") as writer:
        for key, label in labels.items():
            writer.write(key, ft.IRHeader(0, float(label), key, 0), some[key % 50])
    model = Watched(random_table(3001).rows)
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
    model = Watched(random_table().rows)
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
    """The model changes after each batch, and a bag is embedded when all batches before it are used."""
    tables = [random_table(seed=seed).rows for seed in range(60)]
    model = random_table()
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows[1:],
            r"a table: expected a vector for each of 60 images, \(60, D\), .* \(59, 16\)",
        ),
        (lambda rows: rows[0], r"expected a vector for each of 60 images, .* \(16,\)"),
        (lambda rows: rows[:, :0], r"expected a vector for each of 60 images, .* \(60, 0\)"),
        (lambda rows: rows[..., None], r"expected a vector for each of 60 images, .* \(60, 16, 1\)"),
        (lambda _: None, r"expected a vector for each of 60 images, .* \(\)"),
        (lambda rows: rows * np.float32("nan"), r"the image with key \d+ holds NaN .*60 of 60"),
        (lambda rows: rows.astype(float) * 1e300, r"the image with key \d+ holds NaN or infinity"),
        (lambda rows: rows.astype(str), "floating point"),
    ],
)
def test_embeddings_that_do_not_fit(rec: Path, change: Callable[[Any], Any], message: str) -> None:
    class Wrong(Table):
        def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
            return change(super().embed(rows, images))  # type: ignore[no-any-return]

    with nothing_left(), pytest.raises(ValueError, match=message):
        next(ft.Feed(rec, model=Wrong(random_table().rows)))
