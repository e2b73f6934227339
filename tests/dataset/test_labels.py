"""Labels: those that float32 cannot hold, those that may be merged, and those that name no identity."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fasttriplet as ft

JPEG = b"\xff\xd8 pretended image"


def write(path: Path, labels: dict[int, Any]) -> Path:
    with ft.RecordWriter(path, overwrite=True) as writer:
        for key, label in labels.items():
            writer.write(key, ft.IRHeader(0, label, key, 0), JPEG)
    return path


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            25130987,
            r"label 25130987 would become another one.* the nearest are 25130986 and 25130988\. Number",
        ),
        (2**24 + 1, "nearest are 16777216 and 16777218"),
        (-(2**24) - 1, "nearest are -16777218 and -16777216"),
        (16777217.0, "label 16777217.0 would"),
        (np.float64(2**24 + 1), "label 16777217.0 would"),
        (np.int64(2**24 + 1), "label 16777217 would"),
        (2**53 + 1, "nearest are 9007199254740992 and 9007200328482816"),  # float64 rounds it, too
        ([1, 2**24 + 1], "label 16777217 would"),
        (np.array([2**53 + 1, 0]), "label 9007199254740993 would"),
        (np.array([[2**64 - 1]], np.uint64), "label 18446744073709551615 would"),
        (2**70 + 1, "label 1180591620717411303425 would"),
        ([2**70 + 1], "label 1180591620717411303425 would"),
        (10**400, "does not fit a float32"),
        ([10**400], "does not fit a float32"),
        ([0.5, 1e39], "label 1e[+]39 does not fit a float32"),
    ],
)
def test_labels_that_would_become_others_are_refused(tmp_path: Path, label: Any, message: str) -> None:
    path = tmp_path / "a.rec"
    with ft.RecordWriter(path) as writer:
        with pytest.raises(ValueError, match=f"^key 7: .*{message}"):
            writer.write(7, ft.IRHeader(0, label, 7, 0), JPEG)
        writer.write(7, ft.IRHeader(0, 1, 7, 0), JPEG)  # nothing of the record was written
    assert ft.RecordFile(path).keys.tolist() == [7]


@pytest.mark.parametrize(
    "label",
    [
        2**24,
        -(2**24),
        2**24 + 2,
        25130988,
        2**70,
        0.1,
        [0.1, 2.0],
        float("inf"),
        np.float32(2**30 + 64),
        True,
    ],
)
def test_other_labels_are_written(tmp_path: Path, label: Any) -> None:
    header, _ = ft.RecordFile(write(tmp_path / "a.rec", {1: label})).read(1)
    np.testing.assert_array_equal(header.label, np.asarray(label, np.float64).astype(np.float32))


@settings(deadline=None, max_examples=100)
@example(label=2**24 + 1)
@example(label=2**64 - 1024)
@given(label=st.integers(2**24 - 5, 2**24 + 5) | st.integers(-(2**70), 2**70))
def test_an_integer_label_is_kept_or_refused(label: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for given_label in (label, [0, label], np.array([label], object)):
            path = Path(folder) / "a.rec"
            try:
                write(path, {1: given_label})
            except ValueError:
                assert int(np.float32(label)) != label
            else:
                assert int(np.ravel(ft.RecordFile(path).read(1)[0].label)[-1]) == label


@pytest.mark.parametrize("large", [2**24, -(2**24), 25130988])
def test_labels_that_may_be_merged_are_warned_of(tmp_path: Path, large: int) -> None:
    path = write(tmp_path / "a.rec", {9: 1, 3: [large, 1.0], 4: float(large), 5: 2**24 - 1})
    message = (
        rf"a\.rec: labels reach 16,777,216 .* \(2 of 4 images; key 3 has {large}\)\. .* number them from 0"
    )
    for _ in range(2):  # built, and from the cache
        with pytest.warns(ft.RecordWarning, match=message) as caught:
            assert ft.index_rec(path)["label"].to_list() == [large, large, 2**24 - 1, 1]
        assert len(caught) == 1
    assert len(ft.inspect_rec(path).problems) == 1
    quiet = write(tmp_path / "b.rec", {1: 2**24 - 1, 2: 1 - 2**24})
    assert ft.inspect_rec(quiet).problems == ()


def objects(count: int, *, start: tuple[float, ...] = (), width: int = 5) -> list[float]:
    """Labels of object detection, as `im2rec --pack-label` stores them."""
    rng = np.random.default_rng(count)
    labels = [2.0 + len(start), float(width), *start]
    for _ in range(count):
        left, top = rng.uniform(0, 0.4, 2)
        labels += [float(rng.integers(20)), left, top, left + 0.3, top + 0.5, *[0.0] * (width - 5)]
    return labels


@pytest.mark.parametrize(("start", "width"), [((), 5), ((), 6), ((640.0, 480.0), 5)])
def test_detection_data_is_said_to_be_that(tmp_path: Path, start: tuple[float, ...], width: int) -> None:
    labels = {key: objects(1 + key % 4, start=start, width=width) for key in range(8)}
    path = write(tmp_path / "a.rec", labels)
    message = r"a\.rec: the labels are those of object detection .*; 8 of 8 images\)\. .* mean nothing"
    with pytest.warns(ft.RecordWarning, match=message):
        ft.index_rec(path)
    found = ft.inspect_rec(path)
    first = 2 + len(start)
    assert (found.object_images, found.identities, found.label_range) == (8, 1, (first, first))
    assert sum(found.images_by_flag.values()) == 8


def test_several_labels_of_an_identity_are_no_detection_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    attributes = {key: [key // 2, *rng.integers(0, 9, 7)] for key in range(1, 60)}
    for labels in (attributes, {1: [2.0, 1.0], 2: [3.0, 1.0]}, {1: [2.0, 5.0], 2: [2.0, 5.0]}):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ft.index_rec(write(tmp_path / "a.rec", labels), cache=False)
    found = ft.inspect_rec(write(tmp_path / "a.rec", {1: [2.0, 1.0], 2: [7.0, 1.0]}))
    assert (found.object_images, found.label_range, found.images_by_flag) == (0, (2, 7), {2: 2})
