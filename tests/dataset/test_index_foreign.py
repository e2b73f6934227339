"""Other files that have the name of a kept index: named in a warning, and left as they are."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fasttriplet as ft
from fasttriplet.dataset import _index_cache
from tests.dataset.kept_index import is_kept, problem_of
from tests.small_rec import identities, kept_beside, write_rec


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    return write_rec(tmp_path / "train.rec", identities(6, 4))


def fifo(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()
    (path / "something").write_text("")


def link_to(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def holding(content: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 42)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            fifo,
            "it is a pipe or a device. It stays as it is, and the index is made at each run; move it away, ",
        ),
        (folder, "it is a folder. It stays"),
        (link_to("/dev/zero"), "it is a pipe or a device. It stays"),
        (link_to("/dev/tty"), "it is a pipe or a device. It stays"),
        (link_to("train.rec.index"), "it cannot be read (Too many levels of symbolic links). It stays"),
        (link_to("train.rec"), "it is a .rec file"),
        (link_to("/proc/self/environ"), "it is a file of another kind. It stays"),
        (holding(b"\x93NUMPY" + bytes(99)), "it is a .npy file. It stays"),
        (holding(gzip.compress(b"text")), "it is compressed with gzip"),
        (holding(b"PAR1" + bytes(99)), "it is a file of another kind. It stays"),
        (holding(b"a"), "it is a file of another kind. It stays"),
        (huge, "it is a file of another kind. It stays"),
    ],
)
def test_other_files_are_named_and_left_alone(rec: Path, make: Callable[[Path], None], reason: str) -> None:
    kept = kept_beside(rec)
    make(kept)
    before = kept.lstat()
    for _ in range(2):
        assert reason in problem_of(rec)
        assert os.path.samestat(kept.lstat(), before)
        assert kept.lstat().st_size == before.st_size
    with pytest.warns(ft.RecordWarning, match=r"is not used as the index of") as warned:
        assert ft.inspect_rec(rec).images == 24
    assert [warning.filename for warning in warned] == [__file__]


@pytest.mark.parametrize("make", [fifo, folder, link_to("/dev/zero"), holding(b"PAR1")])
def test_other_files_in_a_folder_that_is_named(
    rec: Path, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    ft.index_rec(rec, cache=tmp_path / "named")
    (kept,) = (tmp_path / "named").iterdir()
    kept.unlink()
    make(kept)
    with pytest.warns(ft.RecordWarning, match=r"move it away, or name a folder for indexes by cache=FOLDER$"):
        assert ft.index_rec(rec, cache=tmp_path / "named").height == 24


def test_a_file_is_opened_with_care(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for the other end of a pipe, or following a link that appears meanwhile."""
    kept, opened, flags = kept_beside(rec), os.open, []

    def noted(path: Any, how: int, *arguments: Any, **options: Any) -> int:
        if str(path) == str(kept):
            flags.append(how)
        return opened(path, how, *arguments, **options)

    monkeypatch.setattr(os, "open", noted)
    ft.index_rec(rec)
    flags.clear()
    assert is_kept(rec)
    (how,) = flags
    assert how == os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
    kept.unlink()
    fifo(kept)
    assert "it is a pipe or a device" in problem_of(rec)
    assert len(flags) == 1  # a device is not opened at all


def test_a_pipe_that_appears_in_between(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, calls = _index_cache._check_is_regular, []

    def later(status: os.stat_result) -> None:
        calls.append(status)
        if len(calls) > 1:
            check(status)

    fifo(kept_beside(rec))
    monkeypatch.setattr(_index_cache, "_check_is_regular", later)
    assert "it is a pipe or a device" in problem_of(rec)


def test_a_file_that_cannot_be_read(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ft.index_rec(rec)
    before = kept_beside(rec).stat()
    opened = os.open

    def refused(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path) == str(kept_beside(rec)):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refused)
    assert "it cannot be read (Permission denied). It stays as it is" in problem_of(rec)
    assert os.path.samestat(kept_beside(rec).stat(), before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("link", [False, True])
def test_a_stranger_s_file_in_a_folder_for_all(rec: Path, tmp_path: Path, link: bool) -> None:
    ft.index_rec(rec)
    kept = kept_beside(rec)
    if link:
        (tmp_path / "mine").mkdir()
        kept = kept.rename(tmp_path / "mine" / kept.name)
        kept_beside(rec).symlink_to(kept)
    os.chown(kept_beside(rec), 12345, 12345, follow_symlinks=False)
    assert is_kept(rec)  # of a colleague, in a folder of a group
    tmp_path.chmod(0o1777)
    said = problem_of(rec)
    assert "it belongs to another user (uid 12345), in a folder that everyone can write to. It stays" in said
    os.chown(rec, 12345, 12345)  # the colleague's file
    assert ft.index_rec(rec).height == 24
    assert is_kept(rec)


def test_an_index_may_be_a_link(rec: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    kept_beside(rec).symlink_to(elsewhere)
    ft.index_rec(rec)
    assert elsewhere.stat().st_size
    assert is_kept(rec)
    assert kept_beside(rec).is_symlink()
