"""Compares the identity records of InsightFace's layout with the labels of the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Up to here, float32 can hold every integer.
_EXACT = 2.0**24


@dataclass(frozen=True, slots=True, eq=False)
class BareRecords:
    """Keys, offsets, flags, and first and second labels of the M records without content: (M,) each."""

    keys: NDArray[np.int64]
    offsets: NDArray[np.int64]
    flags: NDArray[np.uint32]
    first: NDArray[np.float32]
    second: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Identities:
    """What the records without content stand for.

    Attributes
    ----------
    announced : bool
        Whether record 0 says where the identity records are, as in InsightFace's layout.
    count : int
        How many identity records there are.
    empty : (K,) int64
        Positions, among the records without content, of records that should have content.
    problems : list of str
        How the ranges of keys disagree with the labels of the images: one line per kind, with an example.
    """

    announced: bool
    count: int
    empty: NDArray[np.int64]
    problems: list[str]


def check(path: Path, bare: BareRecords, keys: NDArray[np.int64], labels: NDArray[np.int64]) -> Identities:
    """Find the identity records and compare their ranges with the images' labels.

    The ranges are stored as float32. Above 2^24 they are rounded, and the range of an identity may overlap
    with its neighbours; this is not counted as a disagreement.

    Parameters
    ----------
    path : Path
        The ``.rec`` file, for messages.
    bare : BareRecords
        The records without content.
    keys, labels : (N,) int64
        Keys and labels of the images, in ascending order of keys.
    """
    zero = np.flatnonzero((bare.keys == 0) & (bare.flags >= 2))
    if zero.size == 0:
        return Identities(False, 0, np.arange(bare.keys.size), [])
    low, high = float(bare.first[zero[0]]), float(bare.second[zero[0]])
    problems: list[str] = []
    within = (bare.flags >= 2) & (bare.keys != 0)
    if np.isfinite(low) and np.isfinite(high):
        within &= (bare.keys >= low - _slack(low)) & (bare.keys < high + _slack(high))
        count = int(np.count_nonzero(within))
        if abs(count - (high - low)) > _slack(low) + _slack(high):
            problems.append(
                f"{path}, key 0: the record announces identity records with keys from {low:.0f} to "
                f"{high - 1:.0f}, {count} are there"
            )
    else:
        problems.append(f"{path}, key 0: the record announces identity records from {low} to {high}")
    identity = np.flatnonzero(within)
    identity = identity[np.argsort(bare.keys[identity])]
    ranges = _Ranges(
        path,
        bare.keys[identity],
        bare.first[identity].astype(np.float64),
        bare.second[identity].astype(np.float64),
    )
    problems += ranges.disagreements(keys, labels)
    left = ~within
    left[zero] = False
    return Identities(True, int(identity.size), np.flatnonzero(left), problems)


@dataclass(frozen=True, slots=True, eq=False)
class _Ranges:
    path: Path
    records: NDArray[np.int64]
    start: NDArray[np.float64]
    stop: NDArray[np.float64]

    def disagreements(self, keys: NDArray[np.int64], labels: NDArray[np.int64]) -> list[str]:
        start, stop = self.start, self.stop
        unusable = ~(np.isfinite(start) & np.isfinite(stop) & (start <= stop))
        if unusable.any():
            return [self._say(unusable, "which is no range")]
        start_slack, stop_slack = _slack(start), _slack(stop)
        # Positions of the images that are in a range however its ends were rounded.
        first = np.searchsorted(keys, start + start_slack)
        end = np.maximum(np.searchsorted(keys, stop - stop_slack), first)
        run = np.concatenate([[0], np.cumsum(labels[1:] != labels[:-1])])
        some = end > first
        mixed = np.zeros(start.size, bool)
        mixed[some] = run[first[some]] != run[end[some] - 1]
        if mixed.any():
            at = int(np.flatnonzero(mixed)[0])
            inside = slice(first[at], end[at])
            other = int(first[at]) + int(np.flatnonzero(labels[inside] != labels[first[at]])[0])
            return [
                self._say(
                    mixed,
                    f"but image {keys[other]} has label {labels[other]} and image {keys[first[at]]} has "
                    f"label {labels[first[at]]}; the labels are used",
                )
            ]
        missing = (start_slack == 0) & (stop_slack == 0) & (end - first != stop - start)
        if missing.any():
            at = int(np.flatnonzero(missing)[0])
            return [self._say(missing, f"but the file has {end[at] - first[at]} images there")]
        return self._uncovered(keys, labels)

    def _uncovered(self, keys: NDArray[np.int64], labels: NDArray[np.int64]) -> list[str]:
        change = np.zeros(keys.size + 1, np.int64)
        np.add.at(change, np.searchsorted(keys, self.start - _slack(self.start)), 1)
        np.add.at(change, np.searchsorted(keys, self.stop + _slack(self.stop)), -1)
        uncovered = np.flatnonzero(np.cumsum(change[:-1]) <= 0)
        if uncovered.size == 0:
            return []
        at = int(uncovered[0])
        return [
            f"{self.path}, key {keys[at]}: the image with label {labels[at]} lies in the range of no "
            f"identity record; its label is used ({uncovered.size} such images)"
        ]

    def _say(self, which: NDArray[np.bool_], what: str) -> str:
        at = int(np.flatnonzero(which)[0])
        start, stop = self.start[at], self.stop[at]
        return (
            f"{self.path}, key {self.records[at]}: the identity record gives the images with keys from "
            f"{start:.0f} to {stop - 1:.0f}, {what} ({np.count_nonzero(which)} such identity records)"
        )


def _slack(value: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return how far an integer may be from `value`, the float32 that it was rounded to."""
    spacing = np.spacing(np.abs(np.asarray(value)).astype(np.float32)).astype(np.float64)
    return np.where(np.abs(value) < _EXACT, 0.0, spacing / 2)
