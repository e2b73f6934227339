"""Triplets with their decoded images, which are cut into batches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fasttriplet.run._stages import Mined


@dataclass(frozen=True, slots=True, eq=False)
class ImageTriplets:
    """Triplets of some decoded images: `rows` is (T, 3), the other arrays have one entry for each image."""

    epoch: int  # of the last triplet
    bag: int
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, mined: Mined, images: NDArray[np.uint8]) -> ImageTriplets:
        """The triplets of a bag."""
        labels, rows = mined.rows["label"].to_numpy(), np.stack(mined.positions(), axis=1)
        return cls(mined.epoch, mined.bag.number, images, labels, mined.ids, rows)

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
        """These triplets, then those of `other`, with copies of their images."""
        first, second = self.compact(), other.compact()
        last = second if len(second) else first
        return ImageTriplets(
            last.epoch,
            last.bag,
            np.concatenate([first.pixels, second.pixels]),
            np.concatenate([first.labels, second.labels]),
            np.concatenate([first.ids, second.ids]),
            np.concatenate([first.rows, second.rows + len(first.pixels)]),
        )

    def cut(
        self, size: int, carried: ImageTriplets | None
    ) -> tuple[list[ImageTriplets], ImageTriplets | None]:
        """Full batches of `size` triplets, first of those that were carried here, and what is left."""
        batches, start = [], 0
        if carried is not None:
            start = size - len(carried)
            first = carried.followed_by(self[:start])
            if len(first) < size:
                return [], first
            batches.append(first)
        batches += [self[at : at + size] for at in range(start, len(self) - size + 1, size)]
        left = self[start + (len(self) - start) // size * size :]
        return batches, left.compact() if len(left) else None
