"""The parquet file beside a ``.rec`` that keeps its index."""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

# Raised whenever the frame, the facts or how they are found change.
FORMAT = 1
SUFFIX = ".index.parquet"
_FIELD = "fasttriplet"


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
    rec: Path, current: dict[str, Any], schema: dict[str, pl.DataType]
) -> tuple[pl.DataFrame, Any] | None:
    """Read the cache of `rec`; None where there is none, or it is stale or damaged."""
    # Polars panics on some damaged files, and a panic is no Exception.
    with contextlib.suppress(Exception, pl.exceptions.PanicException), cache_path(rec).open("rb") as file:
        kept = json.loads(pl.read_parquet_metadata(file)[_FIELD])
        if kept["stamp"] != current:
            return None
        file.seek(0)
        index = pl.read_parquet(file)
        if dict(index.schema) == schema and _checksums(index, kept["facts"]) == kept["checksums"]:
            return index, kept["facts"]
    return None


def store(rec: Path, current: dict[str, Any], index: pl.DataFrame, facts: Any) -> None:
    """Write the cache of `rec`; where that is not possible there is none."""
    kept = json.dumps({"stamp": current, "facts": facts, "checksums": _checksums(index, facts)})
    with (
        contextlib.suppress(OSError, pl.exceptions.PolarsError),
        _replacing(cache_path(rec)) as temporary,
    ):
        index.write_parquet(temporary, metadata={_FIELD: kept}, compression="lz4")


def _checksums(index: pl.DataFrame, facts: Any) -> list[int]:
    # Parquet as Polars writes it has no checksums, and a wrong offset would be a wrong answer.
    columns = [zlib.crc32(column.rechunk().to_numpy().data) for column in index]
    return [*columns, zlib.crc32(json.dumps(facts, sort_keys=True).encode())]


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name that becomes `path` when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
