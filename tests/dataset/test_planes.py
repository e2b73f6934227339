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
from tests.dataset.plain_augment import (
    noise,
    same_bits,
)
from tests.small_rec import write_rec


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
