"""`fasttriplet.mine` equals the float64 definition: picks, order and distances, to the last bit."""

from __future__ import annotations

import doctest
import os
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
from fasttriplet.mining import _mine
from tests.mining.ctrl_c import ctrl_c_within_a_second
from tests.mining.defined import assert_defined, each_kind_of_values, rows
from tests.processes import megabytes_more
from tests.strategies import BANDS, PAIRS, PICKS, datasets, grid_values, options


@each_kind_of_values
@settings(max_examples=200, deadline=None)
@given(data=st.data(), threads=st.integers(1, 4))
def test_equals_the_definition(values: st.SearchStrategy[Any], data: st.DataObject, threads: int) -> None:
    assert_defined(**data.draw(datasets(values)), **data.draw(options()), threads=threads)


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("pick", PICKS)
@pytest.mark.parametrize("band", BANDS)
def test_every_combination_on_enough_rows_to_fill_tiles(band: str, pick: str, pairs: str) -> None:
    """Past one block of anchors (96), one panel (32) and the probe's tries: all of the kernel runs."""
    rng = np.random.default_rng(BANDS.index(band) * 16 + PICKS.index(pick) * 4 + PAIRS.index(pairs))
    labels = np.repeat(np.arange(35), 3)
    rng.shuffle(labels)
    centres = rng.normal(size=(35, 130))
    embeddings = (centres[labels] + 1.6 * rng.normal(size=(105, 130))).astype(np.float32)
    wanted: dict[str, Any] = {
        "band": band, "pick": pick, "pairs": pairs, "margin": 0.2, "max_ap": 1.7, "negatives_per_pair": 2,
    }  # fmt: skip
    assert assert_defined(embeddings, labels, **wanted) > 0


@pytest.mark.parametrize("dim", [1, 7, 8, 9, 127, 128, 129, 513])
def test_odd_widths(dim: int) -> None:
    rng = np.random.default_rng(dim)
    embeddings = rng.normal(size=(60, dim)).astype(np.float32)
    labels = rng.integers(0, 12, 60)
    for pick in PICKS:
        assert_defined(embeddings, labels, pick=pick)


def test_near_duplicates_and_edges_of_the_band() -> None:
    """Distances that differ in the last bits of float32 decide; screens of low precision cannot see them."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=64).astype(np.float32)
    steps = rng.integers(-2, 3, size=(80, 64))
    embeddings = (base * (1 + steps * np.float32(2e-7))).astype(np.float32)
    labels = np.repeat(np.arange(20), 4)
    for band in BANDS:
        for normalize in (False, True):
            wanted: dict[str, Any] = {"band": band, "pick": "all", "margin": 1e-13, "normalize": normalize}
            assert_defined(embeddings, labels, **wanted)


def test_one_dominating_row_does_not_hide_the_small_ones() -> None:
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(60, 40)).astype(np.float32)
    embeddings[17] *= np.float32(1e30)
    embeddings[18:30] *= np.float32(1e-30)
    embeddings[30:40, 3] = 1e6
    labels = np.repeat(np.arange(20), 3)
    for pick in PICKS:
        wanted: dict[str, Any] = {"pick": pick, "normalize": False, "margin": 50.0}
        assert_defined(embeddings, labels, **wanted)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_order_of_rows_changes_nothing(data: st.DataObject) -> None:
    dataset = data.draw(datasets(grid_values, most=30).filter(lambda d: len(d["labels"]) > 0))
    wanted = data.draw(options()) | {"pairs": data.draw(st.sampled_from(["ordered", "hardest", "easiest"]))}
    n = len(dataset["labels"])
    ids = np.arange(n) if dataset["ids"] is None else np.array(dataset["ids"])
    order = np.array(data.draw(st.permutations(range(n))))
    plain = ft.mine(dataset["embeddings"], dataset["labels"], ids=ids, **wanted)
    moved = ft.mine(
        dataset["embeddings"][order], np.array(dataset["labels"])[order], ids=ids[order], **wanted
    )
    assert rows(plain) == rows(moved)


def large(
    n: int = 3000, dim: int = 64, per_identity: int = 4
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(n // per_identity), per_identity)
    centres = rng.normal(size=(n // per_identity, dim))
    return (centres[labels] + 0.7 * rng.normal(size=(n, dim))).astype(np.float32), labels


def test_threads_and_instruction_sets_agree_at_size(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = large()
    for pick in ("random", "hardest"):
        results = []
        for name in _core.instruction_sets():
            monkeypatch.setenv("FASTTRIPLET_ISA", name)
            results += [ft.mine(embeddings, labels, pick=pick, threads=threads) for threads in (1, 2, 4)]
        assert len(results[0]) > 0
        for other in results[1:]:
            assert rows(other) == rows(results[0])


def test_semi_hard_conditions_hold_at_size() -> None:
    """Recomputed with plain NumPy: too many rows for the reference, not for the definition."""
    embeddings, labels = large()
    wide = embeddings.astype(np.float64)
    unit = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    square = (unit**2).sum(1)
    distances = square[:, None] + square[None, :] - 2 * unit @ unit.T
    triplets = ft.mine(embeddings, labels)
    a, p, n = triplets
    assert (labels[a] == labels[p]).all()
    assert (labels[a] != labels[n]).all()
    assert (a < p).all()
    np.testing.assert_allclose(triplets.d_ap, distances[a, p], atol=1e-12)
    np.testing.assert_allclose(triplets.d_an, distances[a, n], atol=1e-12)
    assert ((triplets.d_ap < triplets.d_an) & (triplets.d_an < triplets.d_ap + 0.3)).all()
    other = labels[:, None] != labels[None, :]
    with_negative = 0
    for i, j in zip(*np.nonzero(~other & (np.arange(3000)[:, None] < np.arange(3000)[None, :])), strict=True):
        with_negative += bool(
            np.any(other[i] & (distances[i] > distances[i, j]) & (distances[i] < distances[i, j] + 0.3))
        )
    assert len(triplets) == with_negative
    assert triplets.stats.pairs == 750 * 6
    assert triplets.stats.pairs_without_negative == 750 * 6 - with_negative


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("call", "most"),
    [
        ("ft.mine(e, np.arange(12000) // 5, pick='hardest')", 100),
        # Two million pairs without a triplet: one identity of 2,000 rows, far from the others. All of them
        # would take 260 MB, and 2^20 at a time take 130 MB.
        (
            "e[:2000, 0] += 1000; labels = np.maximum(np.arange(4000), 2000)\n"
            "ft.mine(e[:4000], labels, pick='hardest', band='hard')",
            220,
        ),
    ],
    ids=["many rows", "many pairs"],
)
def test_memory_does_not_hold_a_matrix_or_all_pairs(call: str, most: int) -> None:
    """12,000 rows: a matrix of one byte per distance would be 144 MB; the rows are 3 MB."""
    prepare = """
