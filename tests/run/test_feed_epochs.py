"""A feed can stop at the end of each epoch, and lay batches out in another way."""

from __future__ import annotations

from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.errors import OptionError
from tests.run.plain_feed import EVERYTHING, Watched
from tests.run.test_feed_state import same, stored
from tests.small_rec import random_table


def test_epochs_one_by_one(rec: Path) -> None:
    """Their batches are those of the feed without them, and the next bag is not mined before its epoch."""
    options: dict[str, Any] = {"bag_size": 30, "batch_size": 9, "epochs": None}
    expected = list(islice(ft.Feed(rec, model=random_table(), **options), 100))
    model = Watched(random_table().rows)
    found: list[list[ft.TripletBatch]] = []
    with ft.Feed(rec, model=model, **options) as feed:
        for epoch in range(3):
            assert len(model.calls) == 2 * epoch
            found.append(list(feed.one_epoch()))
            assert len(model.calls) == 2 * (epoch + 1)
            state = stored(feed.state_dict())
            assert (state["epoch"], state["bag"]) == (epoch + 1, 0)
            with ft.Feed(rec, model=random_table(), state=state, **options) as resumed:
                at = sum(map(len, found))
                assert all(map(same, islice(resumed, 3), expected[at : at + 3]))
    batches = [*chain(*found)]
    assert all(map(same, batches, expected[: len(batches)]))
    assert [{batch.epoch for batch in one} for one in found] == [{0}, {1}, {2}]


def test_the_last_epoch_has_the_last_batch(rec: Path) -> None:
    options: dict[str, Any] = {"model": random_table(), "batch_size": 60, "epochs": 2}
    expected = list(ft.Feed(rec, **options))
    feed = ft.Feed(rec, **options)
    found = [list(feed.one_epoch()) for _ in range(3)]
    assert all(map(same, [*chain(*found)], expected))
    assert len([*chain(*found)]) == len(expected)
    assert not found[2]


def test_a_layout_of_ones_own(rec: Path) -> None:
    def halved(pixels: Any, rows: Any, **options: Any) -> NDArray[np.float32]:
        return ft.assemble(pixels, rows, **options) / np.float32(2)

    options: dict[str, Any] = {"model": random_table(), "batch_size": 9, "augment": EVERYTHING}
    for one, other in zip(ft.Feed(rec, layout=halved, **options), ft.Feed(rec, **options), strict=True):
        assert np.array_equal(one.images, other.images / np.float32(2))
    with pytest.raises(OptionError, match=r"^layout must be a callable, as assemble is, not None$"):
        ft.Feed(rec, layout=None, **options)  # type: ignore[arg-type]
