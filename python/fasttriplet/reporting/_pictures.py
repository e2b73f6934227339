"""Pictures of a dataset in a page: the records' own bytes where they are small, else thumbnails."""

from __future__ import annotations

import base64
import io
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from PIL import Image

from fasttriplet.dataset._dataset import Dataset
from fasttriplet.dataset._ids import ids_of, places_among
from fasttriplet.dataset._images import decode_images
from fasttriplet.dataset._names import class_names
from fasttriplet.errors import RecordError
from fasttriplet.reporting._html import Markup, element, printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Of a picture in the page, before base64 makes a third more of it: 400 pictures stay below 4.4 MB. A face of
# 112 x 112 has 5,000 at a quality of 90 %.
MOST_BYTES = 8192
_SIDE = 160  # pixels of a thumbnail: sharp on screens that have two of them for one
_QUALITIES = (85, 70, 50, 30, 10)
_SUFFIX = ".sources.parquet"  # beside a .rec: which file a picture came from
_KINDS = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png"}


def picture(
    content: bytes, alt: str, *, role: str = "", title: str | None = None, most_pixels: int
) -> Markup:
    """Show an encoded image, or in its place the reason why it cannot be decoded."""
    try:
        pixels = decode_images([content], max_pixels=most_pixels, threads=1)[0]
    except (RecordError, MemoryError) as error:
        reason = getattr(error, "reason", str(error))
        return broken(alt, reason.removeprefix("image [0]: "), role=role)
    height, width = pixels.shape[:2]
    kind = next((kind for magic, kind in _KINDS.items() if content.startswith(magic)), None)
    if kind is None or len(content) > MOST_BYTES:
        kind, content = "image/jpeg", _thumbnail(pixels)
    source = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    return element(
        "img", src=source, alt=alt, title=title or alt, width=width, height=height, class_=role or None
    )


def broken(alt: str, reason: str, *, role: str = "") -> Markup:
    """What stands where an image cannot be shown."""
    text = printable(f"{alt}: {reason}")
    return element("span", text, class_=f"broken {role}".strip(), role="img", aria_label=text, title=text)


def _thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    small = Image.fromarray(pixels)
    small.thumbnail((_SIDE, _SIDE))
    for quality in _QUALITIES:
        encoded = io.BytesIO()
        small.save(encoded, "JPEG", quality=quality)
        if encoded.tell() <= MOST_BYTES:
            break
    return encoded.getvalue()


class Album:
    """The pictures of a dataset, with the names of their identities and the files that they came from."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._sources: dict[int, str] = {}

    @cached_property
    def _names(self) -> dict[int, str]:
        labels = np.unique(self.dataset.labels).tolist()
        return dict(zip(labels, class_names(self.dataset, labels), strict=True))

    def person(self, label: int) -> str:
        """Name an identity: its label, and the name of its folder if that is known and says more."""
        if label not in self._names:
            return f"a new identity ({label})"
        name = self._names[label]
        same = name.isascii() and name.isdigit() and int(name) == label
        return f"identity {label}" if same else f"identity {label} ({name})"

    def rows(self, keys: NDArray[np.int64], files: NDArray[np.uint32] | None) -> NDArray[np.int64]:
        """Where images are in the index; -1 for those that are not there."""
        if files is not None and len(self.dataset.paths) == 1:
            outside, files = files != 0, None
        else:
            outside = np.zeros(len(keys), np.bool_)
        try:
            ids = ids_of(keys, files)
        except ValueError:  # keys that no index of several files has
            return np.full(len(keys), -1)
        return np.where(outside, -1, places_among(self.dataset.ids, ids))

    def look_up(self, rows: NDArray[np.int64]) -> None:
        """Find out which files the images of these rows came from, where a table beside the .rec says so."""
        for number, path in enumerate(self.dataset.paths):
            of_file = rows[(rows >= 0) & (self.dataset.files[rows] == number)]
            place = path.with_suffix(_SUFFIX)
            if len(of_file) and place.is_file():
                keys = self.dataset.keys[of_file]
                paths = _paths(place, keys)
                found = zip(of_file.tolist(), (paths.get(key) for key in keys.tolist()), strict=True)
                self._sources |= {row: source for row, source in found if source is not None}

    def source(self, row: int) -> str | None:
        """The file that an image came from, if :meth:`look_up` found it."""
        return self._sources.get(row)

    def key(self, row: int) -> str:
        """Name an image by its key, and with several files by its file."""
        key = f"key {self.dataset.keys[row]}"
        if len(self.dataset.paths) == 1:
            return key
        return f"{self.dataset.paths[self.dataset.files[row]].name}, {key}"

    def show(self, row: int, role: str = "") -> Markup:
        """Show an image, or what stands in its place."""
        alt = f"{self.person(int(self.dataset.labels[row]))}, {self.key(row)}"
        try:
            content = self.dataset.read(row)[1]
        except (RecordError, OSError) as error:
            return broken(alt, getattr(error, "reason", str(error)), role=role)
        source = self.source(row)
        title = f"{alt}, from {source}" if source else alt
        if role in ("anchor", "positive", "negative"):
            alt = f"{role}: {alt}"
        return picture(content, alt, role=role, title=title, most_pixels=self.dataset.options.max_pixels)


def _paths(table: Path, keys: NDArray[np.int64]) -> dict[int, str]:
    wanted = pl.Series("key", keys, dtype=pl.Int64).implode()
    try:
        found = (
            pl.scan_parquet(table, glob=False)
            .select(pl.col("key").cast(pl.Int64), pl.col("path").cast(pl.String))
            .filter(pl.col("key").is_in(wanted), pl.col("path").is_not_null())
            .collect()
        )
    except (OSError, TypeError, pl.exceptions.PolarsError):  # a TypeError of a name that is not UTF-8
        return {}  # the pictures say enough without it
    return dict(found.iter_rows())
