"""Names of labels, and the files of a dataset that no run may write over."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import fasttriplet as ft
from fasttriplet.dataset._index_cache import has_cache
from fasttriplet.dataset._names import class_names, known_names
from fasttriplet.dataset._own_files import check_not_read, files_read
from tests.small_rec import identities, write_rec


def name(rec: Path, names: Mapping[int, str | None]) -> None:
    with rec.with_suffix(".identities.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("label", "folder", "images"), *((*row, 2) for row in names.items())])


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Two files, with the labels 0, 1, 2 and 0, 1."""
    return [write_rec(tmp_path / f"{n}.rec", identities(count, 2)) for n, count in ((0, 3), (1, 2))]


def test_names_are_those_beside_each_file(paths: list[Path]) -> None:
    assert known_names(ft.Dataset(paths, labels="separate")) == {}
    name(paths[0], {2: "cleo", 0: "ann", 1: "bob"})
    separate = ft.Dataset(paths, labels="separate")
    assert known_names(separate) == {0: "ann", 1: "bob", 2: "cleo"}
    name(paths[1], {0: "xena", 1: "yves"})
    assert known_names(separate) == {0: "ann", 1: "bob", 2: "cleo", 3: "xena", 4: "yves"}
    assert class_names(separate, [4, 0, 7]) == ["yves", "ann", "7"]
    assert class_names(ft.Dataset(paths[1]), [0, 2]) == ["xena", "2"]


@pytest.mark.parametrize(
    "names",
    [
        {0: "ann", 1: "bob"},
        {0: "ann", 1: "bob", 3: "cleo"},
        {0: "ann", 1: "bob", 2: "cleo", 3: "dora"},
        {0: "ann", 1: "bob", 2: None},
    ],
)
def test_names_of_other_labels_are_not_used(paths: list[Path], names: dict[int, str | None]) -> None:
    name(paths[0], names)
    assert known_names(ft.Dataset(paths[0])) == {}
    assert class_names(ft.Dataset(paths[0]), range(2)) == ["0", "1"]


WHAT = {
    "a.rec": "the dataset",
    "a.idx": "the dataset",
    "a.identities.csv": "a table of the dataset",
    "a.sources.parquet": "a table of the dataset",
    "a.rec.index": "the dataset's index",
}


@pytest.mark.parametrize("with_cache", [False, True])
def test_files_that_are_read(tmp_path: Path, with_cache: bool) -> None:
    rec = write_rec(tmp_path / "a.rec", identities(2, 2))
    cache: Any = tmp_path / "kept" if with_cache else False
    assert not has_cache(rec, tmp_path / "kept")
    ft.index_rec(rec, cache=cache)
    assert has_cache(rec, tmp_path / "kept") is with_cache
    expected = {tmp_path / one: what for one, what in WHAT.items()}
    if with_cache:
        (kept,) = (tmp_path / "kept").iterdir()
        expected[kept] = "the dataset's index"
    # Paths that are no files are told of when they are opened.
    assert files_read([rec, tmp_path, tmp_path / "none.rec"], cache) == expected
    for path, what in expected.items():
        with pytest.raises(ft.OptionError, match=f"^out must be another file than {what}, not '{path}'$"):
            check_not_read(path, expected)
    check_not_read(tmp_path / "b.rec", expected)


def test_links_to_files_that_are_read(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "a.rec", identities(2, 2))
    read = files_read([rec], False)
    (tmp_path / "hard").hardlink_to(rec)
    (tmp_path / "soft").symlink_to(rec)
    (tmp_path / "to-be").symlink_to(tmp_path / "a.sources.parquet")  # which is not there
    (tmp_path / "other").write_text("")
    for link in ("hard", "soft", "to-be", os.path.join("..", tmp_path.name, "a.idx")):  # noqa: PTH118
        with pytest.raises(ft.OptionError, match="out must be another file than"):
            check_not_read(tmp_path / link, read)
    check_not_read(tmp_path / "other", read)
