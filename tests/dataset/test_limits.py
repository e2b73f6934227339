"""The limit on pixels: at its boundary, in every decoder, and before memory is taken."""

from __future__ import annotations

import csv
import io
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import fasttriplet as ft
from fasttriplet.dataset._packing import _pictures
from tests.dataset import bombs
from tests.dataset.pictures import people, save
from tests.dataset.test_images import oriented
from tests.processes import megabytes_more, run_python
from tests.small_rec import write_images

pytestmark = pytest.mark.heavy

LIMIT = 2**28 // 3

KINDS: dict[str, Callable[[int, int], bytes]] = {
    "baseline": bombs.flat_jpeg,
    "progressive": lambda height, width: bombs.flat_jpeg(height, width, bombs.PROGRESSIVE),
    "arithmetic": lambda height, width: bombs.flat_jpeg(height, width, bombs.ARITHMETIC),
    "both": lambda height, width: bombs.flat_jpeg(height, width, bombs.ARITHMETIC_PROGRESSIVE),
    "png": bombs.flat_png,
    "rgba": lambda height, width: bombs.flat_png(height, width, depth=16, color=6),
    "interlaced": lambda height, width: bombs.flat_png(height, width, depth=8, color=2, interlaced=True),
}


def refusal(height: int, width: int, most: int) -> str:
    return (
        f"the header says {height} x {width} pixels (height x width), {height * width:,} in all, and at most "
        f"{most:,} are decoded; if it is right, raise max_pixels"
    )


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_the_limit_is_exact(kind: str, height: int, width: int) -> None:
    encoded, pixels = KINDS[kind](height, width), height * width
    assert ft.decode_images([encoded], max_pixels=pixels).shape == (1, height, width, 3)
    if pixels > 1:
        with pytest.raises(ft.RecordError) as error:
            ft.decode_images([encoded], max_pixels=pixels - 1)
        assert str(error.value) == f"image [0]: {refusal(height, width, pixels - 1)}"


def test_an_image_that_is_turned() -> None:
    assert ft.decode_images([oriented(6)], max_pixels=9 * 14).shape == (1, 14, 9, 3)
    with pytest.raises(ft.RecordError, match="9 x 14 pixels"):
        ft.decode_images([oriented(6)], max_pixels=9 * 14 - 1)


def test_every_way_to_decode_records(tmp_path: Path) -> None:
    contents = [bombs.flat_jpeg(8, 8), bombs.flat_png(9, 8), bombs.flat_jpeg(8, 8)]
    path = write_images(tmp_path / "a.rec", contents)
    dataset, file = ft.Dataset(path, cache=False, max_pixels=64), ft.RecordFile(path)
    offset = int(dataset.offsets[1])
    expected = f"{path}, key 2, offset {offset}: {refusal(9, 8, 64)}"
    calls: list[Callable[[], object]] = [
        lambda: dataset.decode([0, 1]),
        lambda: dataset.decode(dataset.index),
        lambda: dataset.decode([1]),
        lambda: dataset.decode([1], size=(8, 8)),
        lambda: dataset.image_size([1, 0]),
        lambda: file.decode([1, 2], max_pixels=64),
        lambda: file.decode([2], layout="NCHW", max_pixels=64),
    ]
    for call in calls:
        with pytest.raises(ft.RecordError) as error:
            call()
        assert str(error.value) == expected
        assert (error.value.key, error.value.offset) == (2, offset)
    decoded = dataset.decode([1, 0, 2], on_error="skip")
    assert decoded.pixels.shape == (2, 8, 8, 3)
    assert [(position, str(failure)) for position, failure in decoded.failed] == [(0, expected)]
    assert dataset.image_size([1, 0], on_error="skip") == (8, 8)
    assert dataset.image_size([1], on_error="skip") is None
    assert ft.Dataset(path, cache=False, max_pixels=72).decode([1]).pixels.shape == (1, 9, 8, 3)
    assert file.decode([2], max_pixels=72).shape == (1, 9, 8, 3)


