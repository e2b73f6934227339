"""Whether several files number their identities alike, and numbers that keep them apart."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import polars as pl

# Of the smallest keys: two files that were numbered independently have some of these in common.
_KEYS_COMPARED = 1000

# MXNet's batches and headers carry labels as float32, which holds every integer up to here.
_MOST_LABEL = 2**24

_WAYS_OUT = (
    'labels="separate" (--labels separate) keeps the identities of each file apart; labels="shared" '
    "(--labels shared) says that the labels are right as they are"
)


@dataclass(frozen=True, slots=True, eq=False)
class Numbering:
    """How a file numbers its identities."""

    path: Path
    insightface: bool  # its layout
    first: int  # label
    last: int
    identities: int
    keys: frozenset[int]  # the smallest

    @classmethod
    def of(cls, path: Path, layout: str, index: pl.DataFrame) -> Numbering:
        """Summarise the index of a file, which is in the order of its keys."""
        labels = index["label"]
        first, last = int(labels.min()), int(labels.max())  # type: ignore[arg-type]  # an index has images
        keys = frozenset(index["key"].head(_KEYS_COMPARED).to_list())
        return cls(path, layout == "insightface", first, last, labels.n_unique(), keys)

    @property
    def has_gaps(self) -> bool:
        """Whether there are numbers between the labels that no image has."""
        return self.identities != self.last - self.first + 1


def label_shifts(files: Sequence[Numbering]) -> list[int]:
    """Return what to add to the labels of each file so that the identities of all files follow one another.

    The first file keeps its labels.
    """
    shifts, end = [0], files[0].last + 1
    for file in files[1:]:
        shifts.append(end - file.first)
        end += file.last - file.first + 1
        if end - 1 > _MOST_LABEL:
            raise ValueError(
                f'labels="separate" (--labels separate): the labels of {file.path}, {file.first} to '
                f"{file.last}, would become {end - 1 - (file.last - file.first)} to {end - 1}, and labels "
                f"above {_MOST_LABEL:,} are rounded in MXNet's batches; write the files with labels without "
                "gaps"
            )
    return shifts


def doubt(files: Sequence[Numbering]) -> str | None:
    """Say why files were probably numbered independently; None if nothing suggests it.

    Where two files have names for their labels, the names decide. Other files are doubted in two cases, if
    they begin with the same label: both have InsightFace's layout, which is that of a whole dataset; or both
    are numbered without gaps, to different ends.

    Shards of one dataset pass. If they were cut where identities end, they do not begin with the same label.
    If images were dealt out at random, the shards have the same labels or gaps. Files cut from one list, such
    as im2rec's chunks and its training and validation parts, have no key in common.
    """
    named = {file: names for file in files if (names := _names(file)) is not None}
    if reason := _clash_of_names(named):
        return f"{reason}. {_WAYS_OUT}"
    begun: dict[int, Numbering] = {}
    for file in files:
        other = begun.setdefault(file.first, file)
        if other is not file and not {file, other} <= named.keys() and _independent(other, file):
            return (
                f"{other.path} and {file.path} were probably numbered independently: their labels are "
                f"{other.first} to {other.last} and {file.first} to {file.last}. The same label in both is "
                f"taken for the same identity. {_WAYS_OUT}"
            )
    return None


def _independent(one: Numbering, other: Numbering) -> bool:
    if not one.keys & other.keys or _of_one_dataset(one, other):
        return False
    whole = one.insightface and other.insightface
    return whole or not (one.has_gaps or other.has_gaps or one.identities == other.identities)


def _of_one_dataset(one: Numbering, other: Numbering) -> bool:
    """Whether they lie beside one ``property`` file, whose number of identities is that of both."""
    if one.path.parent != other.path.parent or one.last != other.last:
        return False
    try:
        count = one.path.with_name("property").read_text(encoding="utf-8").split(",")[0]
        return int(count) == one.last + 1
    except (OSError, ValueError):
        return False


def _clash_of_names(named: Mapping[Numbering, Mapping[int, str]]) -> str | None:
    """Say which labels have two names, and which names two labels."""
    by_label: dict[int, tuple[str, Path]] = {}
    by_name: dict[str, tuple[int, Path]] = {}
    labels: set[int] = set()
    names: set[str] = set()
    of_label = of_name = ""  # examples
    for file, table in named.items():
        for label, name in table.items():
            known, path = by_label.setdefault(label, (name, file.path))
            if known != name:
                of_label = of_label or f"label {label} is {known!r} in {path} and {name!r} in {file.path}"
                labels.add(label)
            number, path = by_name.setdefault(name, (label, file.path))
            if number != label:
                of_name = of_name or f"{name!r} is label {number} in {path} and label {label} in {file.path}"
                names.add(name)
    said = []
    if labels:
        said.append(f"{of_label} ({_such(labels, 'labels')}), so different identities are taken for one")
    if names:
        said.append(
            f"{of_name} ({_such(names, 'names')}), so one identity is taken for several; if it is one, pack "
            "all folders into one file"
        )
    return ". ".join(said) or None


def _such(found: Sized, what: str) -> str:
    return f"{len(found):,} such {what}, by the .identities.csv beside each file"


def _names(file: Numbering) -> dict[int, str] | None:
    """Read the names of the identities, as `pack` writes them; None where they are not those of the file."""
    try:
        with file.path.with_suffix(".identities.csv").open(
            encoding="utf-8", errors="surrogateescape", newline=""
        ) as lines:
            names = dict(_rows(csv.reader(lines)))
    except (OSError, ValueError, csv.Error):
        return None
    fits = len(names) == file.identities and min(names) == file.first and max(names) == file.last
    return names if fits else None


def _rows(table: Iterator[list[str]]) -> Iterator[tuple[int, str]]:
    heading = next(table, [])
    label, folder = heading.index("label"), heading.index("folder")
    for row in table:
        if len(row) <= max(label, folder):
            raise ValueError("a line is cut short")
        yield int(row[label]), row[folder]
