"""Findings are numbered by kind and score, whatever the order in which they were found."""

from __future__ import annotations

import polars as pl

from fasttriplet.auditing._findings import SCHEMA, digest, no_findings, numbered


def rows(*of: tuple[int, str, int, float]) -> pl.DataFrame:
    """Rows with what is given, and nothing else."""
    columns = {"finding": [], "kind": [], "key": [], "score": []}  # type: dict[str, list[object]]
    for row in of:
        for name, value in zip(columns, row, strict=True):
            columns[name].append(value)
    frame = pl.DataFrame(columns, schema={name: SCHEMA[name] for name in columns})
    missing = [pl.lit(None, SCHEMA[name]).alias(name) for name in SCHEMA if name not in columns]
    return frame.with_columns(missing).with_columns(file=pl.lit(0, pl.UInt32)).select(SCHEMA.names())


def test_findings_are_numbered() -> None:
    pictures = rows((0, "bad-picture", 7, 1.0))
    people = rows((0, "two-people", 3, 0.5), (0, "two-people", 1, 0.9), (1, "two-people", 5, 0.95))
    labels = rows((0, "mislabelled", 2, 0.1), (1, "mislabelled", 9, 0.3), (2, "mislabelled", 4, 0.3))
    found = numbered([pictures, people, labels])
    assert found["key"].to_list() == [4, 9, 2, 5, 1, 3, 7]
    assert found["finding"].to_list() == [0, 1, 2, 3, 4, 4, 5]
    assert found.equals(numbered([labels, people, pictures]))
    assert found.equals(numbered([labels[::-1], people[::-1], pictures]))
    assert digest(found) == digest(found.clone()) != digest(found[1:])


def test_nothing_found() -> None:
    assert numbered([]).equals(no_findings())
    assert numbered([no_findings()]).schema == SCHEMA
