"""Collects triplets bag by bag, in memory or in a file that appears only when it is complete."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fasttriplet._files import Output, naming, opened, publish
from fasttriplet._metadata import as_parquet
from fasttriplet.errors import OptionError


class Sink:
    """Collects frames that have the same columns, in memory."""

    def __init__(self) -> None:
        self._frames: list[pl.DataFrame] = []
        self._joined = pl.LazyFrame()

    def append(self, frame: pl.DataFrame | Path) -> None:
        """Add a frame at the end, or a Parquet file of one, which must stay until all are joined."""
        self._frames.append(pl.read_parquet(frame, glob=False) if isinstance(frame, Path) else frame)

    @contextmanager
    def join(self, about: Mapping[str, Any]) -> Iterator[pl.LazyFrame]:  # noqa: ARG002  for files
        """Give all frames as one, to be examined before :meth:`publish`. Use this once, at the end.

        A file says where it is from, `about` itself, if its format has a place for that.
        """
        self._joined = pl.concat(self._frames).lazy()
        yield self._joined

    def publish(self) -> pl.LazyFrame:
        """Give the file its final name, if there is a file, and return all frames as one."""
        return self._joined


class _Format(NamedTuple):
    """How a file is written, and read again with all numbers and types as they were."""

    write: Callable[[pl.LazyFrame, str, Mapping[str, Any]], Any]
    scan: Callable[[str, pl.Schema | None], pl.LazyFrame]


# A folder may be called runs[1], so no pattern is matched; not all functions have `glob`.
_PARQUET = _Format(
    lambda frame, path, about: frame.sink_parquet(path, metadata=as_parquet(about)),
    lambda path, _: pl.scan_parquet(path, glob=False),
)
_CSV = _Format(
    lambda frame, path, _: frame.sink_csv(path),
    lambda path, schema: pl.scan_csv(path, schema=schema, glob=False),
)
_LINES = _Format(
    lambda frame, path, _: frame.sink_ndjson(path),
    lambda path, schema: pl.scan_ndjson(glob.escape(path), schema=schema),
)
_ARROW = _Format(lambda frame, path, _: frame.sink_ipc(path), lambda path, _: pl.scan_ipc(glob.escape(path)))
_FORMATS = {
    ".parquet": _PARQUET,
    ".csv": _CSV,
    ".ndjson": _LINES,
    ".jsonl": _LINES,
    ".arrow": _ARROW,
    ".feather": _ARROW,
}


def check_ending(path: Path, argument: str = "out") -> None:
    """Raise an OptionError if the ending of a name is not that of a format."""
    if path.suffix.lower() not in _FORMATS:
        raise OptionError(
            argument, f"must end in {', '.join(_FORMATS)}, which is the format, not {str(path)!r}"
        )
    _utf8(path, argument)


def scan_triplets(path: Path) -> pl.LazyFrame:
    """Read a table that was written by :func:`open_sink`, in the format that its ending says."""
    check_ending(path, "triplets")
    return _FORMATS[path.suffix.lower()].scan(_utf8(path), None)


@contextmanager
def open_sink(path: Path | None, *, overwrite: bool) -> Iterator[Sink]:
    """Collect frames in a file whose format its ending says, or in memory if `path` is None.

    Nothing has the name of the file before :meth:`Sink.publish`. When the block ends, for whatever reason,
    nothing else is left in the folder. A place that cannot be written to is an error at once.
    """
    if path is None:
        yield Sink()
        return
    check_ending(path)
    with opened(path, overwrite=overwrite) as (output,):
        yield _File(output)


def _utf8(path: Path, argument: str = "out") -> str:
    """Return the path in UTF-8, which Polars takes whatever the locale is; `argument` is what named it."""
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        raise OptionError(argument, f"must be a name in UTF-8, not {str(path)!r}") from None


class _File(Sink):
    """Writes each frame to a file of its own, so that none stays in memory, and joins them at the end."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._format = _FORMATS[output.path.suffix.lower()]
        self._parts: list[str] = []
        self._schema = pl.Schema()

    def append(self, frame: pl.DataFrame | Path) -> None:
        if isinstance(frame, Path):
            self._parts.append(_utf8(frame))
            self._schema = pl.scan_parquet(frame, glob=False).collect_schema()
            return
        part = self._output.unfinished.with_name(f"{len(self._parts):08}.part")
        with naming(self._output):
            frame.write_parquet(_utf8(part))
        self._parts.append(_utf8(part))
        self._schema = frame.schema

    @contextmanager
    def join(self, about: Mapping[str, Any]) -> Iterator[pl.LazyFrame]:
        complete = _utf8(self._output.unfinished)
        with naming(self._output):
            self._format.write(pl.scan_parquet(self._parts, glob=False), complete, about)
            yield self._format.scan(complete, self._schema)

    def publish(self) -> pl.LazyFrame:
        publish(self._output)
        return self._format.scan(_utf8(self._output.path), self._schema)