def test_a_size_above_the_limit_is_refused(tmp_path: Path) -> None:
    dataset = ft.Dataset(
        write_images(tmp_path / "a.rec", [bombs.flat_jpeg(8, 8)]), cache=False, max_pixels=80
    )
    message = "size must be at most 80 pixels, not 9 x 9; for more, raise max_pixels"
    for call in (
        lambda: dataset.decode([0], size=(9, 9)),
        lambda: ft.decode_images([], size=(9, 9), max_pixels=80),
        lambda: ft.pack(tmp_path, tmp_path / "b.rec", size=(9, 9), max_pixels=80),
    ):
        with pytest.raises(ft.OptionError, match=re.escape(message)):
            call()
    for size in ((2**40, 2**40), (2**70, 1)):
        with pytest.raises(ft.OptionError, match="size must be at most"):
            ft.decode_images([], size=size)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "9", None, 2**30 + 1, 2**70])
def test_wrong_limits_are_named(value: Any, tmp_path: Path) -> None:
    path = write_images(tmp_path / "a.rec", [bombs.flat_jpeg(8, 8)])
    file = ft.RecordFile(path)
    calls: list[Callable[[], object]] = [
        lambda: ft.decode_images([], max_pixels=value),
        lambda: ft.Dataset(path, max_pixels=value),
        lambda: file.decode([1], max_pixels=value),
        lambda: ft.pack(tmp_path, tmp_path / "b.rec", max_pixels=value),
        lambda: ft.mine_rec(path, max_pixels=value),
        lambda: ft.verify_rec(path, "pixels", max_pixels=value),
        lambda: ft.verify_pairs(path, "pixels", max_pixels=value),
    ]
    for call in calls:
        with pytest.raises(
            ft.OptionError, match=r"max_pixels must be a whole number (>= 1|up to 1073741824)"
        ):
            call()


def test_an_index_has_no_limit(tmp_path: Path) -> None:
    path = write_images(tmp_path / "a.rec", [bombs.flat_jpeg(8, 8)])
    options = cast("Any", {"max_pixels": 9})
    with pytest.raises(TypeError, match="index_rec\\(\\) has no option 'max_pixels'"):
        ft.index_rec(path, **options)


BOMBS = """
import fasttriplet as ft
from tests.dataset import bombs
images = [
    bombs.flat_jpeg(20_000, 20_000),
    bombs.flat_jpeg(16_384, 16_384, bombs.ARITHMETIC),
    bombs.flat_jpeg(65_500, 65_500, bombs.ARITHMETIC_PROGRESSIVE),
    bombs.flat_png(10_000, 10_000, depth=16, color=6),
    bombs.flat_png(1, 2**28 // 3 + 1),
    bombs.flat_png(1, 2**28, interlaced=True),
]
rec = {folder!r} + "/bombs.rec"
with ft.RecordWriter(rec) as writer:
    for key, image in enumerate(images):
        writer.write(key, ft.IRHeader(0, 0.0, key, 0), image)
dataset, file = ft.Dataset(rec, cache=False), ft.RecordFile(rec)
dataset.decode([], size=(8, 8)), ft.decode_images([bombs.flat_png(9, 9)] * 2)
"""
CALLS = """
def refused(call):
    try:
        call()
    except ft.RecordError as error:
        assert "and at most 89,478,485 are decoded" in str(error), error
    else:
        raise AssertionError
for row, image in enumerate(images):
    refused(lambda: ft.decode_images([image]))
    refused(lambda: dataset.decode([row]))
    refused(lambda: dataset.decode([row], size=(8, 8)))
    refused(lambda: dataset.image_size([row]))
    refused(lambda: file.decode([row], layout="NCHW"))
assert dataset.decode(dataset.index, on_error="skip").pixels.shape == (0, 0, 0, 3)
"""


def test_no_memory_is_taken_for_a_bomb(tmp_path: Path) -> None:
    assert megabytes_more(BOMBS.format(folder=str(tmp_path)), CALLS) < 8


def test_what_is_hidden_in_a_png_takes_no_memory() -> None:
    """Texts and a colour profile that are 30 MB each when they are unpacked."""
    prepare = """
import fasttriplet as ft
from tests.dataset import bombs
zeros = bombs.zeros(3 * 10**7)
texts = [(b"zTXt", b"a\\0\\0"), (b"iTXt", b"a\\0\\1\\0\\0\\0"), (b"iCCP", b"a\\0\\0")]
encoded = bombs.flat_png(9, 9, *(bombs.chunk(kind, head + zeros) for kind, head in texts))
ft.decode_images([bombs.flat_png(9, 9)])
"""
    assert megabytes_more(prepare, "assert ft.decode_images([encoded]).shape == (1, 9, 9, 3)") < 8


