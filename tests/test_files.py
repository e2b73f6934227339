"""Files appear under their names when they are complete, and never otherwise."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fasttriplet._files import (
    check_can_be_written,
    making,
    naming,
    opened,
    publish,
    remove_unfinished,
    replacing,
    scratch,
)
from fasttriplet.errors import OptionError
from tests.interrupted import Faults, content, fails, names, watched


@contextmanager
def replacing_all(*paths: Path, overwrite: bool = True) -> Iterator[list[Path]]:
    """What :func:`replacing` does, for files that belong together."""
    with opened(*paths, overwrite=overwrite) as outputs:
        with naming(*outputs):
            yield [output.unfinished for output in outputs]
        publish(*outputs)


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was synced and renamed, in order."""
    log: list[str] = []
    fsync, replace, link = os.fsync, Path.replace, os.link

    def logged_fsync(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        log.append("folder" if folder else f"{os.fstat(descriptor).st_size} bytes")
        fsync(descriptor)

    def logged_replace(path: Path, target: Path) -> Path:
        log.append(f"to {target.name}")
        return replace(path, target)

    def logged_link(path: Path, target: Path) -> None:
        if target.name != ".old":  # which is kept until all is done
            log.append(f"to {target.name}")
        link(path, target)

    monkeypatch.setattr(os, "fsync", logged_fsync)
    monkeypatch.setattr(Path, "replace", logged_replace)
    monkeypatch.setattr(os, "link", logged_link)
    return log


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_appears_at_the_end_and_is_on_the_disk(
    tmp_path: Path, synced: list[str], overwrite: bool
) -> None:
    path = tmp_path / "a.txt"
    if overwrite:
        path.write_text("old")
    with replacing(path, overwrite=overwrite) as unfinished:
        assert unfinished.name == path.name
        unfinished.write_text("newer")
        assert path.exists() == overwrite
        assert not synced
    assert (names(tmp_path), path.read_text(), path.stat().st_nlink) == (["a.txt"], "newer", 1)
    assert synced == ["5 bytes", "to a.txt", "folder"]


def test_files_that_belong_together_are_complete_before_the_first_is_renamed(
    tmp_path: Path, synced: list[str]
) -> None:
    with replacing_all(tmp_path / "a", tmp_path / "b") as unfinished:
        for number, path in enumerate(unfinished, start=1):
            path.write_bytes(bytes(number))
    assert names(tmp_path) == ["a", "b"]
    assert synced[:2] == ["1 bytes", "2 bytes"]
    assert [entry for entry in synced if entry.startswith("to")] == ["to a", "to b"]
    assert synced[-1] == "folder"


def test_a_file_that_the_new_ones_do_not_have_is_removed_with_the_old_ones(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    for error in (KeyError, None):
        with suppress(KeyError), opened(tmp_path / "a", tmp_path / "b", overwrite=True) as (first, other):
            first.unfinished.write_text("new")
            other.drop()
            if error is not None:
                raise error
            publish(first, other)
        assert names(tmp_path) == ["a", "b"][: 1 if error is None else 2]
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize("hard_links", [True, False])
@pytest.mark.parametrize("replaces", [True, False])
def test_an_error_at_any_call_leaves_all_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaces: bool, hard_links: bool
) -> None:
    def refused(*_: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    if not hard_links:
        monkeypatch.setattr(os, "link", refused)
    folder, old = tmp_path / "folder", {name: b"old" for name in "abc" if replaces}

    def write(faults: Faults) -> list[str]:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for name, before in old.items():
            (folder / name).write_bytes(before)
        paths = [folder / name for name in "abc"]
        with watched(faults), replacing_all(*paths, overwrite=replaces) as unfinished:
            for path in unfinished:
                path.write_text("new")
        assert names(folder) == ["a", "b", "c"]
        return faults.made

    made = write(Faults(folder))
    assert len(made) > 4
    for at, call in enumerate(made, start=1):
        faults = Faults(folder, fails(at))
        if call.startswith("link"):  # there is another way
            write(faults)
            continue
        with pytest.raises(OSError, match="Input/output error"):
            write(faults)
        assert content(folder) == old
        assert names(folder) == sorted(old)


def test_after_an_error_all_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyError), replacing_all(tmp_path / "a", tmp_path / "b") as unfinished:
        unfinished[0].write_text("new")
        raise KeyError
    assert (names(tmp_path), (tmp_path / "a").read_text()) == (["a"], "old")
    with pytest.raises(IsADirectoryError), replacing_all(tmp_path / "a", tmp_path):
        pass
    assert (names(tmp_path), (tmp_path / "a").read_text()) == (["a"], "old")


@pytest.mark.parametrize(("call", "name"), [("touch", "b"), ("mkdir", ".b.unfinished")])
def test_ctrl_c_right_after_a_file_was_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, name: str
) -> None:
    make = getattr(Path, call)
    interruptions = iter([KeyboardInterrupt])

    def interrupted(path: Path, **how: Any) -> None:
        make(path, **how)
        if path.name == name and (interruption := next(interruptions, None)):
            raise interruption

    monkeypatch.setattr(Path, call, interrupted)
    with pytest.raises(KeyboardInterrupt), replacing_all(tmp_path / "a", tmp_path / "b"):
        pass
    assert names(tmp_path) == []


