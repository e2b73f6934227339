"""What is said beside a file of embeddings."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.embedders._vectors import Writer, file_size, read_about, skipped_rows
from tests.small_rec import identities, write_rec


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rec = write_rec(tmp_path / "train.rec", identities(3, 3), damaged=frozenset({2, 7}))
    ft.embed_rec(rec, model="pixels", out=tmp_path / "e.npy", on_error="skip")
    return tmp_path / "e.npy"


def beside(file: Path) -> Path:
    return file.with_name("e.npy.json")


def test_it_is_read(file: Path) -> None:
    about = read_about(file)
    assert about is not None
    assert [(one.row, one.key, one.file) for one in about.skipped] == [(1, 2, 0), (6, 7, 0)]
    assert (about.images, about.size, about.dtype) == (9, 768, "float32")
    assert about.dataset == ft.Dataset(file.with_name("train.rec")).fingerprint
    assert skipped_rows(file).tolist() == [1, 6]
    assert np.isnan(np.load(file)).any(axis=1).nonzero()[0].tolist() == [1, 6]


@pytest.mark.parametrize("text", [None, "[]", "{}", '{"fasttriplet": "pictures"}', '"text"'])
def test_nothing_of_ours_is_there(file: Path, text: str | None) -> None:
    beside(file).unlink()
    if text is not None:
        beside(file).write_text(text)
    assert read_about(file) is None
    assert skipped_rows(file).tolist() == []
    ft.load_embedder(f"npy:{file}").prepare(ft.Dataset(file.with_name("train.rec")).index)


@pytest.mark.parametrize(
    "change",
    [
        {"images": "9"},
        {"images": None},
        {"size": 7.5},
        {"dataset": 1},
        {"rows": None},
        {"skipped": 3},
        {"skipped": [{"row": 1}]},
        {"skipped": [{"row": 9, "key": 1, "file": 0, "reason": ""}]},
        {"skipped": [{"row": True, "key": 1, "file": 0, "reason": ""}]},
        {"skipped": [{"row": 1, "key": 1, "file": 0, "reason": 0}]},
        {"files": "train.rec"},
        {"dtype": 4},
    ],
)
def test_it_is_damaged(file: Path, change: dict[str, Any]) -> None:
    about = json.loads(beside(file).read_text())
    beside(file).write_text(json.dumps(about | change))
    with pytest.raises(ValueError, match=r"e\.npy\.json is damaged"):
        read_about(file)
    for name in change:
        beside(file).write_text(json.dumps({key: about[key] for key in about if key != name}))
        with pytest.raises(ValueError, match=r"e\.npy\.json is damaged"):
            read_about(file)


def test_the_first_image_may_be_skipped(file: Path) -> None:
    about = json.loads(beside(file).read_text())
    for row in (0, about["images"] - 1):
        first = {"row": row, "key": 1, "file": 0, "reason": "a"}
        beside(file).write_text(json.dumps(about | {"skipped": [first]}))
        found = read_about(file)
        assert found is not None
        assert [one.row for one in found.skipped] == [row]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("blank", [0, 1, 3])
def test_rows_without_a_vector_are_blank(blank: int, dtype: Any) -> None:
    """Also those before the first vector, which says how long they are."""
    rng = np.random.default_rng(0)
    kept = np.array([0, 2])
    parts = [None] * blank + [rng.standard_normal((2, 5)).astype(np.float32), None]
    buffer = io.BytesIO()
    writer = Writer(buffer, 3 * len(parts), "a table", dtype=dtype)
    assert writer.size == 0
    for start, vectors in enumerate(parts):
        rows = pl.DataFrame({"key": np.arange(3 * start, 3 * start + 3)})
        writer.append(rows, np.empty(0, np.int64) if vectors is None else kept, vectors)
    assert writer.size == 5
    assert len(buffer.getvalue()) == file_size((3 * len(parts), 5), dtype)
    buffer.seek(0)
    expected = np.full((3 * len(parts), 5), np.nan, dtype)
    expected[3 * blank + kept] = parts[blank]
    assert np.array_equal(np.load(buffer), expected, equal_nan=True)
    with pytest.raises(ValueError, match="a table: vectors of 4 numbers, after some of 5"):
        writer.append(rows, kept, np.zeros((2, 4), np.float32))


def test_a_number_that_float16_cannot_hold() -> None:
    writer = Writer(io.BytesIO(), 3, "a table", dtype="float16")
    rows = pl.DataFrame({"key": [7, 8, 9]})
    vectors = np.array([[65_519, 0], [0, -65_520]], np.float32)  # rounded to 65,504, and to infinity
    expected = "a table: the embedding of the image with key 9 has -65520, and float16 holds numbers up to"
    with pytest.raises(ValueError, match=expected):
        writer.append(rows, np.array([0, 2]), vectors)
    writer.append(rows, np.array([0, 2]), np.minimum(np.abs(vectors), 65_519))


def test_other_versions_and_other_bytes(file: Path) -> None:
    beside(file).write_text(json.dumps(json.loads(beside(file).read_text()) | {"version": 2}))
    with pytest.raises(ValueError, match=r"json has the version 2, and this fasttriplet reads 1"):
        read_about(file)
    for other in (b"\xff\x00", b"[" * 200_000):
        beside(file).write_bytes(other)
        with pytest.raises(ValueError, match=r"e\.npy\.json is not JSON, and should say what .*e\.npy is of"):
            read_about(file)
    beside(file).unlink()
    beside(file).mkdir()
    with pytest.raises(IsADirectoryError, match=r"e\.npy\.json"):
        read_about(file)
