"""Runs on machines give the files of a run in one process, whatever the order of the jobs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.mining._blocks import AllRows, bytes_of_row
from fasttriplet.mining._options import MiningOptions
from fasttriplet.mining._steps import Schedule, Steps, cut
from fasttriplet.run import _pass
from fasttriplet.run._machines import Needs
from tests.run.leftovers import besides_datasets
from tests.run.machines import Disorderly, LostError, in_place_of_ray
from tests.run.test_whole import SMALL, dataset
from tests.small_rec import identities, write_rec

pytestmark = pytest.mark.heavy

BAGS: dict[str, Any] = {"bag_size": 40, "epochs": 3, "margin": 1.0}
WHOLE: dict[str, Any] = {"bag_size": None, "memory": SMALL}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return dataset(tmp_path_factory.mktemp("data"), identities(80, 4), sorted_by_label=False)


def mined(data: tuple[Path, Path], out: Path, **options: Any) -> ft.MineResult:
    rec, file = data
    return ft.mine_rec(rec, model=f"npy:{file}", out=out, **options)


@pytest.mark.parametrize("options", [BAGS, WHOLE, BAGS | {"max_triplets": 150, "images_per_identity": 3}])
@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_the_file_is_that_of_one_process(
    data: tuple[Path, Path], tmp_path: Path, options: dict[str, Any], at_once: int
) -> None:
    here = mined(data, tmp_path / "here.parquet", **options)
    for seed in range(3):
        with in_place_of_ray(Disorderly(seed, at_once)):
            there = mined(data, tmp_path / "there.parquet", overwrite=True, ray="disorderly", **options)
        assert (tmp_path / "there.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()
        for name in ("triplets", "pairs", "pairs_without_negative", "bags", "images", "epochs", "quantiles"):
            assert getattr(there.summary, name) == getattr(here.summary, name)
        assert there.summary.without_negative == here.summary.without_negative
    assert sorted(besides_datasets(tmp_path)) == ["here.parquet", "there.parquet"]


def test_bags_are_given_as_soon_as_those_before_are_done(data: tuple[Path, Path]) -> None:
    """So a run that has enough triplets begins no more bags."""
    rec, file = data
    for seed in range(3):
        machines = Disorderly(seed, 1)
        with in_place_of_ray(machines):
            done = ft.mine_rec(rec, model=f"npy:{file}", max_triplets=1, ray="disorderly", **BAGS)
        assert done.summary.stopped_at_max_triplets
        assert machines.done <= 9  # of 24


@pytest.mark.parametrize("options", [BAGS, WHOLE])
def test_a_run_whose_machines_go_away_is_resumed(
    data: tuple[Path, Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    out, done = tmp_path / "t.parquet", 0
    mined(data, tmp_path / "here.parquet", **options)
    for seed, lives in enumerate((0, 1, 4, 5, 7)):
        machines = Disorderly(seed, 3, lives)
        with in_place_of_ray(machines), pytest.raises(LostError) as lost:
            mined(data, out, resume=lives > 0, ray="disorderly", **options)
        done += machines.done
        assert not out.exists()
    [note] = lost.value.__notes__
    what = "bags" if options is BAGS else "of 36 pairs of blocks"
    said = re.fullmatch(rf"kept in {out}\.unfinished: (\d+) {what}; resume=True continues", note)
    assert said
    # A step is kept as soon as it is done, also where the machine that did it is lost then.
    assert int(said[1]) == done if options is BAGS else int(said[1]) >= done
    with in_place_of_ray(Disorderly(5, 2)):
        mined(data, out, resume=True, ray="disorderly", **options)
    assert out.read_bytes() == (tmp_path / "here.parquet").read_bytes()
    assert sorted(besides_datasets(tmp_path)) == ["here.parquet", "t.parquet"]


def test_what_a_cluster_began_one_process_can_end(data: tuple[Path, Path], tmp_path: Path) -> None:
    out, options = tmp_path / "t.parquet", {"bag_size": None}
    mined(data, tmp_path / "here.parquet", **options)
    machines = Disorderly(0, 3, 4)
    machines.memory = SMALL  # type: ignore[assignment]
    with in_place_of_ray(machines), pytest.raises(LostError):
        mined(data, out, ray="disorderly", **options)
    mined(data, out, resume=True, **options)  # in the blocks of the cluster
    assert out.read_bytes() == (tmp_path / "here.parquet").read_bytes()


def test_jobs_are_sent_without_what_chooses_the_bags(data: tuple[Path, Path], tmp_path: Path) -> None:
    """Tables of excluded images and graphs may be large, and files of them need not be there."""
    sent = list[Any]()

    class Noting(Disorderly):
        def run(self, work: Any, thing: Any, *more: Any) -> Iterator[tuple[Any, Any]]:
            sent.append(thing.options)
            return super().run(work, thing, *more)

    near = pl.DataFrame({"label": np.arange(80), "neighbor_label": (np.arange(80) + 3) % 80, "rank": 0})
    excluded = pl.DataFrame({"key": [1, 2]})
    chosen: dict[str, Any] = {"exclude": excluded, "neighbors": near, "random_share": 0.25}
    here = mined(data, tmp_path / "here.parquet", **BAGS, **chosen)
    with in_place_of_ray(Noting(0, 2)):
        there = mined(data, tmp_path / "there.parquet", ray="disorderly", **BAGS, **chosen)
    assert there.triplets.collect().equals(here.triplets.collect())
    [options] = sent
    assert (options.exclude, options.neighbors, options.random_share) == (None, None, 0)


def test_a_step_asks_for_the_memory_of_two_of_the_largest_blocks(
    data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = list[tuple[int, int]]()

    def noted(labels: NDArray[np.int64], most: int) -> tuple[tuple[int, int], ...]:
        found = cut(labels, most)
        blocks.extend(found)
        return found

    monkeypatch.setattr("fasttriplet.run._whole.cut", noted)
    machines = Disorderly(0, 2)
    with in_place_of_ray(machines):
        mined(data, tmp_path / "t.parquet", ray="disorderly", **WHOLE)
    rows = [end - first for first, end in blocks]
    assert min(rows) < max(rows)
    assert machines.needs == Needs(memory=max(rows) * bytes_of_row(np.load(data[1]).shape[1]))


def test_work_of_another_run_is_not_continued(data: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    with in_place_of_ray(Disorderly(0, 2, 3)), pytest.raises(LostError):
        mined(data, out, ray="disorderly", **BAGS)
    for change, words in (
        ({"margin": 0.9}, r"begun with margin 1\.0, not 0\.9"),
        ({"seed": 5}, "of the seed 0, not 5"),
        ({"bag_size": 60}, "begun with bag_size 40, not 60"),
        ({"bag_size": None, "epochs": 1}, "begun with bag_size 40, not None"),
    ):
        with in_place_of_ray(Disorderly(0, 2)), pytest.raises(ValueError, match=words):
            mined(data, out, ray="disorderly", resume=True, **BAGS | change)
    with in_place_of_ray(Disorderly(0, 2)), pytest.raises(FileExistsError, match="resume=True continues it"):
        mined(data, out, ray="disorderly", **BAGS)
    with pytest.raises(ft.OptionError, match="resume is for bag_size=None"):
        mined(data, out, resume=True, **BAGS)


def test_images_are_embedded_there(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(700, 4), frozenset({7, 1500}), side=8)
    how: dict[str, Any] = {"model": "pixels", "on_error": "skip"}
    here = ft.embed_rec(rec, out=tmp_path / "here.npy", **how)
    for seed in range(3):
        with in_place_of_ray(Disorderly(seed, 2)):
            there = ft.embed_rec(rec, out=tmp_path / "there.npy", ray="disorderly", overwrite=True, **how)
        assert (tmp_path / "there.npy").read_bytes() == (tmp_path / "here.npy").read_bytes()
        assert there.skipped == here.skipped
        assert len(there.skipped) == 2
    ft.mine_rec(rec, out=tmp_path / "here.parquet", bag_size=None, margin=1.0, **how)
    with in_place_of_ray(Disorderly(3, 2)):
        ft.mine_rec(rec, out=tmp_path / "there.parquet", bag_size=None, margin=1.0, ray="disorderly", **how)
    assert (tmp_path / "there.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()


def test_embedding_is_resumed_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pass, "_PIECES", 1)
    rec = write_rec(tmp_path / "train.rec", identities(2600, 4), side=4)
    ft.embed_rec(rec, model="pixels", out=tmp_path / "here.npy")
    with in_place_of_ray(Disorderly(2, 2, 8)), pytest.raises(LostError):
        ft.embed_rec(rec, model="pixels", out=tmp_path / "there.npy", ray="disorderly")
    with in_place_of_ray(Disorderly(1, 2)):
        done = ft.embed_rec(rec, model="pixels", out=tmp_path / "there.npy", ray="disorderly", resume=True)
    assert done.resumed_after
    assert (tmp_path / "there.npy").read_bytes() == (tmp_path / "here.npy").read_bytes()


def test_an_image_that_is_skipped_is_told(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(40, 4), frozenset({7, 30}), side=8)
    how: dict[str, Any] = {"model": "pixels", "bag_size": 40, "margin": 1.0, "epochs": 2, "on_error": "skip"}
    here = ft.mine_rec(rec, **how)
    with in_place_of_ray(Disorderly(0, 3)):
        there = ft.mine_rec(rec, ray="disorderly", **how)
    assert there.triplets.collect().equals(here.triplets.collect())
    assert there.summary.skipped == here.summary.skipped
    assert len(there.summary.skipped) == 2


@pytest.mark.parametrize("ending", ["csv", "jsonl", "arrow"])
def test_other_formats_keep_their_types(data: tuple[Path, Path], tmp_path: Path, ending: str) -> None:
    """Bags come as files of another format, and no text says which kind of number it is."""
    here = mined(data, tmp_path / f"here.{ending}", **BAGS)
    with in_place_of_ray(Disorderly(0, 2)):
        there = mined(data, tmp_path / f"there.{ending}", ray="disorderly", **BAGS)
    assert (tmp_path / f"there.{ending}").read_bytes() == (tmp_path / f"here.{ending}").read_bytes()
    assert there.triplets.collect_schema() == here.triplets.collect_schema()
    assert there.triplets.collect().equals(here.triplets.collect())


def test_a_folder_with_a_pattern_in_its_name(data: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "runs[1]*").mkdir()
    for options in (BAGS, WHOLE):
        mined(data, tmp_path / "here.parquet", overwrite=True, **options)
        with in_place_of_ray(Disorderly(0, 2)):
            out = tmp_path / "runs[1]*" / "t.parquet"
            mined(data, out, overwrite=True, ray="disorderly", **options)
        assert out.read_bytes() == (tmp_path / "here.parquet").read_bytes()


# Other models


class Shade:
    """An embedder whose weights are in a file, which may be another one in another process."""

    needs_images, description = True, "a shade"

    def __init__(self, weights: Path) -> None:
        self.weights = weights
        self.loaded: Any = None

    def prepare(self, index: pl.DataFrame) -> None:
        pass

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:  # noqa: ARG002
        assert images is not None
        if self.loaded is None:
            self.loaded = np.load(self.weights)
        found: NDArray[np.float32] = images.reshape(len(images), -1).astype(np.float32) @ self.loaded
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"weights": self.weights, "loaded": None}


@pytest.fixture
def shade(tmp_path: Path) -> Shade:
    weights = np.random.default_rng(0).standard_normal((8 * 8 * 3, 16)).astype(np.float32)
    np.save(tmp_path / "w.npy", weights)
    return Shade(tmp_path / "w.npy")


def change(shade: Shade) -> None:
    np.save(shade.weights, np.load(shade.weights)[::-1])


@pytest.mark.parametrize("options", [{"bag_size": 40}, {"bag_size": None}])
def test_a_process_with_other_weights(tmp_path: Path, shade: Shade, options: dict[str, Any]) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(40, 4), side=8)

    class Changes(Disorderly):
        def run(self, *arguments: Any) -> Iterator[tuple[Any, Any]]:
            for number, found in enumerate(super().run(*arguments)):
                yield found
                if number == 0:  # after the probe
                    change(shade)

    with (
        in_place_of_ray(Changes(0, 1)),
        pytest.raises(ValueError, match="a shade: the model gives another embedding here than where"),
    ):
        ft.mine_rec(rec, model=shade, out=tmp_path / "t.parquet", ray="disorderly", margin=1.0, **options)


def test_a_run_of_other_weights_is_not_continued(tmp_path: Path, shade: Shade) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(80, 4), side=8)
    how: dict[str, Any] = {"model": shade, "out": tmp_path / "t.parquet", "ray": "disorderly", **BAGS}
    with in_place_of_ray(Disorderly(0, 1, 9)), pytest.raises(LostError):
        ft.mine_rec(rec, **how)
    change(shade)
    shade.loaded = None
    with in_place_of_ray(Disorderly(0, 1)), pytest.raises(ValueError, match="or of the same one with other"):
        ft.mine_rec(rec, resume=True, **how)
    change(shade)
    with in_place_of_ray(Disorderly(0, 1)):
        ft.mine_rec(rec, resume=True, **how)


def test_other_embeddings_are_not_continued(data: tuple[Path, Path], tmp_path: Path) -> None:
    rec, file = data
    shutil.copy(file, tmp_path / "e.npy")
    how: dict[str, Any] = {"out": tmp_path / "t.parquet", "ray": "disorderly", **BAGS}
    with in_place_of_ray(Disorderly(0, 2, 5)), pytest.raises(LostError):
        ft.mine_rec(rec, model=f"npy:{tmp_path / 'e.npy'}", **how)
    rows = np.load(file)
    rows[17, 3] += 1
    np.save(tmp_path / "e.npy", rows)
    with in_place_of_ray(Disorderly(0, 2)), pytest.raises(ValueError, match="the embeddings are others"):
        ft.mine_rec(rec, model=f"npy:{tmp_path / 'e.npy'}", resume=True, **how)


def test_work_of_a_run_that_was_replaced(data: tuple[Path, Path], tmp_path: Path) -> None:
    """A process that still works for an earlier run writes nothing into the folder of the next one."""
    late: list[tuple[Any, Any, Any]] = []

    class Late(Disorderly):
        def run(self, work: Any, thing: Any, take: Any, *_: Any) -> Iterator[tuple[Any, Any]]:
            late.append((work, thing, take()))
            raise LostError
            yield

    out = tmp_path / "t.parquet"
    with in_place_of_ray(Late(0, 2)), pytest.raises(LostError):
        mined(data, out, ray="disorderly", **WHOLE)
    with in_place_of_ray(Disorderly(0, 2, 5)), pytest.raises(LostError):
        mined(data, out, ray="disorderly", overwrite=True, **WHOLE | {"margin": 0.2})
    work, thing, job = late[0]
    with pytest.raises(FileNotFoundError, match="is not the folder that the run writes to"):
        work(thing, job)


@settings(deadline=None, max_examples=15)
@given(
    identities=st.integers(2, 24),
    most=st.integers(3, 30),
    seed=st.integers(0, 2**32),
    stops=st.lists(st.integers(0, 30), max_size=2),
)
def test_steps_in_any_order_and_from_any_stop(
    tmp_path_factory: pytest.TempPathFactory, identities: int, most: int, seed: int, stops: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), rng.integers(2, 5, identities))
    rows = rng.normal(size=(len(labels), 4)).astype(np.float32)
    ids = rng.permutation(len(labels)) + 7
    options = MiningOptions(margin=0.5)
    folder = tmp_path_factory.mktemp("steps")
    steps = Steps(AllRows(rows, labels, ids, "rows"), cut(labels, most), options, 3, folder)
    expected = ft.mine(rows, labels, ids=ids, seed=3, margin=0.5).to_frame()
    for lives in [*stops, 10**9]:
        schedule = Schedule(steps)
        told = schedule.done
        machines = Disorderly(seed, int(rng.integers(1, 5)), lives)
        try:
            for job, _ in machines.run(do, steps, schedule.take):
                schedule.finished(job)
                assert schedule.done >= told
                told = schedule.done
        except LostError:
            continue
        assert schedule.done == len(steps)
        assert schedule.triplets == len(expected)
    found = list(steps.sorted_triplets(50))
    assert (pl.concat(found) if found else expected.clear()).equals(expected)
    assert steps.stats(0.0).pairs == ft.mine(rows, labels, ids=ids, seed=3, margin=0.5).stats.pairs
    assert not list(folder.glob(".*"))  # nothing half written


def do(steps: Steps, job: Any) -> None:
    steps.do(job, threads=1)
