"""The shim does what it is asked for, and misses no call."""

from __future__ import annotations

import errno
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import ALL, Action, Fault, Faults, environment
from tests.small_rec import identities, write_rec

CALLS = ["openat", "write", "fsync", "rename"]


@pytest.fixture(scope="module")
def writer(shim: Path) -> Iterator[Faults]:
    with Faults(shim, "tests.faults.calls:write") as faults:
        yield faults


def test_calls_below_the_folder_are_counted(writer: Faults, tmp_path: Path) -> None:
    ended = writer.run(tmp_path, "a")
    assert (ended.code, ended.out, ended.errors, ended.hung) == (0, "100\n", "", False)
    assert ended.calls == [
        f"openat {tmp_path}/unfinished",
        f"write {tmp_path}/unfinished",
        f"fsync {tmp_path}/unfinished",
        f"rename {tmp_path}/unfinished -> {tmp_path}/a",
    ]
    assert writer.run(tmp_path, "a").calls == ended.calls


@pytest.mark.parametrize("at", [1, 2, 3, 4])
@pytest.mark.parametrize("action", ["kill", "kill after"])
def test_a_kill(writer: Faults, tmp_path: Path, at: int, action: Action) -> None:
    ended = writer.run(tmp_path, "a", fault=Fault(at, action))
    assert ended.code == -signal.SIGKILL
    assert [call.split()[0] for call in ended.calls] == CALLS[:at]
    executed = at - (action == "kill")
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert sizes == [{}, {"unfinished": 0}, {"unfinished": 700}, {"unfinished": 700}, {"a": 700}][executed]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_an_error(writer: Faults, tmp_path: Path, at: int) -> None:
    ended = writer.run(tmp_path, "a", fault=Fault(at, "fail", errno.ENOSPC))
    assert ended.code == 99
    assert "[Errno 28] No space left on device" in ended.errors
    assert len(ended.calls) == at
    assert not (tmp_path / "a").exists()


def test_a_short_write_and_a_short_read(writer: Faults, tmp_path: Path) -> None:
    ended = writer.run(tmp_path, "a", fault=Fault(2, "short"))
    assert (ended.code, ended.out) == (0, "100\n")
    assert [call.split()[0] for call in ended.calls] == ["openat", "write", "write", "fsync", "rename"]
    whole = writer.run(tmp_path, "a", kinds=("read",))
    short = writer.run(tmp_path, "a", fault=Fault(1, "short", kinds=("read",)))
    assert (short.code, short.out) == (0, "100\n")
    assert len(short.calls) == len(whole.calls) + 1


def test_an_interrupted_call_is_repeated_by_python(writer: Faults, tmp_path: Path) -> None:
    for at in (1, 2, 3):
        assert writer.run(tmp_path, "a", fault=Fault(at, "fail", errno.EINTR)).code == 0


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace to compare with")
def test_no_call_is_missed(shim: Path, tmp_path: Path) -> None:
    """What strace sees of a run of the command, the shim sees, whatever language it comes from."""
    for name in ("watched", "traced"):
        (tmp_path / name).mkdir()
        write_rec(tmp_path / name / "train.rec", identities(6, 4))
    with Faults(shim) as faults:
        ended = faults.run(tmp_path / "watched", *_mine(tmp_path / "watched"), kinds=ALL)
    assert ended.code == 0, ended.errors
    log = tmp_path / "strace.txt"
    strace = ["strace", "-f", "-qq", "-y", "-e", "trace=%file,%desc", "-o", str(log)]
    done = subprocess.run(
        [*strace, sys.executable, "-m", "fasttriplet", *_mine(tmp_path / "traced")],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("strace is not permitted here")
    assert done.returncode == 0, done.stderr
    seen = [call for line in log.read_text().splitlines() if (call := _call(line, tmp_path / "traced"))]
    assert Counter(_without_folder(ended.calls, tmp_path / "watched")) == Counter(
        _without_folder(seen, tmp_path / "traced")
    )


def _mine(folder: Path) -> list[str]:
    words = ["mine", "--rec", str(folder / "train.rec"), "--out", str(folder / "t.parquet")]
    return [*words, "--bag-size", "12", "--band", "violating", "--threads", "1"]


def _call(line: str, folder: Path) -> str | None:
    """Find the call in a line of strace, if it is about the folder and not about an open file's position."""
    call = re.match(r"\d+ +(\w+)\(", line)
    if call is None or call[1] in ("fcntl", "lseek", "ioctl", "poll"):
        return None
    line = line.split(") = ", maxsplit=1)[0]
    if "at" in call[1]:  # a name in an open folder
        line = re.sub(r'<(/[^">]*)>, "([^/"][^"]*)"', r"<\1/\2>", line)
    paths = re.findall(rf'[<"]({re.escape(str(folder))}[^">]*)[">]', line)
    return f"{call[1]} {' -> '.join(paths)}" if paths else None


def _without_folder(calls: list[str], folder: Path) -> list[str]:
    """Leave out what differs between two runs."""
    return [
        re.sub(r"(?<=/tmp)[a-z0-9_]{8}| \(deleted\)", "", call.replace(str(folder), "")) for call in calls
    ]
