"""What is demanded of a command that writes files, whichever of its calls is disturbed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import Ended, Fault, Faults
from tests.faults.disturbed import Disturbed, Tell, listing, unfinished

Words = tuple[str, ...]


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
        version than the rest of their set.
    sets : tuple of tuples of str
        Endings of the files of each set; by default all files are one.
    prints : bool
        Whether the same is printed each time.
    keeps : str, optional
        The ending of a folder in which a run that fails keeps what it has done, for the next one.
    """

    make: Callable[[Path], object]
    words: Words
    again: Words = ("--overwrite",)
    read: Mapping[str, Callable[[Path], Any]] = field(default_factory=dict)
    optional: Words = ()
    follow: Words = ()
    sets: tuple[Words, ...] = (("",),)
    prints: bool = False
    keeps: str | None = None


class Campaign(Disturbed):
    """All faults of a case, whose folders are made in `folder`."""

    def __init__(self, case: Case, faults: Faults, folder: Path, tell: Tell, *, quick: bool) -> None:
        self._case, before = case, folder / "before"
        before.mkdir()
        case.make(before)
        self._old = self.contents(before)
        super().__init__(faults, before, case.words, tell, quick=quick)

    def contents(self, folder: Path) -> dict[str, Any]:
        found = {}
        for path in folder.rglob("*"):
            name = str(path.relative_to(folder))
            kept = self._case.keeps is not None and self._case.keeps in name
            if path.is_file() and not unfinished(name) and not kept:
                read = next((self._case.read[end] for end in self._case.read if name.endswith(end)), None)
                try:
                    found[name] = path.read_bytes() if read is None else read(path)
                except Exception as error:
                    raise AssertionError(f"{name} cannot be read: {error!r}") from error
        return found

    def next(self, found: dict[str, Any]) -> Iterable[str]:
        return (*self.words, *(self._case.again if found.keys() > self._old.keys() else ()))

    def examine(self, fault: Fault, call: str, ended: Ended) -> None:
        found = self.contents(self.folder)
        for name, content in found.items():
            known = self._old.get(name), self.whole.get(name)
            assert content in known, f"{name} is neither the old one nor the new one: {content!r:.99}"
        gone = {name for name in self._old.keys() - found.keys() if not name.endswith(self._case.follow)}
        assert not gone, f"{gone} is gone"
        if self._case.follow:
            versions = self._old.items(), self.whole.items()
            for endings in self._case.sets:
                files = {name: content for name, content in found.items() if name.endswith(endings)}
                assert any(files.items() <= version for version in versions), "versions are mixed"
        if not (call and fault.action.startswith("kill")):
            left = [name for name in listing(self.folder) if unfinished(name)]
            assert ended.code in (0, 1, 2), "it dies"
            assert not left or _is_about_removing(call), f"{left} is left"
        if ended.code == 0:
            missing = {name for name in self.whole if found.get(name) != self.whole[name]}
            missing = {name for name in missing if not name.endswith(self._case.optional)}
            assert not missing, f"it ends as if it had written {missing}"
            assert not self._case.prints or ended.out == self.ended.out, f"it prints {ended.out}"
        elif ended.code > 0:
            self._examine_message(ended)

    def _examine_message(self, ended: Ended) -> None:
        """The last line says what is wrong, and names a file that a user knows."""
        said = ended.errors if self._case.keeps is None else ended.errors.replace(self._case.keeps, "")
        for word in ("Traceback", "panicked", ".unfinished", ".part", "os error"):
            assert word not in said, f"{word!r} in a message"
        last = ended.errors.splitlines()[-1] if ended.errors else ""
        known = {Path(name).name for name in self.listing}
        known |= set(re.findall(r"/\.([^/]+)\.unfinished", "\n".join(ended.calls)))  # files that there may be
        assert any(name in last for name in known) or ": .: " in last, "the error names no file"


def _is_about_removing(call: str) -> bool:
    """Whether a call is one of those by which unfinished files are removed."""
    name, path = call.split(" ", 1)
    return (
        name.startswith(("unlink", "rmdir", "getdents"))
        or re.search(r"(unfinished|tmp\w{8}(/parts)?)$", path) is not None
    )
