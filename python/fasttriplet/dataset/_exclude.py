"""Images that are left out of a dataset, by their keys."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fasttriplet._forks import ensure_polars_threads, importing
from fasttriplet._words import counted, prefixing
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.dataset._ids import Integers, ids_of, integers
from fasttriplet.errors import OptionError

if TYPE_CHECKING:
    import polars as pl

Exclude: TypeAlias = "Integers | str | os.PathLike[str] | pl.DataFrame"


def rows_without(dataset: Dataset, exclude: Exclude) -> NDArray[np.int64]:
    """Positions of the images that are not excluded: (M,) int64, ascending; at least one."""
    keys, files, where = _keys_of(exclude)
    if files is None and len(dataset.paths) > 1:
        raise OptionError(
            "exclude",
            f"must be a frame or a Parquet file with the columns 'key' and 'file': the dataset has "
            f"{len(dataset.paths)} files, and a key alone does not say in which of them an image is",
        )
    ids = ids_of(keys, files)
    at = np.minimum(np.searchsorted(dataset.ids, ids), len(dataset) - 1)
    unknown = np.flatnonzero(dataset.ids[at] != ids)
    if unknown.size:
        first = unknown[0]
        of_file = "" if files is None else f" of file {files[first]}"
        raise OptionError(
            "exclude",
            f"has key {keys[first]}{of_file}{where}, which is not in the index of the dataset "
            f"({len(unknown):,} of {counted(len(keys), 'key')} are not)",
        )
    kept = np.ones(len(dataset), dtype=bool)
    kept[at] = False
    rows = np.flatnonzero(kept)
    if not rows.size:
        raise OptionError("exclude", f"names all {len(dataset):,} images of the dataset: none is left")
    return rows


def _keys_of(exclude: Exclude) -> tuple[NDArray[np.int64], NDArray[np.uint32] | None, str]:
    """Keys, numbers of files if they are given, and words that name the file that holds them."""
    if not isinstance(exclude, (str, os.PathLike)) and not hasattr(exclude, "columns"):
        return integers("exclude", exclude), None, ""
    with importing():
        import polars as pl  # noqa: PLC0415  for those who exclude keys alone, nothing waits for it

    ensure_polars_threads()
    where, frame = "", exclude
    if isinstance(exclude, (str, os.PathLike)):
        path = os.fspath(exclude)
        where = f" of {path}"
        try:
            with open(path, "rb") as file:  # noqa: PTH123  Polars opens names in UTF-8 only
                frame = pl.read_parquet(file)
        except pl.exceptions.PolarsError as error:
            raise OptionError(
                "exclude", f"must be a Parquet file, and {path} cannot be read: {error}"
            ) from None
    assert isinstance(frame, pl.DataFrame)
    if "key" not in frame.columns:
        raise OptionError("exclude", f"must have a column 'key'{where}, and has {', '.join(frame.columns)}")
    with prefixing("exclude"):
        keys = integers("key", frame["key"].to_numpy())
        files = integers("file", frame["file"].to_numpy()) if "file" in frame.columns else None
    if files is not None and not ((files >= 0) & (files < 1 << 32)).all():
        raise OptionError("exclude", f"must number files from 0 in the column 'file'{where}")
    return keys, None if files is None else files.astype(np.uint32), where
