"""Tables that other commands wrote: read, and refused where they are damaged or of another dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import polars as pl

from fasttriplet._contents import check_regular, describe_wrong_file
from fasttriplet.dataset._dataset import Dataset

_KEY = "fasttriplet"  # of the metadata of parquet files


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


def metadata(file: Path | IO[bytes]) -> dict[str, Any]:
    """What a parquet file says about itself: the options, the dataset and the model that it was made with."""
    try:
        found = json.loads(pl.read_parquet_metadata(file).get(_KEY, "{}"))
    except ValueError:  # written by another program
        return {}
    return found if isinstance(found, dict) else {}


def typed(table: pl.LazyFrame, wanted: Mapping[str, pl.DataType], path: Path, kind: str) -> pl.LazyFrame:
    """Give columns their types; a ValueError if one is missing, or if its values are of another type."""
    columns = table.collect_schema().names()
    if missing := [name for name in wanted if name not in columns]:
        raise ValueError(
            f"{path}: {kind} has the columns {', '.join(wanted)}; {' and '.join(missing)} not found"
        )
    return table.select(pl.col(name).cast(kind_of) for name, kind_of in wanted.items())


def check_dataset(path: Path, said: Mapping[str, Any], dataset: Dataset) -> None:
    """Raise a ValueError if a table says that it was made from another dataset."""
    made_from = said.get("dataset")
    if made_from is not None and made_from != dataset.fingerprint:
        names = ", ".join(map(str, said.get("files") or [])) or "another one"
        raise ValueError(
            f"{path} was made from another dataset ({names}, fingerprint {made_from}) than "
            f"{', '.join(map(str, dataset.paths))} (fingerprint {dataset.fingerprint}): give the .rec files "
            "that it was made from, in the same order and with the same labels"
        )
