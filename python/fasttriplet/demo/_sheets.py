"""PNG sheets to look at: some images of a dataset, and some of its triplets."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image, ImageDraw, ImageFont

from fasttriplet._checks import whole_number
from fasttriplet._files import replacing
from fasttriplet._words import counted
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.dataset._recordio import RecordFile
from fasttriplet.errors import RecordError

_TILE = 112  # pixels
_GAP = 8
_EDGE = 24
_NAMES = 44  # pixels left of the images, for their identity
_TEXT = 190  # pixels beside a triplet
_INK, _FAINT, _PAPER, _RAIL, _BAND = "#20242c", "#8a909c", "#ffffff", "#eef0f3", "#ffe9b8"
_ROLES = {"anchor": "#5a6475", "positive": "#1f9d61", "negative": "#d9483b"}

_font = ImageFont.load_default


def contact_sheet(
    rec: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    identities: int = 8,
    images: int = 10,
    overwrite: bool = False,
) -> None:
    """
    Draw images of a few identities, a row for each.

    Parameters
    ----------
    rec
        A ``.rec`` file.
    path
        The PNG to write.
    identities, images
        How many to show at most. Identities are taken evenly spread from the whole file.
    overwrite
        Whether a file that is there may be replaced.

    Raises
    ------
    OSError
        When `path` cannot be written, or is there and `overwrite` is not set.
    RecordError
        When a record is damaged, or the dataset has no images.
    ValueError
        When `identities` or `images` is below 1.
    """
    whole_number("identities", identities, 1)
    whole_number("images", images, 1)
    dataset = Dataset(rec, cache=False)
    index = dataset.index.with_row_index("row").sort("label", "key")
    labels = index["label"].unique().sort()
    chosen = labels.gather(np.linspace(0, len(labels) - 1, min(identities, len(labels))).round().astype(int))
    rows = [(label, index.filter(pl.col("label") == label)["row"].head(images).to_list()) for label in chosen]
    columns = max(len(of_label) for _, of_label in rows)
    wide = 2 * _EDGE + _NAMES + columns * (_TILE + _GAP)
    sheet = Image.new("RGB", (wide, 2 * _EDGE + 34 + len(rows) * (_TILE + _GAP) - _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    count = f"{counted(len(index), 'image')} of {counted(len(labels), 'identity')}"
    pen.text((_EDGE, _EDGE - 6), f"{Path(rec).name}: {count}", _INK, _font(18))
    for line, (label, of_label) in enumerate(rows):
        top = _EDGE + 34 + line * (_TILE + _GAP)
        pen.text((_EDGE, top + _TILE // 2), f"{label}", _FAINT, _font(18), anchor="lm")
        for column, row in enumerate(of_label):
            _paste(sheet, (_EDGE + _NAMES + column * (_TILE + _GAP), top), dataset.read(row)[1])
    _save(sheet, path, overwrite=overwrite)


def triplet_sheet(
    files: Sequence[str | os.PathLike[str]],
    triplets: pl.DataFrame,
    path: str | os.PathLike[str],
    *,
    rows: int = 12,
    margin: float = 0.3,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """
    Draw triplets: anchor, positive and negative, with the distances of the two beside them.

    Distances are squared L2. The bar shows the semi-hard band, ``d_ap < d_an < d_ap + margin``, and where the
    negative lies in it.

    Parameters
    ----------
    files
        The ``.rec`` files that were mined, in the order in which they were given.
    triplets
        Columns ``anchor_key``, ``positive_key``, ``negative_key``, ``anchor_label``, ``negative_label``,
        ``d_ap``, ``d_an``, and for several files ``anchor_file``, ``positive_file``, ``negative_file``, as
        :func:`fasttriplet.mine_rec` writes them.
    path
        The PNG to write.
    rows
        How many triplets to show at most. They are chosen at random, with different anchor identities as far
        as possible.
    margin
        The margin that the triplets were mined with, on squared L2.
    seed
        Seed of the choice.
    overwrite
        Whether a file that is there may be replaced.

    Raises
    ------
    OSError
        When `path` cannot be written, or is there and `overwrite` is not set.
    RecordError
        When a record is damaged, or its label is not the one that the triplet has.
    ValueError
        When there are no triplets, or `rows` is below 1.
    """
    whole_number("rows", rows, 1)
    if triplets.is_empty():
        msg = "there are no triplets to draw"
        raise ValueError(msg)
    chosen = _choose(triplets, rows, seed)
    columns = 2 if len(chosen) > 3 else 1
    deep = -(-len(chosen) // columns)
    head, wide, high = 74, 3 * (_TILE + _GAP) + _TEXT, _TILE + 2 * _GAP
    sheet = Image.new("RGB", (_EDGE + columns * (wide + _EDGE), 2 * _EDGE + head + deep * high), _PAPER)
    pen, images = ImageDraw.Draw(sheet), _Mined(files)
    pen.text((_EDGE, _EDGE - 6), f"{len(chosen):,} of {counted(len(triplets), 'triplet')}", _INK, _font(20))
    rule = f"semi-hard: d_ap < d_an < d_ap + {margin:g}, squared L2"
    pen.text((sheet.width - _EDGE, _EDGE - 3), rule, _FAINT, _font(14), anchor="ra")
    longest = 1.05 * (max(chosen["d_ap"]) + margin)
    for number, triplet in enumerate(chosen.iter_rows(named=True)):
        left, top = _EDGE + number // deep * (wide + _EDGE), _EDGE + head + number % deep * high
        for place, (role, colour) in enumerate(_ROLES.items()):
            x = left + place * (_TILE + _GAP)
            if number % deep == 0:
                pen.text((x + _TILE // 2, top - 14), role, colour, _font(15), anchor="ms")
            _paste(sheet, (x, top), images.of(triplet, role), colour)
        _write(pen, (left + 3 * (_TILE + _GAP) + 6, top), triplet, margin, longest)
    _save(sheet, path, overwrite=overwrite)


def _choose(triplets: pl.DataFrame, rows: int, seed: int) -> pl.DataFrame:
    """First one triplet of each anchor identity, then a second one, and so on."""
    turn = pl.int_range(pl.len()).over("anchor_label")
    shuffled = triplets[np.random.default_rng(seed).permutation(len(triplets))]
    first = shuffled.sort(turn, maintain_order=True).head(rows)
    return first.sort("anchor_label", maintain_order=True)


def _write(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    triplet: dict[str, float],
    margin: float,
    longest: float,
) -> None:
    """Write a triplet's numbers, and draw its band and where the positive and the negative are."""
    left, top = corner
    scale, y = (_TEXT - 28) / longest, top + 66
    near, far = (left + scale * distance for distance in (triplet["d_ap"], triplet["d_ap"] + margin))
    pen.rounded_rectangle((left, y - 3, left + scale * longest, y + 3), 3, fill=_RAIL)
    pen.rectangle((near, y - 8, far, y + 8), fill=_BAND)
    for role, name, down in (("positive", "d_ap", 16), ("negative", "d_an", 38)):
        x = left + scale * triplet[name]
        pen.text((left, top + down), f"{name}  {triplet[name]:.3f}", _ROLES[role], _font(16), anchor="lm")
        pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=_ROLES[role], outline=_PAPER)
    names = f"identity {triplet['anchor_label']} and {triplet['negative_label']}"
    pen.text((left, top + 94), names, _FAINT, _font(14), anchor="lm")


