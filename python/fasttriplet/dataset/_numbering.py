"""Whether several files are parts of one dataset, and labels that keep them apart if not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from fasttriplet._contents import read_file
from fasttriplet.dataset._labels import EXACT

# How many of the smallest keys: two files that were numbered independently share some of them.
_KEYS_COMPARED = 1000

_WAYS_OUT = (
    "labels='separate' keeps the identities of each file apart; labels='shared' says that the labels are "
    "right as they are"
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
    records: bytes  # a hash of the keys, labels and lengths of all of them

    @classmethod
    def of(cls, path: Path, layout: str, index: pl.DataFrame) -> Numbering:
        """Summarise the index of a file, which is in the order of its keys."""
        labels = index["label"]
        first, last = int(labels.min()), int(labels.max())  # type: ignore[arg-type]  # an index has images
        keys = frozenset(index["key"].head(_KEYS_COMPARED).to_list())
        records = hashlib.blake2b(digest_size=16)
        for name in ("key", "label", "length"):
            records.update(index[name].to_numpy().tobytes())
        identities = labels.n_unique()
        return cls(path, layout == "insightface", first, last, identities, keys, records.digest())

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
        if end - 1 > EXACT:
            raise ValueError(
                f"with labels='separate', the labels of {file.path}, {file.first} to {file.last}, would "
                f"become {end - 1 - (file.last - file.first)} to {end - 1}, and labels above {EXACT:,} are "
                "rounded in MXNet's batches; write the files with labels without gaps"
            )
    return shifts


def doubt(files: Sequence[Numbering]) -> str | None:
    """Say why files are probably not parts of one dataset; None if nothing suggests it.

    Where two files have names for their labels, the names decide. Other files are doubted in three cases, if
    they begin with the same label: their records are alike, as those of copies are; both have InsightFace's
    layout, which is that of a whole dataset; or both are numbered without gaps, to different ends.

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
        if other is file or {file, other} <= named.keys():
            continue
        if file.records == other.records:
            return (
                f"{other.path} and {file.path} are probably copies: their records have the same keys, labels "
                "and lengths. Each image would be its own positive; give one of the files. If they are not "
                f"copies, {_WAYS_OUT}"
            )
        if _independent(other, file):
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
    together = one.path.parent == other.path.parent and one.last == other.last
    with suppress(OSError):  # a file that cannot be read says nothing
        return together and stated_identities(one.path.with_name("property")) == one.last + 1
    return False


def stated_identities(path: Path) -> int | None:
    """Read the number of identities in a ``property`` file; None if there is none. An OSError if it fails."""
    try:
        return int(read_file(path, "the identities, height and width").decode("ascii").partition(",")[0])
    except (FileNotFoundError, ValueError):
        return None


def _clash_of_names(named: Mapping[Numbering, pl.DataFrame]) -> str | None:
    """Say which labels have two names, and which names two labels."""
    if len(named) < 2:
        return None
    paths = [file.path for file in named]
    table = pl.concat(names.with_columns(file=pl.lit(i)) for i, names in enumerate(named.values()))
    said = []
    if found := _ambiguous(table, "label", "name"):
        count, (label, name, file), (_, other, other_file) = found
        said.append(
            f"label {label} is {name!r} in {paths[file]} and {other!r} in {paths[other_file]}, so different "
            f"identities are taken for one (labels with several names: {count:,}, by the .identities.csv "
            "beside each file)"
        )
    if found := _ambiguous(table, "name", "label"):
        count, (label, name, file), (other, _, other_file) = found
        said.append(
            f"{name!r} is label {label} in {paths[file]} and label {other} in {paths[other_file]}, so one "
            f"identity is taken for several (names with several labels: {count:,}, by the .identities.csv "
            "beside each file); if it is one, pack all folders into one file"
        )
    return ". ".join(said) or None


def _ambiguous(table: pl.DataFrame, of: str, has: str) -> tuple[int, Any, Any] | None:
    """Count the values `of` one column that have several in another; two rows with the smallest of them."""
    several = table.group_by(of).agg(pl.col(has).n_unique().alias("values")).filter(pl.col("values") > 1)[of]
    if several.is_empty():
        return None
    rows = table.filter(pl.col(of) == several.min())
    return several.len(), rows.row(0), rows.filter(pl.col(has) != rows[has][0]).row(0)


def names_beside(path: Path) -> pl.DataFrame | None:
    """Read label and folder of the ``.identities.csv`` that `pack` writes; None if there is none."""
    columns = {"label": pl.Int64(), "folder": pl.String()}
    try:
        return pl.read_csv(
            # Polars opens names in UTF-8 only.
            read_file(path.with_suffix(".identities.csv"), "a table of identities"),
            columns=list(columns),
            schema_overrides=columns,
            encoding="utf8-lossy",
        )
    except (OSError, pl.exceptions.PolarsError):
        return None


def _names(file: Numbering) -> pl.DataFrame | None:
    """The names of the identities; None where they are not those of the file."""
    names = names_beside(file.path)
    if names is None:
        return None
    labels = names["label"]
    counts = {names.drop_nulls().height, labels.n_unique(), names["folder"].n_unique()}
    fits = counts == {file.identities} and (labels.min(), labels.max()) == (file.first, file.last)
    return names.select("label", name="folder") if fits else None
