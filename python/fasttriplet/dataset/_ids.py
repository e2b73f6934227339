"""One number per image that no other image of the dataset has."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

_KEY_BITS = 48  # with several files, the bits above these hold the number of the file


def image_ids(rows: pl.DataFrame) -> NDArray[np.int64]:
    """Number the images of some rows of an index: (B,) int64.

    The id of an image is its key, or with several files ``key + file * 2**48``: ids ascend by file, then key.

    Raises
    ------
    ValueError
        If there are several files and a key does not fit 48 bits.
    """
    keys = rows["key"].to_numpy()
    if "file" not in rows.columns:
        return keys
    if keys.size and not 0 <= keys.min() <= keys.max() < 1 << _KEY_BITS:
        raise ValueError(f"of several files, keys must be from 0 to 2**{_KEY_BITS} - 1")
    return np.asarray(keys + (rows["file"].to_numpy().astype(np.int64) << _KEY_BITS))