def test_what_a_png_says_about_the_image_is_bounded() -> None:
    encoded = bombs.flat_png(9, 9, bombs.chunk(b"eXIf", bytes(65 << 20)))
    with pytest.raises(ft.RecordError, match="a PNG with more than 67108864 bytes of data about the image"):
        ft.decode_images([encoded])


def test_an_image_of_one_long_row() -> None:
    assert not ft.decode_images([bombs.flat_png(1, 18_000_000, depth=8, color=6)]).any()
    with pytest.raises(ft.RecordError, match="a JPEG of 1 x 65501 pixels, with a side above 65500"):
        ft.decode_images([bombs.flat_jpeg(1, 65_501)])


@pytest.mark.parametrize("frame", [bombs.PROGRESSIVE, bombs.ARITHMETIC_PROGRESSIVE])
def test_the_scans_of_a_jpeg_are_bounded(frame: int) -> None:
    scans = bombs.many_scans(101)
    with pytest.raises(ft.RecordError, match="this is a JPEG of more than 100 scans, which is not decoded"):
        ft.decode_images([bombs.flat_jpeg(16, 16, frame, scans=scans)])
    with pytest.raises(ft.RecordError, match="this is a JPEG of more than 100 scans"):
        ft.decode_images([bombs.flat_jpeg(16, 16, frame, scans=bombs.many_scans(5000))])
    complete = [((1,), 0, 0, 0, 0), *(((1,), at, at, 0, 1) for at in range(1, 64))]
    complete += [((1,), at, at, 1, 0) for at in range(1, 37)]
    assert len(complete) == 100
    assert ft.decode_images([bombs.flat_jpeg(16, 16, frame, scans=complete)]).shape == (1, 16, 16, 3)


WITHOUT_MEMORY = """
import resource, sys
import fasttriplet as ft
from tests.dataset import bombs
small, large = bombs.flat_png(8, 8), bombs.flat_png(9000, 9000)
rec = sys.argv[1] + "/a.rec"
with ft.RecordWriter(rec) as writer:
    for key in range(1, 31):
        writer.write(key, ft.IRHeader(0, float(key // 2), key, 0), large if 3 <= key < 29 else small)
dataset, file = ft.Dataset(rec, cache=False), ft.RecordFile(rec)
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))
calls = [
    lambda: ft.decode_images([large] * 30),
    lambda: file.decode([5] * 30),
    lambda: file.decode([5, 6, 7, 8] * 3, layout="NCHW"),
    lambda: dataset.decode([5, 5, 0] * 10),
    lambda: dataset.decode([0, 29] * 40 + [7], size=(9000, 9000)),
    lambda: dataset.decode([0, 29] * 40, size=(9000, 9000)),
    lambda: ft.mine_rec(dataset, on_error="skip", threads=1),
]
for call in calls:
    try:
        call()
    except MemoryError as error:
        print(error)
"""


def test_a_batch_without_memory_names_the_record_that_has_its_size(tmp_path: Path) -> None:
    # Where the machine has less, too, that is said as well.
    lines = re.sub(r", and [\d.]+ GB are available", "", run_python(WITHOUT_MEMORY, tmp_path)).splitlines()
    offsets, rec = ft.Dataset(tmp_path / "a.rec", cache=False).offsets, tmp_path / "a.rec"
    batch = "not enough memory: {} GB for the pixels of a batch, {} images of 9000 x 9000 (height x width); "
    first = "the first of this size is {}. "
    what_to_do = (
        "If it is the odd one out, leave it out (in a run with on_error='skip') or give the size of the rest "
        "as size=(height, width). Otherwise decode fewer images at once (in a run, lower bag_size, "
        "or hold fewer images ahead with prefetch or memory)"
    )
    records = {key: f"{rec}, key {key}, offset {offsets[key - 1]}" for key in (5, 6, 8)}
    assert lines[:6] == [
        batch.format("7.3", 30) + first.format("image [0]") + what_to_do,
        batch.format("7.3", 30) + first.format(records[5]) + what_to_do,
        batch.format("11.7", 12) + first.format(records[5]) + what_to_do,
        batch.format("7.3", 30) + first.format(records[6]) + what_to_do,
        batch.format("19.7", 81) + first.format(records[8]) + what_to_do,
        batch.format("19.4", 80) + "none of them has this size. " + what_to_do,
    ]
    assert batch.format("7.3", 30) + f"the first of this size is {rec}" in lines[6]
    assert len(lines) == 7


