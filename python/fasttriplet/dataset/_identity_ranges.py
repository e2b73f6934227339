"""Compares the identity records of InsightFace's layout with the labels of the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._words import counted
from fasttriplet.dataset._labels import EXACT


@dataclass(frozen=True, slots=True, eq=False)
class Identities:
    """What the records without content stand for."""

    announced: bool  # whether record 0 says where the identity records are, as in InsightFace's layout
    count: int  # of identity records
    problems: list[str]  # ranges that disagree with labels, records that are empty: one line per kind


def check(path: Path, scan: _core.Scan, keys: NDArray[np.int64], labels: NDArray[np.int64]) -> Identities:
    """Find the identity records and compare their ranges with the images' labels.

    `keys` and `labels` are those of the images, in ascending order of keys. The ranges are stored as float32.
    Above 2^24 they are rounded, and the range of an identity may overlap with its neighbours; this is not
    counted as a disagreement.
    """
    bare, several = scan.bare_keys, scan.bare_flags >= 2
    start, stop = scan.bare_first.astype(np.float64), scan.bare_second.astype(np.float64)
    zero = np.flatnonzero((bare == 0) & several)
    if zero.size == 0:
        return Identities(False, 0, _empty(path, scan, np.arange(bare.size)))
    low, high = float(start[zero[0]]), float(stop[zero[0]])
    problems: list[str] = []
    within = several & (bare != 0)
    if np.isfinite(low) and np.isfinite(high):
        within &= (bare >= low - _slack(low)) & (bare < high + _slack(high))
        count = int(np.count_nonzero(within))
        if abs(count - (high - low)) > _slack(low) + _slack(high):
            problems.append(
                f"{path}, key 0: the record announces identity records with keys from {low:.0f} to "
                f"{high - 1:.0f}, {count} are there"
            )
    else:
        problems.append(f"{path}, key 0: the record announces identity records from {low} to {high}")
    identity = np.flatnonzero(within)
    identity = identity[np.argsort(bare[identity])]
    problems += _disagreements(
        path, bare[identity], start[identity], stop[identity], keys=keys, labels=labels
    )
    left = ~within
    left[zero] = False
    problems += _empty(path, scan, np.flatnonzero(left))
    return Identities(True, int(identity.size), problems)


def _empty(path: Path, scan: _core.Scan, places: NDArray[np.int64]) -> list[str]:
    return [
        f"{path}, key {scan.bare_keys[at]}, offset {scan.bare_offsets[at]}: the record is empty and was left "
        f"out{_first_of(places.size, 'such records')}"
        for at in places[:1]
    ]


def _first_of(count: int, what: str) -> str:
    return f" (the first of {count:,} {what})" if count > 1 else ""


def _disagreements(
    path: Path,
    records: NDArray[np.int64],
    start: NDArray[np.float64],
    stop: NDArray[np.float64],
    *,
    keys: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> list[str]:
    """Compare the range of each identity record with the images; the first kind of problem, if any."""

    def say(which: NDArray[np.bool_], what: str) -> list[str]:
        at = which.argmax()
        return [
            f"{path}, key {records[at]}: the identity record gives the images with keys from {start[at]:.0f} "
            f"to {stop[at] - 1:.0f}, {what}{_first_of(np.count_nonzero(which), 'such identity records')}"
        ]

    unusable = ~(np.isfinite(start) & np.isfinite(stop) & (start <= stop))
    if unusable.any():
        return say(unusable, "which is no range")
    start_slack, stop_slack = _slack(start), _slack(stop)
    # Positions of the images that are in a range however its ends were rounded.
    first = np.searchsorted(keys, start + start_slack)
    end = np.maximum(np.searchsorted(keys, stop - stop_slack), first)
    run = np.concatenate([[0], np.cumsum(labels[1:] != labels[:-1])])
    some = end > first
    mixed = np.zeros(start.size, bool)
    mixed[some] = run[first[some]] != run[end[some] - 1]
    if mixed.any():
        at = mixed.argmax()
        one = first[at]
        other = one + (labels[one : end[at]] != labels[one]).argmax()
        return say(
            mixed,
            f"but image {keys[other]} has label {labels[other]} and image {keys[one]} has label "
            f"{labels[one]}; the labels are used",
        )
    missing = (start_slack == 0) & (stop_slack == 0) & (end - first != stop - start)
    if missing.any():
        at = missing.argmax()
        return say(missing, f"but the file has {counted(int(end[at] - first[at]), 'image')} there")
    change = np.zeros(keys.size + 1, np.int64)
    np.add.at(change, np.searchsorted(keys, start - start_slack), 1)
    np.add.at(change, np.searchsorted(keys, stop + stop_slack), -1)
    uncovered = np.flatnonzero(np.cumsum(change[:-1]) <= 0)
    return [
        f"{path}, key {keys[at]}: the image with label {labels[at]} lies in the range of no identity record; "
        f"its label is used{_first_of(uncovered.size, 'such images')}"
        for at in uncovered[:1]
    ]


def _slack(value: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return how far an integer may be from `value`, the float32 that it was rounded to."""
    spacing = np.spacing(np.abs(np.asarray(value)).astype(np.float32)).astype(np.float64)
    return np.where(np.abs(value) < EXACT, 0.0, spacing / 2)