def test_a_file_that_is_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(FileExistsError, match=r"exists already; overwrite=True replaces it.*a'$") as error:
        check_can_be_written(path, overwrite=False)
    assert error.value.filename == str(path)
    with pytest.raises(FileExistsError), replacing(path, overwrite=False):
        pass
    with replacing(path, overwrite=True) as unfinished:
        unfinished.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("overwrite", ["no", 1, None])
def test_only_true_replaces_a_file(tmp_path: Path, overwrite: Any) -> None:
    (tmp_path / "a").write_text("old")
    with (
        pytest.raises(OptionError, match=r"^overwrite must be True or False, not "),
        replacing(tmp_path / "a", overwrite=overwrite),
    ):
        pass
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize("hard_links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    def refused(*_: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not hard_links:
        monkeypatch.setattr(os, "link", refused)
    with replacing(tmp_path / "b", overwrite=False) as unfinished:
        unfinished.write_text("ours")
    assert (tmp_path / "b").read_text() == "ours"
    with pytest.raises(FileExistsError, match="exists already"):  # noqa: SIM117
        with replacing(tmp_path / "a", overwrite=False) as unfinished:
            unfinished.write_text("ours")
            (tmp_path / "a").write_text("theirs")
    assert (names(tmp_path), (tmp_path / "a").read_text()) == (["a", "b"], "theirs")


def test_permissions_are_those_of_any_new_file_or_of_the_old_one(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a"):
            pass
        (tmp_path / "b").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
    (tmp_path / "a").chmod(0o604)
    with replacing(tmp_path / "a") as unfinished:
        unfinished.write_text("new")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o604


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a").write_text("old")
    for name, target in {"link": "far/a", "link2": "link", "dangling": "new/b", "loop": "loop2"}.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "loop2").symlink_to("loop")
    with pytest.raises(FileExistsError):
        check_can_be_written(tmp_path / "link2", overwrite=False)
    with replacing(tmp_path / "link2") as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "far" / "a").read_text() == "new"
    assert names(tmp_path / "far") == ["a"]
    with replacing(tmp_path / "dangling", overwrite=False) as unfinished:
        unfinished.write_text("made")
    assert (tmp_path / "new" / "b").read_text() == "made"
    assert all((tmp_path / name).is_symlink() for name in ("link", "link2", "dangling"))
    with pytest.raises(OSError, match="leads back to itself") as error, replacing(tmp_path / "loop"):
        pass
    assert error.value.errno == errno.ELOOP


def test_a_read_only_file_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("precious")
    path.chmod(0o444)
    with pytest.raises(PermissionError, match=r"is read-only; make it writable"), replacing(path):
        pass
    assert path.read_text() == "precious"


def test_a_missing_folder_is_made_and_after_an_error_removed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), replacing(tmp_path / "x" / "y" / "a"):
        raise KeyError
    assert names(tmp_path) == []
    with pytest.raises(KeyError), replacing_all(tmp_path / "x" / "a", tmp_path / "x" / "b"):
        raise KeyError
    assert names(tmp_path) == []
    with replacing(tmp_path / "x" / "y" / "a"):
        pass
    assert names(tmp_path / "x" / "y") == ["a"]
    with pytest.raises(KeyError), making(tmp_path / "x" / "z"):
        raise KeyError
    with pytest.raises(KeyError), making(tmp_path / "v" / "w"):
        (tmp_path / "v" / "kept").touch()
        raise KeyError
    assert (names(tmp_path / "x"), names(tmp_path / "v")) == (["y"], ["kept"])


def test_errors_name_the_final_file(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(OSError, match="device after 1,234 bytes; free some") as one_file,
        replacing(a) as half,
    ):
        half.write_bytes(bytes(1234))
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
    with pytest.raises(FileNotFoundError) as error, replacing(a):
        (tmp_path / "other").read_bytes()
    assert error.value.filename == str(tmp_path / "other")
    with pytest.raises(OSError, match=r"^in words$"), replacing(a):
        raise OSError("in words")


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_errors_of_libraries_in_rust_have_a_number_in_their_words(
    tmp_path: Path, kind: type[Exception]
) -> None:
    words = "parquet: File out of specification: underlying IO error: No space left on device (os error 28)"
    with (
        pytest.raises(OSError, match=r"No space left on device; free .*: '") as error,
        replacing(tmp_path / "a"),
    ):
        raise kind(words)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    with pytest.raises(RuntimeError, match="transport error"), replacing(tmp_path / "a"):
        raise RuntimeError("Invalid thrift: transport error")  # but there is room
    with pytest.raises(RuntimeError, match="anything else"), naming():
        raise RuntimeError("anything else")


