"""What is said beside a file of embeddings."""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.embedders._vectors import (
    Writer,
    file_size,
    fingerprint,
    probed,
    read_about,
    read_rows,
    skipped_rows,
    why_of_another_model,
)
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


def test_it_is_json_for_other_programs(file: Path) -> None:
    dataset = ft.Dataset(file.with_name("train.rec"))
    text = beside(file).read_text()
    about = json.loads(text)
    assert all(one.pop("reason") for one in about["skipped"])
    rows = np.concatenate([dataset.keys, dataset.lengths]).astype("<i8").tobytes()
    assert about == {
        "fasttriplet": "embeddings",
        "version": 1,
        "dataset": dataset.fingerprint,
        "rows": hashlib.blake2b(rows, digest_size=8).hexdigest(),
        "files": [str(file.with_name("train.rec"))],
        "max_pixels": 89_478_485,
        "model": ft.load_embedder("pixels").description,
        "images": 9,
        "size": 768,
        "dtype": "float32",
        "skipped": [{"row": 1, "key": 2, "file": 0}, {"row": 6, "key": 7, "file": 0}],
    }
    assert text.endswith("\n}\n")
    assert text.startswith('{\n "fasttriplet"')  # one line for each


def test_the_fingerprint_is_of_64_bit_integers() -> None:
    """Whatever arrays hold them, and in which order of bytes."""
    ids, lengths = np.array([3, 5, 2**40]), np.array([100, 200, 300])
    expected = hashlib.blake2b(struct.pack("<6q", *ids, *lengths), digest_size=8).hexdigest()
    assert fingerprint(ids, lengths) == expected
    assert fingerprint(ids.repeat(2)[::2], lengths.astype(np.int32)) == expected
    assert fingerprint(ids, lengths + 1) != expected


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
        {"skipped": [{"row": row, "key": 1, "file": 0, "reason": ""} for row in (0, 9)]},
        {"skipped": [{"row": -1, "key": 1, "file": 0, "reason": ""}]},
        {"skipped": [{"row": 1, "key": "1", "file": 0, "reason": ""}]},
        {"skipped": [{"row": 1, "key": 1, "file": None, "reason": ""}]},
        {"skipped": [{"row": 1, "key": 1, "file": 0, "reason": "", "more": 0}]},
        {"files": ["train.rec", 3]},
        {"max_pixels": 1e6},
        {"model": ["pixels"]},
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


@pytest.mark.parametrize("size", [0, 5])
def test_a_table_is_continued_after_the_rows_that_are_written(size: int) -> None:
    """Those before the first vector are in no file yet, as nothing says how long they are."""
    rows, vectors = pl.DataFrame({"key": [7, 8]}), np.arange(10, dtype=np.float32).reshape(2, 5)
    whole = np.full((5, 5), np.nan, np.float32)
    start = io.BytesIO()
    np.save(start, whole)
    buffer = io.BytesIO(start.getvalue()[:-40] if size else b"")
    buffer.seek(0, io.SEEK_END)
    writer = Writer(buffer, 5, "a table", size=size, done=3)
    writer.append(rows, np.arange(2), vectors)
    whole[3:] = vectors
    buffer.seek(0)
    assert np.array_equal(np.load(buffer), whole, equal_nan=True)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_rows_of_a_file_that_is_not_complete(tmp_path: Path, dtype: Any) -> None:
    table = np.random.default_rng(0).standard_normal((7, 5)).astype(dtype)
    np.save(tmp_path / "e.npy", table)
    assert file_size((7, 5), dtype) == (tmp_path / "e.npy").stat().st_size
    with (tmp_path / "e.npy").open("r+b") as part:
        part.truncate(file_size((7, 5), dtype) - table[4:].nbytes)
    at = np.array([3, 0, 1, 1])
    found = read_rows(tmp_path / "e.npy", (7, 5), dtype, at)
    assert found.dtype == table.dtype
    assert np.array_equal(found, table[at])
    assert read_rows(tmp_path / "e.npy", (7, 5), dtype, at[:0]).shape == (0, 5)
    with pytest.raises(FileNotFoundError, match=r"none\.npy"):
        read_rows(tmp_path / "none.npy", (7, 5), dtype, at)


