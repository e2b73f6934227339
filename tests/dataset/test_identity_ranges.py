"""Identity records compared with the labels of images, against a definition in plain Python."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fasttriplet.dataset._identity_ranges import check

PATH = Path("a.rec")


class Bare(NamedTuple):
    """A record without content."""

    key: int
    flag: int
    first: float
    second: float


def first_of(count: int, what: str) -> str:
    return f" (the first of {count} {what})" if count > 1 else ""


def plain(images: dict[int, int], bare: list[Bare]) -> tuple[bool, int, list[str]]:
    """Whether record 0 announces identity records, how many there are, and the problems."""
    zero = next((one for one in bare if one.key == 0 and one.flag >= 2), None)
    problems: list[str] = []
    found: list[Bare] = []
    if zero is not None:
        low, high = zero.first, zero.second
        found = sorted(one for one in bare if one.flag >= 2 and one.key != 0)
        if math.isfinite(low) and math.isfinite(high):
            found = [one for one in found if low <= one.key < high]
            if len(found) != high - low:
                problems.append(
                    f"{PATH}, key 0: the record announces identity records with keys from {low:.0f} to "
                    f"{high - 1:.0f}, {len(found)} are there"
                )
        else:
            problems.append(f"{PATH}, key 0: the record announces identity records from {low} to {high}")
        problems += disagreements(images, found)
    rest = [at for at, one in enumerate(bare) if one not in found and one != zero]
    if rest:
        problems.append(
            f"{PATH}, key {bare[rest[0]].key}, offset {8 * rest[0]}: the record is empty and was left out"
            f"{first_of(len(rest), 'such records')}"
        )
    return zero is not None, len(found), problems


def disagreements(images: dict[int, int], records: list[Bare]) -> list[str]:
    """The first kind of them."""

    def say(which: list[Bare], what: str) -> list[str]:
        one = which[0]
        return [
            f"{PATH}, key {one.key}: the identity record gives the images with keys from {one.first:.0f} to "
            f"{one.second - 1:.0f}, {what}{first_of(len(which), 'such identity records')}"
        ]

    def keys_in(one: Bare) -> list[int]:
        return [key for key in sorted(images) if one.first <= key < one.second]

    odd = [one for one in records if not (-math.inf < one.first <= one.second < math.inf)]
    if odd:
        return say(odd, "which is no range")
    mixed = [one for one in records if len({images[key] for key in keys_in(one)}) > 1]
    if mixed:
        keys = keys_in(mixed[0])
        other = next(key for key in keys if images[key] != images[keys[0]])
        return say(
            mixed,
            f"but image {other} has label {images[other]} and image {keys[0]} has label {images[keys[0]]}; "
            "the labels are used",
        )
    missing = [one for one in records if len(keys_in(one)) != one.second - one.first]
    if missing:
        count = len(keys_in(missing[0]))
        return say(missing, f"but the file has {count} image{'' if count == 1 else 's'} there")
    alone = [key for key in sorted(images) if not any(one.first <= key < one.second for one in records)]
    return [
        f"{PATH}, key {key}: the image with label {images[key]} lies in the range of no identity record; its "
        f"label is used{first_of(len(alone), 'such images')}"
        for key in alone[:1]
    ]


keys = st.integers(0, 14)
ends = keys.map(float) | st.sampled_from([math.inf, -math.inf, math.nan])
records = st.builds(Bare, keys, st.sampled_from([0, 1, 2, 2, 2, 3]), ends, ends)
ranges = st.builds(
    lambda key, first, length: Bare(key, 2, first, first + length),
    st.integers(9, 12),
    keys,
    st.integers(0, 3),
)


@settings(max_examples=400, deadline=None)
@given(
    st.dictionaries(keys, st.integers(0, 2), min_size=1),
    st.lists(records | ranges, max_size=5, unique_by=lambda one: one.key),
    st.none() | st.tuples(st.integers(8, 12), st.integers(0, 4)),
    st.randoms(),
)
@example({1: 5, 2: 5, 3: 6}, [Bare(4, 2, 1, 3), Bare(5, 2, 3, 4)], (4, 2), None)
@example({1: 5, 2: 5, 3: 6}, [Bare(4, 2, 1, 2), Bare(5, 2, 2, 2)], (4, 2), None)
def test_what_is_said_of_identity_records(
    images: dict[int, int], bare: list[Bare], announced: tuple[int, int] | None, random: Any
) -> None:
    if announced is not None:
        low, count = announced
        bare = [Bare(0, 2, low, low + count), *(one for one in bare if one.key != 0)]
    if random is not None:
        random.shuffle(bare)
    columns = list(zip(*bare, strict=True)) or [(), (), (), ()]
    scan: Any = SimpleNamespace(
        bare_keys=np.array(columns[0], np.int64),
        bare_flags=np.array(columns[1], np.uint32),
        bare_first=np.array(columns[2], np.float32),
        bare_second=np.array(columns[3], np.float32),
        bare_offsets=np.arange(len(bare)) * 8,
    )
    found = check(PATH, scan, np.array(sorted(images)), np.array([images[key] for key in sorted(images)]))
    assert (found.announced, found.count, found.problems) == plain(images, bare)
