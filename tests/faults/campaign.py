"""Goes through all calls of a run, disturbs each, and demands the same of every end."""

from __future__ import annotations

import errno
import re
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests.faults import ALL, CHANGES, Ended, Fault, Faults, Kind
from tests.summary import POINTS

# Without those that ask whether a file is there: Python and many libraries take any error for "no".
DISTURBED: tuple[Kind, ...] = tuple(kind for kind in ALL if kind != "stat")
_FULL: tuple[Kind, ...] = ("create", "write")
_HALF: tuple[Kind, ...] = ("read", "write")
_SHOWN = 8  # faults that end badly

Words = tuple[str, ...]
Tell = Callable[[str, object], None]


@dataclass(frozen=True)
class Case:
    """A command whose calls are disturbed.

    Attributes
    ----------
    make : callable
        Fills the folder in which the command runs.
    words : tuple of str
        The command; all paths in it are relative.
    again : tuple of str
        What the next run is given, too, if there are more files than before.
    read : mapping of str to callable
        By the ending of a file's name, a function that reads the whole file and returns what does not differ
        between two runs. Other files are equal if their bytes are.
    optional : tuple of str
        Endings of files without which a run may end well: caches.
    follow : tuple of str
        Endings of files that belong to another one. They may be gone after a kill, but are never of another
        version than the rest.
    prints : bool
        Whether the same is printed each time.
    """

    make: Callable[[Path], object]
    words: Words
    again: Words = ("--overwrite",)
    read: Mapping[str, Callable[[Path], Any]] = field(default_factory=dict)
    optional: Words = ()
    follow: Words = ()
    prints: bool = False


