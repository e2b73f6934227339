"""The protocol against its plain definition."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttriplet import verify_distances
from fasttriplet.verify._protocol import why_no_accuracy


def folds_of(count: int, folds: int) -> list[range]:
    ends = [0]
    for fold in range(folds):
        ends.append(ends[-1] + count // folds + (fold < count % folds))
    return [range(a, b) for a, b in pairwise(ends)]


def accuracy_at(threshold: float, distances: list[float], same: list[bool], pairs: list[int]) -> float:
    return sum((distances[pair] < threshold) == same[pair] for pair in pairs) / len(pairs)


def plain_accuracy(
    distances: list[float], same: list[bool], folds: int
) -> tuple[list[float], list[float], float]:
    thresholds = [step / 100 for step in range(400)]

    def best(pairs: list[int]) -> float:
        scores = [accuracy_at(threshold, distances, same, pairs) for threshold in thresholds]
        return thresholds[scores.index(max(scores))]

    accuracies, chosen = [], []
    for fold in folds_of(len(same), folds):
        chosen.append(best([pair for pair in range(len(same)) if pair not in fold]))
        accuracies.append(accuracy_at(chosen[-1], distances, same, list(fold)))
    return accuracies, chosen, best(list(range(len(same))))


def can_be_judged(same: list[bool], folds: int) -> bool:
    """Whether each fold has pairs of both kinds outside of it."""
    outside = (
        [same[pair] for pair in range(len(same)) if pair not in fold] for fold in folds_of(len(same), folds)
    )
    return all({*others} == {True, False} for others in outside)


def plain_auc(near: list[float], far: list[float]) -> float | None:
    if not near or not far:
        return None
    wins = sum((g < i) + (g == i) / 2 for g in near for i in far)
    return wins / (len(near) * len(far))


def plain_tar(near: list[float], far: list[float], rate: int) -> float | None:
    """At a FAR of 1/rate: the best of all thresholds that let no more than the allowed impostors in."""
    allowed = len(far) // rate
    if not allowed or not near:
        return None
    fitting = [t for t in {*near, *far, 5.0} if sum(i < t for i in far) <= allowed]
    # Between two distances nothing changes, so these thresholds are all that matter.
    return max(sum(g < t for g in near) for t in fitting) / len(near)


distances_in_steps = st.integers(0, 400).map(lambda step: step / 100)  # many lie on thresholds, and tie


@settings(deadline=None)
@given(
    st.lists(st.tuples(distances_in_steps | st.floats(0, 4), st.booleans()), min_size=2, max_size=45),
    st.data(),
)
def test_protocol_is_its_plain_definition(pairs: list[tuple[float, bool]], data: st.DataObject) -> None:
    distances, same = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    folds = data.draw(st.integers(2, min(10, len(pairs))))
    found = verify_distances(distances, same, folds)
    accuracies, thresholds, best = plain_accuracy(distances, same, folds)
    assert found.folds == folds
    if can_be_judged(same, folds):
        assert np.allclose(found.fold_accuracies, accuracies, rtol=0, atol=1e-12)
        assert list(found.fold_thresholds) == thresholds
        assert found.accuracy == pytest.approx(np.mean(accuracies))
        assert found.accuracy_std == pytest.approx(np.std(accuracies))
    else:
        assert (found.accuracy, found.accuracy_std) == (None, None)
        assert (found.fold_accuracies, found.fold_thresholds) == ((), ())
    assert found.threshold == (best if 0 < sum(same) < len(same) else None)
    near = [d for d, s in pairs if s]
    far = [d for d, s in pairs if not s]
    assert (found.pairs, found.genuine, found.impostors) == (len(pairs), len(near), len(far))
    assert found.auc == (None if (auc := plain_auc(near, far)) is None else pytest.approx(auc, abs=1e-15))
    for exponent in range(1, 7):
        assert found.tar.get(10.0**-exponent) == plain_tar(near, far, 10**exponent)
    if near and far:
        far_rates, tar_rates = found.roc()
        steps = [*sorted(set(distances)), np.inf]
        assert far_rates.tolist() == [sum(d < t for d in far) / len(far) for t in steps]
        assert tar_rates.tolist() == [sum(d < t for d in near) / len(near) for t in steps]


def test_known_values() -> None:
    distances = [0.5] * 10 + [1.5] * 10
    same = [True] * 10 + [False] * 10
    order = [i for pair in zip(range(10), range(10, 20), strict=True) for i in pair]
    found = verify_distances(np.array(distances)[order], np.array(same)[order])
    assert (found.accuracy, found.accuracy_std, found.auc) == (1.0, 0.0, 1.0)
    assert found.threshold == 0.51  # 0.50 does not accept: below is strict
    assert found.tar == {0.1: 1.0}
    assert verify_distances([1.0] * 20, same).auc == 0.5
    # Two impostors at one distance, one allowed: a threshold above both would let in two.
    tied = verify_distances([0.1, 0.3, *[0.2] * 2, *[3.0] * 8], [True] * 2 + [False] * 10, folds=2)
    assert tied.tar == {0.1: 0.5}


def test_a_result_is_its_numbers_without_the_pairs() -> None:
    found = verify_distances([0.1, 2.0] * 5, [True, False] * 5)
    of_pairs = {"distances", "same", "ids", "dataset"}
    assert not any(f" {name}=" in repr(found) for name in of_pairs)
    other = replace(
        found, ids=np.zeros((10, 2), np.int64), dataset="x", distances=np.ones(10), same=found.same[1:]
    )
    assert other == found != replace(found, auc=0.5)
    assert found.to_dict().keys() == set(found.__dataclass_fields__) - of_pairs


def test_all_rates_that_the_pairs_carry() -> None:
    rng = np.random.default_rng(3)
    distances = rng.uniform(0, 4, 1_000_100)
    same = np.arange(1_000_100) < 100
    found = verify_distances(distances, same)
    assert list(found.tar) == [0.1, 0.01, 0.001, 1e-4, 1e-5, 1e-6]
    far = np.sort(distances[~same])
    for rate, tar in found.tar.items():
        assert tar == (distances[same] < far[round(rate * 1_000_000)]).mean()
    assert list(verify_distances(distances[:-1], same[:-1]).tar)[-1] == 1e-5
    assert list(verify_distances(distances[same], ~same[same]).tar) == []


@pytest.mark.parametrize("genuine", [True, False])
def test_one_kind_of_pairs(genuine: bool) -> None:
    found = verify_distances(np.linspace(0.1, 3, 12), [genuine] * 12)
    assert (found.auc, found.tar) == (None, {})
    assert (found.accuracy, found.accuracy_std, found.threshold) == (None, None, None)
    with pytest.raises(ValueError, match=r"both kinds, and all pairs are (genuine|impostors)"):
        found.roc()
    plain = json.loads(json.dumps(found.to_dict()))
    assert (plain["auc"], plain["accuracy"], plain["fold_accuracies"], plain["folds"]) == (None, None, [], 10)


@pytest.mark.parametrize(
    ("same", "folds", "why"),
    [
        (
            [True, True, False, False],
            2,
            "all genuine pairs are in fold 1 of 2, and the other folds decide its",
        ),
        ([True, True, False, False, True, True], 3, "all impostor pairs are in fold 2 of 3"),
        ([True, False, True, False], 2, None),
        ([True] * 9 + [False] * 3, 10, None),  # the first two folds have two pairs
        ([False] * 10, 10, "all pairs are impostors"),
    ],
)
def test_why_there_is_no_accuracy(same: list[bool], folds: int, why: str | None) -> None:
    found = verify_distances([0.1 if one else 2.0 for one in same], same, folds)
    said = why_no_accuracy(found.same, folds)
    assert (found.accuracy is None) == (why is not None) == (said is not None)
    assert why is None or (said is not None and said.startswith(why))


MASKED: Any = np.ma.masked_equal([0.1, 0.2], 0.2)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("distances", "same", "folds", "said"),
    [
        ([0.1] * 9, [True] * 9, 10, "9 pairs are too few for 10 folds; .*fewer folds: folds=9"),
        ([0.1], [True], 2, "1 pair cannot be judged; at least 2"),
        ([], [], 2, "0 pairs cannot be judged"),
        ([0.1, float("nan")], [True] * 2, 2, "pair 1 is nan"),
        ([0.1, 4.1], [True] * 2, 2, "divide the embeddings by their L2 norm"),
        ([0.1, -0.1], [True] * 2, 2, "pair 1 is -0.1"),
        ([[0.1, 0.2]], [True] * 2, 2, "one for each pair"),
        (["0.1", "0.2"], [True] * 2, 2, r"list of numbers, one for each pair, not <U3 of shape \(2,\)"),
        ([0.1, None], [True] * 2, 2, r"list of numbers, one for each pair, not object of shape \(2,\)"),
        (MASKED, [True] * 2, 2, "distances are a masked array"),
        ([0.1, 0.2], MASKED > 0, 2, "same are a masked array"),
        ([0.1, 0.2], [True], 2, "2 distances but truth values of shape"),
        ([0.1, 0.2], [1, 2], 2, "same of pair 1 is 2"),
        ([0.1, 0.2], ["a", "b"], 2, "True or False"),
        ([0.1, 0.2], [1.0, 0.0], 2, "same must be True or False for each pair, not float64"),
        ([0.1, 0.2], [1, 0], 1, "folds must be"),
        ([0.1, 0.2], [1, 0], 2.0, "folds must be"),
    ],
)
def test_what_cannot_be_judged(distances: Any, same: Any, folds: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        verify_distances(distances, same, folds)
