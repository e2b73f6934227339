"""The dataset object: its columns, its pixels, and its use in other processes."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.dataset._dataset import files_of, open_dataset
from fasttriplet.dataset._options import DatasetOptions
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
    shown = ", ".join(map(str, paths if several else paths[:1]))
    assert repr(dataset) == f"Dataset('{shown}', {len(dataset)} images)"


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


def test_frames_of_other_integers(paths: list[Path]) -> None:
    dataset = ft.Dataset(paths)
    expected = dataset.decode(dataset.index).pixels
    other = dataset.index.cast({"key": pl.Int32, "offset": pl.UInt64, "length": pl.Int16, "file": pl.Int64})
    assert np.array_equal(dataset.decode(other[::-1]).pixels, expected[::-1])
    for columns, missing in ((["key"], "offset"), (["offset", "file"], "key"), (["file"], "key and offset")):
        with pytest.raises(
            ValueError, match=f"^rows: expected the columns of index_rec, and {missing} is not there$"
        ):
            dataset.decode(dataset.index.select(columns))
    with pytest.raises(
        ValueError,
        match=r"^rows: the dataset has 2 files, and no column 'file' says in which of them a row lies$",
    ):
        dataset.decode(dataset.index.drop("file"))
    lazy: Any = dataset.index.lazy()
    with pytest.raises(ValueError, match=r"^rows must be a DataFrame of polars, not a LazyFrame of polars$"):
        dataset.decode(lazy)
    wrong = dataset.index.with_columns(length=pl.col("length") + 1)
    with pytest.raises(ft.RecordError, match="its length in bytes is"):
        dataset.decode(wrong[:1])


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
    dataset = ft.Dataset(str(paths[0]))
    assert dataset.fingerprint == prints[0]
    columns = np.concatenate([dataset.keys, dataset.labels, dataset.lengths]).astype("<i8")
    assert prints[0] == hashlib.blake2b(columns.tobytes(), digest_size=8).hexdigest()


def test_a_record_is_read_by_its_position(paths: list[Path]) -> None:
    dataset = ft.Dataset(paths)
    assert dataset.read(-1) == dataset.read(37) == dataset.read(np.int8(37))
    assert dataset.read(37)[0] == ft.IRHeader(0, 3.0, 38, 0)
    for row in (38, -39):
        with pytest.raises(IndexError, match=rf"^row {row} is out of range: Dataset\(.*, 38 images\)$"):
            dataset.read(row)
    for wrong in (0.5, slice(2)):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            dataset.read(wrong)  # type: ignore[arg-type]


def test_what_a_run_says_of_its_dataset(paths: list[Path], tmp_path: Path) -> None:
    options = DatasetOptions(labels="separate", cache=str(tmp_path / "kept"), max_pixels=77)
    dataset = open_dataset(paths, options, threads=1)
    assert dataset.options == options
    assert dataset.label_shifts == (0, 6)
    assert len(list((tmp_path / "kept").iterdir())) == 2
    assert files_of(dataset) == files_of(paths) == files_of([*map(str, paths)]) == paths
    assert files_of(str(paths[0])) == paths[:1]
    same: list[dict[str, Any]] = [{}, {"labels": "separate"}, {"cache": options.cache}, {"max_pixels": 77}]
    for chosen in same:
        assert open_dataset(dataset, DatasetOptions(**chosen), threads=None) is dataset
    for name, message in {
        "labels": "labels must be 'separate', as the Dataset was made; give 'shared' to Dataset()",
        "cache": "cache cannot be chosen: the Dataset is indexed already; give False to Dataset()",
        "max_pixels": "max_pixels must be 77, as the Dataset was made; give 78 to Dataset()",
    }.items():
        other: dict[str, Any] = {"labels": "shared", "cache": False, "max_pixels": 78}
        with pytest.raises(ft.OptionError, match=f"^{re.escape(message)}$"):
            open_dataset(dataset, DatasetOptions(**{name: other[name]}), threads=None)
    by_default = ft.Dataset(paths)
    assert open_dataset(by_default, DatasetOptions(labels="shared"), threads=None) is by_default
    with pytest.raises(ft.OptionError, match="labels must be 'shared', as the Dataset was made; give 'sep"):
        open_dataset(by_default, DatasetOptions(labels="separate"), threads=None)
    one = ft.Dataset(paths[0], labels="shared")  # there is nothing to keep apart
    assert open_dataset(one, DatasetOptions(labels="separate"), threads=None) is one


def test_a_list_of_one_file_pickles_as_such(paths: list[Path]) -> None:
    for rec in (paths[0], paths[:1], paths):
        dataset = ft.Dataset(rec, labels="separate", max_pixels=300)
        again = pickle.loads(pickle.dumps(dataset))
        assert again.options == dataset.options
        assert again.label_shifts == dataset.label_shifts
        assert again.index.equals(dataset.index)
        assert again.paths == dataset.paths
        assert again.read(5) == dataset.read(5)


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
