"""Collects triplets bag by bag, in memory or in a parquet file that appears only when it is complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from fasttriplet._files import check_can_be_written, publish


class Sink:
    """Collects frames that have the same columns, in memory."""

    def __init__(self) -> None:
        self._frames: list[pl.DataFrame] = []
        self._joined = pl.LazyFrame()

    def append(self, frame: pl.DataFrame) -> None:
        """Add a frame at the end."""
        self._frames.append(frame)

    def join(self) -> pl.LazyFrame:
        """Return all frames as one, to be examined before :meth:`publish`. Call this once, at the end."""
        self._joined = pl.concat(self._frames).lazy()
        return self._joined

    def publish(self) -> pl.LazyFrame:
        """Give the file its final name, if there is a file, and return all frames as one."""
        return self._joined


@contextmanager
def open_sink(path: Path | None) -> Iterator[Sink]:
    """Collect frames in a parquet file, or in memory if `path` is None.

    Nothing has the name of the file before :meth:`Sink.publish`, which replaces one that is there. When the
    block ends, for whatever reason, nothing else is left in the folder. A folder that cannot be written to is
    an error at once.
    """
    if path is None:
        yield Sink()
        return
    check_can_be_written(path)
    _utf8(path)
    with _writing(path):
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".parts", dir=path.parent))
    try:
        yield _Parquet(path, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _utf8(path: Path) -> str:
    """Return the path in UTF-8, which Polars takes whatever the locale is."""
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"cannot write {str(path)!r}: its name is not UTF-8") from None


class _Parquet(Sink):
    """Writes each frame to a file of its own, so that none stays in memory, and joins them at the end."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._parts: list[Path] = []
        self._folder = folder
        self._complete = folder / "complete"

    def append(self, frame: pl.DataFrame) -> None:
        part = self._folder / f"{len(self._parts):08}.part"
        with _writing(self._path):
            frame.write_parquet(_utf8(part))
        self._parts.append(part)

    def join(self) -> pl.LazyFrame:
        with _writing(self._path):
            # No pattern matching: a folder may be called runs[1].
            parts = [_utf8(part) for part in self._parts]
            pl.scan_parquet(parts, glob=False).sink_parquet(_utf8(self._complete))
        return pl.scan_parquet(_utf8(self._complete), glob=False)

    def publish(self) -> pl.LazyFrame:
        with _writing(self._path):
            publish(self._complete, self._path)
        return pl.scan_parquet(_utf8(self._path), glob=False)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Let errors name the file that could not be written, whichever library raises them."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = getattr(error, "strerror", None) or error
        kind = type(error) if isinstance(error, OSError) else OSError
        raise kind(f"cannot write {path}: {reason}") from error
