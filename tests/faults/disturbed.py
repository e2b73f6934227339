"""A run that is disturbed at each of its calls; what is demanded of the ends is a subclass's."""

from __future__ import annotations

import errno
import re
import shutil
import signal
from collections.abc import Callable, Iterable
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

Tell = Callable[[str, object], None]


class Disturbed:
    """All faults of a run.

    Each run is in the folder ``now``, a new copy of ``before``: caches and states have absolute paths.

    Parameters
    ----------
    before : Path
        What is there before the run.
    words : sequence of str
        What the function of `faults` is given.
    tell : callable
        Pytest's `record_property`: gets the number of runs that were disturbed.
    quick : bool
        Try only the faults that differ most.

    Attributes
    ----------
    whole : dict
        What an undisturbed run leaves.
    """

    def __init__(
        self, faults: Faults, before: Path, words: Iterable[str], tell: Tell, *, quick: bool = False
    ) -> None:
        self._faults, self._before, self.words = faults, before, tuple(words)
        self._tell, self._quick = tell, quick
        self._repaired: list[Any] = []  # what was in folders that the next run made whole
        self.folder = before.with_name("now")
        self.ended = self.run()
        assert self.ended.code == 0, self.ended.errors
        self.whole, self.listing = self.contents(self.folder), listing(self.folder)
        assert not any(map(unfinished, self.listing))

    def contents(self, folder: Path) -> dict[str, Any]:
        """What is in the files that have their final names, without what differs between two runs."""
        raise NotImplementedError

    def examine(self, fault: Fault, call: str, ended: Ended) -> None:
        """Demand what a run has to leave in the folder; `call` is empty if nothing was disturbed."""
        raise NotImplementedError

    def next(self, found: dict[str, Any]) -> Iterable[str]:
        """Return the words of the run that makes whole what was `found`."""
        raise NotImplementedError

    def run(self, **how: Any) -> Ended:
        """Run it in a new folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self._before, self.folder)
        return self._faults.run(self.folder, *self.words, **how)

    def kills(self) -> Iterable[Fault]:
        """A kill before each call that changes something, and one after the last.

        Where it is to be quick, only before calls that change what is under final names.
        """
        calls = self.run(kinds=CHANGES).calls
        for at, call in enumerate(calls, start=1):
            if not self._quick or _is_seen(call):
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
        calls = self.run(kinds=kinds).calls
        for at in range(1, len(calls) + 1):
            if not (self._quick and 1 < at < len(calls) and len(set(calls[at - 2 : at + 1])) == 1):
                yield at

    def go_through(self, *faults: Iterable[Fault]) -> None:
        """Try faults, and fail with all that end badly."""
        bad, points = [], 0
        for some in faults:
            for fault in some:
                ended = self.run(fault=fault)
                # Threads may make a call fewer than before; then nothing was disturbed.
                call = next(iter(ended.calls[fault.at - 1 :]), "")
                points += bool(call)
                try:
                    assert not ended.hung, "it hangs"
                    if call and fault.action.startswith("kill"):
                        assert ended.code == -signal.SIGKILL, "it was not killed"
                    self.examine(fault, call, ended)
                    self._repair()
                except AssertionError as error:
                    call = call.replace(f"{self.folder}/", "")
                    what = f"{fault}: {call}\n  {str(error)[:2000]}"
                    bad.append(f"{what}\n  exit code {ended.code}\n  {ended.errors}")
        self._tell(POINTS, points)
        if bad:
            more = [f"... and {len(bad) - _SHOWN} more"] * (len(bad) > _SHOWN)
            text = "\n".join([*bad[:_SHOWN], *more])
            pytest.fail(f"{len(bad)} of {points} faults end badly\n{text}", pytrace=False)

    def _repair(self) -> None:
        """Demand that the next run makes the folder whole."""
        found = self.contents(self.folder)
        state = (found, sorted(listing(self.folder)))
        if state in self._repaired:
            return
        ended = self._faults.run(self.folder, *self.next(found))
        assert ended.code == 0, f"the next run fails: {ended.errors}"
        now, left = self.contents(self.folder), listing(self.folder)
        wrong = {name for name in now.keys() | self.whole.keys() if now.get(name) != self.whole.get(name)}
        assert not wrong, f"the next run gives other {wrong}: {ended.errors}"
        assert left == self.listing, f"the next run leaves {left ^ self.listing}"
        self._repaired.append(state)


def unfinished(name: str) -> bool:
    """Whether a file or folder has no final name, or is in a folder that has none."""
    return any(part.startswith(".") for part in Path(name).parts)


def listing(folder: Path) -> set[str]:
    """Names of files and folders, without what is random in names, or a time."""
    differs = re.compile(r"(?<=tmp)[a-z0-9_]{8}|(?<=tfevents).*")
    return {differs.sub("", str(path.relative_to(folder))) for path in folder.rglob("*")}


def _is_seen(call: str) -> bool:
    """Whether a call changes what is under final names: between two such calls, all kills leave the same."""
    name, _, about = call.partition(" ")
    paths = about.split(" -> ")
    if name.startswith("link"):
        paths = paths[1:]
    return not name.startswith(("fsync", "fdatasync", "mkdir")) and not all(map(unfinished, paths))
