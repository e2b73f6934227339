"""Images decoded to planes are the decoded images, turned."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fasttriplet as ft
from fasttriplet import _core
from fasttriplet.dataset._planes import decode_each, decode_planes, mirrored_at_random
from tests.dataset import bombs
from tests.dataset.plain_augment import (
    noise,
    same_bits,
)
from tests.small_rec import identities, write_images, write_rec


def test_decoded_planes_are_the_images_turned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ft.RecordFile(write_rec(tmp_path / "a.rec", {3: 0, 10: 1, 4: 2, 7: 0, 1: 5, 2**40: 1}))
    orders: list[list[int]] = [[3, 10, 4, 7, 1, 2**40], [2**40, 1, 7, 4, 10, 3], [7, 7, 3, 4, 7], [1]]
    for keys in orders:
        images = file.decode(keys)
        assert images.shape == (len(keys), 24, 24, 3)
        assert images.dtype == np.uint8
        assert np.array_equal(images, np.concatenate([file.decode([key]) for key in keys]))
        expected = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
        for name in _core.instruction_sets():
            monkeypatch.setenv("FASTTRIPLET_ISA", name)
            for threads in (1, 3, None):
                assert same_bits(file.decode(keys, layout="NCHW", threads=threads), expected)
                assert np.array_equal(file.decode(keys, layout="NHWC", threads=threads), images)
        assert same_bits(ft.assemble(images), expected)
        assert same_bits(file.decode(np.array(keys), layout="NCHW"), expected)
    assert len({image.tobytes() for image in file.decode(orders[0])}) == 6
    empty = file.decode([], layout="NCHW")
    assert empty.shape == file.decode([]).transpose(0, 3, 1, 2).shape
    assert empty.dtype == np.float32


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (7, 9), (3, 257), (33, 65)])
def test_decoded_planes_of_any_size_and_kind(size: tuple[int, int], tmp_path: Path) -> None:
    pictures = [Image.fromarray(image) for image in noise(3, *size, seed=5)]
    contents = [
        encoded(pictures[0], "PNG"),
        encoded(pictures[1], "JPEG"),
        encoded(pictures[2].convert("L"), "JPEG"),
        encoded(pictures[2].convert("L"), "PNG"),
    ]
    with ft.RecordWriter(tmp_path / "a.rec") as writer:
        for key, content in enumerate(contents):
            writer.write(key, ft.IRHeader(0, 0.0, key, 0), content)
    file, keys = ft.RecordFile(tmp_path / "a.rec"), [2, 0, 3, 1, 1]
    expected = np.ascontiguousarray(file.decode(keys).transpose(0, 3, 1, 2), dtype=np.float32)
    assert same_bits(file.decode(keys, layout="NCHW"), expected)
    assert np.array_equal(expected[1].transpose(1, 2, 0), np.asarray(pictures[0]))


@pytest.mark.parametrize("threads", [1, 2, None])
def test_what_cannot_be_decoded_is_named(tmp_path: Path, threads: int | None) -> None:
    labels = {key: key % 3 for key in range(1, 9)}
    file = ft.RecordFile(write_rec(tmp_path / "a.rec", labels, frozenset({4, 6})))
    for keys, first in (([1, 2, 4, 5], 4), ([6], 6), ([8, 6, 4], 6), ([4, 1], 4)):
        with pytest.raises(ft.RecordError, match=rf"key {first}, ") as error:
            file.decode(keys, layout="NCHW", threads=threads)
        assert error.value.key == first
        with pytest.raises(ft.RecordError, match=re.escape(str(error.value))):
            file.decode(keys, threads=threads)
    with pytest.raises(KeyError, match="no record with key 99"):
        file.decode([1, 99], layout="NCHW", threads=threads)
    assert file.decode([1, 2, 3, 5, 7, 8], layout="NCHW", threads=threads).shape == (6, 3, 24, 24)


@pytest.mark.parametrize("layout", ["nchw", "CHW", "", None, 0, "NHCW"])
def test_unknown_layouts_are_named(tmp_path: Path, layout: Any) -> None:
    file = ft.RecordFile(write_rec(tmp_path / "a.rec", {1: 0}))
    with pytest.raises(ValueError, match="layout must be one of 'NHWC', 'NCHW', not"):
        file.decode([1], layout=layout)


@pytest.fixture
def several(tmp_path: Path) -> ft.Dataset:
    """Two files of 6 images each, of which those in the rows 2 and 9 are damaged."""
    paths = [
        write_rec(tmp_path / "a.rec", identities(3, 2), frozenset({3})),
        write_rec(tmp_path / "b.rec", identities(3, 2, first_key=7), frozenset({10})),
    ]
    return ft.Dataset(paths, labels="shared")


def test_images_are_decoded_into_what_is_given(several: ft.Dataset) -> None:
    rows = np.array([11, 0, 4, 4])
    images = several.decode(rows).pixels.transpose(0, 3, 1, 2)
    mirrored = np.array([True, False, True, False])
    expected = images.copy()
    expected[mirrored] = images[mirrored][..., ::-1]
    table = np.arange(256) / 3 - 7
    how: dict[str, Any] = {"table": table.tolist(), "on_error": "raise"}
    for threads in (1, 2, None):
        out = np.zeros((4, 3, 24, 24), np.uint8)
        found = decode_planes(several, rows, out, mirrored=mirrored, threads=threads, **how)
        assert found == (4, [])
        assert np.array_equal(out, expected)
        floats = np.zeros((4, 3, 24, 24), np.float32)
        assert decode_planes(several, rows, floats, mirrored=None, threads=threads, **how) == (4, [])
        assert np.array_equal(floats, table[images].astype(np.float32))


def test_planes_without_the_images_that_failed(several: ft.Dataset) -> None:
    rows, table = np.array([2, 1, 9, 0]), list(range(256))
    out = np.zeros((4, 3, 24, 24), np.uint8)
    how: dict[str, Any] = {"table": table, "mirrored": None, "threads": 1}
    count, failed = decode_planes(several, rows, out, on_error="skip", **how)
    assert count == 2
    assert [(position, error.key) for position, error in failed] == [(0, 3), (2, 10)]
    assert np.array_equal(out[:2], several.decode(rows[[1, 3]]).pixels.transpose(0, 3, 1, 2))
    with pytest.raises(ft.RecordError, match=r"a\.rec, key 3, "):
        decode_planes(several, rows, out, on_error="raise", **how)


def test_images_of_any_sizes(tmp_path: Path) -> None:
    contents = [bombs.flat_png(8, 6), b"none", bombs.flat_jpeg(9, 8), bombs.flat_png(1, 1)]
    path = write_images(tmp_path / "a.rec", contents)
    dataset = ft.Dataset(path, max_pixels=71)
    rows = np.array([3, 1, 0, 2])
    for threads in (1, 2, None):
        images, failed = decode_each(dataset, rows, threads=threads, on_error="skip")
        assert [image.shape for image in images] == [(1, 1, 3), (8, 6, 3)]
        assert [(position, error.key) for position, error in failed] == [(1, 2), (3, 3)]
        with pytest.raises(ft.RecordError, match="key 2, "):
            decode_each(dataset, rows, threads=threads, on_error="raise")
        images, failed = decode_each(
            ft.Dataset(path, max_pixels=72), rows[[3, 0]], threads=threads, on_error="raise"
        )
        assert [image.shape for image in images] == [(9, 8, 3), (1, 1, 3)]
        assert failed == []
    out = np.zeros((1, 3, 9, 8), np.uint8)
    how: dict[str, Any] = {"table": [0.0] * 256, "mirrored": None, "threads": 1, "on_error": "raise"}
    with pytest.raises(ft.RecordError, match="9 x 8 pixels"):
        decode_planes(dataset, np.array([2]), out, **how)
    assert decode_planes(ft.Dataset(path, max_pixels=72), np.array([2]), out, **how) == (1, [])


def test_threads_are_as_many_as_are_asked_for(several: ft.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []
    for name in ("decode_into", "decode_each", "decode_rows", "image_size", "decode_images"):
        function = getattr(_core, name)

        def call(*arguments: Any, _function: Any = function, **options: Any) -> Any:
            used.append(options["threads"])
            return _function(*arguments, **options)

        monkeypatch.setattr(_core, name, call)
    rows = np.array([0, 1])
    content = several.read(0)[1]
    file = ft.RecordFile(several.paths[0])
    out = np.zeros((2, 3, 24, 24), np.uint8)
    plain: dict[str, Any] = {"table": [0.0] * 256, "mirrored": None, "on_error": "raise"}
    for threads in (3, None):
        decode_planes(several, rows, out, threads=threads, **plain)
        decode_each(several, rows, threads=threads, on_error="raise")
        several.decode(rows, threads=threads)
        several.image_size(rows, threads=threads)
        file.decode([1, 2], threads=threads)
        ft.decode_images([content], threads=threads)
        assert used == [threads] * 6
        used.clear()


def test_images_that_are_mirrored_are_those_of_assemble(several: ft.Dataset) -> None:
    """By the ids of the images and the seed."""
    rows = np.random.default_rng(0).permutation(np.arange(12).repeat(20))
    pixels = np.zeros((1, 1, 2, 3), np.uint8)
    pixels[0, 0, 1] = 1
    for seed in (0, 1, 7, 2**64 - 1):
        batch = ft.assemble(
            pixels, np.zeros(240, int), augment=ft.Augment(mirror=True), ids=several.ids[rows], seed=seed
        )
        found = mirrored_at_random(several, rows, seed)
        assert found.dtype == np.bool_
        assert np.array_equal(found, batch[:, 0, 0, 0] == 1)
        assert len(set(found.tolist())) == 2
