"""Why nothing can be mined, and why nothing was: the sentences, with numbers that the definition gives."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet import _core
from fasttriplet.dataset._options import BagOptions
from fasttriplet.mining._explain import why_collapsed, why_never_triplets, why_no_triplets
from fasttriplet.mining._options import MiningOptions
from tests import reference

TWO = "anchor and positive are two images of one identity"


@pytest.mark.parametrize(
    ("images", "options", "why"),
    [
        (
            [1],
            {},
            "1 image of one identity and none of another, so there is no negative: add other identities, or "
            "check the labels",
        ),
        ([1500], {"bag_size": None}, "1,500 images of one identity and none of another"),
        ([2, 2], {"images_per_identity": 1}, f"images_per_identity is 1, and {TWO}: raise it"),
        ([2, 2], {"images_per_identity": 2}, None),
        ([], {}, f"each of the 0 identities has one image, and {TWO}: check the labels"),
        ([1, 1, 1], {"bag_size": None}, f"each of the 3 identities has one image, and {TWO}: check the"),
        ([1, 1, 2], {}, None),
        ([3, 3], {"bag_size": None}, None),
        ([3, 3], {"bag_size": None, "boundary": "split"}, None),
        ([3, 3], {"bag_size": 3, "boundary": "split"}, None),
        (
            [3, 3],
            {"bag_size": 2, "boundary": "split"},
            "a bag of 2 images has no room for a pair and a negative: raise bag_size to 3 or more",
        ),
        ([3, 3], {"bag_size": 6}, None),
        (
            [3, 3],
            {"bag_size": 5},
            "a bag of 5 images has no room for a pair and a negative: raise bag_size to 6 or more, lower "
            "images_per_identity, or allow boundary='split'",
        ),
        ([9, 9], {"bag_size": 1}, "a bag of 1 image has no room for a pair and a negative: raise "
         "bag_size to 10"),
    ],
)  # fmt: skip
def test_what_no_bag_can_give(images: list[int], options: dict[str, Any], why: str | None) -> None:
    found = why_never_triplets(np.array(images, np.int64), BagOptions(**options))
    if why is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(why)
        assert found == why or why.endswith(("another", "check the", "to 10"))  # the start of a sentence


def rows(n: int = 24, each: int = 3, spread: float = 0.3) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(n)
    labels = np.arange(n) // each
    centers = rng.standard_normal((n, 6))[labels]
    return (centers + spread * rng.standard_normal((n, 6))).astype(np.float32), labels


def why(embeddings: Any, labels: Any, *, whole: bool = False, **options: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ft.CollapseWarning)
        found = ft.mine(embeddings, labels, **options)
    assert len(found) == 0
    return why_no_triplets(embeddings, np.asarray(labels), found.stats, MiningOptions(**options), whole=whole)


def nearest(embeddings: Any, labels: Any, **options: Any) -> NDArray[np.float64]:
    """Of each pair, d_ap and the distance of the nearest negative."""
    triplets = reference.mine(embeddings, labels, band="any", pick="hardest", **options)
    return np.array([triplet[3:] for triplet in triplets])


def test_of_one_identity_or_of_single_images() -> None:
    embeddings, labels = rows()
    nothing = ft.mine(embeddings[:0], []).stats
    said = why_no_triplets(embeddings[:0], labels[:0], nothing, MiningOptions())
    assert said == "none of its images could be decoded"
    assert why(embeddings[:3], labels[:3]) == (
        "it has 3 images of one identity and none of another, so there is no negative: bags must hold "
        "several identities (raise bag_size or lower images_per_identity)"
    )
    assert why(embeddings[::3], labels[::3]) == (
        "each of the 8 identities has one image, so there is no positive: raise bag_size or "
        "images_per_identity"
    )
    assert why(embeddings[2:4], labels[2:4]).startswith("each of the 2 identities has one image")


def test_of_a_network_that_has_collapsed() -> None:
    embeddings, labels = rows(spread=1e-6)
    embeddings[:] = embeddings[0] + np.float32(1e-5) * embeddings
    stats = ft.mine(embeddings, labels, band="d_an > 9").stats
    assert stats.collapsed
    expected = (
        "the embeddings are nearly equal (the median squared L2 distance between identities is "
        f"{stats.scatter:.2g} of the squared norm, and up to 1e-06 is noise): the network has collapsed, or "
        "its input is constant"
    )
    assert why_collapsed(stats) == expected
    assert why(embeddings, labels, band="d_an > 9") == expected


def test_of_a_limit_on_positives() -> None:
    embeddings, labels = rows()
    least = nearest(embeddings, labels)[:, 0].min()
    assert why(embeddings, labels, max_ap=least / 2) == (
        f"max_ap={least / 2} skips 24 pairs and leaves none (the nearest pair has d_ap={least:.4g}): raise "
        "max_ap or leave it out"
    )


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"margin": 0.01}, "d_ap + margin (0.01)"),
        ({"margin": 0.01, "band": "violating", "metric": "euclidean"}, "d_ap + margin (0.01)"),
        ({"band": "hard", "pairs": "ordered"}, "d_ap"),
        ({"band": "d_an < d_ap + 0.01"}, "the band (d_an < d_ap + 0.01) has a place for"),
        ({"band": "d_an < d_ap + 0.01 and d_an > 0.1"}, "the band (d_an < d_ap + 0.01 and d_an > 0.1) has a"),
    ],
)
def test_of_identities_that_are_separated(options: dict[str, Any], rule: str, whole: bool) -> None:
    embeddings, labels = rows(spread=0.01)
    how = {name: options[name] for name in ("metric", "pairs") if name in options}
    d_ap, d_an = nearest(embeddings, labels, **how).T
    gap = d_an - d_ap
    rest = "" if whole else ", or mine larger bags"
    said = why(embeddings, labels, whole=whole, **options)
    assert said.startswith(f"no negative is nearer than {rule}")
    assert said.endswith(
        f": for the closest of {len(gap)} pairs d_an - d_ap is {gap.min():.4g}, at the median "
        f"{np.median(gap):.4g}. The embeddings separate these identities; raise the margin{rest}"
    )


@pytest.mark.parametrize("whole", [False, True])
def test_of_ranks_that_leave_all_out(whole: bool) -> None:
    embeddings, labels = rows()
    rest = "" if whole else ", or mine larger bags"
    for first, noun in ((21, "21 negatives"), (1000, "1,000 negatives")):
        assert why(embeddings, labels, whole=whole, band="any", ranks=(first, None)) == (
            f"no pair has more than {noun} that qualify, and ranks leave these out: lower the first of the "
            f"ranks{rest}"
        )
    few, of_few = embeddings[[0, 1, 3]], labels[[0, 1, 3]]
    assert why(few, of_few, band="any", ranks=(1, 4)).startswith("no pair has more than 1 negative that qu")


def test_of_negatives_that_are_too_near() -> None:
    """Those of each pair are at the distance of the positive, or nearer: none is strictly in the band."""
    embeddings, labels = np.eye(9, dtype=np.float32), np.arange(9) // 3
    assert why(embeddings, labels) == (
        "no negative lies strictly between d_ap and d_ap + margin (0.3): the nearest negatives are at "
        "d_an - d_ap = 0 to 0. Raise the margin, or mine band='violating'"
    )
    assert why(embeddings, labels, ranks=(1, None)).startswith("no negative lies strictly between d_ap")
    for options, band in (
        ({"band": "easy"}, "d_an >= d_ap + margin (0.3)"),
        ({"band": "d_an > d_ap + margin", "margin": 0.5}, "d_an > d_ap + margin (0.5)"),
        ({"band": "d_an > 2.5"}, "d_an > 2.5"),
    ):
        chosen: dict[str, Any] = options
        assert why(embeddings, labels, **chosen) == (
            f"no negative has {band}: the nearest negatives are at d_an = 2 to 2, which is d_an - d_ap = 0 "
            "to 0. Take another band"
        )
    embeddings, labels = rows(spread=2.0)
    d_ap, d_an = nearest(embeddings, labels).T
    gap = d_an - d_ap
    assert gap.max() > 0
    assert why(embeddings, labels, band="d_an > 9") == (
        f"no negative has d_an > 9: the nearest negatives are at d_an = {d_an.min():.4g} to "
        f"{d_an.max():.4g}, which is d_an - d_ap = {gap.min():.4g} to {gap.max():.4g}. Take another band"
    )


def test_what_is_chosen_from_the_qualifying_is_no_reason() -> None:
    """Neither limits on what is returned nor a fallback make the reasons, or the numbers, others."""
    embeddings, labels = rows(spread=0.01)
    plain = why(embeddings, labels, margin=0.01)
    for options in ({"pick": "all"}, {"negatives_per_pair": 5}, {"triplets_per_anchor": 1}):
        chosen: dict[str, Any] = options
        assert why(embeddings, labels, margin=0.01, **chosen) == plain
    stats = ft.mine(embeddings, labels, margin=0.01).stats
    fallback = MiningOptions(margin=0.01, fallback="farthest")
    assert why_no_triplets(embeddings, labels, stats, fallback) == plain
    embeddings, labels = np.eye(9, dtype=np.float32), np.arange(9) // 3
    stats = ft.mine(embeddings, labels).stats
    fallback = MiningOptions(fallback="farthest", ranks=(1, None))
    assert why_no_triplets(embeddings, labels, stats, fallback).startswith(
        "no negative lies strictly between"
    )


def test_threads_are_as_many_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int | None] = []
    mine = _core.mine

    def noted(*arguments: Any) -> Any:
        used.append(arguments[-1])
        return mine(*arguments)

    embeddings, labels = rows()
    options = MiningOptions(band="any", ranks=(30, None))
    stats = ft.mine(embeddings, labels, band="any", ranks=(30, None)).stats
    monkeypatch.setattr(_core, "mine", noted)
    assert re.match("no pair has", why_no_triplets(embeddings, labels, stats, options, threads=3))
    assert used == [3, 3]
