"""What a table says about its origin: JSON under the key ``fasttriplet`` of a Parquet or an Arrow file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from fasttriplet import _arrow_footer
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

    :func:`fasttriplet.mine_rec` writes it into Parquet and Arrow files: the version of this package, the
    dataset and its fingerprint, the model, the seed and all options that the triplets depend on. CSV and JSON
    lines have no place for it.

    Parameters
    ----------
    path : path
        A ``.parquet``, ``.arrow`` or ``.feather`` file.

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
        If it is not of these formats, is damaged, or was not written by this package.
    """
    check_regular(Path(path), "a Parquet or an Arrow file")
    with Path(path).open("rb") as file:
        magic = file.read(6)
        if magic == _arrow_footer.MAGIC:
            try:
                text = _arrow_footer.read(file, KEY)
            except ValueError as error:
                raise ValueError(f"{os.fspath(path)}: {error}") from None
        elif magic[:4] == b"PAR1":
            text = _in_parquet(file, os.fspath(path))
        else:
            raise ValueError(
                f"{os.fspath(path)} is not a Parquet or an Arrow file; other formats do not say where a "
                "table is from"
            )
    if text is None:
        raise ValueError(f"{os.fspath(path)} does not say where it is from: fasttriplet did not write it")
    return _object(text, os.fspath(path))


def metadata_of(file: IO[bytes], path: str) -> dict[str, Any] | None:
    """Read it from an open Parquet file; None if there is none. A damaged file is a ValueError."""
    text = _in_parquet(file, path)
    return None if text is None else _object(text, path)


def _in_parquet(file: IO[bytes], path: str) -> str | None:
    with importing():
        import polars as pl  # noqa: PLC0415  Arrow's is read without it

    ensure_polars_threads()
    file.seek(0)
    try:
        return pl.read_parquet_metadata(file).get(KEY)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} is a damaged Parquet file: {error}") from None
    finally:
        file.seek(0)


def _object(text: str, path: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: what its metadata has under {KEY!r} is not a JSON object: {text!r:.100}")
    return found
