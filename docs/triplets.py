"""Draws docs/triplets.png, the picture at the top of the README, from what ``make demo`` mined.

make picture
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl
from PIL import Image

from fasttriplet.demo import triplet_sheet

ROOT = Path(__file__).parents[1]
SEED = 8  # four triplets that look alike and are not
COLOURS = 256  # a third of the bytes, and the eye sees hardly a difference


def main() -> None:
    """Draw it."""
    demo, picture = ROOT / "demo", ROOT / "docs" / "triplets.png"
    with tempfile.TemporaryDirectory() as folder:
        sheet = Path(folder) / "sheet.png"
        triplets = pl.read_parquet(demo / "triplets.parquet")
        triplet_sheet([demo / "train.rec"], triplets, sheet, rows=4, seed=SEED)
        with Image.open(sheet) as full:
            full.quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG).save(picture, optimize=True)
    print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
