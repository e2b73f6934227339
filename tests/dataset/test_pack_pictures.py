"""What `pack` makes of a picture: formats that it reads, what stays as it was, how a size is reached."""

from __future__ import annotations

import errno
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps, features

import fasttriplet as ft
from tests.dataset.pictures import exif, people, picture, save
from tests.dataset.test_images import SAMPLINGS, cv_jpeg, jpeg, oriented
from tests.dataset.test_images import picture as noise

SMOOTH = Image.fromarray(np.linspace(0, 255, 20 * 16, dtype=np.uint8).reshape(20, 16))
# Of three channels that are all different, so that none can take the place of another.
COLORS = Image.fromarray(
    np.linspace((20, 60, 100), (235, 200, 160), 20 * 16).astype(np.uint8).reshape(20, 16, 3)
)


def packed(root: Path, **options: Any) -> tuple[ft.Packed, list[bytes]]:
    """Pack a folder; the images in the file, encoded."""
    out = root.with_name(f"{root.name}.rec")
    done = ft.pack(root, out, overwrite=True, **options)
    file = ft.RecordFile(out)
    return done, [file.read(key)[1] for key in range(1, done.images + 1)]


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


def pixels(encoded: bytes) -> NDArray[Any]:
    return np.asarray(ft.decode_images([encoded])[0], dtype=int)


def formats(images: list[bytes]) -> list[str | None]:
    return [Image.open(io.BytesIO(image)).format for image in images]


@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("jpg", {"quality": 100}),
        ("png", {}),
        ("webp", {"lossless": True}),
        pytest.param(
            "avif",
            {"quality": 100, "subsampling": "4:4:4"},
            marks=pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF"),
        ),
        ("bmp", {}),
        ("tiff", {}),
        ("tiff", {"compression": "tiff_lzw"}),
        ("gif", {}),
        ("jp2", {}),
        ("ppm", {}),
        ("pgm", {}),
        ("pbm", {}),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_formats_that_are_read(tmp_path: Path, ending: str, options: dict[str, Any], named: bool) -> None:
    mode = {"gif": "L", "pgm": "L", "pbm": "1"}.get(ending, "RGB")
    image = COLORS.convert(mode)
    path = save(tmp_path / "in" / "a" / f"picture.{ending}", image, **options)
    if not named:
        path.rename(path.with_suffix(""))
    _, (encoded,) = packed(tmp_path / "in", quality=100)
    assert np.abs(pixels(encoded) - np.asarray(image.convert("RGB"))).max() <= 6
    _, (encoded,) = packed(tmp_path / "in", format="png")
    assert np.abs(pixels(encoded) - np.asarray(image.convert("RGB"))).max() <= (
        3 if ending in ("jpg", "avif") else 0
    )


def test_modes(tmp_path: Path) -> None:
    root = tmp_path / "in"
    sixteen = Image.fromarray(np.asarray(SMOOTH).astype(np.uint16) * 257)
    save(root / "a" / "0.png", SMOOTH)
    save(root / "a" / "1.png", SMOOTH.convert("LA"))
    save(root / "a" / "2.png", SMOOTH.convert("RGBA"))
    save(root / "a" / "3.png", sixteen)
    save(root / "a" / "4.tiff", sixteen)
    save(root / "a" / "5.pgm", sixteen)
    save(root / "a" / "6.png", SMOOTH.convert("P"))
    save(root / "a" / "7.tiff", SMOOTH.convert("RGB").convert("CMYK"))
    turned = SMOOTH.transpose(Image.Transpose.ROTATE_90)
    save(root / "b" / "0.jpg", turned, quality=100, exif=exif(6))
    save(root / "b" / "1.png", turned, exif=exif(6))
    save(root / "b" / "2.tiff", turned, exif=exif(6))
    save(root / "b" / "3.webp", turned.convert("RGB"), exif=exif(6), lossless=True)
    done, images = packed(root, quality=100)
    assert (done.kept, done.encoded, done.size) == (0, 12, (20, 16))
    assert formats(images) == ["JPEG"] * 12
    assert np.abs(np.stack([pixels(image) for image in images]) - np.asarray(SMOOTH)[..., None]).max() <= 6
    gray = [Image.open(io.BytesIO(image)).mode == "L" for image in images]
    assert gray == [True, True, False, True, True, True, False, False, True, True, True, False]


