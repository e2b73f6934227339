"""Tables about the images of a dataset, and whether they are about this one."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttriplet._contents import read_file
from fasttriplet._forks import importing
from fasttriplet._metadata import metadata_of
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.errors import OptionError

if TYPE_CHECKING:
    import polars as pl


def read_table(option: str, path: str, dataset: Dataset) -> pl.DataFrame:
    """Read a Parquet file that an option names; one that says that it is of another dataset is refused."""
    with importing():
        import polars as pl  # noqa: PLC0415  the index of a dataset is read without it

    file = io.BytesIO(read_file(Path(path), "a Parquet file"))  # Polars opens names in UTF-8 only
    with reading(option, f"must be a Parquet file, and {path} cannot be read"):
        about = metadata_of(file, path) or {}
        frame = pl.read_parquet(file)
    check_dataset(option, path, about, dataset)
    return frame


@contextmanager
def reading(option: str, what: str) -> Iterator[None]:
    """Let what Polars says of a damaged table be an OptionError that begins with `what`."""
    import polars as pl  # noqa: PLC0415  as above

    try:
        yield
    except OptionError:
        raise
    except BaseException as error:
        panic = type(error).__name__ == "PanicException"  # of some damage in the middle of a file
        if not panic and not isinstance(error, (pl.exceptions.PolarsError, ValueError)):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise OptionError(option, f"{what}: {reason}") from None


def check_dataset(option: str, path: str, about: Mapping[str, Any], dataset: Dataset) -> None:
    """Raise an OptionError if the metadata of a table name another dataset."""
    of = about.get("dataset", dataset.fingerprint)
    if of != dataset.fingerprint:
        raise OptionError(
            option,
            f"must be of this dataset, and {path} is of another one (fingerprint {of}, this one is "
            f"{dataset.fingerprint}): its keys, labels or sizes differ, or what labels of several files mean",
        )
