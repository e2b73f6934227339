"""Where an index is kept: beside the file, in a folder that is named, or nowhere; and who is told."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import fasttriplet as ft
from fasttriplet import _core
from fasttriplet._files import Output
from fasttriplet.dataset import _index_file
from tests.interrupted import names, no_space
from tests.small_rec import identities, write_rec

FOLDER = "FASTTRIPLET_CACHE_DIR"


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return write_rec(tmp_path / "data" / "train.rec", identities(3, 2))


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The files that were gone through, as no cache was used."""
    found: list[Any] = []
    scan = _core.scan

    def counted(*arguments: Any) -> Any:
        found.append(arguments)
        return scan(*arguments)

    monkeypatch.setattr(_core, "scan", counted)
    return found


def test_a_folder_keeps_files_of_one_name_apart(rec: Path, tmp_path: Path, scans: list[Any]) -> None:
    cache = tmp_path / "new" / "cache"
    (tmp_path / "other").mkdir()
    other = write_rec(tmp_path / "other" / "train.rec", {1: 5, 2: 6})
    for _ in range(2):
        assert ft.index_rec(rec, cache=cache).height == 6
        assert ft.index_rec(other, cache=str(cache)).height == 2
    assert len(scans) == 2
    assert len(names(cache)) == 2
    assert all(name.startswith("train.rec.") and name.endswith(".index") for name in names(cache))
    assert names(rec.parent) == names(other.parent) == ["train.idx", "train.rec"]
    # The path is in the file, too.
    one, two = sorted(cache.iterdir())
    shutil.copy(one, two)
    for path in (rec, other):
        os.utime(path, ns=(0, 0))
        path.with_suffix(".idx").unlink()
    assert ft.index_rec(rec, cache=cache).height == 6
    assert ft.index_rec(other, cache=cache).height == 2


def test_an_index_keeps_its_name(rec: Path, tmp_path: Path) -> None:
    """By which a later version finds it."""
    link = tmp_path / "link"
    link.symlink_to(rec.parent)
    place = hashlib.blake2b(os.fsencode(rec.resolve()), digest_size=8).hexdigest()
    for path in (rec, link / "train.rec"):
        ft.index_rec(path, cache=tmp_path / "cache")
        assert names(tmp_path / "cache") == [f"train.rec.{place}.index"]


def test_what_a_killed_run_was_writing_is_removed(rec: Path) -> None:
    ft.index_rec(rec)
    left = rec.with_name(".train.rec.index.unfinished")
    (left / "new").mkdir(parents=True)
    (left / "new" / "train.rec.index").write_bytes(b"a part")
    ft.index_rec(rec)
    assert not left.exists()


def test_an_index_of_which_there_is_too_much_to_say_is_not_kept(
    rec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_index_file, "_MOST_HEAD", 100)
    assert ft.index_rec(rec).height == 6
    assert names(rec.parent) == ["train.idx", "train.rec"]


def test_the_environment_names_the_folder(
    rec: Path, tmp_path: Path, scans: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
    ft.index_rec(rec, cache=False)
    ft.index_rec(rec, cache=tmp_path / "mine")
    assert names(tmp_path) == ["data", "mine"]
    ft.Dataset(rec)
    ft.inspect_rec(rec)
    assert len(scans) == 3
    assert len(names(tmp_path / "cache")) == 1
    assert names(rec.parent) == ["train.idx", "train.rec"]
    monkeypatch.setenv(FOLDER, "")
    ft.index_rec(rec)
    assert names(rec.parent) == ["train.idx", "train.rec", "train.rec.index"]


@pytest.mark.parametrize("by", ["cache", FOLDER])
def test_a_named_folder_that_cannot_be_written_to_is_an_error(
    rec: Path, tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch, scans: list[Any]
) -> None:
    def index(folder: Path) -> None:
        monkeypatch.setenv(FOLDER, str(folder) if by == FOLDER else "")
        ft.index_rec(rec, cache=True if by == FOLDER else folder)

    said = f"{by}=.*"
    (tmp_path / "file").write_text("")
    cannot = r"the index of .*train\.rec cannot be kept there"
    with pytest.raises(OSError, match=rf"^{said}/file'?: {cannot}: .*/file is not a folder; name a folder"):
        index(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match=rf"^{said}: .*/file is not a folder"):
        index(tmp_path / "file" / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(
            PermissionError, match=rf"^{said}: .*no permission to write in .*; name a folder that"
        ):
            index(tmp_path)
    assert scans == []  # said before the file is gone through

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", no_space)
        with pytest.raises(OSError, match=rf"^{said}: .*No space left on device"):
            index(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    index(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    index(tmp_path)  # which has the index already


def test_two_runs_keep_one_index(rec: Path, tmp_path: Path) -> None:
    ft.index_rec(rec, cache=tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    kept.unlink()
    other = Output(kept, overwrite=True)
    assert ft.index_rec(rec, cache=tmp_path / "cache").height
    assert not kept.exists()
    other.close()


def test_the_log_tells_when_an_index_is_written(
    rec: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fasttriplet")
    for _ in range(2):
        ft.index_rec(rec)
        ft.index_rec(rec, cache=False)
    assert caplog.messages == [f"the index is kept for later runs in {rec}.index"]
    caplog.clear()
    others = [write_rec(tmp_path / "data" / f"{n}.rec", {n: n}) for n in range(3)]
    ft.Dataset(others)
    assert caplog.messages == [f"the index is kept for later runs in {others[0]}.index and 2 more"]


@pytest.mark.parametrize("by", ["cache", FOLDER])
def test_triplets_do_not_replace_an_index(
    rec: Path, tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache") if by == FOLDER else "")
    cache = True if by == FOLDER else tmp_path / "cache"
    dataset = ft.Dataset(rec, cache=cache)
    (kept,) = (tmp_path / "cache").iterdir()
    out = tmp_path / "link.parquet"
    out.symlink_to(kept)
    for given, how in ((rec, cache), (dataset, True)):
        with pytest.raises(ValueError, match="out must be another file than the dataset's index"):
            ft.mine_rec(given, out=out, cache=how)
