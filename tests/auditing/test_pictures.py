"""What pictures look like in numbers is as defined, and those that show nothing are found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet import _core
from fasttriplet.auditing._options import PictureOptions
from fasttriplet.auditing._pictures import (
    NAME,
    Looks,
    PictureThresholds,
    bad_pictures,
    keep_looks,
    kept_looks,
)
from fasttriplet.errors import OptionError
from tests.auditing.pictures import SIDE, Pixels, jpeg, plain, scene, write
from tests.small_rec import write_images


def look(dataset: ft.Dataset, size: tuple[int, int] = (SIDE, SIDE)) -> Looks:
    decoded = dataset.decode(np.arange(len(dataset)), size=size, on_error="skip")
    looks = Looks.unseen(len(dataset))
    looks.add(0, decoded.kept, *_core.looks_of(decoded.pixels, threads=1), decoded.failed)
    return looks


def gray(pixels: Pixels) -> NDArray[np.int64]:
    r, g, b = pixels.astype(np.int64).transpose(2, 0, 1)
    return np.asarray((77 * r + 150 * g + 29 * b + 128) >> 8)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (33, 70), (16, 5), (1, 1), (2, 9)])
def test_looks_are_as_defined(height: int, width: int) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (40, height, width, 3), dtype=np.uint8)
    measures, sketches = _core.looks_of(pixels, threads=2)
    for image, (brightness, contrast, detail), sketch in zip(pixels, measures, sketches, strict=True):
        g = gray(image)
        inner = 4 * g[1:-1, 1:-1] - g[:-2, 1:-1] - g[2:, 1:-1] - g[1:-1, :-2] - g[1:-1, 2:]
        np.testing.assert_allclose(brightness, g.mean(), rtol=1e-5)
        np.testing.assert_allclose(contrast, g.std(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(detail, inner.std() if inner.size else 0, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(sketch, _sketch(g), atol=2e-6)


def _sketch(levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """The lowest 8 x 8 frequencies of a grid of 16 x 16, weighted, those that are even across first."""
    cells = np.empty((16, 16))
    for down in range(16):
        for across in range(16):
            (top, bottom), (left, right) = (
                (at * pixels // 16, (at + 1) * pixels // 16)
                for at, pixels in zip((down, across), levels.shape, strict=True)
            )
            cells[down, across] = levels[top : max(bottom, top + 1), left : max(right, left + 1)].mean()
    frequency = np.arange(8)
    waves = np.cos(np.pi * (np.arange(16) + 0.5) * frequency[:, None] / 16)
    found = (waves @ cells @ waves.T) * np.hypot(*np.meshgrid(frequency, frequency)) ** 0.5
    ordered = np.concatenate([found[:, ::2].T, found[:, 1::2].T]).ravel()[1:]
    length = np.linalg.norm(ordered)
    return ordered / length if length > 1e-6 else np.zeros(63)


def faulty(path: Path) -> ft.Dataset:
    """Forty pictures, and one of each fault."""
    images = plain(10, 4)
    picture = scene(7).astype(np.float64)
    smooth = np.kron(picture[::12, ::12], np.ones((12, 12, 1)))
    for _ in range(200):
        smooth = (smooth + np.roll(smooth, 1, 0) + np.roll(smooth, 1, 1) + np.roll(smooth, -1, 0)) / 4
    smooth = (smooth - smooth.mean()) * 40 / smooth.std() + 120
    images |= {
        100: (0, b"no image at all"),
        101: (1, jpeg(np.full((SIDE, SIDE, 3), 200, np.uint8))),
        102: (2, jpeg((picture * 0.05 + 1).astype(np.uint8))),
        103: (3, jpeg(smooth.clip(0, 255).astype(np.uint8))),
        104: (4, jpeg(scene(3, SIDE + 8))),
        105: (5, jpeg(scene(8))[:300]),
    }
    return ft.Dataset(write(path, images), cache=False)


def test_bad_pictures_are_found(tmp_path: Path) -> None:
    dataset = faulty(tmp_path / "a.rec")
    looks = look(dataset)
    thresholds = PictureThresholds.of(looks, PictureOptions())
    found = {row["key"]: row for row in bad_pictures(dataset, looks, thresholds).rows(named=True)}
    assert found.keys() == {100, 101, 102, 103, 104, 105}
    reasons = {
        100: "cannot be decoded: ",
        101: "nearly uniform: contrast 0.0 gray levels, usual is ",
        102: "nearly uniform: ",
        103: "blurred: detail 0.0",
        104: "cannot be decoded: ",
        105: "cannot be decoded: ",
    }
    for key, reason in reasons.items():
        assert found[key]["reason"].startswith(reason), found[key]
        assert (found[key]["action"], found[key]["label"]) == ("drop", key - 100)
        assert 0 < found[key]["score"] <= 1
    assert "48 x 48" in found[104]["reason"]  # of another size
    assert found[100]["score"] == 1
    assert found[102]["score"] < 1
    assert found[105]["finding"] == 5


def test_thresholds_can_be_given(tmp_path: Path) -> None:
    dataset = faulty(tmp_path / "a.rec")
    looks = look(dataset)
    options = PictureOptions(contrast_below=0, brightness_below=20, sharpness_below=0)
    thresholds = PictureThresholds.of(looks, options)
    found = bad_pictures(dataset, looks, thresholds)
    assert found["key"].to_list() == [100, 102, 104, 105]
    assert found["reason"][1].startswith("dark: mean ")
    for name in ("contrast_below", "brightness_below", "sharpness_below"):
        for value in (-1, np.nan, "3"):
            with pytest.raises(OptionError, match=name):
                PictureOptions(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="copies_above"):
        PictureOptions(copies_above=1.5)


def test_a_few_bad_pictures_do_not_move_the_thresholds(tmp_path: Path) -> None:
    images = plain(10, 4)
    few = PictureThresholds.of(
        look(ft.Dataset(write(tmp_path / "a.rec", images), cache=False)), PictureOptions()
    )
    images |= {100 + i: (i, jpeg(np.full((SIDE, SIDE, 3), i, np.uint8))) for i in range(8)}
    dataset = ft.Dataset(write(tmp_path / "b.rec", images), cache=False)
    looks = look(dataset)
    many = PictureThresholds.of(looks, PictureOptions())
    assert abs(np.log(many.contrast_below / few.contrast_below)) < 0.7
    assert bad_pictures(dataset, looks, many)["key"].to_list() == list(range(100, 108))


def test_real_faces_are_not_bad(real_data: Path) -> None:
    dataset = ft.Dataset(real_data / "lfw112-a" / "train.rec", cache=False)
    looks = look(dataset, (112, 112))
    assert bad_pictures(dataset, looks, PictureThresholds.of(looks, PictureOptions())).is_empty()


def test_a_dataset_of_uniform_pictures() -> None:
    looks = Looks.unseen(3)
    looks.add(0, np.arange(3), np.array([[9, 0, 0]] * 3, np.float32), np.zeros((3, 63), np.float32), [])
    thresholds = PictureThresholds.of(looks, PictureOptions())
    assert (thresholds.contrast_below, thresholds.sharpness_below) == (2.0, 0.0)
    assert (looks.sharpness == 0).all()


def test_what_was_seen_is_kept(tmp_path: Path) -> None:
    dataset = faulty(tmp_path / "a.rec")
    looks = look(dataset)
    assert kept_looks(tmp_path, dataset) is None
    keep_looks(tmp_path, dataset, looks)
    again = kept_looks(tmp_path, dataset)
    assert again is not None
    for name in ("brightness", "contrast", "detail", "sketches"):
        assert np.array_equal(getattr(again, name), getattr(looks, name), equal_nan=True)
    assert again.problems == looks.problems
    other = ft.Dataset(write(tmp_path / "b.rec", plain(2, 2)), cache=False)
    assert kept_looks(tmp_path, other) is None
    whole = (tmp_path / NAME).read_bytes()
    for content in (b"", whole[:-20], b"PAR1", whole[:100] + bytes(100) + whole[200:-4] + b"PAR?"):
        (tmp_path / NAME).write_bytes(content)
        assert kept_looks(tmp_path, dataset) is None


def test_what_is_kept_is_of_all_images_and_all_that_was_seen(tmp_path: Path) -> None:
    dataset = faulty(tmp_path / "a.rec")
    keep_looks(tmp_path, dataset, look(dataset))
    frame = pl.read_parquet(tmp_path / NAME)
    about = {"fasttriplet": pl.read_parquet_metadata(tmp_path / NAME)["fasttriplet"]}
    others = {"version": 2, "kind": "suspects", "max_pixels": 5}
    changed = [
        {"fasttriplet": json.dumps(json.loads(about["fasttriplet"]) | {k: v})} for k, v in others.items()
    ]
    for table, metadata in (
        (frame[1:], about),
        (frame.drop("problem"), about),
        (frame.with_columns(more=1), about),
        (frame, None),
        *((frame, other) for other in changed),
    ):
        table.write_parquet(tmp_path / NAME, metadata=metadata)
        assert kept_looks(tmp_path, dataset) is None
    frame.write_parquet(tmp_path / NAME, metadata=about)
    assert kept_looks(tmp_path, dataset) is not None
    assert kept_looks(tmp_path, ft.Dataset(tmp_path / "a.rec", cache=False, max_pixels=10**6)) is None


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_and_reasons_are_as_defined(tmp_path: Path, seed: int) -> None:
    """Unusual is what is six deviations below the median, by its logarithm, and less than a quarter of it."""
    rng = np.random.default_rng(seed)
    count, wide = 60, seed % 2
    measures = np.exp(rng.normal([4, 3, 2], 0.5 if wide else 0.05, (count, 3))).astype(np.float32)
    for column in range(3):
        measures[rng.choice(count, 6, replace=False), column] *= rng.choice([0, 0.001, 0.05, 0.2], 6)
    bad = rng.choice(count, 4, replace=False)
    dataset = ft.Dataset(write_images(tmp_path / "a.rec", [b"x"] * count), cache=False)
    looks = Looks.unseen(count)
    kept = np.setdiff1d(np.arange(count), bad)
    failed = [(int(at), ft.RecordError(f"{at}", reason=f"torn {at}")) for at in bad]
    looks.add(0, kept, measures[kept], np.zeros((len(kept), 63), np.float32), failed)
    brightness, contrast, detail = measures.T.astype(np.float64)
    sharpness = np.divide(detail, contrast, out=np.zeros(count), where=contrast > 0)

    def below(values: NDArray[np.float64]) -> float:
        known = values[kept]
        middle = np.median(known)
        apart = np.abs(np.log(known[known > 0] / middle))
        return float(middle * min(0.25, np.exp(-6 * 1.4826 * np.median(apart))))

    limits = max(below(contrast), 2.0), below(brightness), below(sharpness)
    thresholds = PictureThresholds.of(looks, PictureOptions())
    found = (thresholds.contrast_below, thresholds.brightness_below, thresholds.sharpness_below)
    assert found == pytest.approx(limits, rel=1e-5)
    assert str(thresholds).splitlines() == [
        f"nearly uniform: contrast below {limits[0]:.1f} gray levels",
        f"dark: mean below {limits[1]:.1f} of 255 gray levels",
        f"blurred: detail below {limits[2]:.3f} of the contrast",
    ]
    expected = {}
    for at in range(count):
        if at in bad:
            expected[at] = (1.0, f"cannot be decoded: torn {at}")
            continue
        for values, limit, words in (
            (contrast, limits[0], "nearly uniform: contrast {:.1f} gray levels, usual is {:.1f}"),
            (brightness, limits[1], "dark: mean {:.1f} of 255 gray levels, usual is {:.1f}"),
            (sharpness, limits[2], "blurred: detail {:.3f} of the contrast, usual is {:.3f}"),
        ):
            if values[at] < limit:
                reason = words.format(values[at], np.median(values[kept]))
                expected[at] = (1 - values[at] / limit, reason)
                break
    rows = bad_pictures(dataset, looks, thresholds).rows(named=True)
    assert [row["key"] - 1 for row in rows] == [*expected]
    assert [row["finding"] for row in rows] == [*range(len(rows))]
    assert [row["reason"] for row in rows] == [reason for _, reason in expected.values()]
    assert [row["score"] for row in rows] == pytest.approx(
        [score for score, _ in expected.values()], abs=1e-5
    )
    assert {row["label"] for row in rows} <= {0, 1, 2}
    assert {row["reason"].split(":")[0] for row in rows} >= {"dark", "cannot be decoded"}