@pytest.mark.parametrize("format", ["jpeg", "png"])
def test_a_turned_picture_keeps_its_colors(tmp_path: Path, format: Any) -> None:
    turns = {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 3: Image.Transpose.ROTATE_180}
    for orientation, transpose in turns.items():
        folder = tmp_path / "in" / str(orientation)
        turned = COLORS.transpose(transpose)
        for ending, options in (
            ("jpg", {"quality": 100}),
            ("png", {}),
            ("tiff", {}),
            ("webp", {"lossless": True}),
        ):
            save(folder / f"turned.{ending}", turned, exif=exif(orientation), **options)
    _, images = packed(tmp_path / "in", quality=100, format=format)
    assert len(images) == 12
    for image in images:
        assert np.abs(pixels(image) - np.asarray(COLORS)).max() <= 6


@pytest.mark.parametrize("jfif", [False, True])
def test_a_jpeg_is_turned_once(tmp_path: Path, jfif: bool) -> None:
    """Our decoder turns, as MXNet does, only those whose EXIF comes first."""
    for orientation in range(1, 9):
        encoded = oriented(orientation, jfif=jfif)
        path = tmp_path / str(orientation) / "a" / "0.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(encoded)
        _, (image,) = packed(path.parents[1], format="png")
        upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        assert np.array_equal(pixels(image), np.asarray(upright))


def test_a_resized_jpeg_is_decoded_as_by_mxnet(tmp_path: Path) -> None:
    """Pillow has the chroma of 4:4:0 and the colors of inks in another way."""
    waves = noise(40, 48)
    files = {
        "half-height.jpg": cv_jpeg(waves, SAMPLINGS["440"], 95, False, 0),
        "inks.jpg": jpeg(noise(40, 48, 4), "CMYK", quality=95),
    }
    (tmp_path / "in" / "a").mkdir(parents=True)
    for name, encoded in files.items():
        (tmp_path / "in" / "a" / name).write_bytes(encoded)
    for size in (None, (20, 24), (30, 24)):
        _, images = packed(tmp_path / "in", format="png", size=size, fit="stretch")
        for image, original in zip(images, files.values(), strict=True):
            shown = Image.fromarray(ft.decode_images([original])[0])
            assert not np.array_equal(
                np.asarray(shown), np.asarray(Image.open(io.BytesIO(original)).convert("RGB"))
            )
            height, width = size or (40, 48)
            expected = shown.resize((width, height), Image.Resampling.LANCZOS)
            assert np.array_equal(pixels(image), np.asarray(expected))


def test_the_first_of_several_frames(tmp_path: Path) -> None:
    frames = [SMOOTH, SMOOTH.transpose(Image.Transpose.ROTATE_180)]
    for ending in ("gif", "tiff", "png"):
        save(tmp_path / "in" / "a" / f"0.{ending}", frames[0], save_all=True, append_images=frames[1:])
    several = [frame.convert("RGB") for frame in frames]
    save(
        tmp_path / "in" / "a" / "1.webp", several[0], lossless=True, save_all=True, append_images=several[1:]
    )
    save(tmp_path / "in" / "a" / "2.mpo", several[0], quality=100, save_all=True, append_images=several[1:])
    for format in ("jpeg", "keep"):
        _, images = packed(tmp_path / "in", quality=100, format=format)
        assert len(images) == 5
        for image in images:
            assert np.abs(pixels(image) - np.asarray(SMOOTH)[..., None]).max() <= 6


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    save(tmp_path / "in" / "a" / "0.jpg", picture(), quality=95)
    save(tmp_path / "in" / "a" / "1.png", picture())
    save(tmp_path / "in" / "a" / "2.bmp", picture())
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("format", "wanted", "unchanged"),
    [
        ("jpeg", ["JPEG", "JPEG", "JPEG"], [True, False, False]),
        ("png", ["PNG", "PNG", "PNG"], [False, True, False]),
        ("keep", ["JPEG", "PNG", "PNG"], [True, True, False]),
    ],
)
def test_format(mixed: Path, format: Any, wanted: list[str], unchanged: list[bool]) -> None:
    done, images = packed(mixed, format=format)
    assert formats(images) == wanted
    assert (done.kept, done.encoded) == (sum(unchanged), 3 - sum(unchanged))
    for path, image, same in zip(sorted((mixed / "a").iterdir()), images, unchanged, strict=True):
        assert (image == path.read_bytes()) is same
        if image[:4] == b"\x89PNG":
            original = path.read_bytes() if path.suffix != ".bmp" else None
            shown = np.asarray(Image.open(path)) if original is None else pixels(original)
            assert np.array_equal(pixels(image), shown)
    done, images = packed(mixed, format=format, size=(6, 5))
    assert done.kept == 0
    assert formats(images) == wanted