import numpy as np, fasttriplet as ft
e = np.random.default_rng(0).normal(size=(12000, 64)).astype(np.float32)
ft.mine(e[:9], np.zeros(9, int))
"""
    assert megabytes_more(prepare, call) < most


@pytest.mark.parametrize("labels", [[], [3], ["a"], [1, 1, 1], [1, 2, 3]], ids=str)
def test_nothing_to_mine(labels: list[Any]) -> None:
    triplets = ft.mine(np.ones((len(labels), 4), np.float32), labels, band="any")
    assert len(triplets) == 0
    assert all(len(column) == 0 for column in triplets)
    assert triplets.to_frame().columns == ["anchor", "positive", "negative", "d_ap", "d_an"]


def test_labels_of_any_kind() -> None:
    embeddings = np.random.default_rng(3).normal(size=(40, 8)).astype(np.float32)
    numbers = np.arange(40) % 7
    expected = rows(ft.mine(embeddings, numbers))
    assert expected
    kinds: list[Any] = [
        numbers.astype(np.uint8), numbers.astype(np.uint64), -numbers, list(map(str, numbers)),
        np.array([f"é{i}" for i in numbers]), np.array([("x", i)[1] for i in numbers], dtype=object),
    ]  # fmt: skip
    for labels in kinds:
        assert rows(ft.mine(embeddings, labels)) == expected


def test_numbers_and_strings_are_different_labels() -> None:
    embeddings = np.eye(4, dtype=np.float32)
    mixed: list[Any] = [1, "1", 1, "1"]
    assert len(ft.mine(embeddings, mixed, band="any")) == 2
    assert len(ft.mine(embeddings, ["a", "a\0", "a", "a\0"], band="any")) == 2


def test_floats_of_other_widths_and_strides() -> None:
    embeddings = np.random.default_rng(3).normal(size=(40, 8)).astype(np.float32)
    labels = np.arange(40) % 7
    expected = rows(ft.mine(embeddings, labels))
    assert rows(ft.mine(embeddings.astype(np.float64), labels)) == expected
    assert rows(ft.mine(np.asfortranarray(embeddings), labels)) == expected
    assert rows(ft.mine(np.repeat(embeddings, 2, axis=0)[::2], labels)) == expected


MASKED: Any = np.ma.masked_equal([0, 0, 1, 1], 1)  # type: ignore[no-untyped-call]
GOOD: dict[str, Any] = {"embeddings": np.eye(4, dtype=np.float32), "labels": [0, 0, 1, 1]}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"embeddings": np.zeros(4, np.float32)}, r"2-D .* shape \(4,\)"),
        ({"embeddings": np.zeros((4, 0), np.float32)}, "no columns"),
        ({"embeddings": np.eye(4, dtype=np.int32)}, "floating point, but are int32"),
        ({"embeddings": np.array([[1, 2], [3, np.nan], [np.inf, 0], [0, 0]])}, "row 1, column 1 is nan"),
        ({"embeddings": np.array([[1.0], [2.0], [-1e39], [0]])}, r"float32 .* row 2, column 0 is -1e\+39"),
        ({"embeddings": MASKED[:, None].astype(np.float32)}, "embeddings are a masked array"),
        ({"labels": MASKED}, "labels are a masked array"),
        ({"embeddings": [[1.0, 2.0], [1.0], [2.0], [3.0]]}, "embeddings cannot be read as an array: .*inh"),
        ({"embeddings": "rows.npy"}, "embeddings must be an array, not 'rows.npy'"),
        ({"labels": iter([0, 0, 1, 1])}, "labels must be an array, not <list_iterator "),
        ({"labels": pl.Series([0, 0, 1, 1], dtype=pl.Int128)}, "labels cannot be read as an array: .*i128"),
        ({"labels": [0, 0, 1, None]}, "that of row 3 is None"),
        ({"labels": [0, 0, 1, float("nan")]}, r"but are float64 \(are some missing"),
        ({"seed": 2**64}, "seed must be a whole number up to 18446744073709551615"),
        ({"labels": [0, 0, 1]}, r"labels must have the shape \(4,\).*not \(3,\)"),
        ({"labels": [0.5, 0, 1, 1]}, "integers or strings, but are float64"),
        ({"labels": [[0], [0], [1], [1]]}, r"labels must have the shape \(4,\)"),
        ({"margin": -0.1}, "margin must be a number >= 0, not -0.1"),
        ({"margin": float("nan")}, "margin must be a number >= 0, not nan"),
        ({"margin": "0.3"}, "margin must be a number >= 0, not '0.3'"),
        ({"max_ap": -1}, "max_ap must be a number >= 0, not -1"),
        ({"band": "semi-hard"}, "band 'semi-hard' is no band: write one of semihard, "),
        ({"band": None}, "band must be a text such as 'semihard', not None"),
        ({"normalize": 1}, "normalize must be True or False, not 1"),
        ({"labels": [None, None, "a", "a"]}, "that of row 0 is None"),
        ({"labels": np.array(["a", "a", 1.5, 1.5], dtype=object)}, "that of row 2 is 1.5"),
        ({"pick": "first"}, "pick must be one of 'random', 'hardest', 'distance', 'all'"),
        ({"pairs": "all"}, "pairs must be one of"),
        ({"negatives_per_pair": 0}, "negatives_per_pair must be a whole number >= 1, not 0"),
        ({"seed": -1}, "seed must be a whole number >= 0, not -1"),
        ({"threads": 0}, "threads must be a whole number >= 1, not 0"),
        ({"threads": 1.5}, "threads must be a whole number >= 1, not 1.5"),
        ({"margin": True}, "margin must be a number >= 0, not True"),
        ({"max_ap": 10**400}, "max_ap must be a number >= 0"),
        ({"ids": [1, 2, 3]}, r"ids must have the shape \(4,\)"),
        ({"ids": [1.0, 2, 3, 4]}, "ids must be integers"),
        ({"ids": [5, 7, 5, 8]}, "rows 0 and 2 share the id 5"),
    ],
)  # fmt: skip
def test_bad_input_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ft.mine(**(GOOD | wrong))


def test_unknown_instruction_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTTRIPLET_ISA", "mmx")
    with pytest.raises(ValueError, match='FASTTRIPLET_ISA="mmx": this machine has portable'):
        ft.mine(**GOOD)


def test_shuffle_is_a_seeded_permutation() -> None:
    triplets = ft.mine(*large(n=200))
    shuffled = triplets.shuffle(3)
    assert rows(shuffled) == rows(triplets.shuffle(3))
    assert rows(shuffled) != rows(triplets)
    assert sorted(rows(shuffled)) == rows(triplets)


@pytest.mark.parametrize(
    ("per_identity", "rows", "wanted"),
    [(2, 60_000, {"pick": "hardest"}), (20_000, 20_000, {}), (1_500, 3_000, {"pick": "all"})],
    ids=["many identities", "one identity", "two identities"],
)
def test_ctrl_c_stops_a_long_call_within_a_second(
    per_identity: int, rows: int, wanted: dict[str, Any]
) -> None:
    embeddings = np.random.default_rng(0).normal(size=(rows, 512)).astype(np.float32)
    labels = np.arange(rows) // per_identity
    with ctrl_c_within_a_second():
        ft.mine(embeddings, labels, **wanted)


def test_works_after_a_fork() -> None:
    embeddings, labels = large(n=200)
    expected = rows(ft.mine(embeddings, labels))
    child = os.fork()
    if child == 0:
        os._exit(0 if rows(ft.mine(embeddings, labels)) == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_real_embeddings(real_data: Path) -> None:
    folder = real_data / "lfw112-a"
    embeddings, labels = np.load(folder / "emb_a.npy"), np.load(folder / "lab_a.npy").ravel()
    keep = np.arange(0, len(labels), 8)
    for pick in PICKS:
        assert assert_defined(embeddings[keep], labels[keep], pick=pick, margin=0.6, seed=11) > 0


def test_examples_in_docstrings() -> None:
    failed, attempted = doctest.testmod(_mine)
    assert failed == 0 < attempted
