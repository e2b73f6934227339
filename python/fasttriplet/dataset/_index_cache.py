"""The cache of an index: a parquet file beside the ``.rec``."""

from __future__ import annotations

import contextlib
import io
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from fasttriplet._files import replacing

# To be raised whenever the frame or the facts change, or how they are found.
FORMAT = 2
SUFFIX = ".index.parquet"
_FIELD = "fasttriplet"
_CRC = b'{"crc32": "'
_NO_CRC = b"00000000"


def cache_path(rec: Path) -> Path:
    """Return the path of the cache: ``train.rec.index.parquet`` for ``train.rec``."""
    return rec.with_name(rec.name + SUFFIX)


def stamp(rec: Path, idx: Path | None) -> dict[str, Any]:
    """Return what a cache must agree with: sizes in bytes and times of change in ns of the files."""

    def of(path: Path) -> list[int]:
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]

    return {"format": FORMAT, "rec": of(rec), "idx": None if idx is None else of(idx)}


def load(
    rec: Path, current: dict[str, Any], schema: Mapping[str, pl.DataType]
) -> tuple[pl.DataFrame, Any] | None:
    """Read the cache of `rec`; None if there is none, or it is stale or damaged."""
    try:
        content = cache_path(rec).read_bytes()
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


def store(rec: Path, current: dict[str, Any], index: pl.DataFrame, facts: Any) -> None:
    """Write the cache of `rec`, or none if that is not possible."""
    kept = json.dumps({"crc32": _NO_CRC.decode(), "stamp": current, "facts": facts})
    buffer = io.BytesIO()
    with contextlib.suppress(OSError, pl.exceptions.PolarsError):
        index.write_parquet(buffer, metadata={_FIELD: kept}, compression="lz4")
        checksum, place = _checksum(buffer.getvalue())
        buffer.seek(place.start)
        buffer.write(checksum)
        with replacing(cache_path(rec)) as temporary:
            temporary.write_bytes(buffer.getbuffer())


def _checksum(content: bytes) -> tuple[bytes, slice]:
    """Return the checksum of a cache, and the place in the cache where it is stored, which it leaves out."""
    start = content.index(_CRC) + len(_CRC)
    place = slice(start, start + len(_NO_CRC))
    view = memoryview(content)
    checksum = zlib.crc32(view[place.stop :], zlib.crc32(view[: place.start]))
    return b"%08x" % checksum, place