@pytest.mark.mxnet
@pytest.mark.parametrize("format", ["keep", "png"])
def test_lossless_pixels_are_those_that_mxnet_shows_of_the_original(
    tmp_path: Path, format: Any, mx: Any
) -> None:
    noise = np.random.default_rng(3).integers(0, 2**16, (12, 10), dtype=np.uint16)
    images = {
        "16.png": Image.fromarray(noise),
        "alpha.png": picture(mode="RGBA"),
        "gray-alpha.png": picture(mode="LA"),
        "palette.png": picture(mode="P"),
        "bits.png": Image.fromarray((noise >> 8).astype(np.uint8)).convert("1"),
        "cmyk.jpg": picture(mode="CMYK"),
        "gray.jpg": picture(mode="L"),
        "plain.jpg": picture(),
    }
    paths = [save(tmp_path / "in" / "a" / name, image) for name, image in images.items()]
    done, stored = packed(tmp_path / "in", format=format)
    assert done.kept == (8 if format == "keep" else 5)
    for path, image in zip(sorted(paths), stored, strict=True):
        assert np.array_equal(
            mx.image.imdecode(image).asnumpy(), mx.image.imdecode(path.read_bytes()).asnumpy()
        )


def test_damaged_files_of_all_formats_are_problems(tmp_path: Path) -> None:
    """Decoders raise errors of many types; none of them ends a run that is to go on."""
    rng = np.random.default_rng(1)
    for ending in ("jpg", "png", "webp", "avif", "bmp", "tiff", "gif", "jp2", "ppm"):
        if ending != "avif" or features.check("avif"):
            whole = save(
                tmp_path / f"whole.{ending}", SMOOTH.convert("L" if ending == "gif" else "RGB")
            ).read_bytes()
            for number in range(30):
                spoilt = bytearray(whole)
                for place in rng.integers(0, (60, len(whole))[number % 2], 5):
                    spoilt[place] = rng.integers(0, 256)
                path = tmp_path / "in" / ending / f"{number}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(spoilt)
    done, _ = packed(tmp_path / "in", size=(8, 8), on_error="skip")
    assert 100 < done.skipped < 270


@pytest.mark.parametrize("short", ["_core.decode_images", "read_bytes"])
def test_what_the_process_is_short_of_is_not_a_problem_of_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: str
) -> None:
    """Pictures that are whole must not be left out because no thread or no descriptor was to be had."""
    save(tmp_path / "in" / "a" / "0.png")
    if short == "read_bytes":
        monkeypatch.setattr(Path, "read_bytes", failing(OSError(errno.EMFILE, "Too many open files")))
    else:
        monkeypatch.setattr(f"fasttriplet.{short}", failing(OSError("cannot start a thread")))
    with pytest.raises(OSError, match=r"Too many open files|cannot start a thread"):
        ft.pack(tmp_path / "in", tmp_path / "out.rec", on_error="skip")
    assert not (tmp_path / "out.rec").exists()