class Campaign:
    """All faults of a case.

    Parameters
    ----------
    tell : callable
        Pytest's `record_property`: gets the number of runs that were disturbed.
    """

    def __init__(self, case: Case, faults: Faults, folder: Path, tell: Tell, *, quick: bool) -> None:
        self._case, self._faults, self._folder, self._tell, self._quick = case, faults, folder, tell, quick
        self._repaired: list[Any] = []  # what was in folders that the next run made whole
        (folder / "before").mkdir()
        case.make(folder / "before")
        self._before = self._contents(folder / "before")
        whole = self._copy()
        self._ended = faults.run(whole, *case.words, kinds=DISTURBED)
        assert self._ended.code == 0, self._ended.errors
        self._after, self._listing = self._contents(whole), _listing(whole)
        assert not any(map(_unfinished, self._listing))

    def kills(self) -> Iterable[Fault]:
        """A kill before each call that changes something, and one after the last.

        Where it is to be quick, only before calls that change what is under final names.
        """
        calls = self._calls(CHANGES)
        for at, call in enumerate(calls, start=1):
            if not self._quick or is_seen(call):
                yield Fault(at, "kill")
        yield Fault(len(calls), "kill after")

    def errors(self, *numbers: int, kinds: tuple[Kind, ...] = DISTURBED) -> Iterable[Fault]:
        """Each call fails, with these errors in turn."""
        for at, number in zip(self._numbers(kinds), cycle(numbers), strict=False):
            yield Fault(at, "fail", number, kinds)

    def full(self) -> Iterable[Fault]:
        """The disk is full from each write on."""
        return (Fault(at, "fail from there", errno.ENOSPC, _FULL) for at in self._numbers(_FULL))

    def halves(self) -> Iterable[Fault]:
        """Each read and write is of half the bytes."""
        return (Fault(at, "short", kinds=_HALF) for at in self._numbers(_HALF))

    def _numbers(self, kinds: tuple[Kind, ...]) -> Iterable[int]:
        """The numbers of all calls; where it is to be quick, without those between two that are the same."""
        calls = self._calls(kinds)
        for at in range(1, len(calls) + 1):
            if not (self._quick and 1 < at < len(calls) and len(set(calls[at - 2 : at + 1])) == 1):
                yield at

    def _calls(self, kinds: tuple[Kind, ...]) -> list[str]:
        return self._faults.run(self._copy(), *self._case.words, kinds=kinds).calls

    def go_through(self, *faults: Iterable[Fault]) -> None:
        """Try faults, and fail with all that end badly."""
        bad, points = [], 0
        for some in faults:
            for fault in some:
                folder = self._copy()
                ended = self._faults.run(folder, *self._case.words, fault=fault)
                # Threads may make a call fewer than before; then nothing was disturbed.
                call = next(iter(ended.calls[fault.at - 1 :]), "")
                points += bool(call)
                try:
                    self._examine(folder, fault, call, ended)
                except AssertionError as error:
                    call = call.replace(f"{folder}/", "")
                    bad.append(f"{fault}: {call}\n  {error}\n  exit code {ended.code}\n  {ended.errors}")
        self._tell(POINTS, points)
        if bad:
            more = [f"... and {len(bad) - _SHOWN} more"] * (len(bad) > _SHOWN)
            text = "\n".join([*bad[:_SHOWN], *more])
            pytest.fail(f"{len(bad)} of {points} faults end badly\n{text}", pytrace=False)

    def _examine(self, folder: Path, fault: Fault, call: str, ended: Ended) -> None:
        assert not ended.hung, "it hangs"
        found = self._contents(folder)
        for name, content in found.items():
            known = self._before.get(name), self._after.get(name)
            assert content in known, f"{name} is neither the old one nor the new one: {content!r:.99}"
        gone = {name for name in self._before.keys() - found.keys() if not name.endswith(self._case.follow)}
        assert not gone, f"{gone} is gone"
        if self._case.follow:
            versions = self._before.items(), self._after.items()
            assert any(found.items() <= version for version in versions), "versions are mixed"
        left = [name for name in _listing(folder) if _unfinished(name)]
        if call and fault.action.startswith("kill"):
            assert ended.code == -signal.SIGKILL, "it was not killed"
        else:
            assert ended.code in (0, 1, 2), "it dies"
            assert not left or _is_about_removing(call), f"{left} is left"
        if ended.code == 0:
            missing = {name for name in self._after if found.get(name) != self._after[name]}
            missing = {name for name in missing if not name.endswith(self._case.optional)}
            assert not missing, f"it ends as if it had written {missing}"
            assert not self._case.prints or ended.out == self._ended.out, f"it prints {ended.out}"
        elif ended.code > 0:
            self._examine_message(ended)
        self._repair(folder, found, left)

    def _examine_message(self, ended: Ended) -> None:
        """The last line says what is wrong, and names a file that a user knows."""
        for word in ("Traceback", "panicked", ".unfinished", ".part", "os error"):
            assert word not in ended.errors, f"{word!r} in a message"
        last = ended.errors.splitlines()[-1] if ended.errors else ""
        known = {Path(name).name for name in self._listing}
        known |= set(re.findall(r"/\.([^/]+)\.unfinished", "\n".join(ended.calls)))  # files that there may be
        assert any(name in last for name in known) or ": .: " in last, "the error names no file"

    def _repair(self, folder: Path, found: dict[str, Any], left: list[str]) -> None:
        state = (found, left, sorted(_listing(folder)))
        if state in self._repaired:
            return
        again = self._case.again if found.keys() > self._before.keys() else ()
        ended = self._faults.run(folder, *self._case.words, *again)
        assert ended.code == 0, f"the next run fails: {ended.errors}"
        assert self._contents(folder) == self._after, "the next run gives something else"
        assert _listing(folder) == self._listing, f"the next run leaves {_listing(folder) ^ self._listing}"
        self._repaired.append(state)

    def _copy(self) -> Path:
        """Make the folder anew, with the same path each time: caches are named by it."""
        shutil.rmtree(self._folder / "now", ignore_errors=True)
        return Path(shutil.copytree(self._folder / "before", self._folder / "now"))

    def _contents(self, folder: Path) -> dict[str, Any]:
        """What is in the files that have their final names."""
        found = {}
        for path in folder.rglob("*"):
            name = str(path.relative_to(folder))
            if path.is_file() and not _unfinished(name):
                read = next((self._case.read[end] for end in self._case.read if name.endswith(end)), None)
                try:
                    found[name] = path.read_bytes() if read is None else read(path)
                except Exception as error:
                    raise AssertionError(f"{name} cannot be read: {error!r}") from error
        return found


def is_seen(call: str) -> bool:
    """Whether a call changes what is under final names: between two such calls, all kills leave the same."""
    name, _, about = call.partition(" ")
    paths = about.split(" -> ")
    if name.startswith("link"):
        paths = paths[1:]
    return not name.startswith(("fsync", "fdatasync", "mkdir")) and not all(map(_unfinished, paths))


def _unfinished(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def _listing(folder: Path) -> set[str]:
    """Names of files and folders, without the random part of those that are temporary."""
    return {re.sub("tmp[a-z0-9_]{8}", "tmp", str(path.relative_to(folder))) for path in folder.rglob("*")}


def _is_about_removing(call: str) -> bool:
    """Whether a call is one of those by which unfinished files are removed."""
    name, path = call.split(" ", 1)
    return (
        name.startswith(("unlink", "rmdir", "getdents"))
        or re.search(r"(unfinished|tmp\w{8})$", path) is not None
    )
