"""What a table says about its origin: JSON under the key ``fasttriplet`` of a Parquet file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from fasttriplet._contents import check_regular
from fasttriplet._forks import ensure_polars_threads, importing

KEY = "fasttriplet"


def as_text(about: Mapping[str, Any]) -> str:
    """Write plain data, with NumPy's numbers among it, as JSON."""
    return json.dumps(about, default=lambda number: number.item())


def as_parquet(about: Mapping[str, Any]) -> dict[str, str]:
    """The metadata that Polars writes into a Parquet file."""
    return {KEY: as_text(about)}


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a table of triplets or suspects says about its origin.

    :func:`fasttriplet.mine_rec` writes it into Parquet files: the version of this package, the
    dataset and its fingerprint, the model, the seed and all options that the triplets depend on. Other
    formats have no place for it.

    Parameters
    ----------
    path : path
        A ``.parquet`` file.

    Returns
    -------
    dict
        What the JSON text under the key ``fasttriplet`` of the file's metadata says; other programs read the
        text there, such as ``polars.read_parquet_metadata(path)["fasttriplet"]``.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not a Parquet file, is damaged, or was not written by this package.
    """
    check_regular(Path(path), "a Parquet file")
    with Path(path).open("rb") as file:
        if file.read(4) != b"PAR1":
            raise ValueError(
                f"{os.fspath(path)} is not a Parquet file; other formats do not say where a table is from"
            )
        found = metadata_of(file, os.fspath(path))
    if found is None:
        raise ValueError(f"{os.fspath(path)} does not say where it is from: fasttriplet did not write it")
    return found


def metadata_of(file: IO[bytes], path: str) -> dict[str, Any] | None:
    """Read it from an open Parquet file; None if there is none. A damaged file is a ValueError."""
    with importing():
        import polars as pl  # noqa: PLC0415  what only writes files does without

    ensure_polars_threads()
    file.seek(0)
    try:
        text = pl.read_parquet_metadata(file).get(KEY)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} is a damaged Parquet file: {error}") from None
    finally:
        file.seek(0)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: what its metadata has under {KEY!r} is not a JSON object: {text!r:.100}")
    return found