# Headers that claim 30,000 x 30,000 pixels or the most of their format: beyond what Pillow refuses by itself.
HEADERS = {
    "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 0, 0, 0, 54, 40, 30_000, 30_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "ppm": b"P6 30000 30000 255\n",
    "gif": b"GIF89a" + struct.pack("<HHBBB", 30_000, 30_000, 0, 0, 0)
    + b"," + struct.pack("<HHHHB", 0, 0, 30_000, 30_000, 0) + b"\2\1\0\0;",
    "webp": b"RIFF" + struct.pack("<I", 48) + b"WEBPVP8L" + struct.pack("<I", 36)
    + b"\x2f" + struct.pack("<I", 16_382 | 16_382 << 14) + bytes(31),
    "png": bombs.flat_png(30_000, 30_000),
    "jpg": bombs.flat_jpeg(30_000, 30_000),
}  # fmt: skip


def test_pack_refuses_bombs_of_every_format_in_the_same_words(tmp_path: Path) -> None:
    folder = people(tmp_path / "people")
    for ending, content in HEADERS.items():
        (folder / "p1" / f"bomb.{ending}").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"of more pixels than are decoded \(max_pixels\): 6") as error:
            ft.pack(folder, tmp_path / "a.rec")
        packed = ft.pack(folder, tmp_path / "a.rec", on_error="skip")
    assert Image.MAX_IMAGE_PIXELS == LIMIT
    assert (packed.images, packed.skipped) == (6, 6)
    for ending in HEADERS:
        side = 16_383 if ending == "webp" else 30_000
        assert f"{folder / 'p1' / 'bomb'}.{ending}: {refusal(side, side, LIMIT)}" in str(error.value)
    with (tmp_path / "a.problems.csv").open(newline="") as table:
        assert {row["kind"] for row in csv.DictReader(table)} == {"large"}


def test_no_memory_is_taken_for_a_bomb_in_a_folder(tmp_path: Path) -> None:
    folder = people(tmp_path / "people")
    for ending, content in HEADERS.items():
        (folder / "p1" / f"bomb.{ending}").write_bytes(content)
    call = f"ft.pack({str(folder)!r}, {str(tmp_path / 'b.rec')!r}, on_error='skip', threads=1)"
    prepare = (
        f"import fasttriplet as ft\nft.pack({str(people(tmp_path / 'good'))!r}, {str(tmp_path / 'a.rec')!r})"
    )
    assert megabytes_more(prepare, call) < 25


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "gif", "webp", "tiff", "ppm", "jp2"])
def test_the_limit_of_pack_is_exact_and_pillows_does_not_count(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "people"
    save(folder / "a" / f"1.{ending}")
    save(folder / "a" / f"2.{ending}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setattr(_pictures, "MAX_PIXELS", 10)  # from where on Pillow would refuse to load it
    assert ft.pack(folder, tmp_path / "a.rec", max_pixels=120).size == (12, 10)
    with pytest.raises(ValueError, match=re.escape(refusal(12, 10, 119))):
        ft.pack(folder, tmp_path / "b.rec", max_pixels=119)
    assert Image.MAX_IMAGE_PIXELS == 10
    assert ft.pack(folder, tmp_path / "c.rec", size=(6, 5), max_pixels=120).size == (6, 5)


def test_a_flat_image_has_the_pixels_of_other_decoders() -> None:
    """What these tests build is read by others, too."""
    for kind in ("baseline", "progressive", "png", "interlaced"):
        encoded = KINDS[kind](19, 13)
        theirs = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
        assert np.array_equal(ft.decode_images([encoded])[0], theirs), kind
