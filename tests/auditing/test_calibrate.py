"""Thresholds by the words of docs/audit.md, on numbers that were drawn."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from fasttriplet.auditing._calibrate import of_identities, of_images
from fasttriplet.auditing._thresholds import Thresholds

NORMAL = NormalDist()
QUARTILE = 0.6744897501960817  # of a normal distribution, in standard deviations


def down(value: float) -> float:
    """Thresholds are printed with six digits, and never rounded up."""
    return math.floor(value * 1e6) / 1e6


@pytest.mark.parametrize("alike_low", [0.9, 0.7, None])
@pytest.mark.parametrize(("likeness", "spread"), [(0.0, 0.15), (0.1, 0.05), (0.3, 0.16), (-0.2, 0.01)])
@pytest.mark.parametrize("identities", [2, 3, 1_000])
def test_thresholds_of_identities(
    likeness: float, spread: float, alike_low: float | None, identities: int
) -> None:
    known = Thresholds(likeness=likeness, likeness_spread=spread, alike_low=alike_low, identities=identities)
    by_chance = NormalDist(likeness, spread)
    # One dataset in a hundred has a pair beyond it; of a single pair, that is one pair in a hundred.
    pairs = math.comb(identities, 2)
    no_pair = min(1, by_chance.inv_cdf(1 - 0.01 / pairs))
    same = no_pair if alike_low is None else 2 / 3 * no_pair + 1 / 3 * alike_low
    found = of_identities(known)
    assert found == {
        "same_person_above": pytest.approx(down(max(0.5, same)), abs=1.1e-6),
        "two_people_below": pytest.approx(down(min(0.45, by_chance.inv_cdf(1 - 1e-4))), abs=1.1e-6),
    }


def test_what_shows_no_thresholds() -> None:
    assert of_identities(Thresholds(likeness=0.1, identities=2)) == {}
    assert of_identities(Thresholds(likeness_spread=0.1, identities=2)) == {}
    some = np.full(3, 0.5)
    assert of_images(Thresholds(chance=0.1), some, some) == {}
    assert of_images(Thresholds(chance_spread=0.1), some, some) == {}
    known = Thresholds(chance=0.1, chance_spread=0.1)
    assert of_images(known, np.full(3, np.nan), some) == {}
    assert of_images(known, some, np.full(3, -1.0)) == {}
    assert of_images(known, some, np.full(3, 0.75)) == {}  # all fit another identity better


@pytest.mark.parametrize(
    ("spread", "other", "noise", "moved", "lead"),
    [
        (0.06, 0.25, 0.05, 0, None),
        (0.06, 0.25, 0.05, 60, None),
        (0.06, 0.25, 0.05, 60, 0.3),
        (0.01, 0.65, 0.02, 60, None),
        (0.001, 0.3, 0.001, 9, None),  # all images fit their own identity alike
        (0.06, 0.25, 0.05, 390, None),
    ],
)
def test_thresholds_of_images(
    spread: float, other: float, noise: float, moved: int, lead: float | None
) -> None:
    rng = np.random.default_rng(moved)
    own = rng.normal(0.75, noise, 1000)
    nearest = other + rng.gumbel(0, noise / 2, 1000)
    own[:moved], nearest[:moved] = nearest[:moved] - 0.05, own[:moved]
    own[[5, 6]], nearest[[7, 8]] = np.nan, -1
    known = Thresholds(chance=0.05, chance_spread=spread, lead=lead)
    found = of_images(known, own, nearest)

    both = ~np.isnan(own) & (nearest != -1)
    own, nearest = own[both], nearest[both]
    fine = nearest - own < spread
    middle, spread_own = np.median(own[fine]), np.median(own[fine]) - np.quantile(own[fine], 0.25)
    ahead = (own - nearest)[fine]
    spread_ahead = (np.median(ahead) - np.quantile(ahead, 0.25)) / QUARTILE
    expected = {
        "own": middle,
        "own_spread": spread_own / QUARTILE,
        "own_below": min(NormalDist(0.05, spread).inv_cdf(0.99), middle - 5 * spread_own / QUARTILE),
        "lead": max(spread, 4 * spread_ahead - np.median(ahead), 0.1 * middle),
        "nearest": np.median(nearest[fine]),
        # Of a Gumbel distribution a quarter is below its median less scale * log 2.
        "nearest_spread": (np.median(nearest[fine]) - np.quantile(nearest[fine], 0.25)) / math.log(2),
    }
    leading = np.sort(nearest[nearest - own >= (expected["lead"] if lead is None else lead)])[::-1]
    by_chance = min(len(leading), 2 * (1 + (leading < expected["nearest"]).sum()))
    above = 1.0
    for count in range(len(leading), 0, -1):
        likelihood = 1 - 0.5 ** math.exp(
            (expected["nearest"] - leading[count - 1]) / expected["nearest_spread"]
        )
        if by_chance * likelihood <= 0.01 * count:
            above = leading[count - 1]
            break
    else:
        # The value that one image in a hundred has by chance.
        power = math.log(0.99) / math.log(0.5)
        above = min(1.0, expected["nearest"] - expected["nearest_spread"] * math.log(power))
    expected["other_above"] = min(middle - 3 * spread_own / QUARTILE, above)
    assert found == {name: pytest.approx(down(value), abs=1.1e-6) for name, value in expected.items()}
