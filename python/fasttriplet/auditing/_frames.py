"""Findings as rows, and the table of identities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet.auditing._findings import IDENTITIES, SCHEMA, Action, Kind
from fasttriplet.auditing._identities import People
from fasttriplet.auditing._neighbors import Images

_DIGITS = 6  # of cosines in files


@dataclass
class Findings:
    """Rows of suspects; images are positions in `images`."""

    images: Images
    _rows: list[tuple[Any, ...]] = field(default_factory=list)
    _count: int = 0

    def add(
        self,
        kind: Kind,
        members: Sequence[int],
        evidence: NDArray[np.int64],
        *,
        suggested: int | None,
        action: Action,
        score: float,
        reason: str,
    ) -> None:
        """Add a finding about one image or several, with the images (members, n) to look at beside each."""
        of = self.images
        score = round(min(max(score, 0.0), 1.0), _DIGITS)
        for image, beside in zip(members, evidence, strict=True):
            self._rows.append((
                self._count, kind, int(of.keys[image]), int(of.files[image]), int(of.labels[image]),
                suggested, action, score, reason, of.keys[beside].tolist(), of.files[beside].tolist(),
            ))  # fmt: skip
        self._count += 1

    def frame(self) -> pl.DataFrame:
        """All rows in the schema of suspects."""
        return pl.DataFrame(self._rows, SCHEMA, orient="row")


def identities(images: Images, found: People, centre: NDArray[np.float64]) -> pl.DataFrame:
    """One row per identity; `centre` has the cosine of each image with the centre of its identity."""
    labels, sizes = images.labels[images.starts[:-1]], np.diff(images.starts)
    has = found.nearest >= 0
    return pl.DataFrame(
        {
            "label": labels,
            "images": sizes,
            "spread": np.maximum(1 - np.bincount(images.identity, weights=centre) / sizes, 0).round(_DIGITS),
            "nearest_label": pl.Series(labels[found.nearest]).set(pl.Series(~has), None),
            "nearest_distance": pl.Series(np.maximum(2 - 2 * found.cosine, 0).round(_DIGITS)).set(
                pl.Series(~has), None
            ),
            "findings": np.zeros(len(labels), np.uint32),
        },
    ).cast(dict(IDENTITIES))  # type: ignore[arg-type]


def of_dataset(identities: pl.DataFrame, suspects: pl.DataFrame, labels: NDArray[np.int64]) -> pl.DataFrame:
    """All identities of a dataset, with the findings, of all kinds, that images of each are in.

    `labels` are those of its images (N,). Identities of which no image could be compared have only numbers of
    images and of findings.
    """
    found, counts = np.unique(labels, return_counts=True)
    every = pl.DataFrame({"label": found, "images": counts}).cast({"label": pl.Int64, "images": pl.UInt32})
    findings = suspects.group_by("label").agg(findings=pl.col("finding").n_unique().cast(pl.UInt32))
    return (
        every.join(identities.drop("images", "findings"), on="label", how="left", maintain_order="left")
        .join(findings, on="label", how="left", maintain_order="left")
        .with_columns(pl.col("findings").fill_null(0))
    )


def without_images(
    suspects: pl.DataFrame, files: NDArray[np.uint32], keys: NDArray[np.int64]
) -> pl.DataFrame:
    """Leave out what is said about single images, mislabelled and outlier, where another kind explains it."""
    explained = pl.DataFrame({"file": files, "key": keys}, {"file": pl.UInt32, "key": pl.Int64})
    return pl.concat(
        [
            suspects.filter(~pl.col("kind").is_in(("mislabelled", "outlier"))),
            suspects.filter(pl.col("kind").is_in(("mislabelled", "outlier"))).join(
                explained, on=["file", "key"], how="anti"
            ),
        ]
    )
