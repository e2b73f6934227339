"""Thresholds by the words of docs/audit.md, on numbers that were drawn."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from fasttriplet.auditing import _calibrate
from fasttriplet.auditing._calibrate import of_chance, of_identities, of_images
from fasttriplet.auditing._neighbors import SCALE, Images
from fasttriplet.auditing._thresholds import Thresholds
from tests.auditing.drawn import draw
from tests.auditing.test_groups import direction, plain_strength, plain_within

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


def of_all(values: list[float]) -> tuple[float, float]:
    """Median, and standard deviation of a normal distribution with these quartiles."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return float(middle), float((high - low) / (2 * QUARTILE))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("noise", [0.6, 2.5])
def test_what_identities_look_like(seed: int, noise: float) -> None:
    """Of the images that fit their identity half as well as most of them do, or better."""
    drawn = draw(15, 7, seed, noise=noise)
    drawn.embeddings[::23] = draw(5, 1, 99).embeddings  # of people who have no other image
    alone = np.isin(drawn.person, (3, 8)) & (np.arange(len(drawn.keys)) % 7 > 0)  # identities of one image
    drawn = drawn.at(np.flatnonzero(~alone))
    images = Images.of(drawn.embeddings, drawn.labels, drawn.keys, None, None)
    rows = images.unit(slice(0, len(images))).astype(np.float64) / SCALE
    cores, fits = list[NDArray[np.float64]](), list[float]()
    for number in range(images.identities):
        own = rows[images.of_identity(number)]
        fit = own @ direction(own.sum(axis=0))
        cores.append(own[fit >= np.median(fit) / 2])
        fits += [float(row @ direction(own.sum(axis=0) - row)) for row in own] if len(own) > 1 else []
    assert sum(map(len, cores)) < len(rows)
    usual = max(0.05, float(np.median([np.mean(plain_within(core)) for core in cores if len(core) > 1])))
    strong = [plain_strength(core, usual) for core in cores]
    centres = np.stack([direction(core.sum(axis=0)) for core in cores])
    halves = [(core[::2], core[1::2]) for core in cores if len(core) > 1]
    alike = [
        direction(one.sum(axis=0)) @ direction(two.sum(axis=0))
        * plain_strength(one, usual) * plain_strength(two, usual)
        for one, two in halves
    ]  # fmt: skip
    chance = [
        float(row @ centre)
        for row, own in zip(rows, images.identity, strict=True)
        for number, centre in enumerate(centres)
        if number != own
    ]
    likeness = [
        float(centres[a] @ centres[b] * strong[a] * strong[b]) for a in range(len(centres)) for b in range(a)
    ]
    expected = {"usual": usual, "own": np.median(fits), "alike_low": np.quantile(alike, 0.05)}
    expected["chance"], expected["chance_spread"] = of_all(chance)
    expected["likeness"], expected["likeness_spread"] = of_all(likeness)
    assert of_chance(images) == {name: pytest.approx(value, abs=2e-6) for name, value in expected.items()}


def test_a_sample_shows_what_identities_look_like(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evenly spread over images and identities, where there are many."""
    drawn = draw(40, 5, noise=0.6)
    images = Images.of(drawn.embeddings, drawn.labels, drawn.keys, None, None)
    some = drawn.at(np.flatnonzero(drawn.person % 2 == 0))
    of_some = of_chance(Images.of(some.embeddings, some.labels, some.keys, None, None))
    monkeypatch.setattr(_calibrate, "_IDENTITIES", 20)
    found = of_chance(images)
    for name in ("usual", "own", "alike_low", "likeness", "likeness_spread"):
        assert found[name] == of_some[name]
    assert found["chance"] != of_some["chance"]  # of all images
    monkeypatch.setattr(_calibrate, "_IMAGES", 50)
    assert of_chance(images)["chance"] not in (found["chance"], of_some["chance"])
