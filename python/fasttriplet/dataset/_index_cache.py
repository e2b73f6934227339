"""The cache of an index: a parquet file beside the ``.rec``, or in a folder for caches."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fasttriplet._files import check_can_be_written, replacing
from fasttriplet.dataset._options import Cache

# To be raised whenever the frame or the facts change, or how they are found.
FORMAT = 3
SUFFIX = ".index.parquet"
FOLDER = "FASTTRIPLET_CACHE_DIR"  # in the environment
_FIELD = "fasttriplet"
_CRC = b'{"crc32": "'
_NO_CRC = b"00000000"


def cache_beside(rec: Path) -> Path:
    """Return the path of the cache beside `rec`: ``train.rec.index.parquet`` for ``train.rec``."""
    return rec.with_name(rec.name + SUFFIX)


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

    def stamp(self, idx: Path | None) -> dict[str, Any]:
        """Return what a cache must agree with: sizes in bytes and times of change in ns of the files."""

        def of(path: Path) -> list[int]:
            stat = path.stat()
            return [stat.st_size, stat.st_mtime_ns]

        current = {"format": FORMAT, "rec": of(self.rec), "idx": None if idx is None else of(idx)}
        # A cache beside its file moves with it.
        return current if self.named_by is None else current | {"path": str(self.rec.resolve())}

    def load(
        self, current: dict[str, Any], schema: Mapping[str, pl.DataType]
    ) -> tuple[pl.DataFrame, Any] | None:
        """Read the cache; None if there is none, or it is stale or damaged."""
        try:
            content = self.path.read_bytes()
        except OSError:
            return None
        with contextlib.suppress(pl.exceptions.PolarsError, LookupError, ValueError):
            # Some damaged files make Polars end the process, so it gets a file only if the checksum is right.
            checksum, place = _checksum(content)
            if content[place] != checksum:
                return None
            kept = json.loads(pl.read_parquet_metadata(io.BytesIO(content))[_FIELD])
            if kept["stamp"] == current:
                index = pl.read_parquet(io.BytesIO(content))
                if dict(index.schema) == schema:
                    return index, kept["facts"]
        return None

    def check(self) -> None:
        """Raise an OSError if a user named a folder in which no file can be written."""
        if self.named_by is None:
            return
        try:
            check_can_be_written(self.path)
        except OSError as error:
            raise self._refusal(error) from error

    def store(self, current: dict[str, Any], index: pl.DataFrame, facts: Any) -> bool:
        """Write the cache; False if that is not possible, an OSError if a user named the folder."""
        kept = json.dumps({"crc32": _NO_CRC.decode(), "stamp": current, "facts": facts})
        buffer = io.BytesIO()
        try:
            index.write_parquet(buffer, metadata={_FIELD: kept}, compression="lz4")
            checksum, place = _checksum(buffer.getvalue())
            buffer.seek(place.start)
            buffer.write(checksum)
            with replacing(self.path) as temporary:
                temporary.write_bytes(buffer.getbuffer())
        except FileExistsError:  # another run is writing it at this moment
            return False
        except (OSError, pl.exceptions.PolarsError) as error:
            if self.named_by is None:
                return False
            raise self._refusal(error) from error
        return True

    def _refusal(self, error: Exception) -> OSError:
        reason = getattr(error, "strerror", None) or error
        kind = type(error) if isinstance(error, OSError) else OSError
        return kind(
            f"{self.named_by}: the index of {self.rec} cannot be kept there: {reason}; name a folder that "
            "can be written to"
        )


def _checksum(content: bytes) -> tuple[bytes, slice]:
    """Return the checksum of a cache, and the place in the cache where it is stored, which it leaves out."""
    start = content.index(_CRC) + len(_CRC)
    place = slice(start, start + len(_NO_CRC))
    view = memoryview(content)
    checksum = zlib.crc32(view[place.stop :], zlib.crc32(view[: place.start]))
    return b"%08x" % checksum, place