@pytest.mark.parametrize("done", [0, 1, 2, 31, 32, 33, 100_000])
def test_a_few_rows_are_compared_from_the_first_to_the_last(done: int) -> None:
    at = probed(done)
    assert at.dtype == np.int64
    if done <= 32:
        assert at.tolist() == list(range(done))
        return
    assert len(at) == 32
    assert (at[0], at[-1]) == (0, done - 1)
    assert np.ptp(np.diff(at)) <= 1  # evenly


def test_vectors_of_another_model() -> None:
    again = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float32)
    noise = np.random.default_rng(1).standard_normal((4, 300)).astype(np.float32)
    noise *= np.linalg.norm(again, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    assert why_of_another_model("net", again, again) is None
    assert why_of_another_model("net", again.astype(np.float16), again) is None
    zero = np.zeros_like(again)
    assert why_of_another_model("net", zero, zero) is None  # an embedding may be zero
    for row in range(4):
        for share, expected in (
            (0.0099, None),
            (0.0101, "it is of another model (net), or of the same one with other weights"),
        ):
            stored = again.copy()
            stored[row] += share * noise[row]
            assert why_of_another_model("net", stored, again) == expected
    assert why_of_another_model("net", again[:, :299], again) == "it is of another model (net)"


def test_embeddings_of_other_images_are_refused(file: Path) -> None:
    dataset = ft.Dataset(file.with_name("train.rec"))
    embedder = ft.load_embedder(f"npy:{file}")
    shorter = dataset.index.with_columns(length=pl.col("length") - (pl.col("key") == 9).cast(pl.Int64))
    other_keys = dataset.index.with_columns(key=pl.col("key") + 1)
    of = re.escape(
        f"{file} is of another dataset ({file.with_name('train.rec')}), or of one that has changed"
    )
    for index in (shorter, other_keys):
        with pytest.raises(ValueError, match=f"^{of}: keys or sizes of images differ; compute embeddings of"):
            embedder.prepare(index)
    embedder.prepare(dataset.index.with_columns(label=7))  # as a rule, other labels are corrected ones
    embedder.prepare(shorter.drop("length"))  # of which nothing is known but the keys


@pytest.mark.parametrize("differs", ["images", "size", "dtype"])
def test_embeddings_with_the_description_of_another_file(file: Path, differs: str) -> None:
    other: dict[str, Any] = {"images": 1900, "size": 769, "dtype": "float16"}
    about = json.loads(beside(file).read_text()) | {differs: other[differs]}
    beside(file).write_text(json.dumps(about))
    expected = (
        f"{file} has 9 rows of 768 float32, and {beside(file)} is about {about['images']:,} of "
        f"{about['size']} {about['dtype']}: it belongs to another file; remove it"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        ft.load_embedder(f"npy:{file}").prepare(ft.Dataset(file.with_name("train.rec")).index)


def test_an_image_that_was_skipped_has_no_embedding(file: Path) -> None:
    index = ft.Dataset(file.with_name("train.rec")).index
    embedder = ft.load_embedder(f"npy:{file}")
    embedder.prepare(index)
    good = [0, 2, 3, 4, 5, 7, 8]
    assert np.array_equal(embedder.embed(index[good], None), np.load(file)[good])
    reasons = [one["reason"] for one in json.loads(beside(file).read_text())["skipped"]]
    for rows, key, reason in (([0, 6, 1], 7, reasons[1]), ([1, 6], 2, reasons[0])):
        expected = (
            f"{file} has no embedding of the image with key {key}, which was skipped when the file was made: "
            f"{reason}"
        )
        with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
            embedder.embed(index[rows], None)


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
