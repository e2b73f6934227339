"""The parquet file beside a ``.rec`` that keeps its index."""

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

# Raised whenever the frame, the facts or how they are found change.
FORMAT = 1
SUFFIX = ".index.parquet"
_FIELD = "fasttriplet"
_CRC = b'{"crc32": "'
_NO_CRC = b"00000000"


def cache_path(rec: Path) -> Path:
    """Name the cache of a ``.rec``: ``train.rec`` has ``train.rec.index.parquet``."""
    return rec.with_name(rec.name + SUFFIX)


def stamp(rec: Path, idx: Path | None) -> dict[str, Any]:
    """Sizes in bytes and times of change in ns that a cache must agree with."""

    def of(path: Path) -> list[int]:
        stat = path.stat()
        return [stat.st_size, stat.st_mtime_ns]

    return {"format": FORMAT, "rec": of(rec), "idx": None if idx is None else of(idx)}


def load(
    rec: Path, current: dict[str, Any], schema: Mapping[str, pl.DataType]
) -> tuple[pl.DataFrame, Any] | None:
    """Read the cache of `rec`; None where there is none, or it is stale or damaged."""
    try:
        content = cache_path(rec).read_bytes()
    except OSError:
        return None
    with contextlib.suppress(pl.exceptions.PolarsError, LookupError, ValueError):
        # Polars ends the process on some damaged files: it gets only what was written so.
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
    """Write the cache of `rec`; where that is not possible there is none."""
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
    """Sum up all of a cache but the place, also returned, where its own checksum stands."""
    start = content.index(_CRC) + len(_CRC)
    place = slice(start, start + len(_NO_CRC))
    view = memoryview(content)
    checksum = zlib.crc32(view[place.stop :], zlib.crc32(view[: place.start]))
    return b"%08x" % checksum, place
