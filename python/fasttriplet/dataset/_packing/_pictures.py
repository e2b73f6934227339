"""Pictures: read in any format, brought to the size, encoded for the file, on threads."""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fasttriplet._checks import thread_count
from fasttriplet._contents import why_unreadable
from fasttriplet.dataset._images import decode_images
from fasttriplet.dataset._options import MAX_PIXELS
from fasttriplet.dataset._packing._options import Fit, Format, PackOptions
from fasttriplet.dataset._packing._problems import Kind
from fasttriplet.errors import RecordError

Image.init()
# Pillow knows more: some run other programs (EPS), some have no mark and take any file for a picture (TGA).
# AVIF needs Pillow 11.3.
_FORMATS = tuple(
    {"JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", "GIF", "JPEG2000", "PPM"}.intersection(Image.OPEN)
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TAKES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}
_GRAY = {"1", "L", "LA", "I;16", "I"}
_ORIENTATION = 0x112
_PILLOWS_LIMIT = threading.Lock()


@dataclass(frozen=True, slots=True)
class Ready:
    """A picture as it goes into the file, its height and width, and whether it was kept as it was."""

    content: bytes
    size: tuple[int, int]
    kept: bool


class Unusable(Exception):  # noqa: N818  a finding: it goes into a list
    """Why a file cannot be used."""

    def __init__(self, kind: Kind, what: str) -> None:
        super().__init__(what)
        self.kind = kind


@contextmanager
def quietly() -> Iterator[None]:
    """Hide Pillow's warnings of odd metadata, in all threads: filters belong to the process.

    So this is not for threads that run at the same time: one would undo what another one did.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def prepare(paths: Iterable[Path], options: PackOptions) -> Generator[Ready | Unusable, None, None]:
    """Read pictures, and encode them where needed, on threads: in order, 16 per thread ahead."""
    workers = thread_count(options.threads) or os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Ready | Unusable]] = deque()
    try:
        for path in paths:
            waiting.append(pool.submit(_read_and_encode, path, options))
            if len(waiting) >= 16 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read_and_encode(path: Path, options: PackOptions) -> Ready | Unusable:
    """Read a picture and encode it, if it is not as it should be already."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Unusable("unreadable", why_unreadable(error))
    try:
        return _encode(data, options)
    except Unusable as finding:
        return finding


def _encode(data: bytes, options: PackOptions) -> Ready:
    if not data:
        raise Unusable("damaged", "is an empty file")
    # Our own decoder shows a reader the pixels that MXNet would have shown of the original.
    pixels = _pixels(data, options.max_pixels) if data.startswith((b"\xff\xd8", b"\x89PNG")) else None
    try:
        if pixels is not None:
            own = pixels.shape[0], pixels.shape[1]
            picture = _open(data)
            wanted = _format(picture, options.format)
            turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
            if picture.format == wanted and turn is None and options.size in (None, own):
                return Ready(data, own, kept=True)
            upright = _upright(picture, pixels, turn)
        else:
            picture = _open(data)
            height, width, most = picture.height, picture.width, options.max_pixels
            if height * width > most:
                raise Unusable(
                    "large",
                    f"the header says {height} x {width} pixels (height x width), {height * width:,} in all, "
                    f"and at most {most:,} are decoded; if it is right, raise max_pixels",
                )
            wanted = _format(picture, options.format)
            upright = _any_format(picture)
    except UnidentifiedImageError:
        raise Unusable("format", "is not a picture, or its beginning is damaged") from None
    except (Unusable, MemoryError):
        raise
    except Exception as error:  # Pillow's decoders raise errors of many types
        raise Unusable("damaged", f"cannot be decoded: {error}") from None
    if options.size is not None and upright.size != options.size[::-1]:
        upright = _fitted(upright, options.size, options.fit)
    buffer = io.BytesIO()
    try:
        upright.save(buffer, wanted, **({"quality": options.quality} if wanted == "JPEG" else {}))
    except OSError as error:  # a JPEG has 65,500 pixels a side at most
        raise Unusable("large", f"cannot be encoded as {wanted}: {error}") from None
    return Ready(buffer.getvalue(), (upright.height, upright.width), kept=False)


def _pixels(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a JPEG or a PNG; errors that are not about its content are raised as they are."""
    try:
        pixels: NDArray[np.uint8] = decode_images([data], threads=1, max_pixels=max_pixels)[0]
    except RecordError as error:
        kind: Kind = "large" if _claims_more(data, max_pixels) else "damaged"
        raise Unusable(kind, error.reason) from None
    return pixels


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Let Pillow open a picture of any size: `max_pixels` takes the place of its own limit.

    That one belongs to the process, so this is for what takes little time.
    """
    with _PILLOWS_LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _open(data: bytes) -> Image.Image:
    """Read the header of a picture."""
    with _without_pillows_limit():
        return Image.open(io.BytesIO(data), formats=_FORMATS)


def _claims_more(data: bytes, max_pixels: int) -> bool:
    """Whether the header of a picture says more pixels than are decoded."""
    try:
        picture = _open(data)
    except Exception:  # as below: of many types
        return False
    return picture.height * picture.width > max_pixels


def _format(picture: Image.Image, chosen: Format) -> str:
    """Pillow's name of the format that a picture is stored in."""
    if chosen == "keep":
        return "JPEG" if picture.format in ("JPEG", "MPO") else "PNG"
    return chosen.upper()


def _upright(picture: Image.Image, pixels: NDArray[np.uint8], turn: Image.Transpose | None) -> Image.Image:
    if turn is not None and picture.format != "PNG":  # our decoder has turned some of them, as MXNet does
        return _any_format(picture)
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0]) if picture.mode in _GRAY else pixels)
    return image if turn is None else image.transpose(turn)


def _any_format(picture: Image.Image) -> Image.Image:
    """Decode the first frame with Pillow, turn it upright, and bring it to 8 bits of gray or RGB."""
    if picture.height * picture.width > MAX_PIXELS:  # the limit was raised; Pillow applies its own once more
        with _without_pillows_limit():
            picture.load()
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PPM"):
        image = ImageOps.exif_transpose(picture)
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))  # the high byte, as of a PNG
    if picture.mode not in _TAKES:
        raise Unusable(
            "format", f"has pixels of Pillow's mode {picture.mode}; expected whole numbers up to 16 bits"
        )
    image = ImageOps.exif_transpose(picture)
    return image.convert("L" if picture.mode in _GRAY else "RGB")


def _fitted(image: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    """Bring a picture to this height and width."""
    height, width = size
    if fit == "pad":
        scale = min(width / image.width, height / image.height)
        inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        canvas = Image.new(image.mode, (width, height))  # black
        place = (width - inner[0]) // 2, (height - inner[1]) // 2
        canvas.paste(image.resize(inner, Image.Resampling.LANCZOS), place)
        return canvas
    box = None
    if fit == "crop":
        scale = max(width / image.width, height / image.height)
        left = max(0.0, (image.width - width / scale) / 2)
        top = max(0.0, (image.height - height / scale) / 2)
        box = left, top, image.width - left, image.height - top
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)
