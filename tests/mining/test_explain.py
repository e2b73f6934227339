"""Why pairs have no negative, compared with all distances of a small bag."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet import _core
from fasttriplet.dataset._options import BagOptions
from fasttriplet.mining import _explain
from fasttriplet.mining._explain import why_never_triplets, why_without_negative
from fasttriplet.mining._options import MiningOptions
from tests import reference

OPTIONS: list[dict[str, Any]] = [
    {}, {"margin": 0.05}, {"pairs": "ordered"}, {"pairs": "hardest"}, {"pairs": "easiest"}, {"band": "hard"},
    {"band": "violating", "margin": 0.1}, {"max_ap": 1.2}, {"metric": "euclidean"}, {"pick": "all"},
    {"normalize": False}, {"band": "any"}, {"band": "d_an < d_ap + 0.1"}, {"ranks": (8, None)},
    {"margin": 0.1, "ranks": (2, 5), "pick": "all", "triplets_per_anchor": 1},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
def test_reasons(options: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(20), 5)
    rows = (rng.standard_normal((20, 8))[labels] + 0.8 * rng.standard_normal((100, 8))).astype(np.float32)
    ids = rng.permutation(1000)[:100]
    chosen = MiningOptions(**options)
    triplets = ft.mine(rows, labels, ids=ids, **options)
    found = why_without_negative(rows, labels, ids, triplets, chosen)
    missing = triplets.stats.pairs_without_negative
    if missing == 0:
        assert found is None
        return
    assert found is not None
    assert found["pairs"] == missing == found["separated"] + found["nearer"] + found["few"]
    assert (found["few"] > 0) == (chosen.ranks is not None)
    unit = rows / (np.linalg.norm(rows, axis=1, keepdims=True) if chosen.normalize else 1)
    distance = np.square(unit[:, None].astype(float) - unit[None]).sum(axis=2)
    if chosen.metric == "euclidean":
        distance = np.sqrt(distance)
    at = {int(one): place for place, one in enumerate(ids)}
    reach = {"hard": 0, "d_an < d_ap + 0.1": 0.1}.get(chosen.band, chosen.margin)
    assert found["examples"]["separated"] or found["examples"]["nearer"]
    with_one = set(zip(triplets.anchor.tolist(), triplets.positive.tolist(), strict=True))
    for reason, examples in found["examples"].items():
        assert len({one["ids"][0] for one in examples}) == len(examples) <= 4
        for one in examples:
            anchor, positive, negative = (at[image] for image in one["ids"])
            assert tuple(one["ids"][:2]) not in with_one or chosen.triplets_per_anchor
            assert labels[anchor] == labels[positive] != labels[negative]
            assert np.isclose(one["d_ap"], distance[anchor, positive], rtol=1e-5)
            assert np.isclose(one["d_an"], distance[anchor][labels != labels[anchor]].min(), rtol=1e-5)
            assert (one["d_an"] >= one["d_ap"] + reach) == (reason == "separated")


NEAR = {
    "semihard": "d_an < d_ap + margin",
    "violating": "d_an < d_ap + margin",
    "hard": "d_an <= d_ap",
    "d_an < d_ap + 0.1": "d_an < d_ap + 0.1",
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("anchors", [100, 30])
def test_counts_and_examples_are_those_of_the_definition(
    options: dict[str, Any], anchors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the nearest negative of each pair of some anchors, which are evenly spread."""
    monkeypatch.setattr(_explain, "_ANCHORS", anchors)
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(20), 5)
    rows = (rng.standard_normal((20, 8))[labels] + 0.8 * rng.standard_normal((100, 8))).astype(np.float32)
    ids = rng.permutation(1000)[:100]
    some = {*ids[np.unique(np.linspace(0, 99, anchors).astype(int))].tolist()}
    chosen = MiningOptions(**options)
    reset: dict[str, Any] = {
        "pick": "hardest", "margin": chosen.margin, "ids": ids, "pairs": chosen.pairs,
        "max_ap": chosen.max_ap, "metric": chosen.metric, "normalize": chosen.normalize,
    }  # fmt: skip

    def pairs(**more: Any) -> dict[tuple[int, int], tuple[int, float, float]]:
        found = reference.mine(rows, labels, **reset | more)
        return {(a, p): (n, d_ap, d_an) for a, p, n, d_ap, d_an in found if a in some}

    with_one = pairs(band=chosen.band, ranks=chosen.ranks)
    without = {pair: known for pair, known in pairs(band="any").items() if pair not in with_one}
    few = set(pairs(band=chosen.band)) & set(without)
    groups: dict[str, list[Any]] = {"separated": [], "nearer": []}
    for (anchor, positive), (negative, d_ap, d_an) in without.items():
        near = eval(NEAR.get(chosen.band, "True"), {"d_ap": d_ap, "d_an": d_an, "margin": chosen.margin})
        if (anchor, positive) not in few:
            one = {"ids": [anchor, positive, negative], "d_ap": d_ap, "d_an": d_an}
            groups["nearer" if near else "separated"].append(one)
    found = why_without_negative(rows, labels, ids, ft.mine(rows, labels, ids=ids, **options), chosen)
    if not without:
        assert found is None
        return
    examples = {}
    for name, by in (("separated", "d_an"), ("nearer", "d_ap")):
        first_of_anchor: dict[int, Any] = {}
        for one in sorted(groups[name], key=lambda one: (-one[by], one["ids"])):
            first_of_anchor.setdefault(one["ids"][0], one)
        examples[name] = [*first_of_anchor.values()][:4]
    assert found == {
        "pairs": len(without),
        "separated": len(groups["separated"]),
        "nearer": len(groups["nearer"]),
        "few": len(few),
        "examples": examples,
    }


def test_threads_are_as_many_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels, ids = np.eye(6, dtype=np.float32), np.arange(6) // 2, np.arange(6)
    triplets, used = ft.mine(rows, labels), []
    mine = _core.mine

    def noted(*arguments: Any) -> Any:
        used.append(arguments[-1])
        return mine(*arguments)

    monkeypatch.setattr(_core, "mine", noted)
    assert why_without_negative(rows, labels, ids, triplets, MiningOptions(), threads=3) is not None
    assert used == [3, 3]


def test_a_sample_of_the_anchors_of_a_large_bag() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(300), 3)
    rows = rng.standard_normal((900, 16)).astype(np.float32)
    triplets = ft.mine(rows, labels, margin=1e-4)
    found = why_without_negative(rows, labels, np.arange(900), triplets, MiningOptions(margin=1e-4))
    assert found is not None
    # A pair is that of its earlier row, so an anchor has 2, 1 or 0 of them.
    assert 200 < found["pairs"] < 300 < triplets.stats.pairs_without_negative
    assert found["pairs"] == found["separated"] + found["nearer"]
    assert found["nearer"] > 0


@pytest.mark.parametrize(
    ("images", "each", "least"),
    [
        ([1, 3], 5, 4),
        ([2, 3], 5, 5),
        ([1, 1, 4], 5, 5),
        ([7, 9, 8], 4, 8),
        ([6, 1], 2, 3),
        ([3, 2, 1, 1], 5, 3),
    ],
)
def test_the_smallest_bag_of_whole_identities(images: list[int], each: int, least: int) -> None:
    """It holds an identity of two images or more, cut to `images_per_identity`, and another one."""
    counts = np.array(images)
    options = BagOptions(images_per_identity=each, bag_size=least)
    assert why_never_triplets(counts, options) is None
    why = why_never_triplets(counts, replace(options, bag_size=least - 1))
    assert why is not None
    assert f"raise bag_size to {least} or more" in why
