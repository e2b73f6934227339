"""What becomes of each image of a dataset, where several findings may be about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet.dataset._dataset import Dataset
from fasttriplet.dataset._ids import ids_of, places_among
from fasttriplet.errors import OptionError


@dataclass(frozen=True, slots=True, eq=False)
class Resolved:
    """What becomes of N images, in the order of the dataset."""

    dropped: NDArray[np.bool_]
    labels: NDArray[np.int64]  # in the numbers that the dataset has, or new ones
    cause: NDArray[np.int64]  # the row of the suspects that decided; -1 for none


def resolve(suspects: pl.DataFrame, dataset: Dataset) -> Resolved:
    """Join all findings.

    An image that any finding drops is dropped. Else the finding with the lowest number that gives this image
    another label does so. Then identities that are the same person are joined, whole and whatever their
    images were before: an image that was just moved to one of them, too.
    """
    rows = suspects.with_row_index("row").sort("finding", "row", maintain_order=True)
    relabels = rows.filter(pl.col("action") == "relabel")
    if (unknown := relabels.filter(pl.col("suggested_label").is_null())).height:
        finding, key = unknown.row(0, named=True)["finding"], unknown["key"][0]
        raise OptionError(
            "suspects",
            f"must have a suggested label where the action is to relabel, and finding {finding} has none for "
            f"key {key}: decide to drop or to keep it",
        )
    labels, cause = dataset.labels.copy(), np.full(len(dataset), -1)
    joining = pl.col("kind") == "same-person"
    at, first = _images(dataset, relabels.filter(~joining))
    labels[at], cause[at] = first["suggested_label"].to_numpy(), first["row"].to_numpy()
    _join(relabels.filter(joining), labels, cause)
    cause[labels == dataset.labels] = -1
    at, first = _images(dataset, rows.filter(pl.col("action") == "drop"))
    dropped = np.zeros(len(dataset), dtype=bool)
    dropped[at], cause[at] = True, first["row"].to_numpy()
    return Resolved(dropped, labels, cause)


def _images(dataset: Dataset, rows: pl.DataFrame) -> tuple[NDArray[np.int64], pl.DataFrame]:
    """Positions of the images of some rows, each once, and the first row of each."""
    first = rows.unique(["file", "key"], keep="first")
    return places_among(dataset.ids, ids_of(first["key"].to_numpy(), first["file"].to_numpy())), first


def _join(same: pl.DataFrame, labels: NDArray[np.int64], cause: NDArray[np.int64]) -> None:
    """Give all images of identities that are one the label that is left of them."""
    # The label that takes the place of another, and the row that says so.
    into: dict[int, tuple[int, int]] = {}

    def left_of(label: int) -> int:
        while label in into:
            label = into[label][0]
        return label

    pairs = same.unique(["label", "suggested_label"], keep="first", maintain_order=True)
    for row, label, other in pairs.select("row", "label", "suggested_label").iter_rows():
        one, target = left_of(label), left_of(other)
        if one != target:  # else an earlier finding has joined them
            into[one] = target, row
    before, which = np.unique(labels, return_inverse=True)
    rows = np.array([into.get(label, (label, -1))[1] for label in before.tolist()])[which]
    labels[:] = np.array([left_of(label) for label in before.tolist()])[which]
    cause[rows >= 0] = rows[rows >= 0]
