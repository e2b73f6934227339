"""PNG sheets to look at: some images of a dataset, and some of its triplets."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image, ImageDraw, ImageFont

from fasttriplet.dataset._index import index_rec
from fasttriplet.dataset._recordio import RecordFile

_TILE = 112  # pixels
_GAP = 8
_EDGE = 24
_INK, _FAINT, _PAPER = "#20242c", "#8a909c", "#ffffff"
_ANCHOR, _POSITIVE, _NEGATIVE = "#5a6475", "#1f9d61", "#d9483b"
_BAND = "#ffe9b8"
_TEXT = 190  # pixels beside a triplet


def contact_sheet(
    rec: str | os.PathLike[str], path: str | os.PathLike[str], *, identities: int = 8, images: int = 10
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
        How many, at most; identities are taken from the whole file, evenly spread.

    Raises
    ------
    RecordError
        When a record is damaged.
    ValueError
        When the dataset has no images, or `identities` or `images` is below 1.
    """
    _at_least_one(identities=identities, images=images)
    index = index_rec(rec, cache=False).sort("label", "key")
    labels = index["label"].unique().sort()
    if labels.is_empty():
        msg = f"{os.fspath(rec)} has no images to show"
        raise ValueError(msg)
    chosen = labels.gather(np.linspace(0, len(labels) - 1, min(identities, len(labels))).round().astype(int))
    rows = [(label, index.filter(pl.col("label") == label)["key"].head(images).to_list()) for label in chosen]
    columns = max(len(keys) for _, keys in rows)

    names, title = 44, 34
    sheet = Image.new(
        "RGB",
        (2 * _EDGE + names + columns * (_TILE + _GAP), 2 * _EDGE + title + len(rows) * (_TILE + _GAP) - _GAP),
        _PAPER,
    )
    pen = ImageDraw.Draw(sheet)
    count = f"{len(index):,} images of {len(labels):,} identities"
    pen.text((_EDGE, _EDGE - 6), f"{Path(rec).name}: {count}", _INK, _font(18))
    file = RecordFile(rec)
    for row, (label, keys) in enumerate(rows):
        top = _EDGE + title + row * (_TILE + _GAP)
        pen.text((_EDGE, top + _TILE // 2), f"{label}", _FAINT, _font(18), anchor="lm")
        for column, key in enumerate(keys):
            _paste(sheet, _picture(file, key), (_EDGE + names + column * (_TILE + _GAP), top))
    _save(sheet, path)


def triplet_sheet(
    files: Sequence[str | os.PathLike[str]],
    triplets: pl.DataFrame,
    path: str | os.PathLike[str],
    *,
    rows: int = 12,
    margin: float = 0.3,
    seed: int = 0,
) -> None:
    """
    Draw triplets: anchor, positive and negative, with the distances of the two beside them.

    Distances are squared L2. The bar shows the semi-hard band, ``d_ap < d_an < d_ap + margin``, and where the
    negative lies in it.

    Parameters
    ----------
    files
        The ``.rec`` files that were mined, in that order.
    triplets
        Columns ``anchor_key``, ``positive_key``, ``negative_key``, ``anchor_label``, ``negative_label``,
        ``d_ap``, ``d_an``, and, of several files, ``anchor_file``, ``positive_file``, ``negative_file``, as
        :func:`fasttriplet.mine_rec` writes them.
    path
        The PNG to write.
    rows
        How many, at most; chosen at random, of different anchor identities as far as there are any.
    margin
        That was mined with.
    seed
        Of the choice.

    Raises
    ------
    RecordError
        When a record is damaged.
    ValueError
        When there are no triplets, or `rows` is below 1.
    """
    _at_least_one(rows=rows)
    if triplets.is_empty():
        msg = "there are no triplets to draw"
        raise ValueError(msg)
    chosen = _choose(triplets, rows, seed)
    columns = 2 if len(chosen) > 3 else 1
    deep = -(-len(chosen) // columns)
    wide = 3 * (_TILE + _GAP) + _TEXT
    head = 74
    size = (2 * _EDGE + columns * wide + (columns - 1) * _EDGE, 2 * _EDGE + head + deep * (_TILE + 2 * _GAP))
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_EDGE, _EDGE - 6), f"{len(chosen)} of {len(triplets):,} triplets", _INK, _font(20))
    rule = f"semi-hard: d_ap < d_an < d_ap + {margin:g}, squared L2"
    pen.text((size[0] - _EDGE, _EDGE - 3), rule, _FAINT, _font(14), anchor="ra")
    for column in range(columns):
        for place, (name, colour) in enumerate(
            [("anchor", _ANCHOR), ("positive", _POSITIVE), ("negative", _NEGATIVE)]
        ):
            middle = _EDGE + column * (wide + _EDGE) + place * (_TILE + _GAP) + _TILE // 2
            pen.text((middle, _EDGE + head - 14), name, colour, _font(15), anchor="ms")

    opened = [RecordFile(file) for file in files]
    longest = float((chosen["d_ap"] + margin).max() or 0) * 1.05  # type: ignore[arg-type]
    for number, triplet in enumerate(chosen.iter_rows(named=True)):
        left = _EDGE + (number // deep) * (wide + _EDGE)
        top = _EDGE + head + (number % deep) * (_TILE + 2 * _GAP)
        for place, (role, colour) in enumerate(
            [("anchor", _ANCHOR), ("positive", _POSITIVE), ("negative", _NEGATIVE)]
        ):
            file = opened[triplet.get(f"{role}_file", 0)]
            corner = (left + place * (_TILE + _GAP), top)
            _paste(sheet, _picture(file, triplet[f"{role}_key"]), corner, colour)
        _beside(pen, triplet, (left + 3 * (_TILE + _GAP) + 6, top), margin, longest)
    _save(sheet, path)


def _choose(triplets: pl.DataFrame, rows: int, seed: int) -> pl.DataFrame:
    order = np.random.default_rng(seed).permutation(len(triplets))
    shuffled = triplets[order]
    first_of_each = shuffled.with_row_index("place").with_columns(
        turn=pl.int_range(pl.len()).over("anchor_label")
    )
    return first_of_each.sort("turn", "place").head(rows).sort("anchor_label", "place").drop("turn", "place")


def _beside(
    pen: ImageDraw.ImageDraw,
    triplet: dict[str, float],
    corner: tuple[int, int],
    margin: float,
    longest: float,
) -> None:
    """Write a triplet's numbers and draw its band."""
    left, top = corner
    d_ap, d_an = triplet["d_ap"], triplet["d_an"]
    pen.text((left, top + 16), f"d_ap  {d_ap:.3f}", _POSITIVE, _font(16), anchor="lm")
    pen.text((left, top + 38), f"d_an  {d_an:.3f}", _NEGATIVE, _font(16), anchor="lm")
    wide = _TEXT - 28
    zero, scale, y = left, wide / longest, top + 66
    pen.rounded_rectangle((zero, y - 3, zero + wide, y + 3), 3, fill="#eef0f3")
    pen.rectangle((zero + d_ap * scale, y - 8, zero + (d_ap + margin) * scale, y + 8), fill=_BAND)
    for distance, colour in ((d_ap, _POSITIVE), (d_an, _NEGATIVE)):
        x = zero + distance * scale
        pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour, outline=_PAPER)
    names = f"identity {triplet['anchor_label']} and {triplet['negative_label']}"
    pen.text((left, top + 94), names, _FAINT, _font(14), anchor="lm")


def _picture(file: RecordFile, key: int) -> Image.Image:
    _, encoded = file.read(key)
    picture = Image.open(io.BytesIO(encoded)).convert("RGB")
    picture.thumbnail((_TILE, _TILE))
    return picture


def _paste(
    sheet: Image.Image, picture: Image.Image, corner: tuple[int, int], frame: str | None = None
) -> None:
    """Put a picture on the sheet, in the middle of its tile, with round corners."""
    mask = Image.new("L", (picture.width * 4, picture.height * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), 32, fill=255)
    left, top = corner
    left, top = left + (_TILE - picture.width) // 2, top + (_TILE - picture.height) // 2
    if frame is not None:
        box = (left - 3, top - 3, left + picture.width + 2, top + picture.height + 2)
        ImageDraw.Draw(sheet).rounded_rectangle(box, 10, fill=frame)
    sheet.paste(picture, (left, top), mask.reduce(4))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _save(sheet: Image.Image, path: str | os.PathLike[str]) -> None:
    final = Path(path)
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    try:
        sheet.save(partial, "PNG", optimize=True)
        partial.replace(final)
    finally:
        partial.unlink(missing_ok=True)


def _at_least_one(**numbers: int) -> None:
    for name, value in numbers.items():
        if value < 1:
            msg = f"{name} must be 1 or more, not {value}"
            raise ValueError(msg)
