"""Triplets with their decoded images, which are cut into batches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class ImageTriplets:
    """Triplets of some decoded images: `rows` is (T, 3), the other arrays have one entry for each image."""

    epoch: int  # of the last triplet
    bag: int
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: slice) -> ImageTriplets:
        """Some of the triplets, of the same images."""
        return replace(self, rows=self.rows[some])

    def compact(self) -> ImageTriplets:
        """The same triplets with copies of their images, so that all other images can be freed."""
        at, rows = np.unique(self.rows, return_inverse=True)
        rows = rows.reshape(self.rows.shape)
        return replace(self, pixels=self.pixels[at], labels=self.labels[at], ids=self.ids[at], rows=rows)

    def followed_by(self, other: ImageTriplets) -> ImageTriplets:
        """These triplets, then those of a later bag, with copies of their images."""
        first, second = self.compact(), other.compact()
        return ImageTriplets(
            other.epoch,
            other.bag,
            np.concatenate([first.pixels, second.pixels]),
            np.concatenate([first.labels, second.labels]),
            np.concatenate([first.ids, second.ids]),
            np.concatenate([first.rows, second.rows + len(first.pixels)]),
        )

    def cut(
        self, size: int, carried: ImageTriplets | None, count: int
    ) -> tuple[list[ImageTriplets], ImageTriplets | None]:
        """`count` batches of `size` triplets, first of those that were carried here, and what is left."""
        batches, start = [], 0
        if carried is not None and not count:
            return [], carried.followed_by(self)
        if carried is not None:
            start = size - len(carried)
            batches.append(carried.followed_by(self[:start]))
        end = start + (count - len(batches)) * size
        batches += [self[at : at + size] for at in range(start, end, size)]
        left = self[end:]
        return batches, left.compact() if len(left) else None
