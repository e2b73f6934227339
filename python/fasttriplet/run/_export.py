"""`export`: pictures of a dataset as files."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._checks import one_of, path_or_frame, whole_number
from fasttriplet._contents import check_regular
from fasttriplet._files import check_new_folder, filling
from fasttriplet._forks import ensure_polars_threads
from fasttriplet._metadata import read_metadata
from fasttriplet._options import shows
from fasttriplet._words import first_names
from fasttriplet.dataset._dataset import Dataset, Rec, open_dataset
from fasttriplet.dataset._ids import Integers, ids_of, integers, places_among
from fasttriplet.dataset._options import KINDS, DatasetKeywords, DatasetOptions
from fasttriplet.dataset._tables import check_dataset, read_table, reading
from fasttriplet.errors import OptionError
from fasttriplet.run._sink import check_ending, scan_triplets

# How formats begin. Pictures that are none of these are not shown by many programs.
_ENDINGS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp", b"BM": ".bmp"}
_ROLES = ("anchor", "positive", "negative")


@dataclass(frozen=True, slots=True)
class Exported:
    """What :func:`export` wrote.

    Attributes
    ----------
    folder : Path
        The folder of the pictures.
    pictures : int
        How many files there are in it.
    """

    folder: Path
    pictures: int


@shows(DatasetOptions)
def export(
    rec: Rec,
    out: str | os.PathLike[str],
    *,
    keys: Integers | None = None,
    triplets: str | os.PathLike[str] | pl.DataFrame | None = None,
    suspects: str | os.PathLike[str] | pl.DataFrame | None = None,
    first: int | None = None,
    progress: Callable[[int, int], object] | None = None,
    **options: Unpack[DatasetKeywords],
) -> Exported:
    """Write pictures of a dataset as files: the bytes of their records, with the ending of their format.

    Parameters
    ----------
    rec : path, sequence of paths, or Dataset
        The ``.rec`` file, several that make one dataset, or a :class:`fasttriplet.Dataset`.
    out : path
        A folder that does not exist. It appears when all pictures are in it.
    keys : (K,) int, optional
        Keys of images of one file, which become ``OUT/KEY.jpg``.
    triplets : path or DataFrame, optional
        Triplets as :func:`fasttriplet.mine_rec` gives them. Row 7 becomes the folder ``OUT/000007`` with
        ``anchor-KEY.jpg``, ``positive-KEY.jpg`` and ``negative-KEY.jpg``.
    suspects : path or DataFrame, optional
        The table of an audit. Finding 7 becomes the folder ``OUT/KIND/000007`` with ``suspect-KEY.jpg`` for
        each of its images, and ``evidence-KEY.jpg`` for those to look at beside them.
    first : int, optional
        Only this many: keys, triplets or findings.
    progress : callable, optional
        Called with the number of pictures that are written and the number of all.
    labels, cache, max_pixels
        See :class:`fasttriplet.Dataset`.

    Returns
    -------
    Exported
        Of several ``.rec`` files, the names of pictures have ``FILE-KEY`` instead of ``KEY``.

    Raises
    ------
    OptionError
        If not exactly one of `keys`, `triplets` and `suspects` is given, or it has an image that is not in
        the dataset; a ValueError.
    FileExistsError
        If `out` exists, or another run is writing it.
    RecordError, OSError
        If a record cannot be read, or a file cannot be written.
    """
    chosen = DatasetOptions.of(export, options)
    given = {"keys": keys, "triplets": triplets, "suspects": suspects}
    if sum(value is not None for value in given.values()) != 1:
        raise OptionError("keys", "must be given, or triplets, or suspects: one of the three")
    if first is not None:
        whole_number("first", first, 1)
    if isinstance(triplets, (str, os.PathLike)):
        check_ending(Path(triplets), "triplets")
    for name, table in (("triplets", triplets), ("suspects", suspects)):
        if table is not None:
            path_or_frame(name, table)
    folder = Path(out)
    check_new_folder(folder)
    ensure_polars_threads()
    dataset = open_dataset(rec, chosen, threads=None)
    option = next(name for name, value in given.items() if value is not None)
    with reading(option, "cannot be read"):
        if keys is not None:
            places = _of_keys(integers("keys", keys), dataset, first)
        elif triplets is not None:
            places = _of_triplets(triplets, dataset, first)
        else:
            places = _of_suspects(suspects, dataset, first)
        at = _positions(option, places, dataset)
    with filling(folder) as unfinished:
        _write(unfinished, dataset, at, places["place"].to_list(), progress)
    return Exported(folder, places.height)


def _of_keys(keys: Any, dataset: Dataset, first: int | None) -> pl.DataFrame:
    if len(dataset.paths) > 1:
        raise OptionError(
            "keys",
            f"must be of one file: the dataset has {len(dataset.paths)}, and a key alone does not say in "
            "which of them an image is",
        )
    schema = {"place": pl.String, "key": pl.Int64, "file": pl.UInt32}
    return pl.DataFrame({"place": "", "key": keys, "file": 0}, schema=schema).unique(maintain_order=True)[
        :first
    ]


def _of_triplets(triplets: Any, dataset: Dataset, first: int | None) -> pl.DataFrame:
    if isinstance(triplets, pl.DataFrame):
        table = triplets.lazy()
    else:
        path = Path(triplets)
        check_regular(path, "a table of triplets")
        table = scan_triplets(path)
        about: dict[str, Any] = {}
        with suppress(ValueError):  # it does not say where it is from
            about = read_metadata(path)
        check_dataset("triplets", str(path), about, dataset)
    frame = (table if first is None else table.head(first)).collect()
    columns = [f"{role}_key" for role in _ROLES]
    if len(dataset.paths) > 1 or "anchor_file" in frame.columns:
        columns += [f"{role}_file" for role in _ROLES]
    _check_columns("triplets", frame, columns)
    rows = frame.with_row_index("row")
    return pl.concat(
        rows.select(
            "row",
            place=_numbered("row") + f"/{role}-",
            key=pl.col(f"{role}_key").cast(pl.Int64),
            file=(pl.col(f"{role}_file") if f"{role}_file" in columns else pl.lit(0)).cast(pl.UInt32),
        )
        for role in _ROLES
    ).sort("row", maintain_order=True)


def _of_suspects(suspects: Any, dataset: Dataset, first: int | None) -> pl.DataFrame:
    if isinstance(suspects, pl.DataFrame):
        table = suspects
    else:
        table = read_table("suspects", os.fspath(suspects), dataset)
    names = ["finding", "kind", "key", "file", "evidence_keys", "evidence_files"]
    _check_columns("suspects", table, names)
    for kind in table["kind"].unique().sort():
        one_of("suspects: each kind", kind, KINDS)  # which is the name of a folder
    table = table.select(names).cast({"key": pl.Int64, "file": pl.UInt32})
    chosen = table["finding"].unique().sort()[:first]
    table = table.filter(pl.col("finding").is_in(chosen.to_list()))
    where = pl.col("kind") + "/" + _numbered("finding")
    found = table.select("finding", "key", "file", place=where + "/suspect-")
    evidence = table.select("finding", key="evidence_keys", file="evidence_files", place=where + "/evidence-")
    some = evidence.filter(pl.col("key").list.len() > 0)
    beside = some.explode("key", "file").cast({"key": pl.Int64, "file": pl.UInt32})
    return (
        pl.concat([found, beside.select(found.columns)])
        .unique(["finding", "file", "key"], keep="first", maintain_order=True)
        .sort("finding", maintain_order=True)
    )


def _numbered(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Int64).cast(pl.String).str.zfill(6)


def _check_columns(option: str, frame: pl.DataFrame, names: list[str]) -> None:
    if missing := [name for name in names if name not in frame.columns]:
        raise OptionError(
            option, f"must have the columns {', '.join(names)}, and lacks {first_names(missing)}"
        )


def _positions(option: str, places: pl.DataFrame, dataset: Dataset) -> NDArray[np.int64]:
    """Where the images are in the dataset."""
    keys, files = places["key"].to_numpy(), places["file"].to_numpy()
    at = places_among(dataset.ids, ids_of(keys, files))
    if (unknown := np.flatnonzero(at < 0)).size:
        several = len(dataset.paths) > 1 or files[unknown].any()
        names = [f"{keys[n]} of file {files[n]}" if several else f"{keys[n]}" for n in unknown.tolist()]
        them = first_names([*dict.fromkeys(names)])
        raise OptionError(option, f"must name images of the dataset, which does not have the keys {them}")
    return at


def _write(
    folder: Path,
    dataset: Dataset,
    at: NDArray[np.int64],
    places: list[str],
    progress: Callable[[int, int], object] | None,
) -> None:
    several = len(dataset.paths) > 1
    for done, (row, place) in enumerate(zip(at.tolist(), places, strict=True), start=1):
        content = dataset.read(row)[1]
        file = f"{dataset.files[row]}-" if several else ""
        path = folder / f"{place}{file}{dataset.keys[row]}{_ending(content)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if progress is not None:
            progress(done, len(at))


def _ending(content: bytes) -> str:
    return next((ending for start, ending in _ENDINGS.items() if content.startswith(start)), ".bin")
