"""Tables that other commands wrote: read, and refused where they are damaged or of another kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from fasttriplet._contents import check_regular, describe_wrong_file


@contextmanager
def reading(path: Path, expected: str) -> Iterator[None]:
    """Let what Polars says of a damaged file be a ValueError that names the file and what was `expected`."""
    check_regular(path, expected)
    try:
        yield
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # some damage is met in the middle of a file
        if not panic and not isinstance(error, pl.exceptions.PolarsError):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{describe_wrong_file(path, expected)}: {reason}") from None


def typed(table: pl.LazyFrame, wanted: Mapping[str, pl.DataType], path: Path, kind: str) -> pl.LazyFrame:
    """Give columns their types; a ValueError if one is missing, or if its values are of another type."""
    columns = table.collect_schema().names()
    if missing := [name for name in wanted if name not in columns]:
        raise ValueError(
            f"{path}: {kind} has the columns {', '.join(wanted)}; {' and '.join(missing)} not found"
        )
    return table.select(pl.col(name).cast(kind_of) for name, kind_of in wanted.items())
