"""What is different on other systems, simulated on this one; docs/systems.md is about them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from fasttriplet import _cores, _disk, _extras
from fasttriplet._disk import sync, sync_path
from fasttriplet._files import replacing

_WINDOWS = """
import os, signal, sys
import concurrent.futures.thread  # the standard library loads as on this system

for name in ("fchmod", "fork", "geteuid", "preadv", "register_at_fork", "sched_getaffinity"):
    delattr(os, name)
del signal.SIGHUP
sys.modules["fcntl"] = sys.modules["resource"] = None
sys.platform = "win32"
try:
    import {module}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize("module", ["fasttriplet", "fasttriplet.cli", "fasttriplet.torch"])
def test_windows_is_refused_in_a_sentence(module: str) -> None:
    command = [sys.executable, "-c", _WINDOWS.format(module=module)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == (
        "fasttriplet does not run on Windows: it locks, replaces and syncs files as Unix does. Use it in "
        "WSL 2, the Windows Subsystem for Linux\n"
    )


class MacOS:
    """The calls that macOS has for a disk's own memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refused: int | None = None) -> None:
        self.calls: list[str] = []
        self._refused = refused
        fcntl = types.SimpleNamespace(fcntl=self.fcntl, F_FULLFSYNC=51)
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(_disk, "fcntl", fcntl, raising=False)
        monkeypatch.setattr(_disk, "_UNKNOWN", (errno.ENOTSUP, errno.ENOTTY, errno.EINVAL), raising=False)
        monkeypatch.setattr(os, "fsync", lambda _: self.calls.append("fsync"))

    def fcntl(self, descriptor: int, call: int) -> None:
        os.fstat(descriptor)  # it is open
        assert call == 51
        self.calls.append("F_FULLFSYNC")
        if self._refused is not None:
            raise OSError(self._refused, os.strerror(self._refused))


def test_on_macos_the_disk_s_own_memory_is_emptied_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    macos = MacOS(monkeypatch)
    with replacing(tmp_path / "a") as unfinished:
        unfinished.write_bytes(b"content")
    assert macos.calls == ["F_FULLFSYNC"] * 2  # the file and its folder


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOTTY, errno.EINVAL])
def test_a_file_system_without_that_call_is_synced_as_ever(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    macos = MacOS(monkeypatch, refused=number)
    sync_path(tmp_path)
    assert macos.calls == ["F_FULLFSYNC", "fsync"]


def test_an_error_of_the_disk_is_no_reason_to_ask_it_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    macos = MacOS(monkeypatch, refused=errno.EIO)
    with (tmp_path / "a").open("wb") as file, pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync(file.fileno())
    assert macos.calls == ["F_FULLFSYNC"]


def test_without_affinity_and_control_groups_all_cores_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 10)
    monkeypatch.setattr(_cores, "_most", None)
    share: Any = _cores._share(tmp_path / "groups", tmp_path / "of_process")
    assert share is None
    monkeypatch.setattr(_cores, "_share", lambda: share)
    assert _cores.cores() == 10
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert _cores.cores() == 1


def test_on_apple_silicon_nobody_is_told_to_install_mxnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "uname", lambda: types.SimpleNamespace(machine="arm64"))
    advice = _extras.how_to_install("mxnet")
    assert advice.startswith("There is no package of it for Apple silicon")
    assert "torch:mxnet:PREFIX,EPOCH" in advice
    assert "pip install" in _extras.how_to_install("onnx")
