"""What the pictures of a dataset look like in numbers, and which of them show nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._files import opened, publish
from fasttriplet.auditing._findings import SCHEMA, no_findings, write_table
from fasttriplet.auditing._options import PictureOptions
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.errors import RecordError

NAME = "pictures.parquet"
_KIND, _VERSION = "pictures", 1
_SKETCH = 63  # numbers, see rust/image/looks.rs
EVEN = 31  # of which a mirrored picture has these first ones, too

# A value is unusual if it is six standard deviations below the median, on a logarithmic scale, and less than
# a quarter of the median. Of 2,375 real faces the most extreme are 5.6 below, and a third of the median.
_DEVIATIONS = 6.0
_SHARE = 0.25
_TO_DEVIATION = 1.4826  # the standard deviation of a normal distribution by its median absolute deviation
_NOTHING = 2.0  # gray levels of contrast below which a picture shows nothing, whatever the dataset is like


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """What all images of a dataset look like, in the order of its index.

    Attributes
    ----------
    brightness, contrast, detail : (N,) float32
        Mean and standard deviation of the gray levels, 0 to 255, and standard deviation of their Laplacian.
        NaN where an image could not be decoded.
    sketches : (N, 63) float32
        What is left of a picture in its lowest frequencies: unit rows, see ``rust/image/looks.rs``.
    problems : list of str or None
        Why an image could not be decoded.
    """

    brightness: NDArray[np.float32]
    contrast: NDArray[np.float32]
    detail: NDArray[np.float32]
    sketches: NDArray[np.float32]
    problems: list[str | None]

    @classmethod
    def unseen(cls, count: int) -> Looks:
        """Those of images that nothing is known about yet."""
        brightness, contrast, detail = np.full((3, count), np.nan, np.float32)
        return cls(brightness, contrast, detail, np.zeros((count, _SKETCH), np.float32), [None] * count)

    def add(
        self,
        start: int,
        kept: NDArray[np.int64],
        measures: NDArray[np.float32],
        sketches: NDArray[np.float32],
        failed: Sequence[tuple[int, RecordError]],
    ) -> None:
        """Take what was seen of the images from `start` on: positions from there, and why some were not."""
        at = start + kept
        for column, values in zip((self.brightness, self.contrast, self.detail), measures.T, strict=True):
            column[at] = values
        self.sketches[at] = sketches
        for position, error in failed:
            self.problems[start + position] = error.reason  # where it is, the row says

    @property
    def decoded(self) -> NDArray[np.bool_]:
        """Whether an image could be decoded: (N,)."""
        return ~np.isnan(self.brightness)

    @property
    def sharpness(self) -> NDArray[np.float32]:
        """Detail as a multiple of the contrast; 0 where there is no contrast."""
        contrast = np.where(self.contrast > 0, self.contrast, np.inf)
        return np.where(np.isnan(self.contrast), np.nan, self.detail / contrast).astype(np.float32)


def keep_looks(folder: Path, dataset: Dataset, looks: Looks) -> None:
    """Write what was seen, for the next audit of this dataset."""
    frame = pl.DataFrame(
        {
            "key": dataset.keys,
            "file": dataset.files,
            "brightness": looks.brightness,
            "contrast": looks.contrast,
            "detail": looks.detail,
            "problem": pl.Series(looks.problems, dtype=pl.String),
            "sketch": pl.Series(looks.sketches, dtype=pl.Array(pl.Float32, _SKETCH)),
        }
    )
    with opened(folder / NAME, overwrite=True) as (output,):
        write_table(frame, output, _about(dataset))
        publish(output)


def kept_looks(folder: Path, dataset: Dataset) -> Looks | None:
    """Read what an earlier audit saw; None if there is nothing of this dataset."""
    try:
        with (folder / NAME).open("rb") as file:
            if json.loads(pl.read_parquet_metadata(file).get("fasttriplet", "{}")) != _about(dataset):
                return None
            file.seek(0)
            frame = pl.read_parquet(file)
    except (OSError, ValueError, pl.exceptions.PolarsError):  # it is made again
        return None
    if frame.height != len(dataset) or frame.width != len(Looks.__slots__) + 2:
        return None
    return Looks(
        frame["brightness"].to_numpy(),
        frame["contrast"].to_numpy(),
        frame["detail"].to_numpy(),
        frame["sketch"].to_numpy(),
        frame["problem"].to_list(),
    )


def _about(dataset: Dataset) -> dict[str, object]:
    return {
        "kind": _KIND,
        "version": _VERSION,
        "dataset": dataset.fingerprint,
        "max_pixels": dataset.options.max_pixels,
    }


@dataclass(frozen=True, kw_only=True)
class PictureThresholds:
    """The thresholds of bad pictures that were used; see :class:`PictureOptions`."""

    contrast_below: float
    brightness_below: float
    sharpness_below: float

    @classmethod
    def of(cls, looks: Looks, options: PictureOptions) -> PictureThresholds:
        """Those that are given, and others by what is usual in the dataset."""
        contrast = _unusual(looks.contrast) if options.contrast_below is None else options.contrast_below
        dark = _unusual(looks.brightness) if options.brightness_below is None else options.brightness_below
        blurred = _unusual(looks.sharpness) if options.sharpness_below is None else options.sharpness_below
        if options.contrast_below is None:
            contrast = max(contrast, _NOTHING)
        return cls(contrast_below=contrast, brightness_below=dark, sharpness_below=blurred)

    def __str__(self) -> str:
        """Each threshold in a line of words."""
        return "\n".join((
            f"nearly uniform: contrast below {self.contrast_below:.1f} gray levels",
            f"dark: mean below {self.brightness_below:.1f} of 255 gray levels",
            f"blurred: detail below {self.sharpness_below:.3f} of the contrast",
        ))  # fmt: skip


def _unusual(values: NDArray[np.float32]) -> float:
    """The value below which few would be by chance: 0 if most are 0."""
    known = values[~np.isnan(values)].astype(np.float64)
    if len(known) == 0 or (middle := float(np.median(known))) == 0:
        return 0.0
    logarithms = np.log(known[known > 0])
    deviation = _TO_DEVIATION * float(np.median(np.abs(logarithms - math.log(middle))))
    return middle * min(_SHARE, math.exp(-_DEVIATIONS * deviation))


def bad_pictures(dataset: Dataset, looks: Looks, thresholds: PictureThresholds) -> pl.DataFrame:
    """Find images that cannot be decoded or show nothing: `SCHEMA`, one finding per image, from 0.

    An image that is bad in several ways has the first of these reasons: it cannot be decoded, or is nearly
    uniform, dark, or blurred. Its score is 1 where it cannot be decoded, else how far below the threshold it
    is: 0 at the threshold, and near 1 at zero.
    """
    rows: dict[int, tuple[float, str]] = {}
    checks = (
        (looks.contrast, thresholds.contrast_below, "nearly uniform: contrast {:.1f} gray levels"),
        (looks.brightness, thresholds.brightness_below, "dark: mean {:.1f} of 255 gray levels"),
        (looks.sharpness, thresholds.sharpness_below, "blurred: detail {:.3f} of the contrast"),
    )
    for values, below, words in checks:
        for at in np.flatnonzero(values < below).tolist():
            value = float(values[at])
            usual = f", usual is {np.nanmedian(values):.{3 if '.3f' in words else 1}f}"
            rows.setdefault(at, (1 - value / below, words.format(value) + usual))
    for at in np.flatnonzero(~looks.decoded).tolist():
        rows[at] = (1.0, f"cannot be decoded: {looks.problems[at]}")
    if not rows:
        return no_findings()
    at = np.array(sorted(rows))
    return pl.DataFrame(
        {
            "finding": np.arange(len(at)),
            "kind": "bad-picture",
            "key": dataset.keys[at],
            "file": dataset.files[at],
            "label": dataset.labels[at],
            "suggested_label": None,
            "action": "drop",
            "score": [rows[one][0] for one in at.tolist()],
            "reason": [rows[one][1] for one in at.tolist()],
            "evidence_keys": [[]] * len(at),
            "evidence_files": [[]] * len(at),
        },
        schema=SCHEMA,
    )
