"""An index that is kept is used only for the file as it is now."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet import _core
from fasttriplet.dataset import _index
from fasttriplet.dataset._index_cache import IndexCache, settle
from fasttriplet.dataset._options import DatasetOptions
from tests.dataset.kept_index import is_kept, problem_of
from tests.small_rec import identities, kept_beside, write_rec


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    return write_rec(tmp_path / "train.rec", identities(6, 4))


def same_times(path: Path, before: os.stat_result) -> None:
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def relabelled(path: Path) -> bytes:
    """The same file with another label in the first record."""
    content = bytearray(path.read_bytes())
    content[12:16] = np.float32(77).tobytes()
    return bytes(content)


def test_a_file_of_the_same_size_and_time_is_another_file(rec: Path, tmp_path: Path) -> None:
    assert ft.index_rec(rec)["label"][0] == 0
    before = rec.stat()
    rec.write_bytes(relabelled(rec))
    same_times(rec, before)
    assert ft.index_rec(rec)["label"][0] == 77
    assert is_kept(rec)
    other = tmp_path / "other.rec"
    other.write_bytes(rec.read_bytes().replace(np.float32(77).tobytes(), np.float32(78).tobytes(), 1))
    other.replace(rec)
    same_times(rec, before)
    assert ft.index_rec(rec)["label"][0] == 78


def test_an_idx_of_the_same_size_and_time_is_another_file(rec: Path) -> None:
    ft.index_rec(rec)
    idx = rec.with_suffix(".idx")
    before = idx.stat()
    lines = idx.read_text().splitlines()
    lines[0] = lines[0].replace("1\t", "0\t", 1)
    idx.write_text("\n".join([*lines, ""]))
    same_times(idx, before)
    assert ft.index_rec(rec)["key"][0] == 0


@pytest.mark.parametrize("in_place", [False, True])
def test_changes_at_any_moment_are_noticed(rec: Path, in_place: bool) -> None:
    """Directly after the index was kept, too, when the clock of the file system may not have ticked."""
    for label in range(100, 120):
        content = bytearray(rec.read_bytes())
        content[12:16] = np.float32(label).tobytes()
        before = rec.stat()
        if in_place:
            with rec.open("r+b") as file:
                file.write(content)
        else:
            other = rec.with_name("other")
            other.write_bytes(content)
            other.replace(rec)
        same_times(rec, before)
        assert ft.index_rec(rec)["label"][0] == label


def test_a_file_that_has_just_changed_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """For clocks that tick in 10 ms: a change after the index was made has another time than one before."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    now = 1e9 + 0.5
    monkeypatch.setattr(time, "time", lambda: now)
    for age in (0.0, 0.005, 1.0, -9.0):  # seconds
        settle({"rec": [0, 0, 0, 0], "idx": [0, 0, int((now - age) * 1e9), 0]})
    assert slept == pytest.approx([0.02, 0.015, 0.0, 0.02], abs=1e-6)


def index_of(rec: Path, file: _core.RecordFile) -> Any:
    options = DatasetOptions()
    return _index.index_files([rec], [file], several=False, options=options, threads=1).frame


def test_the_index_of_an_open_file_is_not_kept_for_the_next_with_its_name(rec: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.rec"
    other.write_bytes(relabelled(rec))
    same_times(other, rec.stat())
    file = _core.RecordFile(rec)
    other.replace(rec)
    assert index_of(rec, file)["label"][0] == 0
    assert ft.index_rec(rec)["label"][0] == 77
    # And the index of the next is not taken for that of the open one.
    assert index_of(rec, file)["label"][0] == 0


@pytest.mark.parametrize("suffix", [".rec", ".idx"])
def test_no_index_is_kept_of_a_file_that_changes_meanwhile(
    rec: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = _core.scan

    def changing(*arguments: Any) -> Any:
        found = scan(*arguments)
        changed = rec.with_suffix(suffix)
        changed.write_bytes(changed.read_bytes())
        return found

    with monkeypatch.context() as patch:
        patch.setattr(_core, "scan", changing)
        ft.index_rec(rec)
    assert not kept_beside(rec).exists()


def test_records_are_compared_with_the_index(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system whose times mean nothing."""
    monkeypatch.setattr(IndexCache, "stamp", lambda *_: {"rec": [0, 0, 0, 0], "idx": None})
    ft.index_rec(rec)
    assert is_kept(rec)
    rec.write_bytes(relabelled(rec))
    said = problem_of(rec)
    assert "it does not agree with the records. The index is made again; if this is said once more, " in said
    assert is_kept(rec)
