"""Rows, cosines and neighbours of an audit are exact; groups are divided where people differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fasttriplet.auditing import _groups
from fasttriplet.auditing._groups import Sum, divide, halves
from fasttriplet.auditing._neighbors import (
    SCALE,
    Images,
    cosines,
    cosines_with,
    nearest_in,
    nearest_other,
    spread,
    total,
    unit,
)
from tests.auditing.drawn import draw
from tests.strategies import wild_values

rows_of_any_kind = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 12), st.integers(1, 9)), elements=wild_values
).filter(lambda rows: bool(np.abs(rows).max(axis=1).all()))


def plain_cosines(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    one, other = (
        part / np.linalg.norm(part.astype(np.float64), axis=1, keepdims=True) for part in (rows, others)
    )
    found: NDArray[np.float64] = one @ other.T
    return found


@settings(max_examples=100, deadline=None)
@given(rows=rows_of_any_kind, seed=st.integers(0, 2**32 - 1))
def test_cosines_are_those_of_the_definition_in_any_order(rows: NDArray[np.float32], seed: int) -> None:
    whole = unit(rows)
    assert (whole == np.rint(whole)).all()
    found = cosines(whole, whole)
    assert found == pytest.approx(plain_cosines(rows, rows), abs=4 * rows.shape[1] / SCALE)
    order = np.random.default_rng(seed).permutation(rows.shape[1])
    assert np.array_equal(cosines(whole[:, order], whole[:, order]), found)
    assert np.array_equal(cosines_with(whole, whole), found.diagonal())
    many = np.tile(whole, (99, 1))
    assert total(many).tolist() == many.astype(np.int64).sum(axis=0).tolist()


def test_the_nearest_are_those_of_the_definition() -> None:
    drawn = draw(30, 8, noise=1.5)
    rows = unit(drawn.embeddings)
    centres = unit(np.stack([rows[drawn.person == person].sum(axis=0) for person in range(30)]))
    at, nearest, cosine = nearest_other((rows, drawn.person), (centres, np.arange(30)), 3, None)
    every = plain_cosines(rows, centres)
    every[np.arange(len(rows)), drawn.person] = -2
    expected = np.argsort(-every, axis=1)[:, :3]
    for image in range(len(rows)):
        of_image = np.lexsort((-cosine, at))[3 * image : 3 * image + 3]
        assert nearest[of_image].tolist() == expected[image].tolist()
        assert cosine[of_image] == pytest.approx(every[image][expected[image]], abs=1e-6)


def images_of(embeddings: NDArray[np.float32], labels: NDArray[np.int64]) -> Images:
    return Images.of(embeddings, labels, np.arange(len(labels)), None, None)


def test_embeddings_of_one_number() -> None:
    images = images_of(np.array([[2], [-3], [0], [np.nan], [0.5]], np.float32), np.arange(5))
    assert images.rows.tolist() == [0, 1, 4]
    assert (images.unit(slice(0, 3)) / SCALE).tolist() == [[1], [-1], [1]]


def test_the_nearest_of_some() -> None:
    drawn = draw(5, 6)
    images = images_of(drawn.embeddings, drawn.labels)
    members = np.arange(6, 20)
    found = nearest_in(images, images.unit(slice(0, 4)), members, 5)
    every = plain_cosines(drawn.embeddings[:4], drawn.embeddings[members])
    assert found.tolist() == members[np.argsort(-every, axis=1)[:, :5]].tolist()
    assert nearest_in(images, images.unit(slice(0, 2)), members[:3], 5).shape == (2, 3)


def test_of_equally_near_images_the_first_are_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasttriplet.auditing._neighbors._BLOCK", 100)
    rows = np.eye(4, dtype=np.float32)[np.arange(80) % 4]
    images = images_of(rows, np.zeros(80, np.int64))
    found = nearest_in(images, images.unit(slice(0, 4)), np.arange(80), 30)
    expected = [[*range(own, 80, 4), *(at for at in range(80) if at % 4 != own)][:30] for own in range(4)]
    assert found.tolist() == expected


@pytest.mark.parametrize("images", [(12, 12), (60, 5), (4, 4)])
def test_two_people_are_told_apart(images: tuple[int, int]) -> None:
    for seed in range(5):
        drawn = draw(2, max(images), seed)
        kept = np.concatenate([np.flatnonzero(drawn.person == person)[:n] for person, n in enumerate(images)])
        side = halves(unit(drawn.embeddings[kept]))
        assert side is not None
        groups = {frozenset(np.flatnonzero(side)), frozenset(np.flatnonzero(~side))}
        assert groups == {frozenset(range(images[0])), frozenset(range(images[0], sum(images)))}


def test_a_division_ends_where_it_is_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """k-means has up to 50 rounds; of two people that differ a first round moves all rows, a second none."""
    rows = unit(draw(2, 12).embeddings)
    rounds: list[int] = []

    def counted(some: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
        rounds.append(len(others))
        return cosines(some, others)

    monkeypatch.setattr(_groups, "cosines", counted)
    halves(rows)
    assert rounds.count(2) <= 2 * 3  # of two beginnings; a round has two centres


@pytest.mark.parametrize("rows", [np.ones((5, 3)), np.ones((1, 4)), np.eye(2)[[0, 0, 0]]])
def test_what_is_alike_has_no_halves(rows: NDArray[np.float64]) -> None:
    assert halves(unit(rows)) is None


def test_likeness_is_one_for_halves_of_any_size() -> None:
    """The cosine of centres is not: it depends on how many images they are of."""
    drawn = draw(400, 16, noise=1.0)
    rows = unit(drawn.embeddings)
    usual = float(np.mean([Sum(rows[drawn.person == person]).within for person in range(400)]))
    cosine = {}
    for size in (1, 2, 4, 8):
        alike, near = [], []
        for person in range(400):
            of_person = rows[drawn.person == person]
            one, other = Sum(of_person[:size]), Sum(of_person[size : 2 * size])
            alike.append(one.likeness(other, usual))
            near.append(cosines(one.centre, other.centre)[0, 0])
        cosine[size] = np.mean(near)
        assert np.mean(alike) == pytest.approx(1, abs=0.05), size
    assert cosine[1] < 0.6
    assert cosine[8] > 0.85


def test_an_end_for_what_has_nothing_in_common() -> None:
    rng = np.random.default_rng(0)
    images = images_of(rng.standard_normal((300, 64)).astype(np.float32), np.zeros(300, np.int64))
    done: list[int] = []
    groups = divide(images, 0.5, 0.45, 3, done.append)
    assert done == [300]
    assert (np.diff(groups.sizes) <= 0).all()
    assert ((groups.of_image >= 0) | (groups.sizes.max() >= 3)).all()


@pytest.mark.parametrize("work", [0, 16 * 300, 40 * 300])
def test_an_identity_is_divided_so_often_and_no_more(monkeypatch: pytest.MonkeyPatch, work: int) -> None:
    """Without a limit these images would be divided more than a hundred times."""
    rows = np.random.default_rng(0).standard_normal((300, 64)).astype(np.float32)
    monkeypatch.setattr(_groups, "_WORK", work)
    calls: list[int] = []

    def counted(some: NDArray[np.float32]) -> NDArray[np.bool_] | None:
        calls.append(len(some))
        return halves(some)

    monkeypatch.setattr(_groups, "halves", counted)
    groups = divide(images_of(rows, np.zeros(300, np.int64)), 0.5, 0.45, 3, lambda _: None)
    most = max(16, work // 300)  # parts that are looked at, single images too
    assert most / 2 < len(calls) <= most
    assert min(calls) > 1
    assert groups.sizes.sum() + (groups.of_image < 0).sum() == 300


def test_positions_are_spread() -> None:
    assert spread(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert spread(10, 5).tolist() == [0, 2, 4, 6, 8]
    assert len(np.unique(spread(10**9, 4096))) == 4096
