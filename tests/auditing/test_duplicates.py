"""Copies are found whatever was done to them, and other photographs are not copies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet import _core
from fasttriplet.auditing import _duplicates
from fasttriplet.auditing._duplicates import Copies, Search, duplicates, groups_of
from fasttriplet.auditing._pictures import Looks
from fasttriplet.mining._mine import mine_rows
from fasttriplet.mining._options import MiningOptions
from tests.auditing.pictures import SIDE, Pixels, jpeg, plain, scene, shifted, write
from tests.small_rec import write_rec

NO_PAIRS = (np.empty(0, np.int64), np.empty(0, np.int64))


def look(dataset: ft.Dataset) -> Looks:
    decoded = dataset.decode(np.arange(len(dataset)), on_error="skip")
    looks = Looks.unseen(len(dataset))
    looks.add(0, decoded.kept, *_core.looks_of(decoded.pixels, threads=1), decoded.failed)
    return looks


def searching(dataset: ft.Dataset, looks: Looks, *, above: float = 0.8, threads: int = 1) -> Search:
    return Search(dataset=dataset, looks=looks, above=above, threads=threads, progress=lambda *_: None)


def copies_in(dataset: ft.Dataset, **options: Any) -> Copies:
    looks = look(dataset)
    return searching(dataset, looks, **options).copies(looks.decoded, NO_PAIRS)


def findings(dataset: ft.Dataset, fit: NDArray[np.float64] | None = None) -> pl.DataFrame:
    fit = np.linspace(0.9, 0.1, len(dataset)) if fit is None else fit
    return duplicates(dataset, copies_in(dataset), fit)


@pytest.mark.parametrize(
    ("down", "right", "mirrored", "quality"),
    [
        (0, 0, False, 95),
        (0, 0, False, 70),
        (1, -1, False, 70),
        (-2, 2, False, 70),
        (0, 0, True, 70),
        (2, 1, True, 70),
    ],
)
def test_a_copy_is_found(tmp_path: Path, down: int, right: int, mirrored: bool, quality: int) -> None:
    images = plain(5, 4)
    copy = scene(7)[:, ::-1] if mirrored else scene(7)
    images[50] = (4, jpeg(shifted(copy, down, right), quality))
    dataset = ft.Dataset(write(tmp_path / "a.rec", images), cache=False)
    found = copies_in(dataset)
    assert (found.first.tolist(), found.second.tolist()) == ([7], [20])
    assert found.place.tolist() == [[down, right, int(mirrored)]]
    assert found.correlation[0] > (0.8 if quality == 70 else 0.99)


def test_several_mirrored_copies_are_found(tmp_path: Path) -> None:
    images = plain(5, 4)
    for key, of in ((50, 7), (51, 3), (52, 16)):
        images[key] = (4, jpeg(scene(of)[:, ::-1], 70))
    found = copies_in(ft.Dataset(write(tmp_path / "a.rec", images), cache=False))
    assert sorted(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [
        (3, 21),
        (7, 20),
        (16, 22),
    ]


@pytest.mark.parametrize(("size", "times"), [((224, 112), 1), ((112, 56), 4), ((28, 112), 16)])
def test_sketches_of_smaller_pictures_may_differ_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: tuple[int, int], times: float
) -> None:
    """By the square of what a pixel is of their shorter side."""
    dataset = ft.Dataset(write(tmp_path / "a.rec", plain(3, 2)), cache=False)
    looks, margins = look(dataset), list[float]()

    def noted(search: MiningOptions, *arguments: Any, **options: Any) -> Any:
        margins.append(search.margin)
        return mine_rows(search, *arguments, **options)

    monkeypatch.setattr(_duplicates, "mine_rows", noted)
    search = searching(dataset, looks)
    vars(search)["_size"] = size
    search._near(np.arange(len(dataset)))
    assert margins[0] == pytest.approx(0.2 * times)


def test_the_comparison_is_as_defined() -> None:
    """Correlation of gray levels less the mean of 5 x 5 around them, the best over shifts and mirroring."""

    def detail(pixels: Pixels) -> NDArray[np.float64]:
        r, g, b = pixels.astype(np.int64).transpose(2, 0, 1)
        gray = (77 * r + 150 * g + 29 * b + 128) >> 8
        windows = np.lib.stride_tricks.sliding_window_view(gray, (5, 5))
        return np.asarray((25 * gray[2:-2, 2:-2] - windows.sum(axis=(2, 3))) // 8, np.float64)

    def best(one: Pixels, other: Pixels) -> float:
        middle, windows = detail(one)[2:-2, 2:-2], detail(other)
        found = [0.0]
        for down in range(5):
            for right in range(5):
                part = windows[down : down + len(middle), right : right + middle.shape[1]]
                norms = np.sqrt((middle**2).sum() * (part**2).sum())
                found += [(middle * part).sum() / norms, (middle[:, ::-1] * part).sum() / norms]
        return max(found)

    pixels = np.stack([scene(1, 24), scene(2, 24), shifted(scene(1, 24)[:, ::-1], 1, 2), scene(1, 24)])
    first, second = np.array([[0, 0, 1, 2], [1, 2, 2, 3]])
    found, _ = _core.compare_pictures(pixels, first, second, threads=2)
    expected = [best(pixels[a], pixels[b]) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_copy_is_dropped_where_it_fits_worse(tmp_path: Path) -> None:
    images = plain(5, 4) | {
        50: (4, jpeg(scene(7), 70)),
        51: (1, jpeg(scene(7)[:, ::-1], 70)),
        52: (3, jpeg(scene(1), 70)),
    }
    dataset = ft.Dataset(write(tmp_path / "a.rec", images), cache=False)
    fit = np.full(23, 0.5)
    fit[20], fit[1], fit[22] = 0.6, 0.3, np.nan  # keys 50, 1 and 52
    found = findings(dataset, fit)
    columns = ["finding", "key", "label", "action", "evidence_keys"]
    assert found.select(columns).rows() == [
        (0, 52, 3, "drop", [1]),  # a fit that is unknown is the worst
        (1, 7, 1, "drop", [50, 51]),
        (1, 51, 1, "drop", [50, 7]),
    ]
    assert found["suggested_label"].null_count() == 3
    assert "identity 4" in found["reason"][1]
    assert "0.60 there, 0.50 here" in found["reason"][1]
    assert "mirrored" in found["reason"][2]


def test_within_an_identity_a_copy_is_harmless(tmp_path: Path) -> None:
    images = plain(5, 4) | {50: (1, jpeg(shifted(scene(7), 0, 2), 70))}
    dataset = ft.Dataset(write(tmp_path / "a.rec", images), cache=False)
    (row,) = findings(dataset).rows(named=True)
    assert (row["key"], row["action"], row["evidence_keys"]) == (50, "keep", [7])
    assert "shifted by 2 pixels" in row["reason"]


def test_many_copies_of_a_picture_are_one_finding(tmp_path: Path) -> None:
    """More than the nearest few that each picture is compared with."""
    rng = np.random.default_rng(0)
    images = plain(5, 4)
    for key in range(100, 160):
        images[key] = (key % 5, jpeg(shifted(scene(7), *rng.integers(-1, 2, 2)), int(rng.integers(70, 96))))
    dataset = ft.Dataset(write(tmp_path / "a.rec", images), cache=False)
    found = findings(dataset)
    assert set(found["finding"]) == {0}
    assert set(found["key"]) == {*range(100, 160)}  # key 7 fits best
    assert (found["action"] == "keep").sum() == 12


def test_pairs_that_are_given_are_compared_too(tmp_path: Path) -> None:
    images = plain(3, 4)
    images[50] = (2, jpeg(scene(7), 70))
    dataset = ft.Dataset(write(tmp_path / "a.rec", images), cache=False)
    looks = look(dataset)
    looks.sketches[:] = 0  # nothing is near
    search = searching(dataset, looks)
    assert not len(search.copies(looks.decoded, NO_PAIRS).first)
    found = search.copies(looks.decoded, (np.array([12, 3, 12]), np.array([7, 3, 2])))
    assert (found.first.tolist(), found.second.tolist()) == ([7], [12])


def test_copies_do_not_depend_on_threads(tmp_path: Path) -> None:
    images = plain(5, 4) | {50 + i: (4, jpeg(shifted(scene(i), 1, 1), 70)) for i in range(8)}
    dataset = ft.Dataset(write(tmp_path / "a.rec", images), cache=False)
    one, two = copies_in(dataset, threads=1), copies_in(dataset, threads=2)
    for name in ("first", "second", "correlation", "place"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert len(one.first) == 8


@pytest.mark.parametrize("pairs", [1, 2, 3, 100])
def test_pictures_are_compared_in_blocks_of_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: int
) -> None:
    """As many pairs at a time as memory is for, and one at least; the answer is the same."""
    images = plain(5, 4) | {50 + i: (4, jpeg(scene(i), 70)) for i in range(8)}
    dataset = ft.Dataset(write(tmp_path / "a.rec", images), cache=False)
    looks = look(dataset)
    expected = searching(dataset, looks).copies(looks.decoded, NO_PAIRS)
    decode, blocks = ft.Dataset.decode, list[int]()

    def counted(dataset: ft.Dataset, rows: Any, **options: Any) -> Any:
        blocks.append(len(rows))
        return decode(dataset, rows, **options)

    monkeypatch.setattr(ft.Dataset, "decode", counted)
    bytes_each = 2 * SIDE * SIDE * 3
    monkeypatch.setattr(_duplicates, "_BYTES", pairs * bytes_each + (bytes_each - 1 if pairs > 1 else -1))
    steps: list[tuple[int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "comparing pictures":
            steps.append((done, total))

    search = replace(searching(dataset, looks), progress=progress)
    found = search.copies(looks.decoded, NO_PAIRS)
    for name in ("first", "second", "correlation", "place"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    total = steps[-1][1]
    assert total >= 8
    assert steps == [(min(done + pairs, total), total) for done in range(0, total, pairs)]
    assert len(blocks) == len(steps)
    assert max(blocks) <= 2 * pairs


def test_groups() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 5, 60):
        first, second = np.sort(rng.integers(0, count, (2, count)), axis=0)
        found = groups_of(Copies(first, second, np.empty(0, np.float32), np.empty((0, 3), np.int8)), count)
        expected = np.arange(count)
        for _ in range(count):
            for a, b in zip(first, second, strict=True):
                expected[[a, b]] = min(expected[a], expected[b])
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(8))
def test_findings_of_copies_are_as_defined(tmp_path: Path, seed: int) -> None:
    """One image of each picture stays: that which fits best, of equal ones that of the larger identity."""
    rng = np.random.default_rng(seed)
    labels = dict(zip(range(5, 45), rng.integers(0, 9, 40).tolist(), strict=True))
    dataset = ft.Dataset(write_rec(tmp_path / "a.rec", labels, side=8), cache=False)
    pairs = np.unique(np.sort(rng.integers(0, 40, (26, 2)), axis=1), axis=0)
    first, second = pairs[pairs[:, 0] < pairs[:, 1]].T
    count = len(first)
    correlation = rng.choice([0.8123456, 0.95, 1.0000001], count).astype(np.float32)
    place = np.stack(
        [rng.integers(-2, 3, count), rng.integers(-2, 3, count), rng.integers(0, 2, count)], axis=1
    )
    copies = Copies(first, second, correlation, place.astype(np.int8))
    fit = rng.choice([np.nan, 0.25, 0.5], 40)
    found = duplicates(dataset, copies, fit)
    group = groups_of(copies, 40)
    sizes = np.bincount(dataset.labels)[dataset.labels]
    expected = []
    for number, lowest in enumerate(sorted({*group[first].tolist()})):
        members = np.flatnonzero(group == lowest).tolist()
        stays = min(members, key=lambda at: (-np.nan_to_num(fit[at], nan=-9), -sizes[at], at))
        others = [at for at in members if at != stays]
        for image in others:
            of_image = [at for at in range(count) if image in (first[at], second[at])]
            at = next((at for at in of_image if stays in (first[at], second[at])), of_image[0])
            how = f"correlation of details {correlation[at]:.3f}"
            how += ", mirrored" if place[at, 2] else ""
            most = max(map(abs, place[at, :2].tolist()))
            how += ["", ", shifted by 1 pixel", ", shifted by 2 pixels"][most]
            here, there = ("unknown" if np.isnan(fit[one]) else f"{fit[one]:.2f}" for one in (image, stays))
            same = dataset.labels[image] == dataset.labels[stays]
            evidence = [stays, *(other for other in others[:5] if other != image)][:5]
            reason = (
                f"same picture as another image of its identity ({how})"
                if same
                else f"same picture as an image of identity {dataset.labels[stays]} ({how}), which it fits "
                f"better: cosine {there} there, {here} here"
            )
            score = round(min(float(correlation[at]), 1.0), 6)
            expected.append({
                "finding": number, "kind": "duplicate", "key": dataset.keys[image], "file": 0,
                "label": dataset.labels[image], "suggested_label": None, "action": "keep" if same else "drop",
                "score": score, "reason": reason, "evidence_keys": dataset.keys[evidence].tolist(),
                "evidence_files": [0] * len(evidence),
            })  # fmt: skip
    assert found.rows(named=True) == expected
    assert len({row["action"] for row in expected}) == 2


def test_pictures_that_are_too_small_or_uniform_are_like_none(tmp_path: Path) -> None:
    gray = np.full((SIDE, SIDE, 3), 90, np.uint8)
    dataset = ft.Dataset(write(tmp_path / "a.rec", {key: (key, jpeg(gray)) for key in range(3)}), cache=False)
    assert not len(copies_in(dataset).first)
    tiny = {key: (key, jpeg(scene(1, 8))) for key in range(3)}
    assert not len(copies_in(ft.Dataset(write(tmp_path / "b.rec", tiny), cache=False)).first)


@pytest.fixture(scope="module")
def faces(real_data: Path) -> ft.Dataset:
    return ft.Dataset(real_data / "lfw112-a" / "train.rec", cache=False)


# Looked at: one photograph, cut out twice.
SAME = {frozenset({2097, 2099})}


@pytest.mark.parametrize("seed", range(3))
def test_copies_among_faces(faces: ft.Dataset, tmp_path: Path, seed: int) -> None:
    """Twenty of twenty, shifted and encoded again, and no other but those that are there."""
    rng = np.random.default_rng(seed)
    images = {
        int(key): (int(label), faces.read(at)[1])
        for at, (key, label) in enumerate(zip(faces.keys, faces.labels, strict=True))
    }
    planted = set()
    for number, at in enumerate(rng.choice(len(faces), 20, replace=False)):
        pixels = faces.decode([at]).pixels[0]
        pixels = pixels[:, ::-1] if number % 4 == 3 else pixels
        key, label = 10_000 + number, int(rng.choice(np.setdiff1d(faces.labels, faces.labels[at])))
        moved = rng.choice([(0, 1), (1, 0), (-1, 1), (-1, -1), (0, -1), (2, 0), (1, -2)])
        images[key] = (label, jpeg(shifted(pixels, *moved), 70))
        planted.add(frozenset({key, int(faces.keys[at])}))
    dataset = ft.Dataset(write(tmp_path / "a.rec", images), cache=False)
    found = copies_in(dataset, threads=2)
    pairs = {frozenset(pair) for pair in dataset.keys[np.stack([found.first, found.second], axis=1)].tolist()}
    near = {
        pair for pair in SAME for one in planted if pair & one
    }  # a copy of one of these is one of the other
    assert planted <= pairs
    assert len(pairs - planted - SAME) <= 2 * len(near)


def test_other_photographs_of_a_face_are_not_copies(faces: ft.Dataset) -> None:
    """Also not those that were taken one after the other: the nearest have a correlation of 0.71."""
    found = copies_in(faces, above=0.6, threads=2)
    pairs = dict(
        zip(
            map(frozenset, faces.keys[np.stack([found.first, found.second], axis=1)].tolist()),
            found.correlation.tolist(),
            strict=True,
        )
    )
    assert pairs.keys() >= SAME
    others = [value for pair, value in pairs.items() if pair not in SAME]
    assert len(others) >= 2
    assert max(others) < 0.75
