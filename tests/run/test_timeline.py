"""The times in a summary: what each stage took, what was waited for, and the timeline."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.cli._show import _narrow
from fasttriplet.run import _stages
from fasttriplet.run._timeline import Timeline
from tests.clock import Clock
from tests.run.plain_feed import Rows
from tests.small_rec import picture, random_table


@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1)), min_size=1, max_size=30),
    st.floats(1e-6, 1e5),
)
def test_a_timeline_keeps_the_busy_time_however_long_the_run(
    gaps_and_lengths: list[tuple[float, float]], scale: float
) -> None:
    timeline = Timeline()
    now, busy = timeline._started, 0.0
    for gap, length in gaps_and_lengths:
        start, now = now + gap * scale, now + (gap + length) * scale
        timeline.add("a", start, now)
        busy += now - start
    width, shares = timeline.shares()
    assert len(shares["a"]) <= 64
    assert all(0 <= share <= 1 for share in shares["a"])
    total = now - timeline._started
    assert (len(shares["a"]) - 1) * width <= max(total, width) <= len(shares["a"]) * width * (1 + 1e-9)
    last = total - (len(shares["a"]) - 1) * width  # the part that the end of the run cuts
    found = sum(shares["a"][:-1]) * width + shares["a"][-1] * max(last, 0.0)
    assert found == pytest.approx(busy, rel=1e-3, abs=0.02)


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90), st.booleans()), min_size=1, max_size=9),
    st.sampled_from([64, 128, 256]),
)
@example([(0, 64, True)], 64)  # just as long as the first bins together
@example([(0, 64, True), (0, 64, False)], 64)
def test_shares_are_those_of_each_part(spans: list[tuple[int, int, bool]], parts: int) -> None:
    """Times in fractions of two, which are exact: of each part of the time, how much of it was busy."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("time.perf_counter", lambda: 8.0)
        timeline = Timeline()
    now, busy = 0.0, dict[str, list[tuple[float, float]]]()
    for gap, length, first in spans:
        start, now = now + gap / parts, now + (gap + length) / parts
        timeline.add("one" if first else "two", 8 + start, 8 + now)
        busy.setdefault("one" if first else "two", []).append((start, now))
    width, shares = timeline.shares()
    whole = max(now, 1 / 64)
    assert width in [2.0**power / 64 for power in range(12)]
    assert width == 1 / 64 or width <= 2 * whole / 64
    count = int(np.ceil(whole / width))
    assert count <= 64
    expected = {
        stage: [
            sum(max(0.0, min(end, (at + 1) * width) - max(start, at * width)) for start, end in some)
            / min(width, whole - at * width)
            for at in range(count)
        ]
        for stage, some in busy.items()
    }
    assert shares == expected


def test_a_narrow_timeline_is_the_means_of_neighbours() -> None:
    assert _narrow([0.5] * 32) == [0.5] * 32
    assert _narrow([1.0, 0.0] * 20 + [0.6]) == [0.5] * 20 + [0.6]


class Slow(Rows):
    """An embedder that sleeps for each row."""

    def __init__(self, seconds: float) -> None:
        super().__init__(1, 100, 16, 0, needs_images=True)
        self.seconds = seconds

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        time.sleep(self.seconds * rows.height)
        return super().embed(rows, images)


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
        # The run may end within the last part.
        assert sum(shares) * width == pytest.approx(summary.seconds[stage], abs=width + 1e-6)
        assert len(shares) * width == pytest.approx(summary.seconds["total"], abs=2 * width)
    # Waits do not overlap, so together they are at most the run.
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
    with ft.Feed(rec, model=random_table(), bag_size=15, batch_size=9) as feed:
        for _ in feed:
            time.sleep(0.02)
            batches += 1
    summary = feed.summary
    assert batches * 0.02 <= summary.seconds["train"] <= summary.seconds["total"]
    assert summary.waited_most_for == "train"


def test_what_was_not_done_is_not_waited_for(rec: Path) -> None:
    """A table needs no images, so nothing is decoded."""
    summary = ft.mine_rec(rec, model=random_table(), bag_size=15).summary
    assert "decode" not in summary.seconds
    assert "decode" not in summary.waited


def test_ordering_an_epoch_overlaps_what_is_done_with_the_one_before(
    rec: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that only the ordering moves: once to find the largest bag, and once for each epoch."""
    order = vars(_stages)["order_of_epoch"]

    def slowly(*arguments: Any) -> Any:
        clock.now += 2
        return order(*arguments)

    monkeypatch.setattr(_stages, "order_of_epoch", slowly)
    summary = ft.mine_rec(rec, model=random_table(), bag_size=15, epochs=3).summary
    assert summary.seconds["index"] == 8
    assert summary.waited["index"] == 2


def test_the_index_is_a_part_of_the_whole_time(tmp_path: Path) -> None:
    """No stage before the first batch is left out of the wall time."""
    encoded = picture(0, side=8)
    with ft.RecordWriter(tmp_path / "train.rec") as writer:
        for key in range(1, 20_001):
            writer.write(key, ft.IRHeader(0, float(key % 10), key, 0), encoded)
    with ft.Feed(
        tmp_path / "train.rec", model=random_table(20_001), images_per_identity=2, batch_size=3
    ) as feed:
        next(feed)
    summary = feed.summary
    assert summary.seconds["index"] <= summary.seconds["total"]
    assert sum(summary.waited.values()) <= summary.seconds["total"]
