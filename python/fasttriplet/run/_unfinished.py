"""The folder ``OUT.unfinished``: what a run that embeds has done, from which another one continues.

It holds the file as far as it is written, a list of the images that were skipped, and ``about.json``. This
says how many images are done and of what they are, and is replaced after each part, when that is on the disk.
What the other files hold beyond what it counts is cut off by the run that continues.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from fasttriplet._disk import sync, sync_path
from fasttriplet._files import folder_beside, naming
from fasttriplet._words import counted
from fasttriplet.embedders._vectors import Dtype, Skipped, Writer, header
from fasttriplet.run._pass import Piece

_ABOUT, _SKIPPED = "about.json", "skipped.ndjson"
_KIND, _VERSION = "unfinished embeddings", 1
_COUNTS = ("done", "images", "size", "skipped_bytes")


@dataclass(frozen=True, slots=True)
class State:
    """How far a run got.

    Attributes
    ----------
    done, images : int
        Images that are embedded or skipped, and all.
    size : int
        Numbers per embedding; 0 if no image has one yet.
    skipped_bytes : int
        Of the list of images that were skipped.
    overwrite : bool
        Whether the run was allowed to replace a file.
    of : dict of str to object
        What the embeddings depend on, in the words that an error uses.
    """

    done: int
    images: int
    size: int
    skipped_bytes: int
    overwrite: bool
    of: dict[str, Any]


class Unfinished:
    """What is kept of embeddings that are to become the file `path`.

    The caller holds the lock of `path` (:func:`fasttriplet._files.opened`) while anything is written.

    Parameters
    ----------
    path : Path
    fresh : bool, default False
        Whether what a stopped run has done is not to be read, as it is not to be continued.

    Attributes
    ----------
    path : Path
        The file, when it is complete.
    folder : Path
        Where the rest is until then.
    unfinished : Path
        The file until then.
    state : State or None
        What is counted as done.
    skipped : list of Skipped
        The images that were skipped.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self.path, self.folder = path, folder_beside(path)
        self.unfinished = self.folder / self.folder.name.removesuffix(".unfinished")
        self._list = self.folder / _SKIPPED
        self.skipped: list[Skipped] = []
        self.state = None if self._is_missing() or fresh else self._read()
        self._open: list[BinaryIO] = []  # the file and the list, while they are written

    def _is_missing(self) -> bool:
        """Whether there is no folder; something else with its name is a FileExistsError."""
        if not os.path.lexists(self.folder):
            return True
        if self.folder.is_symlink() or not self.folder.is_dir():
            raise FileExistsError(
                errno.EEXIST,
                "is in the way: it is not the folder of an unfinished run; move it away",
                str(self.folder),
            )
        own = {_ABOUT, f"{_ABOUT}.new", _SKIPPED, self.unfinished.name}
        if foreign := sorted(path.name for path in self.folder.iterdir() if path.name not in own):
            raise FileExistsError(
                errno.EEXIST,
                f"is in the way: an unfinished run has no file {foreign[0]!r}; move it away",
                str(self.folder),
            )
        return False

    def _read(self) -> State | None:
        try:
            found = json.loads((self.folder / _ABOUT).read_bytes())
        except FileNotFoundError:  # nothing was complete
            return None
        except (ValueError, RecursionError):  # not JSON, or brackets without end
            found = None
        if not isinstance(found, dict) or found.get("fasttriplet") != _KIND:
            raise self._damaged("about.json is not that of an unfinished run")
        if found.get("version") != _VERSION:
            raise self._damaged(f"it has the version {found.get('version')!r}, not {_VERSION}")
        counts = {name: found.get(name) for name in _COUNTS}
        sound = all(type(count) is int and count >= 0 for count in counts.values())
        if not sound or not isinstance(found.get("of"), dict):
            raise self._damaged("about.json lacks something")
        kept: dict[str, Any] = counts | {"overwrite": found.get("overwrite") is True, "of": found["of"]}
        return State(**kept)

    def _damaged(self, why: str) -> ValueError:
        return ValueError(f"{self.folder} cannot be resumed: {why}; overwrite=True starts again")

    @property
    def progress(self) -> str:
        """Such as "412 of 7,200 images"."""
        return f"{self.state.done:,} of {counted(self.state.images, 'image')}" if self.state else "nothing"

    @property
    def begun(self) -> bool:
        """Whether this run has opened the files."""
        return bool(self._open)

    @property
    def may_overwrite(self) -> bool:
        """Whether the run might replace files, or has given the file its name already."""
        return self.state is not None and (self.state.overwrite or self.published)

    @property
    def published(self) -> bool:
        """Whether `path` is the very file of this folder: the run ended before it removed the folder."""
        try:
            return self.path.samefile(self.unfinished)
        except OSError:
            return False

    # What :func:`fasttriplet._files.naming` asks for

    def holds(self, path: Path) -> bool:
        """Whether a path is that of the folder, or in it."""
        return self.folder == path or self.folder in path.parents

    def written(self) -> int:
        """How many bytes the file has so far."""
        with suppress(OSError):
            return self.unfinished.stat().st_size
        return 0

    # What a run does

    def check(self, of: dict[str, Any], dtype: Dtype) -> None:
        """Raise a ValueError if what is done cannot be continued: it is of something else, or damaged.

        Reads which images were skipped.
        """
        state = self.state
        assert state is not None
        differ = [
            f"the {name} {before!r}, not {of[name]!r}"
            for name, before in state.of.items()
            if name in of and before != of[name]
        ]
        if differ or state.of.keys() != of.keys():
            raise ValueError(
                f"{self.folder} cannot be resumed: {self.progress} are done with "
                f"{', and '.join(differ) or 'options of another version'}; run it as before, or "
                "overwrite=True starts again"
            )
        for path, needed in self._counted(state, dtype):
            there = path.stat().st_size if path.is_file() else 0
            if there < needed:
                raise self._damaged(f"{path.name} has {there:,} bytes and should have {needed:,}")
        try:
            lines = self._list.read_bytes()[: state.skipped_bytes].splitlines()
            self.skipped = [Skipped(**json.loads(line)) for line in lines]
        except (FileNotFoundError, ValueError, TypeError):
            raise self._damaged(f"{self._list.name} is missing or damaged") from None

    def _counted(self, state: State, dtype: Dtype) -> list[tuple[Path, int]]:
        """How many bytes of each file are counted as done."""
        rows = state.done * state.size * np.dtype(dtype).itemsize
        before = len(header(state.images, state.size, dtype)) if state.size else 0
        return [(self.unfinished, before + rows), (self._list, state.skipped_bytes)]

    def begin(self, images: int, of: dict[str, Any], *, model: str, dtype: Dtype, overwrite: bool) -> None:
        """Open the files, to continue what is done or, if that is nothing, to begin."""
        if self.state is None:
            self.remove()
            with naming(self):
                self.folder.mkdir()
            self.state = State(0, images, 0, 0, overwrite, of)
        with naming(self):
            for path, length in self._counted(self.state, dtype):
                path.touch()
                os.truncate(path, length)
                self._open.append(path.open("ab"))
        self._writer = Writer(
            self._open[0], images, model, dtype=dtype, size=self.state.size, done=self.state.done
        )

    def append(self, piece: Piece[None], vectors: NDArray[np.float32] | None) -> None:
        """Write the embeddings of the next images, wait for the disk, and count them as done."""
        assert self.state is not None
        with naming(self):
            self._writer.append(piece.rows, piece.kept, vectors)
            lines = [json.dumps(one._asdict()) + "\n" for one in piece.skipped]
            self._open[1].write("".join(lines).encode())
            for file in self._open if lines else self._open[:1]:
                file.flush()
                sync(file.fileno())
            state = replace(
                self.state,
                done=self.state.done + piece.rows.height,
                size=self._writer.size,
                skipped_bytes=self._open[1].tell(),
            )
            self._count(state, first=self.state.done == 0)
        self.skipped += piece.skipped

    def _count(self, state: State, *, first: bool) -> None:
        about, new = self.folder / _ABOUT, self.folder / f"{_ABOUT}.new"
        plain = {"fasttriplet": _KIND, "version": _VERSION}
        plain |= {name: getattr(state, name) for name in (*_COUNTS, "overwrite", "of")}
        with new.open("w", encoding="utf-8") as file:
            json.dump(plain, file, indent=1)
            file.flush()
            sync(file.fileno())
        new.replace(about)
        self.state = state
        if first:  # later the names are on the disk, and an older count is as good as this one
            for folder in (self.folder, self.folder.parent):
                sync_path(folder)

    def close(self) -> None:
        """Close the files; without anything done, remove the folder."""
        for file in self._open:
            with suppress(OSError):  # what was written to it is counted, or is to be cut off
                file.close()
        if self.state is not None and self.state.done == 0:
            self.remove()

    def copy_to(self, place: Path) -> None:
        """Give the complete file a second name, or make a copy where the file system has no such names."""
        place.unlink()
        try:
            os.link(self.unfinished, place)
        except OSError:
            shutil.copyfile(self.unfinished, place)

    def remove(self) -> None:
        """Remove the folder; what counts the rest goes first."""
        self.state = None
        with suppress(OSError):  # another run removes it
            for name in (_ABOUT, f"{_ABOUT}.new", _SKIPPED, self.unfinished.name):
                (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()
