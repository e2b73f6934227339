"""The dataset object: its columns, its pixels, and its use in other processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from tests.small_rec import identities, write_rec


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [
        write_rec(tmp_path / "a.rec", identities(6, 3), side=16),
        write_rec(tmp_path / "b.rec", identities(4, 5, first_key=19), side=16),  # a shard, by its keys
    ]


@pytest.mark.parametrize("several", [False, True])
def test_its_columns_are_those_of_the_index(paths: list[Path], several: bool) -> None:
    rec: Any = paths if several else paths[0]
    dataset, index = ft.Dataset(rec), ft.index_rec(rec)
    assert dataset.index.equals(index)
    assert len(dataset) == index.height
    assert dataset.keys.tolist() == index["key"].to_list()
    assert dataset.labels.tolist() == index["label"].to_list()
    assert dataset.offsets.tolist() == index["offset"].to_list()
    assert dataset.lengths.tolist() == index["length"].to_list()
    assert dataset.files.tolist() == (index["file"].to_list() if several else [0] * index.height)
    assert dataset.ids.tolist() == [
        key + (file << 48) for key, file in zip(dataset.keys.tolist(), dataset.files.tolist(), strict=True)
    ]
    assert not dataset.keys.flags.writeable
    assert "images" in repr(dataset)


def test_rows_and_positions_give_the_same_pixels(paths: list[Path]) -> None:
    dataset = ft.Dataset(paths)
    whole = dataset.decode(dataset.index).pixels
    assert dataset.image_size(dataset.index) == whole.shape[1:3] == (16, 16)
    order = np.array([37, 0, 17, 18, 18])
    assert np.array_equal(dataset.decode(order).pixels, whole[order])
    assert np.array_equal(dataset.decode(order.tolist(), threads=2).pixels, whole[order])
    assert np.array_equal(dataset.decode(dataset.index[order]).pixels, whole[order])
    for row in order.tolist():
        header, content = dataset.read(row)
        assert header.id == dataset.keys[row]
        assert np.array_equal(ft.decode_images([content])[0], whole[row])
    assert dataset.decode([]).pixels.shape == (0, 0, 0, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([38], "rows must be from 0 to 37, the positions of the images"),
        ([-1], "rows must be from 0 to 37"),
        ([0.5], "rows must be a list of integers, not float64"),
        ([[1]], "rows must be a list of integers, not int64 of shape"),
        (["1"], "rows must be a list of integers"),
    ],
)
def test_wrong_rows_are_named(paths: list[Path], rows: Any, message: str) -> None:
    dataset = ft.Dataset(paths)
    with pytest.raises(ValueError, match=message):
        dataset.decode(rows)


def test_no_file_and_a_file_twice(paths: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^rec must be .* not an empty list"):
        ft.Dataset([])
    for wrong in (None, 5, [3.5]):
        with pytest.raises(ValueError, match=r"^rec must be the path of a \.rec file or several, not"):
            ft.Dataset(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is given twice"):
        ft.Dataset([paths[0], tmp_path / "." / "a.rec"])
    with pytest.raises(FileNotFoundError):
        ft.Dataset(tmp_path / "none.rec")


def test_a_run_takes_it(paths: list[Path]) -> None:
    dataset = ft.Dataset(paths)
    by_path, by_object = (ft.mine_rec(rec, model="pixels", band="any") for rec in (paths, dataset))
    assert by_path.triplets.collect().equals(by_object.triplets.collect())
    with ft.Feed(dataset, model="pixels", band="any", batch_size=6) as feed:
        assert next(feed).images.shape == (6, 3, 16, 16)
    assert ft.verify_rec(dataset, "pixels").pairs == ft.verify_rec(paths, "pixels").pairs


def test_fingerprints_tell_datasets_apart(paths: list[Path]) -> None:
    prints = [ft.Dataset(rec).fingerprint for rec in (paths[0], paths[1], paths, paths[::-1])]
    assert len(set(prints)) == 4
    assert ft.Dataset(str(paths[0])).fingerprint == prints[0]


def test_a_file_that_is_replaced_stays_open(paths: list[Path]) -> None:
    dataset = ft.Dataset(paths[0])
    before = dataset.decode(dataset.index).pixels
    paths[1].replace(paths[0])
    assert np.array_equal(dataset.decode(dataset.index).pixels, before)
    with pytest.raises(ft.RecordError, match=r"a\.rec has .* bytes, and had .* when it was indexed"):
        pickle.loads(pickle.dumps(dataset))


def _decode(dataset: ft.Dataset, rows: list[int]) -> Any:
    return dataset.decode(rows, threads=2).pixels, len(dataset), dataset.fingerprint, dataset.ids.tolist()


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_other_processes_get_the_same(paths: list[Path], method: str) -> None:
    """As the workers of a data loader: the dataset is inherited by a fork, and pickled for the other two."""
    dataset = ft.Dataset(paths)
    rows = [30, 2, 2]
    expected = _decode(dataset, rows)
    with multiprocessing.get_context(method).Pool(2) as pool:
        for pixels, *rest in pool.starmap(_decode, [(dataset, rows)] * 3):
            assert np.array_equal(pixels, expected[0])
            assert rest == list(expected[1:])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_a_fork_without_pickling(paths: list[Path]) -> None:
    dataset = ft.Dataset(paths)
    expected = dataset.decode([5, 6]).pixels
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(dataset.decode([5, 6]).pixels, expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
@pytest.mark.parametrize("run", [ft.mine_rec, ft.Feed])
def test_a_run_in_a_fork_is_an_error_and_no_hang(paths: list[Path], run: Any) -> None:
    dataset = ft.Dataset(paths)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(RuntimeError):
            run(dataset, model="pixels")
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_it_pickles_with_absolute_paths(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(paths[0].parent)
    dataset = ft.Dataset("a.rec")
    pickled = pickle.dumps(dataset)
    monkeypatch.chdir("/")
    again = pickle.loads(pickled)
    assert again.index.equals(dataset.index)
    assert np.array_equal(again.decode([1]).pixels, dataset.decode([1]).pixels)
