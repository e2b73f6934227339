"""Groups of identities, and how well images fit them, by the definitions of their docstrings."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from fasttriplet.auditing import _groups, _neighbors
from fasttriplet.auditing._frames import identities
from fasttriplet.auditing._groups import Groups, Sum, divide, halves, strengths, without
from fasttriplet.auditing._identities import people
from fasttriplet.auditing._labels import other_fit, own_fit
from fasttriplet.auditing._neighbors import SCALE, Images, unit
from tests.auditing.drawn import Drawn, draw, noisy

Doubles = NDArray[np.float64]


def direction(row: Doubles) -> Doubles:
    found: Doubles = row / np.linalg.norm(row)
    return found


def plain_within(rows: Doubles) -> list[float]:
    """The cosine of each pair."""
    return [float(rows[a] @ rows[b]) for a in range(len(rows)) for b in range(a)]


def plain_strength(rows: Doubles, usual: float) -> float:
    pairs = plain_within(rows)
    cosine = (sum(pairs) + 3 * usual) / (len(pairs) + 3)
    mean = float(np.linalg.norm(rows.mean(axis=0)))
    return float(mean / np.sqrt(max(cosine, usual / 2)))


def units(drawn: Drawn) -> Doubles:
    """Unit rows as the audit has them."""
    found: Doubles = unit(drawn.embeddings).astype(np.float64) / SCALE
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 9])
@pytest.mark.parametrize("noise", [0.5, 3.0])
def test_sums(count: int, noise: float) -> None:
    rows, others = (units(draw(1, size, 7 * count + size, noise=noise)) for size in (count, 4))
    one, other = Sum(unit(rows)), Sum(unit(others))
    assert one.size == count
    assert one.length == pytest.approx(np.linalg.norm(rows.sum(axis=0)), abs=1e-6)
    if count > 1:
        assert one.within == pytest.approx(np.mean(plain_within(rows)), abs=1e-6)
    for usual in (0.9, 0.2):
        found = strengths(np.array([one.length, other.length]), np.array([count, 4]), usual)
        expected = [plain_strength(some, usual) for some in (rows, others)]
        assert found == pytest.approx(expected, abs=1e-6)
        cosine = direction(rows.sum(axis=0)) @ direction(others.sum(axis=0))
        assert one.likeness(other, usual) == pytest.approx(cosine * np.prod(expected), abs=1e-6)


def test_an_image_is_compared_with_the_rest() -> None:
    for count in (2, 3, 12):
        rows = units(draw(1, count, count))
        of_all = Sum(unit(rows))
        total = rows.sum(axis=0)
        cosine = np.array([row @ direction(total) for row in rows])
        found = without(cosine, np.full(count, of_all.length), np.full(count, count))
        assert found == pytest.approx([row @ direction(total - row) for row in rows], abs=1e-6)
    assert np.isnan(without(np.ones(1), np.ones(1), np.ones(1, np.int64))).all()
    # What is left of three rows that cancel out is due to rounding.
    assert np.isnan(without(np.ones(1), np.array([1 + 1e-5]), np.array([3]))).all()
    rounded = without(np.array([1 + 1e-7, -1 - 1e-7]), np.full(2, 2.0), np.full(2, 2))
    assert rounded.tolist() == [1, -1]
    # Of these three the other two are opposite, and have no direction.
    rows = np.array([[1.0, 0, 0], [0, 1, 0], [0, -1, 0]])
    found = without(rows @ direction(rows.sum(axis=0)), np.ones(3), np.full(3, 3))
    assert np.isnan(found).tolist() == [True, False, False]
    assert found[1:] == pytest.approx([-np.sqrt(0.5)] * 2)


def images_of(drawn: Drawn) -> Images:
    return Images.of(drawn.embeddings, drawn.labels, drawn.keys, None, None)


def rows_of(images: Images) -> Doubles:
    found: Doubles = images.unit(slice(0, len(images))).astype(np.float64) / SCALE
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("below", "smallest"), [(0.45, 3), (0.45, 5), (0.8, 2), (None, 3)])
def test_groups_and_fits(seed: int, below: float | None, smallest: int) -> None:
    drawn, _ = noisy(seed)
    images = images_of(drawn)
    rows, told = rows_of(images), list[int]()
    groups = divide(images, 0.6, below, smallest, told.append)
    ends = images.starts[1:].tolist()
    assert told == ends
    members = [np.flatnonzero(groups.of_image == group) for group in range(len(groups.sizes))]
    check_groups(images, groups, rows, members, smallest)
    if below is None:
        assert groups.identity.tolist() == [*range(images.identities)]
    else:
        assert len(groups.identity) > images.identities
        for number in range(images.identities):
            own = np.flatnonzero(groups.identity == number)
            alike = [
                direction(rows[members[a]].sum(axis=0))
                @ direction(rows[members[b]].sum(axis=0))
                * plain_strength(rows[members[a]], 0.6)
                * plain_strength(rows[members[b]], 0.6)
                for a in own
                for b in own
                if a < b
            ]
            assert all(likeness < below for likeness in alike)

    found = own_fit(images, groups)
    for image in range(len(images)):
        own = np.flatnonzero(groups.identity == images.identity[image])
        fits = []
        for group in own:
            rest = rows[np.setdiff1d(members[group], image)].sum(axis=0)
            if np.linalg.norm(rest) > 1e-3:
                fits.append(rows[image] @ direction(rest))
        assert found.fit[image] == pytest.approx(max(fits), abs=1e-6)
        first = direction(rows[members[own[0]]].sum(axis=0))
        assert found.centre[image] == pytest.approx(rows[image] @ first, abs=1e-6)

    person = np.arange(images.identities)
    person[3], told = 1, []
    other = other_fit(images, groups, person, 1, told.append)
    assert told[-1] == len(images)
    centres = np.stack([direction(rows[some].sum(axis=0)) for some in members])
    cosines = rows @ centres.T
    cosines[person[images.identity][:, None] == person[groups.identity]] = -2
    assert other.group.tolist() == cosines.argmax(axis=1).tolist()
    assert other.fit == pytest.approx(cosines.max(axis=1), abs=1e-6)
    of_one = other_fit(images, groups, np.zeros_like(person), 1, told.append)
    assert {*of_one.group.tolist(), *of_one.fit.tolist()} == {-1}


def check_groups(
    images: Images, groups: Groups, rows: Doubles, members: list[NDArray[np.int64]], smallest: int
) -> None:
    """What is known of groups is true of their images."""
    assert groups.sizes.tolist() == [len(some) for some in members]
    for number, some in zip(groups.identity, members, strict=True):
        assert set(images.identity[some]) == {number}
    total = np.stack([rows[some].sum(axis=0) for some in members])
    assert groups.lengths == pytest.approx(np.linalg.norm(total, axis=1), abs=1e-6)
    expected = total / np.linalg.norm(total, axis=1, keepdims=True)
    assert groups.centres / SCALE == pytest.approx(expected, abs=1e-6)
    assert groups.first.tolist() == [
        number not in groups.identity[:at].tolist() for at, number in enumerate(groups.identity)
    ]
    # Identities ascend, and of each the largest group is the first; a smaller one has enough images, unless
    # none has.
    order = [(number, -size) for number, size in zip(groups.identity, groups.sizes, strict=True)]
    assert order == sorted(order)
    largest = dict(zip(groups.identity[groups.first], groups.sizes[groups.first], strict=True))
    for number, size, first in zip(groups.identity, groups.sizes, groups.first, strict=True):
        assert first or size >= smallest or largest[number] < smallest
    for number in images.identity[groups.of_image < 0]:
        assert largest[number] >= smallest

    left = groups.kept(groups.first | (groups.sizes > 4))
    assert left.identity.tolist() == groups.identity[groups.first | (groups.sizes > 4)].tolist()
    for at, group in enumerate(np.flatnonzero(groups.first | (groups.sizes > 4))):
        assert np.flatnonzero(left.of_image == at).tolist() == members[group].tolist()
        assert (left.sizes[at], left.lengths[at]) == (groups.sizes[group], groups.lengths[group])
        assert np.array_equal(left.centres[at], groups.centres[group])
    assert (left.of_image >= 0).sum() == left.sizes.sum()
    assert groups.kept(np.ones(len(groups.sizes), bool)) is groups


@pytest.mark.parametrize(("above", "part"), [(None, 99), (0.05, 99), (0.3, 99), (0.3, 7), (0.9, 7)])
def test_identities_that_are_one_person(
    monkeypatch: pytest.MonkeyPatch, above: float | None, part: int
) -> None:
    """The largest takes along those near it, and what is near one of these alone does not join."""
    monkeypatch.setattr(_neighbors, "_PART", part)
    joined = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        drawn = draw(30, 4, seed, noise=0.7, dim=4)  # of few numbers: many are near each other
        kept = np.sort(rng.permutation(len(drawn.keys))[:100])
        drawn = drawn.at(kept)
        images = images_of(drawn)
        rows, count, told = rows_of(images), images.identities, list[int]()
        groups = divide(images, 0.6, 0.45, 3, lambda _: None)
        found = people(images, groups, above, 1, told.append)
        assert told == images.starts[[*range(part, count, part), count]].tolist()
        first = [np.flatnonzero(groups.of_image == group) for group in np.flatnonzero(groups.first)]
        centres = np.stack([direction(rows[some].sum(axis=0)) for some in first])
        cosines = centres @ centres.T
        np.fill_diagonal(cosines, -2)
        assert found.nearest.tolist() == cosines.argmax(axis=1).tolist()
        assert found.cosine == pytest.approx(cosines.max(axis=1), abs=1e-6)
        sizes = np.diff(images.starts)
        whole = [
            2 * len(some) >= size and (len(some) > 1 or size == 1)
            for some, size in zip(first, sizes, strict=True)
        ]
        strong = [plain_strength(rows[some], 0.6) for some in first]
        near = {(a, b) for a in range(count) for b in np.argsort(-cosines[a])[:8].tolist()}
        alike = {
            (a, b)
            for a in range(count)
            for b in range(count)
            if above is not None and a != b and whole[a] and whole[b] and {(a, b), (b, a)} & near
            and cosines[a, b] * strong[a] * strong[b] >= above
        }  # fmt: skip
        person, taken = [*range(count)], set[int]()
        for largest in sorted({a for a, _ in alike}, key=lambda number: (-sizes[number], number)):
            if largest not in taken:
                joins = {b for a, b in alike if a == largest} - taken
                taken |= {largest, *joins}
                for number in joins:
                    person[number] = largest
        assert found.person.tolist() == person
        joined += (found.person != np.arange(count)).sum()
    assert bool(joined) == (above is not None)


def test_two_identities_are_compared() -> None:
    images = images_of(draw(2, 5, noise=0.3))
    rows = rows_of(images)
    found = people(images, divide(images, 0.6, None, 3, lambda _: None), None, 1, lambda _: None)
    assert found.nearest.tolist() == [1, 0]
    cosine = direction(rows[:5].sum(axis=0)) @ direction(rows[5:].sum(axis=0))
    assert found.cosine == pytest.approx([cosine, cosine], abs=1e-6)


def test_a_group_may_be_as_small_as_the_smallest() -> None:
    """Of two people, three images are a group where three are enough, and fit none where four are."""
    rows = np.repeat(np.eye(2, dtype=np.float32), [9, 3], axis=0)
    images = Images.of(rows, np.zeros(12, np.int64), np.arange(12), None, None)
    for smallest, sizes in ((3, [9, 3]), (4, [9])):
        groups = divide(images, 0.9, 0.5, smallest, lambda _: None)
        assert groups.sizes.tolist() == sizes
        assert groups.of_image.tolist() == [0] * 9 + [1 if smallest == 3 else -1] * 3


def test_images_that_a_half_took_along_come_back_to_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two people, three images of the one are first divided off with the other, and then from it."""
    who = np.repeat([0, 1, 0], [8, 12, 3])
    divisions = iter([np.arange(23) < 8, np.arange(15) < 12, None, None, None])
    monkeypatch.setattr(_groups, "halves", lambda _: next(divisions))
    rows = np.eye(2, dtype=np.float32)[who]
    images = Images.of(rows, np.zeros(23, np.int64), np.arange(23), None, None)
    groups = divide(images, 0.9, 0.5, 2, lambda _: None)
    assert next(divisions, "none is left") == "none is left"
    assert groups.sizes.tolist() == [12, 11]
    assert groups.of_image.tolist() == (1 - who).tolist()


