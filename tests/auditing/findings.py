"""Tables of suspects and files of decisions, as an audit and its page write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

import fasttriplet as ft
from fasttriplet.auditing._findings import SCHEMA, digest


def suspects(*rows: dict[str, Any]) -> pl.DataFrame:
    """A table in which a row without a number is a finding of its own, and is to be dropped."""
    common = {"file": 0, "score": 1.0, "action": "drop", "reason": "a test", "evidence_keys": []}
    return pl.DataFrame(
        [common | {"finding": number} | row for number, row in enumerate(rows)], schema=SCHEMA
    )


def write_suspects(path: Path, rec: Path | list[Path], *rows: dict[str, Any], **options: Any) -> pl.DataFrame:
    """A file of suspects of a dataset, with the labels that its images have."""
    dataset = ft.Dataset(rec, **options)
    label = dict(zip(zip(dataset.files, dataset.keys, strict=True), dataset.labels.tolist(), strict=True))
    table = suspects(*({"label": label[row.get("file", 0), row["key"]]} | row for row in rows))
    about = {"kind": "suspects", "dataset": dataset.fingerprint}
    table.write_parquet(path, metadata={"fasttriplet": json.dumps(about)})
    return table


def write_decisions(path: Path, rec: Path, table: pl.DataFrame, chosen: dict[int, str], **other: Any) -> Path:
    plain = {
        "fasttriplet": "decisions",
        "version": 1,
        "dataset": ft.Dataset(rec).fingerprint,
        "suspects": digest(table),
        "decisions": [{"finding": finding, "action": action} for finding, action in chosen.items()],
    }
    path.write_text(json.dumps(plain | other))
    return path