def test_what_cannot_be_written_is_said_before(tmp_path: Path) -> None:
    check_can_be_written(tmp_path / "a")
    check_can_be_written(tmp_path / "none" / "a")
    check_can_be_written(Path("a"))
    with pytest.raises(IsADirectoryError, match="is a folder; give the name of a file in it"):
        check_can_be_written(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"file is not a folder"):
        check_can_be_written(tmp_path / "file" / "b" / "a")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match=r"is not a regular file.*fifo'"), replacing(tmp_path / "fifo"):
        pass
    assert (tmp_path / "fifo").is_fifo()


def test_two_runs_never_write_the_same_file(tmp_path: Path) -> None:
    """The second is refused at once, not after hours; in one process, too."""
    with replacing(tmp_path / "a") as unfinished:
        with (
            pytest.raises(FileExistsError, match="another run is writing it at this moment") as error,
            replacing(tmp_path / "a"),
        ):
            pass
        assert error.value.filename == str(tmp_path / "a")
        with replacing(tmp_path / "b"):
            pass
        remove_unfinished(tmp_path / "a")
        unfinished.write_text("first")
    assert (names(tmp_path), (tmp_path / "a").read_text()) == (["a", "b"], "first")


HOLD = """
import sys, time
from pathlib import Path
from fasttriplet._files import replacing
with replacing(Path(sys.argv[1])) as unfinished:
    unfinished.write_text("half")
    (unfinished.parent / "part").write_text("more")
    print("there", flush=True)
    time.sleep(60)
"""


def killed(path: Path) -> None:
    """Leave what `kill -9` leaves of a run that was writing a file."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    with pytest.raises(FileExistsError, match="another run is writing it"), replacing(path):
        pass
    remove_unfinished(path)  # not what is being written
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    assert names(path.parent) == [f".{path.name}.unfinished"]


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    killed(tmp_path / "a")
    with replacing(tmp_path / "b"):
        pass
    assert names(tmp_path) == [".a.unfinished", "b"]
    with replacing(tmp_path / "a") as unfinished:
        assert unfinished.read_text() == ""
        assert names(unfinished.parent) == ["a"]
    assert names(tmp_path) == ["a", "b"]


def test_a_scratch_folder_is_removed_even_after_a_kill(tmp_path: Path) -> None:
    killed(tmp_path / "drawn")
    with scratch(tmp_path / "drawn") as folder:
        assert names(folder) == []
        (folder / "picture").touch()
        assert names(tmp_path) == [".drawn.unfinished"]
    assert names(tmp_path) == []
    with pytest.raises(OSError, match=r"No space left on device; free some space there.*drawn'$"):  # noqa: SIM117
        with scratch(tmp_path / "drawn"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_a_killed_run_left_can_be_removed_without_writing(tmp_path: Path) -> None:
    killed(tmp_path / "a")
    remove_unfinished(tmp_path / "a")
    assert names(tmp_path) == []
    remove_unfinished(tmp_path / "none" / "a")


def test_without_locks_nobody_is_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with replacing(tmp_path / "a"), pytest.raises(FileExistsError, match="if none is, remove"):  # noqa: SIM117
        with replacing(tmp_path / "a"):
            pass
    assert names(tmp_path) == ["a"]


def test_a_hidden_folder_of_somebody_else_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".a.unfinished").symlink_to("elsewhere")
    (tmp_path / ".b.unfinished").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    for name in ("a", "b"):
        with pytest.raises(FileExistsError, match="another run"), replacing(tmp_path / name):
            pass
    assert names(tmp_path / "elsewhere") == []


def test_many_threads_writing_one_file_in_turn(tmp_path: Path) -> None:
    """The end of one run and the beginning of the next meet in all orders."""
    done: list[int] = []

    def write(number: int) -> None:
        for _ in range(20):
            try:
                with replacing(tmp_path / "a") as unfinished:
                    unfinished.write_text(f"{number}")
                    done.append(number)
            except FileExistsError:
                continue

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done
    assert names(tmp_path) == ["a"]
    assert int((tmp_path / "a").read_text()) in done


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_child_after_a_fork_removes_nothing_of_its_parent(tmp_path: Path) -> None:
    child = -1
    try:
        with replacing(tmp_path / "a") as unfinished:
            child = os.fork()
            if child == 0:
                raise KeyError  # it unwinds
            os.waitpid(child, 0)
            unfinished.write_text("whole")
    finally:
        if child == 0:
            os._exit(0)
    assert (tmp_path / "a").read_text() == "whole"
