"""What overlaps, what is kept, and what a run says of itself: worker, timeline, forks."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fasttriplet as ft
from fasttriplet.cli._show import _narrow
from fasttriplet.run._timeline import Timeline
from fasttriplet.run._worker import Ahead, Worker
from tests.small_rec import identities, write_rec


def numbers(count: int, made: list[int], error: Exception | None = None) -> Generator[int, None, None]:
    for number in range(count):
        made.append(number)
        yield number
    if error is not None:
        raise error


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_so_many_items_are_made_ahead_and_no_more(depth: int) -> None:
    made: list[int] = []
    with Worker("test") as worker:
        for number in Ahead(worker, numbers(12, made), depth):
            until = time.monotonic() + 5
            while len(made) < min(number + 1 + depth, 12) and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(0.005)
            assert made == list(range(min(number + 1 + depth, 12)))
    assert made == list(range(12))


@pytest.mark.parametrize("depth", [0, 3])
def test_an_error_comes_in_its_turn_and_ends_the_items(depth: int) -> None:
    with Worker("test") as worker:
        ahead = Ahead(worker, numbers(3, [], KeyError("here")), depth)
        assert [next(ahead) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(KeyError, match="here"):
            next(ahead)
        with pytest.raises(StopIteration):
            next(ahead)


def test_leaving_the_block_ends_a_call_that_takes_long(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(50, 20))
    dataset = ft.Dataset(rec)
    rows = dataset.index.sample(400_000, with_replacement=True, seed=1)  # takes seconds
    with Worker("test") as worker:
        decoding = worker.submit(dataset.decode, rows)
        time.sleep(0.2)
        started = time.monotonic()
    assert time.monotonic() - started < 1
    assert isinstance(decoding.exception(), KeyboardInterrupt)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fasttriplet")]


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


def test_a_narrow_timeline_is_the_means_of_neighbours() -> None:
    assert _narrow([0.5] * 32) == [0.5] * 32
    assert _narrow([1.0, 0.0] * 20 + [0.6]) == [0.5] * 20 + [0.6]


@pytest.mark.parametrize("call", ["ft.triplet_seq(index)", "ft.index_rec(rec)", "ft.mine_rec(rec)"])
def test_polars_after_a_fork_is_an_error_and_no_hang(tmp_path: Path, call: str) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(4, 4))
    code = f"""
import os, signal, sys
import fasttriplet as ft
rec = {str(rec)!r}
index = ft.index_rec(rec)
file = ft.RecordFile(rec)
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
signal.alarm(20)
assert len(file.decode([1, 2, 3])) == 3
try:
    {call}
except RuntimeError as error:
    assert "Polars" in str(error), error
    sys.exit(7)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == 7


def test_stopping_in_the_only_bag_is_said(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(12, 6))
    summary = ft.mine_rec(rec, band="any", max_triplets=5).summary
    assert (summary.bags, summary.triplets) == (1, 5)
    assert summary.stopped_at_max_triplets
