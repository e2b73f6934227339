"""A dataset that is mined block by block, with what is done kept in files, has the triplets of one call."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import fasttriplet as ft
from fasttriplet._metadata import read_metadata
from fasttriplet.mining import _steps
from fasttriplet.mining._blocks import AllRows
from fasttriplet.mining._options import MiningOptions
from fasttriplet.mining._steps import Merger, Schedule, Step, Steps, cut
from tests.mining.defined import rows


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 30))
@example([3, 3, 3], 3)
@example([3, 3, 3], 6)
@example([1, 9, 1], 2)
def test_blocks_are_of_whole_identities_and_about_equal(sizes: list[int], most: int) -> None:
    """Identity by identity: one that would exceed an equal share begins the next block."""
    total = sum(sizes)
    share = -(-total // -(-total // most))
    assert share <= most
    expected, first, end = [], 0, 0
    for size in sizes:
        if end > first and end + size - first > share:
            expected.append((first, end))
            first = end
        end += size
    labels = np.repeat(np.arange(len(sizes)) * 3 - 5, sizes)
    assert cut(labels, most) == (*expected, (first, end))


def steps_of(folder: Path, options: MiningOptions, blocks: int, *, seed: int = 3) -> Steps:
    """Eight identities of four images for each block; ids are in no order."""
    rng = np.random.default_rng(blocks)
    labels = np.repeat(np.arange(8 * blocks), 4)
    embeddings = rng.standard_normal((len(labels), 6)).astype(np.float32)
    ids = rng.permutation(len(labels)) * 5 + 1
    every = AllRows(embeddings, labels, ids, "rows")
    steps = Steps(every, cut(labels, 32), options, seed, folder)
    assert len(steps.blocks) == blocks
    return steps


def of_one_call(steps: Steps) -> ft.Triplets:
    wanted: dict[str, Any] = {name: getattr(steps.options, name) for name in MiningOptions.names()}
    every = steps.rows
    embeddings: Any = every.embeddings
    return ft.mine(embeddings, every.labels, ids=every.ids, seed=steps.seed, **wanted)


def do_all(steps: Steps, order: Random, most: int = 10**6) -> Schedule:
    """Do jobs as several processes would: each is taken in turn, and finished in any order."""
    schedule = Schedule(steps)
    taken: list[Any] = []
    for _ in range(most):
        while len(taken) < 3 and (job := schedule.take()) is not None:
            taken.append(job)
        if not taken:
            break
        job = taken.pop(order.randrange(len(taken)))
        steps.do(job, threads=1)
        schedule.finished(job)
    return schedule


# One block; as many as are merged at once; one more; several merged parts, and what is merged of these.
@pytest.mark.heavy
@pytest.mark.parametrize("blocks", [1, 3, 4, 8, 10])
def test_steps_give_what_one_call_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, blocks: int) -> None:
    monkeypatch.setattr(_steps, "_TOGETHER", 3)
    steps = steps_of(tmp_path, MiningOptions(margin=2.0), blocks)
    whole = of_one_call(steps)
    assert len(whole) > blocks
    schedule = do_all(steps, Random(blocks))
    assert schedule.done == len(steps) == blocks * (blocks + 1) // 2
    assert schedule.triplets == len(whole)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [steps.triplets_of(block).name for block in range(blocks)]
    for most in (1, 7, 100, len(whole), 10**6):
        frames = list(steps.sorted_triplets(most))
        assert pl.concat(frames).rows() == rows(whole)
        # All triplets of an anchor are in one frame.
        ends = [frame["anchor"][[0, -1]].to_list() for frame in frames]
        assert all(one[1] < other[0] for one, other in pairwise(ends))
        most_of_anchor = int(np.unique(whole.anchor, return_counts=True)[1].max())
        assert max(frame.height for frame in frames) <= most + most_of_anchor
        assert len(frames) >= min(len(whole) / (most + most_of_anchor), len(np.unique(whole.anchor)))
    stats = steps.stats(1.5)
    for name in ("pairs", "pairs_over_max_ap", "pairs_without_negative"):
        assert getattr(stats, name) == getattr(whole.stats, name)
    assert stats.seconds == 1.5


def test_names_of_folders_are_no_patterns(tmp_path: Path) -> None:
    folder = tmp_path / "[1]*"
    folder.mkdir()
    steps = steps_of(folder, MiningOptions(margin=2.0), 2)
    do_all(steps, Random(0))
    whole = of_one_call(steps)
    assert Schedule(steps).triplets == len(whole)
    assert [row for frame in steps.sorted_triplets(50) for row in frame.rows()] == rows(whole)
    stats = steps.stats(0)
    for name in ("pairs_screened", "exact_distances"):
        of_each = [read_metadata(steps.triplets_of(block))[name] for block in range(2)]
        assert getattr(stats, name) == sum(of_each)


@pytest.mark.parametrize("jobs", [1, 5, 30, 60, 75])
def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    steps = steps_of(tmp_path, MiningOptions(margin=2.0), 10)
    before = do_all(steps, Random(1), jobs)
    again: list[Any] = []
    do = Steps.do

    def noted(steps: Steps, job: Any, *, threads: int | None) -> None:
        again.append(job)
        do(steps, job, threads=threads)

    monkeypatch.setattr(Steps, "do", noted)
    known = Schedule(steps)
    assert (known.done, known.triplets) == (before.done, before.triplets)
    after = do_all(steps, Random(2))
    assert after.done == len(steps)
    assert sum(isinstance(job, Step) for job in again) == len(steps) - before.done
    assert [row for frame in steps.sorted_triplets(50) for row in frame.rows()] == rows(of_one_call(steps))


def test_none_of_none(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, MiningOptions(margin=1e-12), 3)
    assert do_all(steps, Random(0)).triplets == 0
    assert list(steps.sorted_triplets(10)) == []
    assert steps.stats(0).pairs == steps.stats(0).pairs_without_negative == 3 * 8 * 6


def test_a_merge_that_another_process_has_done(tmp_path: Path) -> None:
    steps = steps_of(tmp_path, MiningOptions(margin=2.0), 2)
    steps.do(Step(0, 0), threads=1)
    steps.do(Step(0, 1), threads=1)
    whole = Merger(0, 0, 2)
    steps.do(whole, threads=1)
    made = steps.triplets_of(0).read_bytes()
    steps.do(whole, threads=1)  # the parts are gone
    assert steps.triplets_of(0).read_bytes() == made
    steps.do(Step(0, 0), threads=1)  # and one of them is there again
    steps.do(whole, threads=1)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("00000")] == [
        steps.triplets_of(0).name
    ]
    with pytest.raises(FileNotFoundError, match=r"00001-00001-00002\.part"):
        steps.do(Merger(1, 0, 2), threads=1)
