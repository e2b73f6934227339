"""The tree of folders that is packed: which folder is an identity, which files are its pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fasttriplet._contents import why_unreadable
from fasttriplet.dataset._packing._problems import Problems

# What operating systems, file servers and archives leave in folders, in lower case.
_SYSTEM = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("__macosx", "icon\r", "@eadir", "#recycle", "lost+found"),
}


@dataclass(frozen=True, slots=True)
class Tree:
    """What a folder holds.

    Attributes
    ----------
    identities : list of (str, list of str)
        Names of the identities, each with the names of its pictures, both in natural order. The parts of a
        name are joined by slashes.
    ignored : int
        How many hidden and system files and folders there are.
    """

    identities: list[tuple[str, list[str]]]
    ignored: int


def scan(folder: Path, depth: int | None, problems: Problems) -> Tree:
    """Look through a folder; whatever is neither a picture's file nor to be ignored is a problem.

    The first `depth` folders of a path are the identity, and pictures lie in the last of them or deeper. If
    `depth` is None, they must lie in ``folder/identity`` itself.
    """
    found = _Scan(folder, depth or 1, problems, deeper=depth is not None)
    found.identities_in(folder, ())
    return Tree(found.identities, found.ignored)


def natural(name: str) -> tuple[list[tuple[int, str]], bytes]:
    """Make a sort key that puts ``p2`` before ``p10``. Equal keys are ordered by the bytes of the name."""
    parts = re.split(r"([0-9]+)", name)
    # Text and numbers alternate, so numbers are only compared with numbers.
    pairs = [(int(part), "") if number % 2 else (0, part) for number, part in enumerate(parts)]
    return pairs, os.fsencode(name)


class _Scan:
    def __init__(self, root: Path, depth: int, problems: Problems, *, deeper: bool) -> None:
        self._root = root
        self._depth = depth
        self._problems = problems
        self._deeper = deeper
        self._inside: list[tuple[int, int]] = []  # the folders that are being looked through, outermost first
        self.identities: list[tuple[str, list[str]]] = []
        self.ignored = 0

    def identities_in(self, path: Path, parts: tuple[str, ...]) -> None:
        """Look through a folder that has the identities' folders in it, or folders of those."""
        before = len(self._problems)
        empty = True
        for name, is_folder in self._entries(path):
            empty = False
            if not is_folder:
                self._problems.add(path / name, "depth", "lies above the identities' folders")
            elif len(parts) + 1 < self._depth:
                self.identities_in(path / name, (*parts, name))
            else:
                self._identity(path / name, "/".join((*parts, name)))
        if empty and parts and len(self._problems) == before:
            self._problems.add(path, "empty", "has no folders of identities in it")

    def _identity(self, path: Path, name: str) -> None:
        before = len(self._problems)
        pictures = list(self._pictures(path, ""))
        if pictures:
            self.identities.append((name, pictures))
        elif len(self._problems) == before:
            self._problems.add(path, "empty", "has no pictures in it")

    def _pictures(self, path: Path, inner: str) -> Iterator[str]:
        for name, is_folder in self._entries(path):
            if not is_folder:
                yield inner + name
            elif self._deeper:
                yield from self._pictures(path / name, f"{inner}{name}/")
            else:
                self._problems.add(
                    path / name,
                    "depth",
                    "is a folder in an identity's folder; expected FOLDER/identity/picture",
                )

    def _entries(self, folder: Path) -> Iterator[tuple[str, bool]]:
        """Yield names in natural order, and whether they are folders; without what cannot be used."""
        try:
            status = folder.stat()
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: natural(entry.name))
        except OSError as error:
            if folder == self._root:
                raise
            self._problems.add(folder, "unreadable", why_unreadable(error))
            return
        self._inside.append((status.st_dev, status.st_ino))
        for entry in found:
            if entry.name.startswith(".") or entry.name.lower() in _SYSTEM:
                self.ignored += 1
                continue
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()  # of what a link leads to
                wrong = None if is_folder or is_file else _what(entry)
                if is_folder and entry.is_symlink():
                    target = entry.stat()
                    if (target.st_dev, target.st_ino) in self._inside:
                        wrong = "is a link to a folder that it lies in"
            except OSError as error:
                wrong = why_unreadable(error)
            if wrong is None:
                yield entry.name, is_folder
            else:
                self._problems.add(folder / entry.name, "unreadable", wrong)
        self._inside.pop()


def _what(entry: os.DirEntry[str]) -> str:
    return "is a broken link" if entry.is_symlink() else "is neither a file nor a folder"
