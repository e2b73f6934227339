"""Bands that are written as an inequality."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fasttriplet as ft
from fasttriplet.mining._band import BANDS, Limit, limits_of
from tests.mining.defined import rows


def test_those_with_names() -> None:
    assert limits_of("semihard", 0.3) == (Limit("above", False, 1, 0), Limit("below", False, 1, 0.3))
    assert limits_of("violating", 0.3) == (Limit("below", False, 1, 0.3),)
    assert limits_of("hard", 0.3) == (Limit("below", True, 1, 0),)
    assert limits_of("easy", 0.3) == (Limit("above", True, 1, 0.3),)
    assert limits_of("any", 0.3) == ()
    assert limits_of("violating", float("inf")) == (Limit("below", False, 1, float("inf")),)


@pytest.mark.parametrize(
    ("band", "limits"),
    [
        ("d_an < 0.9", [("below", False, 0, 0.9)]),
        ("0.9 >= d_an", [("below", True, 0, 0.9)]),
        ("d_an - d_ap > 0.1", [("above", False, 1, 0.1)]),
        ("d_ap - d_an <= -0.1", [("above", True, 1, 0.1)]),
        (
            "0.1 < d_an < 2 and d_an >= d_ap",
            [("above", False, 0, 0.1), ("below", False, 0, 2), ("above", True, 1, 0)],
        ),
        ("1 - d_an < 0.5 * (1 - d_ap)", [("above", False, 0.5, 0.5)]),
        ("(d_an - d_ap) / 2 < margin", [("below", False, 1, 0.5)]),
        ("2 * d_an < d_ap + margin", [("below", False, 0.5, 0.125)]),
        (" d_an<1 ", [("below", False, 0, 1)]),
        ("+d_an > -1e-3", [("above", False, 0, -1e-3)]),
        (
            "0 < d_an < 1 and 2 > d_an > d_ap",
            [
                *[("above", False, 0, 0), ("below", False, 0, 1)],
                *[("below", False, 0, 2), ("above", False, 1, 0)],
            ],
        ),
        ("d_an * 2 < -d_ap + 3 - margin", [("below", False, -0.5, 1.375)]),
        ("2 * (3 - d_an) <= d_ap - 1", [("above", True, -0.5, 3.5)]),
    ],
)
def test_what_is_written(band: str, limits: list[tuple[Any, bool, float, float]]) -> None:
    assert limits_of(band, 0.25) == tuple(Limit(*limit) for limit in limits)


def test_a_margin_without_end() -> None:
    assert limits_of("d_an < d_ap + 2 * margin", math.inf) == (Limit("below", False, 1, math.inf),)
    assert limits_of("d_an > d_ap - margin", math.inf) == (Limit("above", False, 1, -math.inf),)
    for band in ("d_an < margin * d_ap", "d_an < margin - margin"):
        with pytest.raises(ft.OptionError, match="there is no finite limit"):
            limits_of(band, math.inf)


@pytest.mark.parametrize("side", ["above", "below"])
@pytest.mark.parametrize("inclusive", [False, True])
def test_what_keeps_a_limit(side: Any, inclusive: bool) -> None:
    d_ap, d_an = np.array([1.0, 2.0, 2.0, 2.0]), np.array([1.0, 1.25, 1.5, 1.75])
    found = Limit(side, inclusive, 0.5, 0.5).holds(d_ap, d_an)  # the edges are 1, 1.5, 1.5 and 1.5
    below, above = [False, True, False, False], [False, False, False, True]
    expected = {"below": below, "above": above}[side]
    at_the_edge = [True, False, True, False]
    assert found.tolist() == [
        one or (inclusive and edge) for one, edge in zip(expected, at_the_edge, strict=True)
    ]


@pytest.mark.parametrize(
    ("band", "message"),
    [
        ("", "band must not be empty: write one of semihard"),
        ("semi-hard", "'semi-hard' is no band: write one of semihard"),
        ("d_an", "'d_an' is no band"),
        ("d_an <", "'d_an <' is no band"),
        ("d_an = 3", "is no band"),
        ("d_an == 3", "only <, <=, > and >= compare distances"),
        ("d_an in (1, 2)", "only <, <=, > and >= compare distances"),
        ("d_an < 1 or d_an > 2", "compares nothing"),
        ("d_ap < 1", "compared without d_an .max_ap limits d_ap."),
        ("d_an < d_an", "compared without d_an"),
        ("d_an < x", "'x' is neither a number nor d_ap, d_an or margin"),
        ("d_an < abs(1)", "is neither a number"),
        ("d_an < '1'", "is neither a number"),
        ("d_an < True", "is neither a number"),
        ("d_an * d_ap < 1", "is not linear"),
        ("1 / d_an < 1", "is not linear"),
        ("d_an ** 2 < 1", "is not linear"),
        ("d_an < 1 / 0", "is not linear"),
        ("d_an < 1" + "0" * 400, "is too large"),
        ("d_an < 1e999 - 1e999", "there is no finite limit"),
        ("0 < d_an < 1 and 0 < d_an < 2 and d_an < 3", "has 5 limits on d_an, but 4 are the most"),
        ("d_an < " + "(" * 5000 + "1" + ")" * 5000, "band"),
        ("d_an < " + "-" * 20000 + "1", "band"),
        ("d_an < \0", "is no band"),
    ],
)
def test_what_is_no_band_is_named(band: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ft.mine(np.eye(3, dtype=np.float32), [0, 0, 1], band=band)


@given(st.text(alphabet="d_anp margin<>=+-*/().0123456789", max_size=30))
def test_any_text_is_a_band_or_an_option_error(text: str) -> None:
    try:
        limits = limits_of(text, 0.3)
    except ft.OptionError:
        return
    assert text in BANDS or limits


def test_bands_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(60, 4)).astype(np.float32), rng.integers(0, 12, 60)

    def mined(band: str) -> set[Any]:
        return set(rows(ft.mine(embeddings, labels, band=band, pick="all")))

    every = mined("any")
    assert mined("hard") | mined("semihard") | mined("easy") == every
    assert len(mined("hard")) + len(mined("semihard")) + len(mined("easy")) == len(every)
    for name, text in BANDS.items():
        if text:
            assert mined(name) == mined(text) != set()
    kept = {t for t in every if 0.5 < t[4] <= 1.5 and t[4] > 0.5 * t[3] + 0.1}
    assert mined("0.5 < d_an <= 1.5 and d_an > 0.5 * d_ap + 0.1") == kept != set()
