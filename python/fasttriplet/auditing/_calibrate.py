"""Thresholds from the dataset itself, by means that a few wrong labels hardly move."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fasttriplet.auditing._groups import Sum, strengths, without
from fasttriplet.auditing._neighbors import Images, Rows, cosines, spread
from fasttriplet.auditing._thresholds import Thresholds

_IMAGES, _IDENTITIES = 4096, 2048  # that are compared to see what chance does, at most
_QUARTER = NormalDist().inv_cdf(0.75)  # from the median to a quartile, in standard deviations
_LEAST_USUAL = 0.05  # mean cosine within identities, below which nothing holds them together
_MOST = 700.0  # whose exponential float64 can hold
_LN2 = math.log(2)
_DIGITS = 6

# How often chance may pass a threshold: an image that fits another identity; two people who are taken for one
# where one identity is divided; two people who are taken for one among all pairs of identities of a dataset.
_OWN, _DIVIDED, _PAIRS = 1e-2, 1e-4, 1e-2
_LOW = 0.05  # of the identities have halves that are less alike than `alike_low`
_FALSE = 0.01  # share of the images called mislabelled that chance alone may make
# How many standard deviations from the median: an image fits another identity as most fit their own; an image
# does not fit its own; another identity fits it better. The tails are long.
_FITS, _NOT_OWN, _LEAD = 3, 5, 4
# Two groups of three images or more of one person, chosen to differ most, have a likeness above 0.55 for all
# 109 identities of LFW and 105 of 106 of Omniglot. Where chance gives more, as for a weak network, the first
# limit counts. Two identities below the second are not one person, whatever chance does among a few.
_MOST_DIVIDED, _LEAST_SAME = 0.45, 0.5
_LEAST_LEAD = 0.1  # of the usual cosine with the own identity: a few identities may show no chance at all


def of_chance(images: Images) -> dict[str, float]:
    """What identities look like before anything is known about them.

    The sample is evenly spread over the sorted images and identities. What the dataset is too small for is
    missing.
    """
    sums, alike, own = list[Sum](), list[tuple[Sum, Sum]](), list[NDArray[np.float64]]()
    numbers = spread(images.identities, _IDENTITIES)
    for number in numbers.tolist():
        rows = images.unit(images.of_identity(number))
        own.append(_fit(rows))
        rows = _core(rows)
        sums.append(Sum(rows))
        if len(rows) >= 2:
            alike.append((Sum(rows[::2]), Sum(rows[1::2])))
    found, usual = {}, 1.0
    if alike:
        within = [one.within for one in sums if one.size > 1]
        found["usual"] = usual = max(_LEAST_USUAL, float(np.median(within)))
        found["own"] = float(np.nanmedian(np.concatenate(own)))
        found["alike_low"] = float(np.quantile([one.likeness(two, usual) for one, two in alike], _LOW))
    if len(sums) > 1:
        centres = np.concatenate([one.centre for one in sums])
        at = spread(len(images), _IMAGES)
        others = images.identity[at][:, None] != numbers
        found["chance"], found["chance_spread"] = _both(cosines(images.unit(at), centres)[others])
        strong = strengths(
            np.array([one.length for one in sums]), np.array([one.size for one in sums]), usual
        )
        likeness = (cosines(centres, centres) * strong * strong[:, None])[np.triu_indices(len(sums), 1)]
        found["likeness"], found["likeness_spread"] = _both(likeness)
    return _rounded(found)


def _fit(rows: Rows) -> NDArray[np.float64]:
    """The cosine of each image with the mean of all others of its identity; NaN where there is none."""
    of_all = Sum(rows)
    cosine = cosines(rows, of_all.centre)[:, 0]
    return without(cosine, np.full(len(rows), of_all.length), np.full(len(rows), of_all.size))


def _core(rows: Rows) -> Rows:
    """The images of an identity without those that fit its mean less than half as well as usual."""
    fit = cosines(rows, Sum(rows).centre)[:, 0]
    core: Rows = rows[fit >= np.median(fit) / 2]
    return core


def of_identities(known: Thresholds) -> dict[str, float]:
    """The thresholds of identities that are one person, and of an identity that is two."""
    if known.likeness is None or known.likeness_spread is None:
        return {}
    pairs = known.identities * (known.identities - 1) / 2
    same = min(_above(known.likeness, known.likeness_spread, min(0.5, _PAIRS / pairs)), 1.0)
    if known.alike_low is not None:
        # Noise makes one person less alike, and hardly makes different people more so.
        same += (known.alike_low - same) / 3
    same = max(same, _LEAST_SAME)
    two = min(_above(known.likeness, known.likeness_spread, _DIVIDED), _MOST_DIVIDED)
    return _rounded({"same_person_above": same, "two_people_below": two})


def of_images(known: Thresholds, own: NDArray[np.float64], other: NDArray[np.float64]) -> dict[str, float]:
    """The thresholds of single images, from how well images fit their own identity and the nearest other one.

    What is usual is measured on images that no other identity fits better than chance would have it, so a
    large part of all images may be mislabelled.
    """
    if known.chance is None or known.chance_spread is None:
        return {}
    both = np.isfinite(own) & (other > -1)
    own, other = own[both], other[both]
    fine = other - own < known.chance_spread
    if not fine.any():
        return {}
    found = {}
    usual, usual_spread = found["own"], found["own_spread"] = _lower(own[fine])
    by_chance = _above(known.chance, known.chance_spread, _OWN)
    found["own_below"] = min(by_chance, usual - _NOT_OWN * usual_spread)
    behind, behind_spread = _lower((own - other)[fine])
    found["lead"] = max(known.chance_spread, _LEAD * behind_spread - behind, _LEAST_LEAD * usual)
    lead = found["lead"] if known.lead is None else known.lead
    middle, scale = found["nearest"], found["nearest_spread"] = _gumbel(other[fine])
    leading = other[other - own >= lead]
    found["other_above"] = min(usual - _FITS * usual_spread, _unlikely(leading, middle, scale))
    return _rounded(found)


def _unlikely(values: NDArray[np.float64], middle: float, scale: float) -> float:
    """The least value above which chance explains at most 1 % of the values; at most 1.

    The rule of Benjamini and Hochberg (1995), with Storey's estimate (2002) of how many of them chance made:
    twice as many as lie below its median.
    """
    falling = np.sort(values)[::-1]
    by_chance = min(len(falling), 2 * (1 + np.count_nonzero(falling < middle)))
    # Of a Gumbel distribution with the median m, 1 - exp(-log 2 exp((m - x) / scale)) exceed x.
    exceed = -np.expm1(-_LN2 * np.exp(np.minimum((middle - falling) / scale, _MOST)))
    explained = np.flatnonzero(by_chance * exceed <= _FALSE * np.arange(1, len(falling) + 1))
    if len(explained):
        return float(falling[explained[-1]])
    return min(1.0, middle - scale * math.log(-math.log1p(-_FALSE) / _LN2))  # what a single one would need


def _gumbel(values: NDArray[np.float64]) -> tuple[float, float]:
    """Median and scale of the distribution of the largest of many numbers, from lower quartile and median.

    The upper half may hold images that are in a wrong identity.
    """
    low, middle = np.quantile(values, (0.25, 0.5)).tolist()
    return middle, max((middle - low) / _LN2, np.finfo(np.float64).eps)


def _both(values: NDArray[np.float64]) -> tuple[float, float]:
    """Median, and standard deviation from both quartiles."""
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return middle, (high - low) / (2 * _QUARTER)


def _lower(values: NDArray[np.float64]) -> tuple[float, float]:
    """Median, and standard deviation from the lower quartile."""
    low, middle = np.quantile(values, (0.25, 0.5)).tolist()
    return middle, (middle - low) / _QUARTER


def _above(middle: float, deviation: float, rarity: float) -> float:
    """The value that this share of a normal distribution exceeds."""
    return middle + deviation * NormalDist().inv_cdf(1 - rarity)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    """Decisions are made with the numbers that are printed and kept: given again, they decide the same."""
    return {name: math.floor(value * 10**_DIGITS) / 10**_DIGITS for name, value in values.items()}
