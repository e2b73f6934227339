"""Calls of the operating system that fail, or at which the process is killed, one after the other."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

CALLS = ("link", "rename", "replace", "unlink", "fsync")  # by which files get and lose their names
KILLED = 9


def disk_is_full(*_: Any, **__: Any) -> NoReturn:
    """Stands in for a function that writes."""
    raise OSError(errno.ENOSPC, "No space left on device")


class Faults:
    """Counts the calls that change the names in a folder, or wait until they are on the disk.

    Attributes
    ----------
    made : list of str
        The calls so far.
    """

    def __init__(self, folder: Path, fault: Callable[[int], None] | None = None) -> None:
        self._folder, self._fault = str(folder), fault or (lambda _: None)
        self.made: list[str] = []

    def before(self, name: str, arguments: tuple[Any, ...]) -> None:
        """Look at a call, and let it fail."""
        paths = [
            str(Path(f"/proc/self/fd/{one}").readlink()) if isinstance(one, int) else os.fspath(one)
            for one in arguments
        ]
        if any(path == self._folder or os.path.dirname(path) == self._folder for path in paths):  # noqa: PTH120
            self.made.append(f"{name} {' '.join(map(os.path.basename, paths))}")
            self._fault(len(self.made))


@contextmanager
def watched(faults: Faults) -> Iterator[None]:
    """Let the calls of the block pass through `faults`. Nothing waits for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            real = (lambda _: None) if name == "fsync" else getattr(os, name)

            def call(*arguments: Any, name: str = name, real: Callable[..., Any] = real, **more: Any) -> Any:
                if not more:  # else it clears a hidden folder
                    faults.before(name, arguments)
                return real(*arguments, **more)

            patch.setattr(os, name, call)
        yield


def fails(at: int, *, always: bool = False) -> Callable[[int], None]:
    """Let one call fail, or that one and all later ones."""

    def fault(number: int) -> None:
        if number == at or (always and number > at):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    return fault


def killed(folder: Path, at: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that is killed before its call number `at`; False if it made fewer."""

    def fault(number: int) -> None:
        if number == at:
            os._exit(KILLED)

    child = os.fork()
    if child == 0:
        try:
            with watched(Faults(folder, fault)):
                work()
            os._exit(0)
        finally:
            os._exit(1)
    return {KILLED: True, 0: False}[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


def content(folder: Path) -> dict[str, bytes]:
    """All files with their content, without hidden folders."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def names(folder: Path) -> list[str]:
    """Names of all that is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def no_space(*_: Any) -> None:
    """Be a call that fails because the disk is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
