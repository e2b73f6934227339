"""Where the images of a ``.rec`` are from: a table of the path of each, beside the file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fasttriplet._forks import ensure_polars_threads, importing

if TYPE_CHECKING:
    import polars as pl

_AT_ONCE = 2**16  # rows; as a frame they take a fifth of what they do as Python's objects


def sources_beside(rec: Path) -> Path:
    """The table of a ``.rec``."""
    return rec.with_suffix(".sources.parquet")


def read_sources(rec: Path) -> dict[int, str]:
    """The path of each key of a ``.rec``; empty if there is no table, or it is not one."""
    with importing():
        import polars as pl  # noqa: PLC0415  as below

    ensure_polars_threads()
    try:
        table = pl.read_parquet(io.BytesIO(sources_beside(rec).read_bytes()), columns=["key", "path"])
        return dict(table.select(pl.col("key").cast(pl.Int64), pl.col("path").cast(pl.String)).iter_rows())
    except (OSError, pl.exceptions.PolarsError):
        return {}


class Sources:
    """Collects the paths of images, and writes them."""

    def __init__(self) -> None:
        ensure_polars_threads()  # an error now, not after an hour
        self._rows: list[tuple[int, int, str]] = []
        self._frames: list[pl.DataFrame] = []

    def add(self, key: int, label: int, path: str) -> None:
        """Add an image. A table is UTF-8; other bytes of a path are written as escapes."""
        self._rows.append((key, label, os.fsencode(path).decode("utf-8", "backslashreplace")))
        if len(self._rows) == _AT_ONCE:
            self._make_frame()

    def _make_frame(self) -> None:
        with importing():
            import polars as pl  # noqa: PLC0415  it takes 0.2 s: not for --help

        schema = {"key": pl.Int64, "label": pl.Int64, "path": pl.String}
        self._frames.append(pl.DataFrame(self._rows, schema, orient="row"))
        self._rows = []

    def write(self, path: Path) -> None:
        """Write the table, unless no path was given."""
        if self._rows:
            self._make_frame()
        if not self._frames:
            return
        import polars as pl  # noqa: PLC0415

        content = io.BytesIO()  # Polars opens names in UTF-8 only, and errors of a file would be its own
        pl.concat(self._frames, rechunk=True).write_parquet(content)
        path.write_bytes(content.getbuffer())
