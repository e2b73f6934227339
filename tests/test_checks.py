"""Checks of options: what they return, and what they refuse in which words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from fasttriplet import _checks


@pytest.mark.parametrize(
    ("value", "as_float"), [(0, 0.0), (0.5, 0.5), (np.float32(0.25), 0.25), (np.int8(1), 1.0)]
)
def test_numbers_become_floats(value: Any, as_float: float) -> None:
    found = _checks.number("margin", value, 0, 1)
    assert (found, type(found)) == (as_float, float)


@pytest.mark.parametrize(
    "value", [-0.1, 1.5, True, np.True_, math.nan, math.inf, "0.5", None, [0.5], 10**400]
)
def test_a_number_out_of_range_is_named(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^margin must be a number from 0 to 1, not "):
        _checks.number("margin", value, 0, 1)


def test_infinity_must_be_allowed() -> None:
    assert _checks.number("margin", math.inf, 0, allow_infinity=True) == math.inf
    with pytest.raises(ValueError, match=r"^margin must be a number >= 0, not inf$"):
        _checks.number("margin", math.inf, 0)
    for value in (math.nan, -math.inf, 10**400):
        with pytest.raises(ValueError, match=r"^margin must be a number >= 0, not "):
            _checks.number("margin", value, 0, allow_infinity=True)


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_])
def test_truth_values_become_bools(value: Any) -> None:
    assert _checks.truth_value("mirror", value) is bool(value)


@pytest.mark.parametrize("value", [0, 1, None, "yes", np.int8(1)])
def test_other_things_are_not_truth_values(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^mirror must be True or False, not "):
        _checks.truth_value("mirror", value)


def test_a_choice_may_be_a_text_of_numpy() -> None:
    _checks.one_of("pick", np.str_("all"), ("random", "all"))
    for value in (np.str_("any"), np.array(["all"]), 1, True, None):
        with pytest.raises(ValueError, match=r"^pick must be one of 'random', 'all', not "):
            _checks.one_of("pick", value, ("random", "all"))


def test_a_batch_holds_whole_triplets_for_each_device() -> None:
    assert _checks.batch_of_triplets("batch_size", 60) == 60
    assert _checks.batch_of_triplets("batch_size", 12, devices=4) == 12
    for images, devices, message in (
        (0, 1, "batch_size must be a whole number >= 3, not 0"),
        (20, 1, r"batch_size must be a multiple of 3 \(anchors, positives and negatives\), not 20"),
        (15, 2, r"batch_size must be a multiple of 3 \(.*\) for each of 2 devices, not 15"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            _checks.batch_of_triplets("batch_size", images, devices)
