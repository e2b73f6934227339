"""Files that a page is made from, written by their schemas without the commands that find things out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

import fasttriplet as ft
from fasttriplet.auditing._findings import IDENTITIES, KINDS, SCHEMA, numbered


def finding(number: int, kind: str, key: int, label: int, **more: Any) -> dict[str, Any]:
    """A row of a table of suspects."""
    return {
        "finding": number,
        "kind": kind,
        "key": key,
        "file": 0,
        "label": label,
        "suggested_label": None,
        "action": "drop",
        "score": 0.5,
        "reason": "a test",
        "evidence_keys": [],
        "evidence_files": [0] * len(more.get("evidence_keys", [])),
    } | more


def one_of_each(dataset: ft.Dataset) -> list[dict[str, Any]]:
    """A finding of each kind, in a dataset of three identities of four images or more."""
    keys, labels = dataset.keys.tolist(), dataset.labels.tolist()
    firsts = [labels.index(label) for label in dict.fromkeys(labels)][:3]
    a, b, c = ([keys[first + at] for at in range(4)] for first in firsts)
    of_a, of_b, of_c = (labels[first] for first in firsts)
    wrong = {"suggested_label": of_b, "action": "relabel", "evidence_keys": b[:3]}
    merged = {"suggested_label": of_c, "action": "relabel", "evidence_keys": c[:2]}
    split = {"suggested_label": 999, "action": "relabel", "evidence_keys": c[2:4]}
    copy = {"action": "keep", "evidence_keys": [b[3]], "reason": "the same picture, shifted by 1 pixel"}
    why = f"nearest 4 of 5 are identity {of_b} (cosine 0.71), own identity 0.08"
    return [
        finding(0, "mislabelled", a[0], of_a, score=0.97, reason=why, **wrong),
        finding(0, "outlier", a[1], of_a, score=0.61, reason="own identity 0.05, any other at most 0.19"),
        finding(0, "same-person", b[0], of_b, score=0.9, **merged),
        finding(0, "same-person", b[1], of_b, score=0.9, **merged),
        finding(0, "two-people", c[0], of_c, score=0.8, **split),
        finding(0, "duplicate", b[2], of_b, score=0.99, **copy),
        finding(0, "bad-picture", c[1], of_c, score=1.0, reason="nearly uniform: deviation 1.2 of 255"),
    ]


def write_audit(folder: Path, dataset: ft.Dataset, rows: Sequence[dict[str, Any]]) -> Path:
    """Write the tables of an audit; the numbers of findings in `rows` count within each kind."""
    folder.mkdir(exist_ok=True)
    parts = [pl.DataFrame([row for row in rows if row["kind"] == kind], schema=SCHEMA) for kind in KINDS]
    said = {
        "kind": "suspects",
        "version": 1,
        "dataset": dataset.fingerprint,
        "files": [str(path) for path in dataset.paths],
        "decided_by": [["mislabelled", "cosine with another identity at least 0.312"]],
        "model": "a table",
    }
    path = folder / "suspects.parquet"
    numbered(parts).write_parquet(path, metadata={"fasttriplet": json.dumps(said)})
    labels, counts = zip(*sorted(dataset.index["label"].value_counts().iter_rows()), strict=True)
    identities = {
        "label": labels,
        "images": counts,
        "spread": [0.1 + 0.01 * at for at in range(len(labels))],
        "nearest_label": [*labels[1:], None],
        "nearest_distance": [*[0.9] * (len(labels) - 1), None],
        "findings": [0] * len(labels),
    }
    pl.DataFrame(identities, schema=IDENTITIES).write_parquet(folder / "identities.parquet")
    return folder


def log_lines(batches: int = 40) -> list[dict[str, Any]]:
    """Records of the log of a training."""
    start = {
        "kind": "start", "batch": 0, "batches": batches, "framework": "torch", "images": 72, "identities": 12,
        "devices": ["cpu"], "settings": {"network": "small", "margin": 0.3, "batch_size": 60, "seed": 0},
    }  # fmt: skip
    records = [start]
    for batch in range(1, batches + 1):
        records.append(
            {"kind": "train", "batch": batch, "epoch": 0, "bag": 0, "loss": 0.3 / batch, "norm": 5.0,
             "active": 0.9 - batch / 100, "learning_rate": 0.05, "images_per_second": 300.0 + batch}
        )  # fmt: skip
        if batch % 10 == 0:
            accuracy = 0.5 + batch / 100
            records.append(
                {
                    "kind": "verification",
                    "batch": batch,
                    "pairs": "lfw.bin",
                    "accuracy": accuracy,
                    "auc": accuracy,
                }
            )
    return records


def write_log(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """Write records as the log of a training."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
