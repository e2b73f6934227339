"""One ``.rec`` in InsightFace's layout, the names of its identities, and where its images are from."""

from __future__ import annotations

import csv
import shutil
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._files import Output
from fasttriplet.dataset._labels import EXACT
from fasttriplet.dataset._packing._sources import Sources, sources_beside
from fasttriplet.dataset._recordio import IRHeader, RecordWriter
from fasttriplet.errors import RecordWarning

_FIRST_LABELS_AT = 32  # bytes: framing 8, header 24


class Layout:
    """Writes the images, identity by identity, between the two kinds of records that say where they are.

    Record 0 has the range of keys of the identities' records, and each of those has the range of its images.
    Labels are 0, 1, 2, ... in the order in which identities come. `final` is the name that the file gets.
    Names of identities are written if they are `named`; in any case they tell one identity from the next.
    """

    def __init__(self, path: Path, final: Path, *, named: bool = True) -> None:
        self._path = path
        self._final = final
        self._named = named
        self.identities: list[tuple[str, int]] = []  # names, and how many images
        self.images = 0
        self._sources = Sources()
        self._writer = RecordWriter(path)
        self._write(0, _range(0, 0), b"")

    def add(self, identity: str, image: bytes, source: str | None) -> None:
        """Append an image, with the path that it is from if that is known."""
        if not self.identities or self.identities[-1][0] != identity:
            self.identities.append((identity, 0))
        self.identities[-1] = identity, self.identities[-1][1] + 1
        self.images += 1
        label = len(self.identities) - 1
        self._write(self.images, float(label), image)
        if source is not None:
            self._sources.add(self.images, label, source)

    @staticmethod
    def files_of(rec: Path) -> tuple[Path, Path, Path, Path]:
        """A ``.rec`` and what belongs to it: ``.idx``, names of its identities, sources of its images."""
        return rec, rec.with_suffix(".idx"), rec.with_suffix(".identities.csv"), sources_beside(rec)

    def finish(self, outputs: Mapping[Path, Output]) -> None:
        """Complete the files, and hand them over to the outputs of their final names."""
        self._finish()
        for part, final in zip(self.files_of(self._path), self.files_of(self._final), strict=True):
            if part.exists():
                shutil.move(part, outputs[final].unfinished)
            else:  # names or sources that are not known
                outputs[final].drop()

    def _finish(self) -> None:
        """Write the identities' records, complete record 0, and write the tables."""
        first = self.images + 1
        end = first + len(self.identities)
        if end > EXACT:
            warnings.warn(
                f"{self._final}: with more than {EXACT:,} records the identities' ranges of "
                "keys, which this layout stores as float32, are rounded. Readers that go by the labels, as "
                "fasttriplet does, are not affected",
                RecordWarning,
                stacklevel=4,
            )
        key = 1
        for number, (_, images) in enumerate(self.identities):
            self._write(first + number, _range(key, key + images), b"")
            key += images
        self._writer.close()
        with self._path.open("r+b") as rec:  # how many images there are was not known before
            rec.seek(_FIRST_LABELS_AT)
            rec.write(struct.pack("<2f", first, end))
        self._sources.write(self.files_of(self._path)[3])
        if not self._named:
            return
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


def changes_beside(rec: Path) -> Path:
    """The table of what `clean` changed, beside the ``.rec`` that it wrote."""
    return rec.with_suffix(".changes.parquet")


def _range(first: int, end: int) -> NDArray[np.float32]:
    """A range of keys as this layout stores it; one that float32 rounds was warned of."""
    return np.array([first, end], np.float32)


def identities_of(rec: Path) -> int | None:
    """Read how many identities the first record of a ``.rec`` states; None if it does not, or not exactly."""
    try:
        _, label, *_ = _core.RecordFile(rec).record_at(0)
    except (OSError, ValueError):
        return None
    keys = np.ravel(label).tolist()
    if len(keys) != 2 or not 0 <= keys[0] <= keys[1] < EXACT:
        return None
    return int(keys[1] - keys[0])
