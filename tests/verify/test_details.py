"""The curve, the histogram and the worst pairs of a verification, compared with their definitions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet.verify._details import details
from tests.small_rec import identities, picture, write_rec


@pytest.mark.parametrize("seed", range(4))
def test_the_curve_and_the_histogram(seed: int) -> None:
    rng = np.random.default_rng(seed)
    same = rng.random(300) < 0.4
    distances = np.round(np.where(same, rng.normal(0.8, 0.4, 300), rng.normal(1.8, 0.4, 300)).clip(0, 4), 2)
    found = details(ft.verify_distances(distances, same))
    far, tar = np.array(found["roc"]["far"]), np.array(found["roc"]["tar"])
    assert (len(far), far[0], far[-1]) == (100, 1 / (~same).sum(), 1.0)
    thresholds = np.append(np.unique(distances), np.inf)
    for rate, reached in zip(far, tar, strict=True):
        allowed = [t for t in thresholds if (distances[~same] < t).mean() <= rate * (1 + 1e-12)]
        assert reached == max((distances[same] < t).mean() for t in allowed)
    counts = found["histogram"]
    assert counts["width"] == 0.05
    for name, kind in (("genuine", same), ("impostors", ~same)):
        assert sum(counts[name]) == kind.sum()
        assert counts[name] == np.histogram(distances[kind], 0.05 * np.arange(81))[0].tolist()
    assert [one["distance"] for one in found["worst"]["genuine"]] == sorted(distances[same])[::-1][:10]
    assert [one["distance"] for one in found["worst"]["impostors"]] == sorted(distances[~same])[:10]
    json.dumps(found)


def test_pairs_of_one_kind_have_no_curve() -> None:
    found = details(ft.verify_distances([0.1, 0.2], [True, True], folds=2))
    assert found["roc"] is None
    assert found["worst"]["impostors"] == []


def test_of_pairs_that_are_equally_far_the_first_are_listed() -> None:
    found = ft.verify_distances([1.0] * 400, [True, False] * 200)
    listed = details(replace(found, ids=np.arange(800).reshape(400, 2)))["worst"]
    for name, first in (("genuine", 0), ("impostors", 2)):
        expected = [[at, at + 1] for at in range(first, first + 40, 4)]
        assert [one["ids"] for one in listed[name]] == expected


def test_the_worst_pairs_name_their_images(tmp_path: Path) -> None:
    recs = [write_rec(tmp_path / f"{name}.rec", identities(6, 4)) for name in "ab"]
    dataset = ft.Dataset(recs, labels="separate")
    verified = ft.verify_rec(dataset, "pixels", pairs_per_kind=40)
    found = details(verified)
    assert found["dataset"] == dataset.fingerprint
    label = dict(zip(dataset.ids.tolist(), dataset.labels.tolist(), strict=True))
    for name, same in (("genuine", True), ("impostors", False)):
        images = [image for one in found["worst"][name] for image in one["ids"]]
        assert len(images) == len(set(images)) > 4  # each image once
        for one in found["worst"][name]:
            first, second = one["ids"]
            assert (label[first] == label[second]) == same
    assert verified.ids is not None
    of_ids = dict(zip(map(tuple, verified.ids.tolist()), verified.distances, strict=True))
    assert all(of_ids[tuple(one["ids"])] == one["distance"] for of in found["worst"].values() for one in of)

    ft.write_pairs(tmp_path / "a.bin", [picture(i) for i in range(20)], [True, False] * 5)
    found = details(ft.verify_pairs(tmp_path / "a.bin", "pixels"))
    assert found["dataset"] is None
    assert all(one["ids"][1] == one["ids"][0] + 1 for of in found["worst"].values() for one in of)