def test_rows_that_are_alike_have_no_halves() -> None:
    assert halves(unit(np.ones((5, 3)))) is None
    side = halves(unit(np.eye(2)[[0, 1, 1, 0, 0]]))
    assert side is not None
    assert side.tolist() in ([True, False, False, True, True], [False, True, True, False, False])


def test_the_table_of_identities() -> None:
    """One of three identities has one image; there is none that is nearest to the only one."""
    drawn = draw(3, 4, noise=0.4)
    drawn = drawn.at(np.arange(9))
    images = images_of(drawn)
    rows, ends = rows_of(images), [0, 4, 8, 9]
    centres = np.stack([direction(rows[a:b].sum(axis=0)) for a, b in pairwise(ends)])
    centre = np.concatenate([rows[a:b] @ of for (a, b), of in zip(pairwise(ends), centres, strict=True)])
    groups = divide(images, 0.6, None, 3, lambda _: None)
    table = identities(images, people(images, groups, None, 1, lambda _: None), centre)
    cosines = centres @ centres.T
    np.fill_diagonal(cosines, -2)
    assert table["label"].to_list() == [0, 1, 2]
    assert table["images"].to_list() == [4, 4, 1]
    assert table["findings"].to_list() == [0, 0, 0]
    assert table["spread"].to_list() == pytest.approx(
        [1 - centre[a:b].mean() for a, b in pairwise(ends)], abs=2e-6
    )
    assert table["nearest_label"].to_list() == cosines.argmax(axis=1).tolist()
    assert table["nearest_distance"].to_list() == pytest.approx(2 - 2 * cosines.max(axis=1), abs=2e-6)

    only = images_of(drawn.at(np.arange(4)))
    groups = divide(only, 0.6, None, 3, lambda _: None)
    table = identities(only, people(only, groups, None, 1, lambda _: None), centre[:4])
    assert table.select("nearest_label", "nearest_distance").rows() == [(None, None)]
