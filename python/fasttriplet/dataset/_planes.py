"""Images of a dataset as networks and transforms take them: a batch in planes, or each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._splitmix import GOLDEN, mix, mix_array
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.dataset._ids import ids_of
from fasttriplet.dataset._options import OnError
from fasttriplet.errors import RecordError

Failed = list[tuple[int, RecordError]]


def decode_planes(
    dataset: Dataset,
    rows: NDArray[np.int64],
    out: NDArray[Any],
    *,
    table: Sequence[float],
    mirrored: NDArray[np.bool_] | None,
    threads: int | None,
    on_error: OnError,
) -> tuple[int, Failed]:
    """Decode images of one size into `out`, (B, 3, H, W): bytes as uint8, or what the `table` has for each.

    Returns how many images could be decoded, which come first, and the positions and errors of the rest.
    """
    return _core.decode_into(
        dataset._files,
        dataset._places(rows),
        out,
        table=table,
        mirrored=mirrored,
        max_pixels=dataset.options.max_pixels,
        skip=on_error == "skip",
        threads=threads,
    )


def decode_each(
    dataset: Dataset, rows: NDArray[np.int64], *, threads: int | None, on_error: OnError
) -> tuple[list[NDArray[np.uint8]], Failed]:
    """Decode images of any sizes: (H, W, 3) uint8 each, without those that failed, which are listed."""
    images, failed = _core.decode_each(
        dataset._files,
        dataset._places(rows),
        max_pixels=dataset.options.max_pixels,
        skip=on_error == "skip",
        threads=threads,
    )
    return [image for image in images if image is not None], failed


def mirrored_at_random(dataset: Dataset, rows: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """Which images are mirrored: those that `assemble` mirrors with this seed and their ids."""
    ids = ids_of(dataset.keys[rows], dataset.files[rows])
    draws = mix_array(ids.view(np.uint64) ^ np.uint64(mix(seed + 3 * GOLDEN)))
    chosen: NDArray[np.bool_] = mix_array(draws + np.uint64(GOLDEN)) >> np.uint64(63) == 1
    return chosen
