"""Images that are left out of a dataset, by their keys."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet._checks import polars_frame
from fasttriplet._forks import ensure_polars_threads, importing
from fasttriplet._words import counted, prefixing
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.dataset._ids import ids_of, integers, places_among
from fasttriplet.dataset._options import EXCLUDED_KINDS, KINDS, Exclude, Kind
from fasttriplet.dataset._tables import read_table
from fasttriplet.errors import OptionError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True, eq=False)
class IncludedImages:
    """The images of a dataset that are not excluded."""

    rows: NDArray[np.int64]  # positions in the dataset, ascending; at least one
    digest: str | None  # tells one choice of images from another; None if all are included


def included_images(
    dataset: Dataset, exclude: Exclude | None, kinds: Sequence[Kind] | None = None
) -> IncludedImages:
    """Find the images that are not excluded."""
    if exclude is None:
        return IncludedImages(np.arange(len(dataset)), None)
    keys, files, where = _keys_of(dataset, exclude, kinds)
    if files is None and len(dataset.paths) > 1:
        raise OptionError(
            "exclude",
            f"must be a frame or a Parquet file with the columns 'key' and 'file': the dataset has "
            f"{len(dataset.paths)} files, and a key alone does not say in which of them an image is",
        )
    at = places_among(dataset.ids, ids_of(keys, files))
    unknown = np.flatnonzero(at < 0)
    if unknown.size:
        first = unknown[0]
        of_file = "" if files is None else f" of file {files[first]}"
        raise OptionError(
            "exclude",
            f"has key {keys[first]}{of_file}{where}, which is not in the index of the dataset "
            f"({len(unknown):,} of {counted(len(keys), 'key')} are not)",
        )
    included = np.ones(len(dataset), dtype=bool)
    included[at] = False
    rows = np.flatnonzero(included)
    if not rows.size:
        raise OptionError("exclude", f"names all {len(dataset):,} images of the dataset: none is left")
    left_out = dataset.ids[~included]
    digest = hashlib.blake2b(left_out.tobytes(), digest_size=8).hexdigest() if left_out.size else None
    return IncludedImages(rows, digest)


def _keys_of(
    dataset: Dataset, exclude: Exclude, kinds: Sequence[Kind] | None
) -> tuple[NDArray[np.int64], NDArray[np.uint32] | None, str]:
    """Keys, numbers of files if they are given, and words that name the file that holds them."""
    if not isinstance(exclude, (str, os.PathLike)) and not hasattr(type(exclude), "columns"):
        if kinds is not None:
            raise OptionError("exclude_kinds", "goes with exclude=FILE, a table of suspects, not with keys")
        keys: Any = exclude
        return integers("exclude", keys), None, ""
    with importing():
        import polars as pl  # noqa: PLC0415  for those who exclude keys alone, nothing waits for it

    ensure_polars_threads()
    where, frame = "", exclude
    if isinstance(exclude, (str, os.PathLike)):
        where, frame = f" of {os.fspath(exclude)}", read_table("exclude", os.fspath(exclude), dataset)
    polars_frame("exclude", frame)
    assert isinstance(frame, pl.DataFrame)
    if "key" not in frame.columns:
        raise OptionError("exclude", f"must have a column 'key'{where}, and has {', '.join(frame.columns)}")
    if kinds is not None and "kind" not in frame.columns:
        raise OptionError(
            "exclude_kinds",
            f"goes with exclude=FILE, a table of suspects, and there is no column 'kind'{where}",
        )
    if "kind" in frame.columns:
        frame = _to_leave_out(frame, EXCLUDED_KINDS if kinds is None else kinds, where)
    for name in ("key", "file"):
        if name in frame.columns and frame[name].null_count():
            raise OptionError("exclude", f"must have a number in each row of the column {name!r}{where}")
    with prefixing("exclude"):
        keys = integers("key", frame["key"].to_numpy())
        files = integers("file", frame["file"].to_numpy()) if "file" in frame.columns else None
    if files is not None and not ((files >= 0) & (files < 1 << 32)).all():
        raise OptionError("exclude", f"must number files from 0 in the column 'file'{where}")
    return keys, None if files is None else files.astype(np.uint32), where


def _to_leave_out(frame: pl.DataFrame, kinds: Sequence[Kind], where: str) -> pl.DataFrame:
    """The rows of these kinds, except those whose action says to keep the image."""
    import polars as pl  # noqa: PLC0415

    for name in ("kind", "action"):
        found = frame.schema.get(name, pl.String)
        if found not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
            raise OptionError("exclude", f"must have text in the column {name!r}{where}, not {found}")
    unknown = set(frame["kind"].unique().to_list()) - set(KINDS)
    if unknown:
        raise OptionError(
            "exclude",
            f"must have kinds of findings in the column 'kind'{where}, {', '.join(KINDS)}, and has "
            f"{min(map(repr, unknown))}",
        )
    chosen = frame.filter(pl.col("kind").is_in(list(kinds)))
    return chosen.filter(pl.col("action") != "keep") if "action" in frame.columns else chosen
