"""Tables about the images of a dataset, and whether they are about this one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttriplet._contents import check_regular
from fasttriplet._forks import ensure_polars_threads, importing
from fasttriplet._metadata import metadata_of
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.errors import OptionError

if TYPE_CHECKING:
    import polars as pl


def read_table(option: str, path: str, dataset: Dataset) -> pl.DataFrame:
    """Read a Parquet file that an option names; one that says that it is of another dataset is refused."""
    with importing():
        import polars as pl  # noqa: PLC0415  the index of a dataset is read without it

    ensure_polars_threads()
    check_regular(Path(path), "a Parquet file")
    with open(path, "rb") as file:  # noqa: PTH123  Polars opens names in UTF-8 only
        try:
            about = metadata_of(file, path) or {}
            frame = pl.read_parquet(file)
        except (pl.exceptions.PolarsError, ValueError) as error:
            raise OptionError(option, f"must be a Parquet file, and {path} cannot be read: {error}") from None
    check_dataset(option, path, about, dataset)
    return frame


def check_dataset(option: str, path: str, about: Mapping[str, Any], dataset: Dataset) -> None:
    """Raise an OptionError if the metadata of a table name another dataset."""
    of = about.get("dataset", dataset.fingerprint)
    if of != dataset.fingerprint:
        raise OptionError(
            option,
            f"must be of this dataset, and {path} is of another one (fingerprint {of}, this one is "
            f"{dataset.fingerprint}): its keys, labels or sizes differ, or `labels` does",
        )
