"""How far apart identities are, and when `mine` says that they are not."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet import _core
from tests import reference
from tests.strategies import BANDS, METRICS

Rows = NDArray[np.float32]


def near(spread: float, n: int = 60, size: int = 32, length: float = 1.0) -> Rows:
    """Rows whose squared distances are about `spread` of their squared norms."""
    rng = np.random.default_rng(n)
    centre = rng.standard_normal(size)
    noise = rng.standard_normal((n, size)) * np.sqrt(spread / 2 / size)
    rows: Rows = (length * (centre / np.linalg.norm(centre) + noise)).astype(np.float32)
    return rows


def labels_of(rows: Rows, each: int = 3) -> NDArray[np.int64]:
    return np.arange(len(rows)) // each


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("n", [2, 3, 50, 1024, 1025, 2600])
def test_scatter_is_what_is_defined(n: int, normalize: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(n)
    ids = rng.permutation(10 * n)[:n]
    labels = rng.integers(0, n // 3 + 2, n)
    for rows in (near(2.0, n, 5), near(1e-7, n, 19), 1e3 * near(1.0, n, 8), np.zeros((n, 3), np.float32)):
        rows[0] = 0
        expected = reference.scatter(rows, labels, normalize=normalize, ids=ids, seed=7)
        some: dict[str, Any] = {
            "labels": labels[:2],
            "ids": ids[:2],
            "reference_labels": labels,
            "reference_ids": ids,
        }
        for name in _core.instruction_sets():
            monkeypatch.setenv("FASTTRIPLET_ISA", name)
            options: dict[str, Any] = {"normalize": normalize, "seed": 7, "threads": 1 + n % 2}
            options["band"] = "any"  # is mined in no time
            assert ft.mine(rows, labels, ids=ids, **options).stats.scatter == expected
            assert ft.mine(rows[:2], references=rows, **some, **options).stats.scatter == expected
            turned = ft.mine(rows[::-1], labels[::-1], ids=ids[::-1], **options)
            assert turned.stats.scatter == expected


def test_one_identity_has_no_scatter() -> None:
    for n in (0, 1, 5):
        stats = ft.mine(near(0.0, n), np.zeros(n, int)).stats
        assert stats.scatter is None
        assert not stats.collapsed


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("band", BANDS)
def test_rows_that_are_all_but_equal_are_told(band: Any, metric: Any, normalize: bool) -> None:
    if metric == "cosine" and not normalize:
        pytest.skip("cosine compares unit rows")
    options: dict[str, Any] = {"band": band, "metric": metric, "normalize": normalize}
    for spread in (0.0, 1e-16, 1e-14, 1e-11, 1e-8, 5e-7):
        for length in (1e-20, 1.0, 1e15):
            rows = near(spread, length=length)
            with pytest.warns(ft.CollapseWarning, match="nearly equal"):
                stats = ft.mine(rows, labels_of(rows), **options).stats
            assert stats.collapsed
    for spread in (2e-6, 1e-4, 1e-2):
        rows = near(spread)
        assert not ft.mine(rows, labels_of(rows), **options).stats.collapsed  # and no warning


def placeholders(rows: Rows) -> Rows:
    rows[::2] = rows[0]
    return rows


def outliers(rows: Rows) -> Rows:
    rows[::10] = np.random.default_rng(0).standard_normal(rows[::10].shape)
    return rows


def lengths(rows: Rows) -> Rows:
    rows *= np.geomspace(1e-15, 1e15, len(rows), dtype=np.float32)[:, None]
    return rows


@pytest.mark.parametrize(
    ("rows", "labels", "collapsed"),
    [
        pytest.param(near(2.0, 20).repeat(3, 0), None, False, id="each identity has one picture"),
        pytest.param(placeholders(near(2.0)), None, False, id="one picture in half of the places"),
        pytest.param(
            np.concatenate([near(0.0, 600), near(2.0, 5)]),
            np.repeat([0, 1, 2], [600, 3, 2]),
            False,
            id="one identity that is one picture",
        ),
        pytest.param(outliers(near(0.0)), None, True, id="one in ten rows differs"),
        pytest.param(outliers(near(1e-12)), None, True, id="one in ten rows differs, and noise"),
        pytest.param(lengths(near(2.0)), None, False, id="rows of very different lengths"),
    ],
)
def test_what_counts_as_collapsed(rows: Rows, labels: Any, collapsed: bool) -> None:
    labels = labels_of(rows) if labels is None else labels
    for normalize in (False, True):
        for seed in range(5):
            assert ft.mine(rows, labels, normalize=normalize, seed=seed).stats.collapsed == collapsed


def test_a_loop_is_warned_once() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for number in range(5):
            rows = near(10.0 ** (number - 15))
            ft.mine(rows, labels_of(rows))
    assert [(type(one.message), one.filename) for one in caught] == [(ft.CollapseWarning, __file__)]
