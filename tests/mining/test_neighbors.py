"""The nearest rows and identities, against the plain NumPy definition."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet import _core
from fasttriplet._npy import Table
from fasttriplet.mining import _neighbors, _stored
from fasttriplet.mining._blocks import bytes_of_row
from tests import reference
from tests.mining.ctrl_c import ctrl_c_within_a_second
from tests.mining.defined import each_kind_of_values
from tests.processes import megabytes_more
from tests.strategies import METRICS, datasets

pytestmark = pytest.mark.filterwarnings("ignore::fasttriplet.CollapseWarning")


def plain_nearest(
    rows: NDArray[np.float32], labels: list[Any], ids: list[int], k: int, metric: str
) -> tuple[list[list[int]], list[list[float]]]:
    """All distances of each row, sorted by distance and id; rows of its own label are left out."""
    positions, distances = [], []
    for row, label in enumerate(labels):
        each = reference.distances(rows[row], rows, metric)
        order = sorted(
            (float(each[other]), ids[other], other) for other in range(len(rows)) if labels[other] != label
        )[:k]
        missing = k - len(order)
        positions.append([other for _, _, other in order] + [-1] * missing)
        distances.append([distance for distance, _, _ in order] + [np.inf] * missing)
    return positions, distances


def plain_means(
    rows: NDArray[np.float32], labels: list[Any], ids: list[int]
) -> tuple[list[Any], NDArray[np.float32]]:
    names = sorted(set(labels))
    means = np.zeros((len(names), rows.shape[1]), np.float32)
    for number, name in enumerate(names):
        of_identity = sorted((row for row in range(len(rows)) if labels[row] == name), key=ids.__getitem__)
        total = np.zeros(rows.shape[1])
        for row in of_identity:
            total = total + rows[row].astype(np.float64)
        means[number] = total / len(of_identity)
    return names, means


def assert_same(found: ft.Neighbors, positions: Any, distances: Any, name: str) -> None:
    assert found.positions.tolist() == positions, name
    assert found.distances.tolist() == distances, name
    assert found.positions.dtype == np.int64
    assert found.distances.dtype == np.float64


def assert_nearest(
    dataset: dict[str, Any],
    k: int,
    metric: str,
    *,
    normalize: bool,
    sources: tuple[Any, ...] = (),
    block: int | None = None,
    threads: int | None = None,
) -> None:
    """Assert that every instruction set gives what the definition gives, of all kinds.

    So do all `sources` of the same numbers, in blocks of some rows.
    """
    embeddings, labels, ids = dataset["embeddings"], dataset["labels"], dataset["ids"]
    count = len(embeddings)
    by = list(range(count)) if ids is None else ids
    rows = reference.normalized(embeddings) if normalize else embeddings
    names, means = plain_means(rows, labels, by)
    means = reference.normalized(means) if normalize else means
    numbers = list(range(len(names)))
    options: dict[str, Any] = {"metric": metric, "normalize": normalize, "ids": ids, "threads": threads}
    if block is not None:
        options["memory"] = memory_for(block, rows.shape[1])
    expected = {
        "other": plain_nearest(rows, labels, by, k, metric),
        "all": plain_nearest(rows, list(range(count)), by, k, metric),
        "identities": plain_nearest(means, numbers, numbers, k, metric),
    }
    sets = _core.instruction_sets()
    pairs = [*((name, embeddings) for name in sets), *((sets[-1], source) for source in sources)]
    for name, source in pairs:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FASTTRIPLET_ISA", name)
            found = ft.neighbors(source, labels, k, **options)
            assert_same(found, *expected["other"], name)
            assert list(found.labels) == list(labels)
            found = ft.neighbors(source, labels, k, other_identities=False, **options | {"threads": 2})
            assert_same(found, *expected["all"], name)
            found = ft.neighbors(source, labels, k, of="identities", **options)
            assert found.labels.tolist() == names
            assert_same(found, *expected["identities"], name)


def memory_for(block: int, columns: int) -> int:
    """Bytes that let blocks have so many rows."""
    return block * bytes_of_row(columns)


@each_kind_of_values
@settings(max_examples=60, deadline=None)
@given(data=st.data(), k=st.integers(1, 20), metric=st.sampled_from(METRICS), normalize=st.booleans())
def test_neighbors_are_those_of_the_definition(
    values: Any, data: st.DataObject, k: int, metric: str, normalize: bool
) -> None:
    dataset = data.draw(datasets(values))
    assert_nearest(dataset, k, metric, normalize=normalize or metric == "cosine")


@pytest.mark.heavy
@settings(max_examples=8, deadline=None)  # blocks of a row take seconds
@given(
    seed=st.integers(0, 2**32 - 1),
    identities=st.integers(1, 40),
    k=st.integers(1, 12),
    kind=st.sampled_from(["random", "tied", "copies", "near"]),
    blocks=st.fixed_dictionaries(
        {
            "_ROWS": st.sampled_from([1, 7, 2**16]),
            "_FOUND": st.sampled_from([1, 30, 2**22]),
            "_NUMBERS": st.sampled_from([1, 50, 2**20]),
            "block": st.sampled_from([None, 25, 60]),
        }
    ),
)
def test_blocks_and_ties_change_nothing(
    seed: int, identities: int, k: int, kind: str, blocks: dict[str, int | None]
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, identities, 90)
    rows: NDArray[Any] = rng.standard_normal((90, 11))
    if kind == "tied":
        rows = rng.integers(0, 2, (90, 3))
    elif kind == "copies":
        rows = rows[rng.integers(0, 4, 90)]
    elif kind == "near":
        rows = rows[rng.integers(0, 4, 90)] + 1e-7 * rows
    dataset = {
        "embeddings": rows.astype(np.float32),
        "labels": labels.tolist(),
        "ids": rng.permutation(90).tolist(),
    }
    block = blocks.pop("block")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in blocks.items():
            patch.setattr(_neighbors, name, value)
        assert_nearest(dataset, k, "sqeuclidean", normalize=True, block=block)


@pytest.mark.heavy
@each_kind_of_values
@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    k=st.integers(1, 20),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    how=st.fixed_dictionaries(
        {
            "metric": st.sampled_from(METRICS),
            "block": st.integers(2, 9),
            "threads": st.sampled_from([1, 2, None]),
        }
    ),
)
def test_files_are_read_in_blocks(
    values: Any, data: st.DataObject, k: int, dtype: Any, how: dict[str, Any]
) -> None:
    dataset = data.draw(datasets(values))
    with np.errstate(over="ignore"):
        stored = dataset["embeddings"].astype(dtype)
    stored[~np.isfinite(stored)] = 1  # of float16
    dataset["embeddings"] = stored.astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "e.npy")
        np.save(path, np.asfortranarray(stored) if data.draw(st.booleans()) else stored)
        mapped = (np.load(path, mmap_mode="r"),) if stored.size else ()  # NumPy maps no empty file
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_neighbors, "_NUMBERS", 40)
            assert_nearest(dataset, k, normalize=True, sources=(path, str(path), *mapped), **how)


def test_blocks_are_as_large_as_the_memory_lets_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No array is larger than two blocks, or the rows that are read through at a time."""
    rows = np.random.default_rng(0).standard_normal((1000, 8)).astype(np.float32)
    np.save(tmp_path / "e.npy", rows)
    expected = ft.neighbors(rows, np.arange(1000) // 4, 3)
    read = []

    class Watched(Table):
        def rows(self, positions: NDArray[np.int64]) -> NDArray[Any]:
            read.append(len(positions))
            return super().rows(positions)

    monkeypatch.setattr(_stored, "Table", Watched)
    monkeypatch.setattr(_neighbors, "_NUMBERS", 8 * 100)
    found = ft.neighbors(tmp_path / "e.npy", np.arange(1000) // 4, 3, memory=memory_for(250, 8))
    assert np.array_equal(found.positions, expected.positions)
    # To see what is not finite; whether all are the same; and each block, with the three others.
    assert read == [100] * 10 + [250] * 17


# Means are added from 8 MB of rows, as float64, at a time.
@pytest.mark.heavy
@pytest.mark.parametrize(("of", "most"), [("rows", 14), ("identities", 24)])
def test_memory_is_that_of_two_blocks(tmp_path: Path, of: str, most: int) -> None:
    """A file of 25 MB, which the miner would copy and code, takes no more than it is allowed."""
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((1_500, 8)) @ rng.standard_normal((8, 4096))).astype(np.float32)
    np.save(tmp_path / "e.npy", rows)
    np.save(tmp_path / "half.npy", rows.astype(np.float16))
    prepare = f"""
import os
import numpy as np
import fasttriplet as ft
os.chdir({os.fspath(tmp_path)!r})
labels = np.arange(1_500) // 40
ft.neighbors(np.eye(20, dtype=np.float32), np.arange(20))
"""
    how = f"labels, 1, of={of!r}, memory=12 * 10**6, threads=2"
    assert megabytes_more(prepare, f"ft.neighbors('e.npy', {how})") < most
    # Pages of the file that is mapped, 12 MB, are counted, too.
    assert megabytes_more(prepare, f"ft.neighbors(np.load('half.npy', mmap_mode='r'), {how})") < most + 12


def test_rows_that_are_all_the_same() -> None:
    """Each tie is broken by the id, however many rows are tied."""
    rows, labels = np.ones((300, 8), np.float32), np.arange(300) // 3
    with pytest.warns(ft.CollapseWarning) as warned:
        found = ft.neighbors(rows, labels, 5, ids=np.arange(300)[::-1])
    assert [warning.filename for warning in warned] == [__file__]
    assert (found.positions[:-6] == np.arange(299, 294, -1)).all()
    assert found.positions[-1].tolist() == [296, 295, 294, 293, 292]
    assert (found.distances == 0).all()


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    rows, labels, ids = rng.standard_normal((200, 24)).astype(np.float32), np.arange(200) // 4, np.arange(200)
    rows[50:60] = rows[40]
    order = rng.permutation(200)
    for of in ("rows", "identities"):
        options: dict[str, Any] = {"of": of}
        one = ft.neighbors(rows, labels, 7, ids=ids, **options)
        other = ft.neighbors(rows[order], labels[order], 7, ids=ids[order], **options)
        if of == "rows":
            assert np.array_equal(ids[order][other.positions], one.positions[order])
            assert np.array_equal(other.distances, one.distances[order])
        else:
            assert np.array_equal(other.positions, one.positions)
            assert np.array_equal(other.distances, one.distances)


def test_where_there_is_little() -> None:
    row = np.eye(3, dtype=np.float32)
    for labels in ([1, 1, 1], ["a", "a", "a"]):
        found = ft.neighbors(row, labels, 2)
        assert (found.positions == -1).all()
        assert np.isinf(found.distances).all()
        assert found.to_frame().height == 0
    assert ft.neighbors(row, [1, 1, 1], 2, of="identities").positions.tolist() == [[-1, -1]]
    assert ft.neighbors(row, [1, 1, 1], 3, other_identities=False).positions[0].tolist() == [1, 2, -1]
    assert ft.neighbors(row[:1], [1]).positions.tolist() == [[-1] * 10]
    for of in ("rows", "identities"):
        options: dict[str, Any] = {"of": of}
        empty = ft.neighbors(row[:0], [], 4, **options)
        assert (len(empty), empty.positions.shape) == (0, (0, 4))


def test_ctrl_c_stops_a_long_call_within_a_second() -> None:
    rows = np.random.default_rng(0).normal(size=(60_000, 512)).astype(np.float32)
    with ctrl_c_within_a_second():
        ft.neighbors(rows, np.arange(60_000))


def test_frames() -> None:
    rows = np.array([[1, 0], [0.9, 0.1], [0.8, 0.3], [0, 1]], dtype=np.float32)
    of_rows = ft.neighbors(rows, ["ann", "ann", "bob", "eve"], 2).to_frame()
    assert of_rows.columns == ["row", "neighbor", "label", "neighbor_label", "rank", "distance"]
    assert of_rows.row(1)[:5] == (0, 3, "ann", "eve", 1)
    of_identities = ft.neighbors(rows, np.array([7, 7, 5, 9]), 5, of="identities").to_frame()
    assert of_identities.select("label", "neighbor_label", "rank").rows() == [
        (5, 7, 0), (5, 9, 1), (7, 5, 0), (7, 9, 1), (9, 5, 0), (9, 7, 1)
    ]  # fmt: skip
    assert of_identities.schema["label"] == pl.Int64
    names: list[Any] = ["b", 3, "a", -1]
    mixed = ft.neighbors(rows, names, 1, of="identities")
    assert mixed.labels.tolist() == [-1, 3, "a", "b"]
    with pytest.raises(ValueError, match=r"^labels are of several types, and those of a frame have one: "):
        mixed.to_frame()


def test_identities_of_any_kind_are_in_order() -> None:
    """Numbers, then texts, then bytes; each ascend."""
    names: list[Any] = ["b", b"z", 3, "a", -1, b"a", 10, "b"]
    rows = np.eye(8, dtype=np.float32)
    found = ft.neighbors(rows, np.array(names, object), 1, of="identities")
    assert found.labels.tolist() == [-1, 3, 10, "a", "b", b"a", b"z"]
    empty = ft.neighbors(rows[:0], np.array([], object), 1, of="identities")
    assert (empty.labels.tolist(), empty.positions.shape) == ([], (0, 1))


@pytest.mark.parametrize("kind", [np.uint8, np.bool_, np.str_, np.bytes_])
def test_labels_of_any_array(kind: Any) -> None:
    labels = np.array([1, 0, 1, 0]).astype(kind)
    rows = np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1]], np.float32)
    found = ft.neighbors(rows, labels, 1, of="identities")
    assert found.labels.dtype == labels.dtype
    assert found.labels.tolist() == sorted(set(labels.tolist()))
    assert found.positions.tolist() == [[1], [0]]
    if kind is np.bool_:
        return  # which Polars has no integers of
    frame = found.to_frame()
    assert frame["label"].to_list() == found.labels.tolist()
    assert frame["label"].dtype.is_integer() == (kind is np.uint8)