def test_a_picture_that_the_format_cannot_hold_is_named(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a" / "0.png")
    Image.new("L", (65501, 1)).save(tmp_path / "in" / "a" / "long.png")
    with pytest.raises(ValueError, match=r"long\.png: cannot be encoded as JPEG"):
        ft.pack(tmp_path / "in", tmp_path / "out.rec", format="jpeg")


def test_odd_metadata_is_no_matter(tmp_path: Path) -> None:
    """Pillow warns of it, on all threads; whoever packs hears nothing, and keeps the filters of warnings."""
    broken = b"\xff\xe1\x00\x16Exif\0\0II*\0\x08\0\0\0\x09\0\x12\x01\x03\0"
    for number in range(40):
        path = save(tmp_path / "in" / "a" / f"{number}.jpg", quality=95)
        jpeg = path.read_bytes()
        path.write_bytes(jpeg[:2] + broken + jpeg[2:])
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(path) as opened:
        opened.getexif()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        assert packed(tmp_path / "in", threads=4)[0].kept == 40
        assert list(warnings.filters) == before


def test_quality(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a" / "0.png", picture((64, 64)))
    sizes = [packed(tmp_path / "in", quality=quality)[0].bytes for quality in (10, 95)]
    assert sizes[0] < sizes[1] / 2


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_fit(tmp_path: Path, mode: str) -> None:
    """A white square between black edges, in a picture that is twice as wide as high."""
    wide = np.zeros((20, 40), dtype=np.uint8)
    wide[:, 10:30] = 255
    save(tmp_path / "in" / "a" / "wide.png", Image.fromarray(wide).convert(mode))
    save(tmp_path / "in" / "a" / "xhigh.png", Image.fromarray(wide.T.copy()).convert(mode))
    how: dict[str, Any] = {"size": (10, 10), "format": "png"}

    def wide_and_high(fit: Any) -> NDArray[Any]:
        _, images = packed(tmp_path / "in", fit=fit, **how)
        wide, high = (pixels(image)[..., 0] for image in images)
        assert np.array_equal(wide, high.T)
        return wide

    # Lanczos filters overshoot a little beside edges.
    stretched = wide_and_high("stretch")
    assert (stretched[:, 4:6] > 230).all()
    assert (stretched[:, [0, 9]] < 25).all()
    cropped = wide_and_high("crop")
    assert (cropped[:, 1:9] > 230).all()  # the square alone
    assert (cropped[:, [0, 9]] > 128).all()
    padded = wide_and_high("pad")
    assert (padded[[0, 1, 8, 9]] < 25).all()
    assert (padded[3:7, 4:6] > 230).all()
    assert (padded[:, [0, 9]] < 25).all()


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_fit_of_extreme_shapes(tmp_path: Path, fit: Any) -> None:
    save(tmp_path / "in" / "a" / "0.png", picture((1, 400)))
    save(tmp_path / "in" / "a" / "1.png", picture((300, 1)))
    done, images = packed(tmp_path / "in", size=(8, 6), fit=fit)
    assert done.size == (8, 6)
    assert [pixels(image).shape for image in images] == [(8, 6, 3)] * 2


def test_size(tmp_path: Path) -> None:
    folder = people(tmp_path / "people")
    same = save(folder / "p2" / "b.jpg", picture((8, 6)), quality=95)
    for fit in ("stretch", "crop", "pad"):
        done, images = packed(folder, size=(8, 6), fit=fit)
        assert (done.kept, done.encoded) == (1, 6)
        assert images[3] == same.read_bytes()
    _, images = packed(folder, size=(8, 6))
    assert [pixels(image).shape for image in images] == [(8, 6, 3)] * 7
    _, images = packed(folder, size=(8, 6), format="png")
    original = Image.fromarray(ft.decode_images([(folder / "p1" / "x.jpg").read_bytes()])[0])
    resized = original.resize((6, 8), Image.Resampling.LANCZOS)
    assert np.array_equal(pixels(images[0]), np.asarray(resized))
