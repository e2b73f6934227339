"""Files appear under their names when they are complete, and never otherwise."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from fasttriplet._files import check_can_be_written, publish, remove_unfinished, replacing, replacing_all


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced and renamed, in order."""
    log: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def logged_fsync(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        log.append("folder" if folder else f"{os.fstat(descriptor).st_size} bytes")
        fsync(descriptor)

    def logged_replace(path: Path, target: Path) -> Path:
        log.append(f"to {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "replace", logged_replace)
    return log


def test_a_file_appears_at_the_end_and_is_on_the_disk(tmp_path: Path, synced: list[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as unfinished:
        assert unfinished.parent == tmp_path
        unfinished.write_text("newer")
        assert path.read_text() == "old"
        assert not synced
    assert (names(tmp_path), path.read_text()) == (["a.txt"], "newer")
    assert synced[0] == "5 bytes"
    assert synced[-2:] == ["to a.txt", "folder"]


def test_files_that_belong_together_are_complete_before_the_first_is_renamed(
    tmp_path: Path, synced: list[str]
) -> None:
    with replacing_all(tmp_path / "a", tmp_path / "b") as unfinished:
        for number, path in enumerate(unfinished, start=1):
            path.write_bytes(bytes(number))
    assert names(tmp_path) == ["a", "b"]
    assert synced[:2] == ["1 bytes", "2 bytes"]
    assert [entry for entry in synced if entry.startswith("to")] == ["to a", "to b"]
    assert synced.index("to a") > synced.index("2 bytes")
    assert synced[-1] == "folder"


def test_after_an_error_all_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyError), replacing_all(tmp_path / "a", tmp_path / "b") as unfinished:
        unfinished[0].write_text("new")
        raise KeyError
    assert (names(tmp_path), (tmp_path / "a").read_text()) == (["a"], "old")
    with pytest.raises(IsADirectoryError), replacing_all(tmp_path / "a", tmp_path):
        pass
    assert (names(tmp_path), (tmp_path / "a").read_text()) == (["a"], "old")


def test_ctrl_c_right_after_a_file_was_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch = Path.touch

    def interrupted(path: Path, *, exist_ok: bool) -> None:
        touch(path, exist_ok=exist_ok)
        if path.name.startswith(".b"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "touch", interrupted)
    with pytest.raises(KeyboardInterrupt), replacing_all(tmp_path / "a", tmp_path / "b"):
        pass
    assert names(tmp_path) == []


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "a"):
        pass
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_an_unfinished_file_is_never_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its name exists, it is left alone."""
    monkeypatch.setattr(os, "urandom", bytes)
    theirs = tmp_path / f".a.{os.getpid()}-00000000.tmp"
    theirs.write_text("theirs")
    with pytest.raises(FileExistsError) as error, replacing(tmp_path / "a"):
        pass
    assert error.value.filename == str(tmp_path / "a")
    assert theirs.read_text() == "theirs"


def test_errors_name_the_final_file(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left on device") as one_file, replacing(a):
        raise full
    assert (one_file.value.errno, one_file.value.filename) == (errno.ENOSPC, str(a))
    with pytest.raises(OSError, match="No space left on device") as two_files, replacing_all(a, b):
        raise full
    assert two_files.value.filename == f"{a}, {b}"
    for gone in (0, 1):
        with pytest.raises(FileNotFoundError) as error, replacing_all(a, b) as unfinished:
            unfinished[gone].unlink()
        assert error.value.filename == str((a, b)[gone])
        assert names(tmp_path) == []
    with pytest.raises(FileNotFoundError) as error, replacing(a) as one:
        one.with_name("other").read_bytes()
    assert error.value.filename == str(tmp_path / "other")
    with pytest.raises(OSError, match=r"^in words$"), replacing(a):
        raise OSError("in words")


def test_what_cannot_be_written_is_said_before(tmp_path: Path) -> None:
    check_can_be_written(tmp_path / "a")
    with pytest.raises(IsADirectoryError, match="is a folder: give the name of a file in it"):
        check_can_be_written(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"cannot write .*: there is no folder .*none$"):
        check_can_be_written(tmp_path / "none" / "a")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="fifo is no regular file"), replacing(tmp_path / "fifo"):
        pass
    assert (tmp_path / "fifo").is_fifo()


def test_a_file_of_ones_own_is_published(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "part").write_text("abc")
    publish(tmp_path / "part", tmp_path / "a")
    assert names(tmp_path) == ["a"]
    assert synced == ["3 bytes", "to a", "folder"]


def test_only_what_was_left_of_this_file_is_removed(tmp_path: Path) -> None:
    kept = [".a.b.12-0badcafe.tmp", ".a.tmp", "a", "a.12-0badcafe.tmp"]
    for name in [*kept, ".a.12-0badcafe.tmp", ".a.7-00000000.tmp"]:
        (tmp_path / name).touch()
    remove_unfinished(tmp_path / "a")
    assert names(tmp_path) == sorted(kept)
    remove_unfinished(tmp_path / "none" / "a")