@pytest.mark.parametrize("with_ids", [False, True])
def test_means_are_added_in_the_order_of_the_ids(with_ids: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of numbers whose sum depends on it, and of more rows than are added at a time."""
    rng = np.random.default_rng(0)
    rows = rng.choice([2.0**60, -(2.0**60), 3.0, 0.1, -7.5], (500, 6)).astype(np.float32)
    numbers = rng.integers(0, 7, 500)
    ids = rng.permutation(5000)[:500]
    order = np.argsort(ids) if with_ids else np.arange(500)
    sums = np.zeros((7, 6))
    for row in order:
        sums[numbers[row]] = sums[numbers[row]] + rows[row].astype(np.float64)
    expected = (sums / np.bincount(numbers)[:, None]).astype(np.float32)
    for at_a_time in (6 * 3, 6 * 170, 2**20):
        monkeypatch.setattr(_neighbors, "_NUMBERS", at_a_time)
        found = _neighbors.means_of_identities(rows, numbers, ids if with_ids else None, 7, normalize=False)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)


def test_identities_are_compared_by_their_means() -> None:
    rows = np.array([[2, 0], [0, 5], [1, 0], [3, 3.1]], dtype=np.float32)
    found = ft.neighbors(rows, [0, 0, 1, 2], 2, of="identities", metric="cosine")
    assert found.positions[0].tolist() == [2, 1]  # the mean of identity 0 is at 45 degrees
    assert found.distances[0] == pytest.approx([0, 1 - np.sqrt(0.5)], abs=1e-3)


ROWS = np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((np.ones(3), [1, 2, 3]), {}, "embeddings must be 2-D"),
        ((np.ones((3, 2), int), [1, 2, 3]), {}, "embeddings must be floating point, but are int"),
        ((ROWS * np.nan, [1, 2, 3]), {}, "row 0, column 0 is nan"),
        ((ROWS, [1, 2]), {}, r"labels must have the shape \(3,\), one per row, not \(2,\)"),
        ((ROWS, [1, 2, 2.5]), {}, "labels must be integers or strings"),
        ((ROWS, [1, 2, 3], 0), {}, "k must be a whole number >= 1, not 0"),
        ((ROWS, [1, 2, 3]), {"of": "images"}, "of must be one of 'rows', 'identities', not 'images'"),
        ((ROWS, [1, 2, 3]), {"metric": "l1"}, "metric must be one of"),
        ((ROWS, [1, 2, 3]), {"metric": "cosine", "normalize": False}, "cosine"),
        ((ROWS, [1, 2, 3]), {"ids": [1, 2, 1]}, "ids must be unique, but 1 is the id of two rows, .* 2$"),
        ((ROWS, [1, 2, 3]), {"ids": [1, 2]}, r"ids must have the shape \(3,\)"),
        ((ROWS, [1, 2, 3]), {"threads": 0}, "threads must be a whole number >= 1"),
        ((ROWS, [1, 2, 3]), {"memory": 0}, "memory must be a whole number >= 1, not 0"),
        ((ROWS, [1, 2, 3]), {"other_identities": 1}, "other_identities must be True or False"),
        (
            (ROWS, [1, 2, 3]),
            {"other_identities": False, "of": "identities"},
            "other_identities must be True for of='identities'",
        ),
    ],
)
def test_bad_arguments_are_named(arguments: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ft.neighbors(*arguments, **options)


@pytest.mark.parametrize("of", ["rows", "identities"])
def test_bad_files_are_named(tmp_path: Path, of: str) -> None:
    path, options = tmp_path / "e.npy", dict[str, Any](of=of, memory=1)
    with pytest.raises(FileNotFoundError, match=f"no file of embeddings at {path}"):
        ft.neighbors(path, [1, 2, 3], **options)
    np.save(path, np.ones((3, 2), int))
    with pytest.raises(
        ValueError, match=r"must hold \(images, D\) float16, float32 or float64, but holds int64"
    ):
        ft.neighbors(path, [1, 2, 3], **options)
    with pytest.raises(ValueError, match="embeddings must be floating point, but are int64"):
        ft.neighbors(np.load(path, mmap_mode="r"), [1, 2, 3], **options)
    np.save(path, ROWS)
    with pytest.raises(ValueError, match=r"labels must have the shape \(3,\), one per row, not \(2,\)"):
        ft.neighbors(path, [1, 2], **options)
    rows = np.ones((3, 2))
    rows[2, 1] = 1e300
    np.save(path, rows)
    for source in (path, np.load(path, mmap_mode="r")):
        with pytest.raises(ValueError, match=r"finite float32 numbers, but row 2, column 1 is 1e\+300"):
            ft.neighbors(source, [1, 2, 3], **options)


def test_a_file_that_is_cut_short_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "e.npy", ROWS)
    begin = _core.probe_memory

    def cut(size: int, what: str) -> None:
        begin(size, what)
        os.truncate(tmp_path / "e.npy", 130)

    monkeypatch.setattr(_core, "probe_memory", cut)
    with pytest.raises(OSError, match=r"e\.npy, offset \d+: the file was cut short while it was open"):
        ft.neighbors(tmp_path / "e.npy", [1, 2, 3])


def test_what_does_not_fit_the_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryError, match=r"1,000,000,000,000,000,000 neighbors of 3 rows"):
        ft.neighbors(ROWS, [1, 2, 3], 10**18)
    with pytest.raises(MemoryError, match=r"\b1(,000){10} neighbors of 2 identities"):
        ft.neighbors(ROWS, [1, 2, 2], 10**30, of="identities")
    asked = []
    monkeypatch.setattr(_core, "probe_memory", lambda size, what: asked.append((size, what)))
    rows = np.eye(3, dtype=np.float32)
    ft.neighbors(rows, [1, 2, 3], 1).to_frame()
    ft.neighbors(rows, [1, 2, 2], 2, of="identities").to_frame()
    assert asked == [
        (16 * 3, "1 neighbor of 3 rows"),
        (40 * 3, "a frame of 3 neighbors"),
        (16 * 2 * 2, "2 neighbors of 2 identities"),
        (40 * 2, "a frame of 2 neighbors"),
    ]


def test_a_collapse_is_noticed_in_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the rows are read in blocks; of rows that differ nothing is said."""
    rows, labels = np.ones((90, 4), np.float32), np.arange(90) // 3
    monkeypatch.setattr(_neighbors, "_SAMPLE", 20)
    for of in ("rows", "identities"):
        options: dict[str, Any] = {"of": of, "memory": memory_for(30, 4)}
        with pytest.warns(ft.CollapseWarning) as warned:
            ft.neighbors(rows, labels, 1, **options)
        assert [warning.filename for warning in warned] == [__file__]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ft.neighbors(np.random.default_rng(0).standard_normal((90, 4)), labels, 1, **options)
