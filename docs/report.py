"""Draws docs/report.png, the picture of a report in the README, from the page that ``make demo`` wrote.

make picture
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.reporting import chromium  # noqa: E402

WIDTH, HIGH = 1000, 1230  # pixels
COLOURS = 192  # a quarter of the bytes, and the eye sees hardly a difference


def save(shot: bytes, picture: Path, colours: int) -> None:
    """Keep a PNG that the browser made, in so many colours."""
    with Image.open(io.BytesIO(shot)) as full:
        shown = full.convert("RGB").quantize(colours, dither=Image.Dither.FLOYDSTEINBERG)
        shown.save(picture, optimize=True)
    print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Draw it."""
    picture = ROOT / "docs" / "report.png"
    with tempfile.TemporaryDirectory() as folder, chromium.page(Path(folder)) as page:
        page.look(WIDTH)
        page.open(ROOT / "demo" / "report.html")
        page.run("document.querySelector('nav').remove()")  # it lies over the part that is shown
        top = page.run("document.querySelector('#triplets h2').getBoundingClientRect().top + scrollY - 16")
        shot = page.picture(y=top, width=WIDTH, height=HIGH)
    save(shot, picture, COLOURS)


if __name__ == "__main__":
    main()
