"""What an audit finds: one row for each image that a finding is about."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import polars as pl

from fasttriplet._files import Output, naming
from fasttriplet._metadata import as_parquet
from fasttriplet.dataset import _options

Kind: TypeAlias = _options.Kind  # named there, because images are excluded by them
Action = Literal["relabel", "drop", "keep"]

KINDS = _options.KINDS
ACTIONS: tuple[Action, ...] = get_args(Action)

# The columns of suspects.parquet. Rows with one number in `finding` are kept or rejected together.
SCHEMA = pl.Schema({
    "finding": pl.Int64(),
    "kind": pl.String(),
    "key": pl.Int64(),
    "file": pl.UInt32(),
    "label": pl.Int64(),
    "suggested_label": pl.Int64(),
    "action": pl.String(),
    "score": pl.Float64(),
    "reason": pl.String(),
    "evidence_keys": pl.List(pl.Int64()),
    "evidence_files": pl.List(pl.UInt32()),
})  # fmt: skip

# The columns of identities.parquet.
IDENTITIES = pl.Schema({
    "label": pl.Int64(),
    "images": pl.UInt32(),
    "spread": pl.Float64(),
    "nearest_label": pl.Int64(),
    "nearest_distance": pl.Float64(),
    "findings": pl.UInt32(),
})  # fmt: skip


def no_findings() -> pl.DataFrame:
    """A frame of suspects without rows."""
    return pl.DataFrame(schema=SCHEMA)


def numbered(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Join frames whose `finding` counts from 0 in each, and number the findings of all.

    They are ordered by kind, by falling score of their best row, and then by their first image.
    """
    rows = [part.with_columns(part=pl.lit(number)) for number, part in enumerate(parts)]
    joined = pl.concat([no_findings().with_columns(part=pl.lit(0)), *rows])
    of_finding = (
        joined.sort("file", "key")
        .group_by("part", "finding", maintain_order=True)
        .agg(
            rank=pl.col("kind").first().replace_strict(dict(zip(KINDS, range(len(KINDS)), strict=True))),
            best=pl.col("score").max(),
            file=pl.col("file").first(),
            key=pl.col("key").first(),
        )
        .sort("rank", pl.col("best").neg(), "file", "key")
        .with_row_index("number")
    )
    return (
        joined.join(of_finding.select("part", "finding", "number"), on=["part", "finding"])
        .with_columns(finding=pl.col("number").cast(pl.Int64))
        .sort("finding", "file", "key")
        .select(SCHEMA.names())
    )


def write_table(frame: pl.DataFrame, output: Output, about: Mapping[str, Any]) -> None:
    """Write a Parquet file that says, as JSON in its metadata, what it is about."""
    # Polars opens names in UTF-8 only.
    with naming(output), output.unfinished.open("wb") as file:
        frame.write_parquet(file, metadata=as_parquet(about))


def digest(suspects: pl.DataFrame) -> str:
    """SHA-256 of the findings, in hexadecimal: what decisions about them name."""
    content = suspects.select(SCHEMA.names()).write_ndjson()
    return hashlib.sha256(content.encode()).hexdigest()
