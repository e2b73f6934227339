"""Draws docs/audit.png: what an audit finds in the demo's dataset after faults were put into it.

make picture
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps

import fasttriplet as ft

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from report import save  # noqa: E402
from tests.reporting import chromium  # noqa: E402

WIDTH = 1000  # pixels
COLOURS = 128  # a fifth of the bytes, and the eye sees hardly a difference
SEED = 0  # where the faults are
MODEL = f"mxnet:{ROOT / 'demo' / 'network'},0"


def encoded(picture: Image.Image) -> bytes:
    """A picture as JPEG."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=80)
    return content.getvalue()


def write_with_faults(dataset: ft.Dataset, rec: Path) -> None:
    """Write the images with wrong labels, one character under two labels, a copy, and a blurred picture."""
    rng = np.random.default_rng(SEED)
    labels = dataset.labels.copy()
    people = labels.max() + 1
    split, *rest = rng.permutation(people)
    halved = np.flatnonzero(labels == split)
    labels[halved[: len(halved) // 2]] = people
    elsewhere = rng.permutation(np.flatnonzero(labels != split))
    moved, blurred, copied = elsewhere[:3], elsewhere[3], elsewhere[4]
    labels[moved] = rest[: len(moved)]
    contents = [dataset.read(row)[1] for row in range(len(labels))]
    contents[blurred] = encoded(opened(contents[blurred]).filter(ImageFilter.GaussianBlur(12)))
    contents.append(encoded(ImageOps.mirror(opened(contents[copied]))))
    with ft.RecordWriter(rec) as writer:
        for key, (label, content) in enumerate(zip([*labels, rest[-1]], contents, strict=True)):
            writer.write(key, ft.IRHeader(0, float(label), key, 0), content)


def opened(content: bytes) -> Image.Image:
    """The picture of a record."""
    return Image.open(io.BytesIO(content)).convert("RGB")


# Leaves the first finding of each kind, side by side, and says how high that is.
FIRST_OF_EACH = """(() => {
  const audit = document.querySelector('#audit');
  document.querySelector('nav').remove();
  audit.style = 'display: grid; grid-template-columns: 1fr 1fr; column-gap: 1.5rem';
  for (const part of [...audit.children])
    if (!part.querySelector('.findings')) {
      part.style.gridColumn = '1 / -1';
      if (part.matches('.part')) part.remove();
    }
  for (const card of audit.querySelectorAll('.finding ~ .finding, .buttons')) card.remove();
  const bottoms = [...audit.querySelectorAll('.finding')].map(card => card.getBoundingClientRect().bottom);
  const top = audit.querySelector('h2').getBoundingClientRect().top;
  return [top + scrollY - 16, Math.max(...bottoms) - top + 32];
})()"""


def main() -> None:
    """Draw it."""
    picture = ROOT / "docs" / "audit.png"
    with tempfile.TemporaryDirectory() as folder, chromium.page(Path(folder)) as page:
        rec, audit = Path(folder) / "train.rec", Path(folder) / "audit"
        write_with_faults(ft.Dataset(ROOT / "demo" / "train.rec"), rec)
        found = ft.audit(rec, model=MODEL, out=audit).counts()
        print({kind: of_kind["findings"] for kind, of_kind in found.items()})
        ft.report(audit / "audit.html", rec=rec, audit=audit)
        page.look(WIDTH)
        page.open(audit / "audit.html")
        top, height = page.run(FIRST_OF_EACH)
        shot = page.picture(y=top, width=WIDTH, height=height)
    save(shot, picture, COLOURS)


if __name__ == "__main__":
    main()
