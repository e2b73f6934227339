"""Where an index is kept: in a file beside the ``.rec``, or in a folder for indexes."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fasttriplet import _core
from fasttriplet._contents import kind_of, not_a_file
from fasttriplet._files import check_can_be_written, remove_unfinished, replacing
from fasttriplet.dataset._index_file import MAGIC, FileIndex, UnfitError, decode, encode, most_bytes
from fasttriplet.dataset._options import Cache
from fasttriplet.errors import RecordError

SUFFIX = ".index"
FOLDER = "FASTTRIPLET_CACHE_DIR"  # in the environment
# Seconds. Linux stamps files by a clock that ticks every 1 to 10 ms.
_TICK = 0.02


def cache_beside(rec: Path) -> Path:
    """Return the path of the cache beside `rec`: ``train.rec.index`` for ``train.rec``."""
    return rec.with_name(rec.name + SUFFIX)


def has_cache(rec: Path, folder: str | os.PathLike[str]) -> bool:
    """Whether an index of `rec` is kept in a folder for caches."""
    place = IndexCache.of(rec, folder)
    return place is not None and place.path.is_file()


@dataclass(frozen=True, slots=True)
class IndexCache:
    """Where the index of `rec` is kept, and what it must agree with."""

    rec: Path
    path: Path
    named_by: str | None  # what named the folder, for errors; None beside the file, where a cache may fail

    @classmethod
    def of(cls, rec: Path, cache: Cache) -> IndexCache | None:
        """Find the place that the option `cache` gives to the index of `rec`; None for no cache."""
        if cache is False:
            return None
        if cache is True:
            folder = os.environ.get(FOLDER, "")
            named_by = f"{FOLDER}={folder}"
        else:
            folder = os.fspath(cache)
            named_by = f"cache={folder!r}"
        if not folder:
            return cls(rec, cache_beside(rec), None)
        # Files of one name in different folders have different caches.
        place = hashlib.blake2b(os.fsencode(rec.resolve()), digest_size=8).hexdigest()
        return cls(rec, Path(folder) / f"{rec.name}.{place}{SUFFIX}", named_by)

    def stamp(self, file: _core.RecordFile, idx: Path | None) -> dict[str, Any]:
        """Return what tells these states of the files from all others.

        Size, times of modification and change in ns, and inode. No program can set the time of change, so a
        file that was replaced or written to has another stamp. The device is left out: its number differs
        between mounts, hosts and containers, and files that agree in all of this are one file.
        """

        def of(status: os.stat_result) -> list[int]:
            return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]

        current = {
            "rec": of(os.fstat(file.fileno())),
            # It is read by name later, so this needs to be the same before and after.
            "idx": None if idx is None else of(idx.stat()),
        }
        # An index beside its file moves with their folder.
        return current if self.named_by is None else current | {"path": str(self.rec.resolve())}

    def load(self, current: dict[str, Any], file: _core.RecordFile) -> Found:
        """Read the index of the open file `file`, whose stamp is `current`."""
        try:
            content = self._read(file)
        except _ForeignError as error:
            return Found(
                problem=f"{self.path} is not used as the index of {self.rec}: it {error}. It stays as it is, "
                "and the index is made at each run; move it away, or name a folder for indexes by "
                "cache=FOLDER",
                free=False,
            )
        if not content:
            return Found()
        try:
            found = Found(decode(content, current, file))
        except UnfitError as error:
            return Found(
                problem=f"{self.path} is not used as the index of {self.rec}: it {error}. The index is made "
                "again; if this is said once more, delete the file"
            )
        with suppress(OSError):  # of a run that was killed after it had written this
            remove_unfinished(self.path)
        return found

    def _read(self, file: _core.RecordFile) -> bytes:
        """Read the file that is to be an index; nothing if it is missing, or too large for this ``.rec``."""
        if not os.path.lexists(self.path):  # or its folder cannot be searched, which `check` tells
            return b""
        trusted = {0, os.geteuid(), os.fstat(file.fileno()).st_uid}
        try:
            target = Path(os.path.realpath(self.path))
            for path in (self.path, target):
                owner = path.lstat().st_uid
                # In other folders, whom their owners let in is trusted, as with the .rec itself.
                if owner not in trusted and path.parent.stat().st_mode & stat.S_IWOTH:
                    raise _ForeignError(
                        f"belongs to another user (uid {owner}), in a folder that everyone can write to"
                    )
            # Twice: opening a device may do something, and not to wait for the other end of a pipe is for
            # the case that one appears in between.
            _check_is_regular(target.stat())
            descriptor = os.open(target, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as found:
                status = os.fstat(descriptor)
                _check_is_regular(status)
                start = found.read(len(MAGIC))
                if start != MAGIC[: len(start)]:
                    raise _ForeignError(f"is {kind_of(start) or 'a file of another kind'}")
                if status.st_size > most_bytes(file.size):  # of a larger file that had the name before
                    return b""
                return start + found.read(max(0, status.st_size - len(start)))
        except FileNotFoundError:  # a link to nothing, which is followed when the index is written
            return b""
        except OSError as error:
            raise _ForeignError(f"cannot be read ({error.strerror})") from None

    def check(self) -> None:
        """Raise an OSError if a user named a folder in which no file can be written."""
        if self.named_by is None:
            return
        try:
            check_can_be_written(self.path)
        except OSError as error:
            raise self._refusal(error) from error

    def store(self, current: dict[str, Any], index: FileIndex, file: _core.RecordFile) -> bool:
        """Write the index; False if that is not possible, an OSError if a user named the folder."""
        try:
            content = encode(current, index, file)
            if content is None:
                return False
            with replacing(self.path) as temporary:
                temporary.write_bytes(content)
        except (FileExistsError, RecordError):  # another run is writing it, or the .rec, at this moment
            return False
        except OSError as error:
            if self.named_by is None:
                return False
            raise self._refusal(error) from error
        return True

    def _refusal(self, error: OSError) -> OSError:
        reason = error.strerror or error
        return type(error)(
            f"{self.named_by}: the index of {self.rec} cannot be kept there: {reason}; name a folder that "
            "can be written to"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What lies where an index is to be kept."""

    index: FileIndex | None = None
    problem: str | None = None  # what is wrong with it, for a warning
    free: bool = True  # whether an index may be written there


class _ForeignError(Exception):
    """A file is not ours to read or to replace; the message goes on from "it"."""


def _check_is_regular(status: os.stat_result) -> None:
    if (found := not_a_file(status.st_mode)) is not None:
        raise _ForeignError(f"is {found}")


def settle(current: dict[str, Any]) -> None:
    """Wait until a change of the files would give them another time than in the stamp: 20 ms at most."""
    changed = max(times[2] for times in (current["rec"], current["idx"]) if times) / 1e9
    time.sleep(min(max(0.0, changed + _TICK - time.time()), _TICK))
