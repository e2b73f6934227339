"""One ``.rec`` in InsightFace's layout, and the names of its identities."""

from __future__ import annotations

import csv
import struct
import warnings
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet.dataset._labels import EXACT
from fasttriplet.dataset._recordio import IRHeader, RecordWriter
from fasttriplet.errors import RecordWarning

_FIRST_LABELS_AT = 32  # bytes: framing 8, header 24


class Layout:
    """Writes the images, identity by identity, between the two kinds of records that say where they are.

    Record 0 has the range of keys of the identities' records, and each of those has the range of its images.
    Labels are 0, 1, 2, ... in the order in which identities come. `final` is the name that the file gets.
    """

    def __init__(self, path: Path, final: Path) -> None:
        self._path = path
        self._final = final
        self.identities: list[tuple[str, int]] = []  # names, and how many images
        self.images = 0
        self._writer = RecordWriter(path)
        self._write(0, _range(0, 0), b"")

    def add(self, identity: str, image: bytes) -> None:
        """Append an image."""
        if not self.identities or self.identities[-1][0] != identity:
            self.identities.append((identity, 0))
        self.identities[-1] = identity, self.identities[-1][1] + 1
        self.images += 1
        self._write(self.images, float(len(self.identities) - 1), image)

    @staticmethod
    def files_of(rec: Path) -> tuple[Path, Path, Path]:
        """The files that belong to a ``.rec``: itself, its ``.idx`` and the names of its identities."""
        return rec, rec.with_suffix(".idx"), rec.with_suffix(".identities.csv")

    def finish(self) -> None:
        """Write the identities' records, complete record 0, and write the names of the labels."""
        first = self.images + 1
        end = first + len(self.identities)
        if end > EXACT:
            warnings.warn(
                f"{self._final}: with more than {EXACT:,} records the identities' ranges of "
                "keys, which this layout stores as float32, are rounded. Readers that go by the labels, as "
                "fasttriplet does, are not affected",
                RecordWarning,
                stacklevel=3,
            )
        key = 1
        for number, (_, images) in enumerate(self.identities):
            self._write(first + number, _range(key, key + images), b"")
            key += images
        self._writer.close()
        with self._path.open("r+b") as rec:  # how many images there are was not known before
            rec.seek(_FIRST_LABELS_AT)
            rec.write(struct.pack("<2f", first, end))
        # Names that are not Unicode are written as the bytes they are.
        with self.files_of(self._path)[2].open(
            "w", encoding="utf-8", errors="surrogateescape", newline=""
        ) as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["label", "folder", "images"])
            table.writerows((label, *row) for label, row in enumerate(self.identities))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.discard()  # unless it is finished

    def _write(self, key: int, label: float | NDArray[np.float32], content: bytes) -> None:
        self._writer.write(key, IRHeader(0, label, key, 0), content)


def _range(first: int, end: int) -> NDArray[np.float32]:
    """A range of keys as this layout stores it; one that float32 rounds was warned of."""
    return np.array([first, end], np.float32)


def identities_of(rec: Path) -> int | None:
    """Read how many identities the first record of a ``.rec`` states; None if it does not, or not exactly."""
    try:
        _, label, *_ = _core.RecordFile(rec).record_at(0, 0)
    except (OSError, ValueError):
        return None
    keys = np.ravel(label).tolist()
    if len(keys) != 2 or not 0 <= keys[0] <= keys[1] < EXACT:
        return None
    return int(keys[1] - keys[0])
