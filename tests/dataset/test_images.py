"""Decoding against MXNet itself, damaged files, and what the errors say."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import fasttriplet as ft
from tests.dataset.bombs import chunk
from tests.small_rec import write_images

Pixels = NDArray[np.uint8]
SAMPLINGS = {"444": 0x111111, "422": 0x211111, "420": 0x221111, "440": 0x121111, "411": 0x411111}
SIZES = [(1, 1), (1, 7), (8, 8), (9, 17), (17, 15), (2, 33), (33, 2), (3, 5), (64, 64), (63, 65), (112, 112)]


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> Pixels:
    """Waves with noise: both flat parts and detail, and all colours."""
    rng = np.random.default_rng([seed, height, width])
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(x / (3 + 2 * k) + y / (5 + k)) for k in range(channels)]
    noisy = np.stack(waves, -1) + rng.normal(0, 20, (height, width, channels))
    pixels: Pixels = noisy.clip(0, 255).astype(np.uint8)
    return pixels


def jpeg(image: Pixels, mode: str | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image, mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def cv_jpeg(image: Pixels, sampling: int, quality: int, progressive: bool, restart: int) -> bytes:
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    flags += [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive), cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    flags += [cv2.IMWRITE_JPEG_OPTIMIZE, restart % 2]
    return bytes(cv2.imencode(".jpg", image, flags)[1].tobytes())


def valid_jpegs() -> Iterator[tuple[str, bytes]]:
    number = 0
    for height, width in SIZES:
        for name, sampling in SAMPLINGS.items():
            for progressive in (False, True):
                number += 1
                quality, restart = (10, 50, 75, 95, 100)[number % 5], (0, 1, 3, 100)[number % 4]
                image = picture(height, width, seed=number)
                yield (
                    f"{name} {height}x{width} {progressive=}",
                    cv_jpeg(image, sampling, quality, progressive, restart),
                )
        gray = picture(height, width, 1)[..., 0]
        yield f"gray {height}x{width}", jpeg(gray, quality=90)
        yield f"gray progressive {height}x{width}", jpeg(gray, quality=90, progressive=True)
        yield f"cmyk {height}x{width}", jpeg(picture(height, width, 4), "CMYK", quality=90)
        yield f"rgb {height}x{width}", jpeg(picture(height, width), quality=90, keep_rgb=True)
        yield f"tables {height}x{width}", jpeg(picture(height, width), qtables="web_low", optimize=True)
        for subsampling in (1, 2):
            inks = jpeg(picture(height, width, 4), "CMYK", subsampling=subsampling)
            yield f"cmyk {subsampling=} {height}x{width}", inks
            adobe = inks.index(b"Adobe")
            yield f"ycck {subsampling=} {height}x{width}", inks[: adobe + 11] + b"\2" + inks[adobe + 12 :]
    for width in range(1, 65, 3):
        image = picture(65 - width, width)
        yield f"420 {65 - width}x{width}", jpeg(image, quality=30 + width)


# Files that start with JFIF, and files that do not: MXNet turns only the latter.
APP0 = b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def oriented(orientation: int, order: str = ">", jfif: bool = False) -> bytes:
    tag = struct.pack(order + "HHIHH", 0x112, 3, 1, orientation, 0)
    tiff = struct.pack(order + "2sHIH", b"MM" if order == ">" else b"II", 42, 8, 1) + tag + bytes(4)
    segment = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
    encoded = jpeg(picture(9, 14), quality=95)
    assert encoded[2:20] == APP0
    return encoded[:2] + (APP0 if jfif else b"") + segment + encoded[20:]


def png(depth: int, color: int, rows: Pixels, width: int, *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def valid_pngs() -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(1)
    height, width = 5, 7
    palette = chunk(b"PLTE", rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
    for color, channels, kind in ((0, 1, "gray"), (2, 3, "rgb"), (4, 2, "gray alpha"), (6, 4, "rgba")):
        for depth in (8, 16):
            rows = rng.integers(0, 256, (height, width * channels * depth // 8), dtype=np.uint8)
            yield f"{kind} {depth}", png(depth, color, rows, width)
            yield (
                f"{kind} {depth} gamma",
                png(depth, color, rows, width, chunk(b"gAMA", struct.pack(">I", 99999))),
            )
            if color in {0, 2}:
                clear = chunk(b"tRNS", bytes(2 * channels))
                yield f"{kind} {depth} tRNS", png(depth, color, rows, width, clear)
    for depth in (1, 2, 4, 8):
        rows = rng.integers(0, 256, (height, -(-width * depth // 8)), dtype=np.uint8)
        few = chunk(b"PLTE", palette[8 : 8 + 3 * 2**depth])
        yield f"palette {depth}", png(depth, 3, rows, width, few)
        yield f"palette {depth} tRNS", png(depth, 3, rows, width, few, chunk(b"tRNS", b"\x05\x80"))
        yield f"palette {depth} short", png(depth, 3, rows, width, chunk(b"PLTE", palette[8:11]))
        if depth < 8:
            yield f"gray {depth}", png(depth, 0, rows, width)
            yield f"gray {depth} tRNS", png(depth, 0, rows, width, chunk(b"tRNS", b"\0\1"))
    for size in ((1, 1), (33, 41), (112, 96)):
        buffer = io.BytesIO()
        Image.fromarray(picture(*size)).save(buffer, "PNG", optimize=True)
        yield f"pillow {size}", buffer.getvalue()
    yield "trailing bytes", buffer.getvalue() + b"abc"


@pytest.mark.mxnet
@pytest.mark.parametrize("files", [valid_jpegs, valid_pngs])
def test_pixels_equal_mxnets(files: Callable[[], Iterator[tuple[str, bytes]]], mx: Any) -> None:
    different = []
    for name, encoded in files():
        expected = mx.image.imdecode(encoded).asnumpy()
        if not np.array_equal(ft.decode_images([encoded])[0], expected):
            different.append(name)
    assert not different


@pytest.mark.mxnet
def test_exif_orientation_as_mxnet(mx: Any) -> None:
    upright = set()
    for orientation in range(10):
        for order in "<>":
            for jfif in (False, True):
                encoded = oriented(orientation, order, jfif)
                pixels = ft.decode_images([encoded])[0]
                assert np.array_equal(pixels, mx.image.imdecode(encoded).asnumpy())
                upright.add((jfif, pixels.shape[:2]))
    assert upright == {(True, (9, 14)), (False, (9, 14)), (False, (14, 9))}


# Texts, whole numbers and fractions that OpenCV reads, with the bytes that it looks for, and an unknown tag.
TAGS = {
    0x10E: 0,
    0x8298: 0,
    0x128: 0,
    0x213: 0,
    0x11A: 8,
    0x13E: 16,
    0x211: 24,
    0x13F: 48,
    0x214: 48,
    0x9999: 0,
}


@pytest.mark.mxnet
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("directory_at", [8, 11])
def test_exif_tags_that_point_outside_as_mxnet(mx: Any, order: str, directory_at: int) -> None:
    """A tag may point to the end, and two bytes further; if one points outside, all are ignored."""
    upright = set()
    for tag, room in TAGS.items():
        end = directory_at + 2 + 6 * 12  # four unknown tags make room inside for the largest
        for count in (0, 1, 4, 5, end - 1, end, end + 2, end + 3, 2**31):
            for value in (
                0,
                end - 6,
                end - 5,
                end - 3,
                end - 2,
                *(end - room + n for n in range(-1, 4)),
                2**31,
            ):
                tags = [(0xFF00, 0, 0)] * 4 + [
                    (tag, count, value),
                    (0x112, 1, 6 << 16 if order == ">" else 6),
                ]
                tiff = struct.pack(
                    order + "2sHIH", b"MM" if order == ">" else b"II", 42, directory_at, len(tags)
                )
                tiff = tiff.ljust(directory_at + 2, b"\0")
                tiff += b"".join(
                    struct.pack(order + "HHII", of, 0, count, value) for of, count, value in tags
                )
                segment = b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff
                plain = jpeg(picture(9, 14))
                encoded = plain[:2] + segment + plain[20:]
                pixels = ft.decode_images([encoded])[0]
                expected = mx.image.imdecode(encoded).asnumpy()
                assert np.array_equal(pixels, expected), (
                    hex(tag),
                    count,
                    value,
                    pixels.shape,
                    expected.shape,
                )
                upright.add(pixels.shape[:2])
    assert upright == {(9, 14), (14, 9)}


@pytest.mark.mxnet
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_small_image(data: st.DataObject, mx: Any) -> None:
    height, width = data.draw(st.integers(1, 24)), data.draw(st.integers(1, 24))
    mode = data.draw(st.sampled_from(["RGB", "L", "CMYK", "P", "1", "LA", "RGBA"]))
    fmt: Literal["JPEG", "PNG"] = "JPEG" if mode == "CMYK" else "PNG"
    if mode in {"RGB", "L"}:
        fmt = data.draw(st.sampled_from(["JPEG", "PNG"]))
    channels = {"RGB": 3, "L": 1, "CMYK": 4, "P": 1, "1": 1, "LA": 2, "RGBA": 4}[mode]
    raw = data.draw(st.binary(min_size=height * width * channels, max_size=height * width * channels))
    image = Image.frombytes("L" if mode in {"P", "1"} else mode, (width, height), raw)
    if mode in {"P", "1"}:
        image = image.convert(mode)
    options: dict[str, Any] = {}
    if fmt == "JPEG":
        options["quality"] = data.draw(st.integers(1, 100))
        options["progressive"] = data.draw(st.booleans())
        if mode == "RGB":
            options["subsampling"] = data.draw(st.integers(0, 2))
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    expected = mx.image.imdecode(buffer.getvalue()).asnumpy()
    assert np.array_equal(ft.decode_images([buffer.getvalue()])[0], expected)


@pytest.mark.mxnet
def test_real_faces_bit_by_bit(real_data: Path, mx: Any) -> None:
    path = real_data / "lfw112-a" / "train.rec"
    file, dataset = ft.RecordFile(path), ft.Dataset(path, cache=False)
    index, decoded = dataset.index, dataset.decode(dataset.index)
    assert decoded.pixels.shape == (2375, 112, 112, 3)
    assert not decoded.failed
    for pixels, key in zip(decoded.pixels, index["key"], strict=True):
        assert np.array_equal(pixels, mx.image.imdecode(file.read(key)[1]).asnumpy())
    order = [2375, 1, 77, 1]
    assert np.array_equal(file.decode(order, threads=2), decoded.pixels[np.array(order) - 1])
    with pytest.raises(KeyError, match="9999"):
        file.decode([1, 9999])
    with pytest.raises(ft.RecordError, match=r"key 0, offset .*: the record has no content") as error:
        file.decode([1, 0])
    assert error.value.key == 0


def damage(encoded: bytes, rng: np.random.Generator) -> bytes:
    bad = bytearray(encoded)
    at, length = int(rng.integers(len(bad))), int(rng.integers(1, 40))
    match int(rng.integers(6)):
        case 0:
            del bad[at:]
        case 1:
            for _ in range(int(rng.integers(1, 4))):
                bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        case 2:  # the headers
            for _ in range(int(rng.integers(1, 4))):
                bad[rng.integers(2, min(len(bad), 650))] = int(rng.integers(256))
        case 3:
            bad[at : at + length] = rng.bytes(len(bad[at : at + length]))
        case 4:
            del bad[at : at + length]
        case _:
            bad[at:at] = rng.bytes(length)
    return bytes(bad)


def decode_or_none(encoded: bytes) -> Pixels | None:
    try:
        pixels: Pixels = ft.decode_images([encoded], threads=1)[0]
    except ft.RecordError as error:
        assert "panic" not in str(error), (str(error), encoded)
        return None
    return pixels


@pytest.mark.mxnet
@pytest.mark.parametrize("files", [valid_jpegs, valid_pngs])
def test_damage_is_an_error_or_nothing_new(files: Callable[[], Iterator[tuple[str, bytes]]], mx: Any) -> None:
    """1,500 damaged files each: no crash, and no pixels that MXNet does not see, too.

    Some damage shows nowhere in a file: then the pixels are what everyone gets.
    """
    rng = np.random.default_rng(7)
    good = [encoded for _, encoded in files()]
    decoded = 0
    for _ in range(1500):
        bad = damage(good[rng.integers(len(good))], rng)
        pixels = decode_or_none(bad)
        if pixels is None or pixels.size > 10_000_000:
            continue
        decoded += 1
        try:
            expected = mx.image.imdecode(bad).asnumpy()
        except mx.base.MXNetError:
            continue
        assert np.array_equal(pixels, expected)
    assert decoded < 800


def test_every_truncation_is_an_error() -> None:
    gray, colour = picture(9, 17, 1)[..., 0], picture(9, 17)
    whole = [
        jpeg(colour),
        jpeg(colour, progressive=True),
        jpeg(gray),
        cv_jpeg(colour, 0x221111, 90, False, 1),
    ]
    whole += [encoded for _, encoded in valid_pngs()][:30:6]
    for encoded in whole:
        assert decode_or_none(encoded) is not None
        for length in range(len(encoded)):
            assert decode_or_none(encoded[:length]) is None


def test_claims_are_checked_before_memory_is_taken() -> None:
    encoded = bytearray(jpeg(picture(8, 8)))
    frame = encoded.index(b"\xff\xc0")
    encoded[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    started = time.process_time()
    for height, width, what in ((65500, 65500, "65500 x 65500"), (9000, 9000, "too few"), (0, 8, "0 x 8")):
        encoded[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
        with pytest.raises(ft.RecordError, match=what):
            ft.decode_images([bytes(encoded)])
    tiny = png(8, 2, np.zeros((1, 3), np.uint8), 1)
    for height, width in ((2**31 - 1, 2**31 - 1), (30000, 8000)):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        with pytest.raises(ft.RecordError, match="pixels"):
            ft.decode_images([tiny[:8] + header + tiny[33:]])
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("fmt", "name"),
    [("BMP", "BMP"), ("GIF", "GIF"), ("WEBP", "WebP"), ("TIFF", "TIFF"), ("JPEG2000", "JPEG 2000")],
)
def test_other_formats_are_named(fmt: str, name: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(8, 8)).save(buffer, fmt)
    with pytest.raises(ft.RecordError, match=rf"image \[1\]: this is a {name} image; only JPEG and PNG"):
        ft.decode_images([jpeg(picture(8, 8)), buffer.getvalue()])


def test_what_else_is_no_image() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    for content, what in (
        (b"", "no content"),
        (b"hello", "68 65 6c 6c 6f"),
        (buffer.getvalue(), "NumPy array"),
    ):
        with pytest.raises(ft.RecordError, match=what):
            ft.decode_images([content])
    twelve = bytearray(jpeg(picture(8, 8)))
    twelve[twelve.index(b"\xff\xc0") + 4] = 12
    with pytest.raises(ft.RecordError, match="JPEG of 12 bits per sample"):
        ft.decode_images([bytes(twelve)])


def test_arguments() -> None:
    encoded = jpeg(picture(8, 6))
    assert ft.decode_images([]).shape == (0, 0, 0, 3)
    assert ft.decode_images([], size=(5, 4)).shape == (0, 5, 4, 3)
    buffers: list[Any] = [bytearray(encoded), memoryview(encoded), np.frombuffer(encoded, np.uint8)]
    same = ft.decode_images(buffers)
    assert (same == ft.decode_images([encoded])[0]).all()
    with pytest.raises(ft.RecordError, match=r"image \[0\]: the image is 8 x 6 pixels \(height x width\)"):
        ft.decode_images([encoded], size=(6, 8))
    arguments: Any
    options: Any
    for arguments, what in (
        ((encoded,), "a single one"),
        ((np.frombuffer(encoded, np.uint8),), "a single one"),
        ((Path("a.jpg"),), r"encoded: expected a list of encoded images, not PosixPath\('a.jpg'\)"),
        (([encoded, 3],), r"image \[1\] is a int"),
        (([encoded, "a"],), r"image \[1\] is a str"),
    ):
        with pytest.raises(ValueError, match=what):
            ft.decode_images(*arguments)
    for options in ({"threads": 0}, {"size": (0, 1)}, {"size": (1, 2, 3)}):
        with pytest.raises(ValueError, match=next(iter(options))):
            ft.decode_images([encoded], **options)


def test_rows_of_several_files(tmp_path: Path) -> None:
    images = [jpeg(picture(8, 6, seed=seed), quality=95) for seed in range(7)]
    paths = [write_images(tmp_path / "a.rec", images[:4]), write_images(tmp_path / "b.rec", images[4:])]
    dataset, index = ft.Dataset(paths, cache=False), ft.index_rec(paths, cache=False)
    expected = ft.decode_images(images)
    for threads in (1, 2, 5):
        decoded = dataset.decode(index, threads=threads)
        assert np.array_equal(decoded.pixels, expected)
    order = [6, 0, 3, 3]
    assert np.array_equal(dataset.decode(index[order]).pixels, expected[order])
    assert dataset.decode(index.head(0)).pixels.shape == (0, 0, 0, 3)
    assert np.array_equal(dataset.decode(order).pixels, expected[order])
    with pytest.raises(ValueError, match="no column 'file'"):
        dataset.decode(index.drop("file"))
    with pytest.raises(ValueError, match="rows: key 1 of file 1 is not in the index of this dataset"):
        ft.Dataset(paths[:1], cache=False).decode(index)
    with pytest.raises(ValueError, match="offset is not there"):
        dataset.decode(index.drop("offset"))
    with pytest.raises(ValueError, match="on_error"):
        dataset.decode(index, on_error="ignore")  # type: ignore[arg-type]


def test_bad_rows_are_raised_or_skipped(tmp_path: Path) -> None:
    good = [jpeg(picture(8, 6, seed=seed), quality=95) for seed in range(4)]
    contents = [b"GIF89a", good[0], good[1][:-9], good[1], jpeg(picture(6, 8)), good[2], good[3]]
    path = write_images(tmp_path / "a.rec", contents)
    dataset, index = ft.Dataset(path, cache=False), ft.index_rec(path, cache=False)
    damaged = index.with_columns(pl.when(pl.col("key") == 7).then(4).otherwise("offset").alias("offset"))
    decoded = dataset.decode(damaged, on_error="skip")
    assert np.array_equal(decoded.pixels, ft.decode_images(good[:3]))
    assert [position for position, _ in decoded.failed] == [0, 2, 4, 6]
    assert decoded.kept.tolist() == [1, 3, 5]
    messages = [str(error) for _, error in decoded.failed]
    assert [error.key for _, error in decoded.failed] == [1, 3, 5, 7]
    assert all(message.startswith(f"{path}, key ") for message in messages)
    assert "GIF" in messages[0]
    assert "cut off" in messages[1]
    assert "the image is 6 x 8 pixels (height x width), not 8 x 6" in messages[2]
    assert "offset 4" in messages[3]
    with pytest.raises(ft.RecordError, match="key 1, offset 0: this is a GIF") as error:
        dataset.decode(damaged)
    assert (error.value.key, error.value.offset) == (1, 0)
    with pytest.raises(ft.RecordError, match="key 3"):  # the first of several
        dataset.decode(damaged[1:], threads=3)
    none = dataset.decode(index[[0, 0]], on_error="skip")
    assert none.pixels.shape == (0, 0, 0, 3)
    assert [position for position, _ in none.failed] == [0, 1]
    none = dataset.decode(index[[1, 3]], size=(3, 3), on_error="skip")
    assert none.pixels.shape == (0, 3, 3, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (4.0, 4.0)}, "the height in size must be a whole number >= 1, not 4.0"),
        ({"size": (4, True)}, "the width in size must be a whole number >= 1, not True"),
        ({"size": (0, 4)}, "the height in size must be a whole number >= 1, not 0"),
        ({"size": (4,)}, r"size must be \(height, width\) in pixels, not \(4,\)"),
        ({"size": 4}, r"size must be \(height, width\) in pixels, not 4"),
        ({"threads": 0}, "threads must be a whole number >= 1, not 0"),
        ({"threads": 1.5}, "threads must be a whole number >= 1, not 1.5"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ft.decode_images([], **options)


def test_one_odd_image_in_front_costs_only_itself(tmp_path: Path) -> None:
    good = [jpeg(picture(8, 6, seed=seed)) for seed in range(3)]
    path = write_images(tmp_path / "a.rec", [jpeg(picture(6, 8)), *good])
    dataset = ft.Dataset(path, cache=False)
    decoded = dataset.decode(dataset.index, on_error="skip")
    assert np.array_equal(decoded.pixels, ft.decode_images(good))
    [(position, error)] = decoded.failed
    assert position == 0
    assert str(error).startswith(f"{path}, key 1, ")
    assert "the image is 6 x 8 pixels (height x width), not 8 x 6; " in str(error)


def test_one_handle_for_many_threads(tmp_path: Path) -> None:
    images = [jpeg(picture(16, 16, seed=seed)) for seed in range(40)]
    file, expected = ft.RecordFile(write_images(tmp_path / "a.rec", images)), ft.decode_images(images)
    wrong: list[int] = []

    def work(seed: int) -> None:
        keys = np.random.default_rng(seed).permutation(40)
        if not np.array_equal(file.decode(keys + 1, threads=1 + seed % 2), expected[keys]):
            wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