class _Mined:
    """The images of triplets that were mined before, in files that may be others by now."""

    def __init__(self, files: Sequence[str | os.PathLike[str]]) -> None:
        self._files = [RecordFile(file) for file in files]
        self._shifts: dict[int, float] = {}  # of the labels of each file, see Dataset.label_shifts

    def of(self, triplet: dict[str, Any], role: str) -> bytes:
        """Return the encoded image of one role."""
        number: int = triplet.get(f"{role}_file", 0)
        key: int = triplet[f"{role}_key"]
        header, content = self._files[number].read(key)
        mined = triplet["negative_label" if role == "negative" else "anchor_label"]
        label = float(np.ravel(header.label)[0])
        if self._shifts.setdefault(number, mined - label) != mined - label:
            raise RecordError(
                f"{self._files[number].path}, key {key}: its label is {label:g}, and another one in the "
                "triplets; were they mined from this file?",
                key,
                file=str(self._files[number].path),
            )
        return content


def _paste(sheet: Image.Image, corner: tuple[int, int], encoded: bytes, frame: str | None = None) -> None:
    """Put an image on the sheet, in the middle of its tile, with round corners."""
    picture = Image.open(io.BytesIO(encoded)).convert("RGB")
    picture.thumbnail((_TILE, _TILE))
    mask = Image.new("L", (picture.width * 4, picture.height * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), 32, fill=255)
    left, top = corner[0] + (_TILE - picture.width) // 2, corner[1] + (_TILE - picture.height) // 2
    if frame is not None:
        box = (left - 3, top - 3, left + picture.width + 2, top + picture.height + 2)
        ImageDraw.Draw(sheet).rounded_rectangle(box, 10, fill=frame)
    sheet.paste(picture, (left, top), mask.reduce(4))


def _save(sheet: Image.Image, path: str | os.PathLike[str], *, overwrite: bool) -> None:
    with replacing(Path(path), overwrite=overwrite) as unfinished:
        sheet.save(unfinished, "PNG", optimize=True)
