"""What is done about findings: a table of suspects, and what a person decided otherwise."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fasttriplet._checks import one_of, whole_number
from fasttriplet._contents import read_file
from fasttriplet._forks import ensure_polars_threads
from fasttriplet._words import first_names
from fasttriplet.auditing._findings import ACTIONS, SCHEMA, digest
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.dataset._ids import ids_of, places_among
from fasttriplet.dataset._options import KINDS
from fasttriplet.dataset._tables import read_table
from fasttriplet.errors import OptionError

_VERSION = 1


def read_suspects(suspects: str | os.PathLike[str] | pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """Read and check a table of suspects of a dataset; an OptionError says what is wrong with it."""
    ensure_polars_threads()
    if isinstance(suspects, pl.DataFrame):
        return _checked(suspects, dataset)
    return _checked(read_table("suspects", os.fspath(suspects), dataset), dataset)


def _checked(frame: pl.DataFrame, dataset: Dataset) -> pl.DataFrame:
    """The columns of a table of suspects, with the types that they should have."""
    if missing := [name for name in SCHEMA.names() if name not in frame.columns]:
        raise OptionError(
            "suspects", f"must have the columns of an audit's table, and lacks {first_names(missing)}"
        )
    try:
        frame = frame.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    except pl.exceptions.PolarsError as error:
        raise OptionError("suspects", f"must have the types of an audit's table: {error}") from None
    for name in ("finding", "kind", "key", "file", "label", "action"):
        if frame[name].null_count():
            raise OptionError("suspects", f"must have a value in each row of the column {name!r}")
    for name, known in (("kind", KINDS), ("action", ACTIONS)):
        for value in frame[name].unique().sort():
            one_of(f"suspects: each {name}", value, known)
    _check_images(frame, dataset)
    return frame


def _check_images(frame: pl.DataFrame, dataset: Dataset) -> None:
    at = places_among(dataset.ids, ids_of(frame["key"].to_numpy(), frame["file"].to_numpy()))
    for wrong, what in (
        (at < 0, "which is not in the dataset"),
        (dataset.labels[at] != frame["label"].to_numpy(), "which has another label in the dataset"),
    ):
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            raise OptionError(
                "suspects",
                f"must be of this dataset, and name key {frame['key'][first]} of file {frame['file'][first]} "
                f"with label {frame['label'][first]}, {what}",
            )


def decided(suspects: pl.DataFrame, decisions: Path | None, dataset: Dataset) -> pl.DataFrame:
    """The suspects with the actions that a person chose instead of the audit's.

    A finding that is kept changes nothing. Another action is that of the images of the finding that would be
    changed, or of all its images if none would be.
    """
    if decisions is None:
        return suspects
    chosen = _read(decisions, suspects, dataset)
    if not chosen:
        return suspects
    table = pl.DataFrame(
        {"finding": [*chosen], "decision": [*chosen.values()]},
        schema={"finding": pl.Int64, "decision": pl.String},
    )
    kept = pl.col("action") == "keep"
    concerned = kept.not_() | kept.all().over("finding") | (pl.col("decision") == "keep")
    return (
        suspects.join(table, on="finding", how="left", maintain_order="left")
        .with_columns(
            action=pl.when(pl.col("decision").is_not_null() & concerned).then("decision").otherwise("action")
        )
        .drop("decision")
    )


def _read(path: Path, suspects: pl.DataFrame, dataset: Dataset) -> dict[int, str]:
    """The decisions of a file: the action of each finding that it names."""
    try:
        plain: Any = json.loads(read_file(path, "a file of decisions"))
    except (ValueError, RecursionError) as error:
        raise OptionError("decisions", f"must be JSON, and {path} is not: {error}") from None
    if not isinstance(plain, dict) or plain.get("fasttriplet") != "decisions":
        raise OptionError(
            "decisions", f"must be a file of decisions that the page of an audit saved, and {path} is not"
        )
    if plain.get("version") != _VERSION:
        raise OptionError(
            "decisions",
            f"must be of version {_VERSION}, and {path} is of version {plain.get('version')!r:.40}",
        )
    for name, value, what in (
        ("dataset", dataset.fingerprint, "another dataset"),
        ("suspects", digest(suspects), "other suspects: of another audit, or of a table that was changed"),
    ):
        if plain.get(name) != value:
            raise OptionError("decisions", f"must be about these suspects, and {path} is about {what}")
    entries = plain.get("decisions")
    if not isinstance(entries, list):
        raise OptionError("decisions", f"must have a list under 'decisions', and {path} has {entries!r:.40}")
    known, chosen = set(suspects["finding"].to_list()), dict[int, str]()
    for entry in entries:
        if not isinstance(entry, dict) or {*entry} != {"finding", "action"}:
            raise OptionError(
                "decisions", f"must each have a finding and an action, and {path} has {entry!r:.80}"
            )
        finding = whole_number("decisions: finding", entry["finding"], 0)
        one_of(f"decisions: the action of finding {finding}", entry["action"], ACTIONS)
        if finding not in known:
            raise OptionError(
                "decisions", f"must be about findings of the suspects, and {finding} is not one"
            )
        if finding in chosen:
            raise OptionError("decisions", f"must name a finding once, and {path} names {finding} twice")
        chosen[finding] = entry["action"]
    return chosen
