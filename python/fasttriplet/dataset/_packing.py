"""Packs a folder of images, with one folder per identity, into a ``.rec`` in the InsightFace layout."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fasttriplet._checks import image_size, thread_count, whole_number
from fasttriplet._files import check_can_be_written, replacing_all
from fasttriplet.dataset._images import decode_images
from fasttriplet.dataset._recordio import IRHeader, RecordWriter
from fasttriplet.errors import RecordError, RecordWarning

_PROBLEMS_SHOWN = 10
_EXACT_IN_FLOAT32 = 2**24
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


@dataclass(frozen=True, slots=True)
class Packed:
    """What :func:`pack` wrote.

    Attributes
    ----------
    path : Path
        The ``.rec`` file.
    images, identities : int
        How many the file holds.
    size : (int, int)
        Height and width of the images.
    kept : int
        How many images were JPEGs that were stored unchanged; the rest was encoded.
    bytes : int
        Size of the ``.rec`` in bytes.
    seconds : float
        How long packing took.
    """

    path: Path
    images: int
    identities: int
    size: tuple[int, int]
    kept: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Ready:
    """An image that is ready for the file, and whether it was kept as it was."""

    content: bytes
    size: tuple[int, int]
    kept: bool


class _Problem(Exception):  # noqa: N818  a finding: it goes into a list
    """What is wrong with one image."""


def pack(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    quality: int = 95,
    threads: int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Packed:
    """Pack a folder of images into a ``.rec`` in the InsightFace identity layout.

    The only structure that is accepted is ``FOLDER/identity/image``. Identities get the labels 0, 1, 2, ...
    in the natural order of their names (``p2`` before ``p10``), and images are stored in that order, too. The
    same folder gives the same bytes. Three files are written beside ``OUT.rec``: ``OUT.idx``, ``property``
    (``identities,height,width``, which InsightFace's training scripts read) and ``OUT.identities.csv`` (the
    folder of each label).

    A JPEG of the right size is stored unchanged, unless it has an EXIF orientation, which readers treat in
    different ways. Every other image is decoded, turned upright, stretched to `size` with a Lanczos filter
    where needed, and encoded as a JPEG. Gray images stay gray, and alpha is dropped.

    Parameters
    ----------
    folder : path
        It has one folder per identity, with the images of that identity.
    out : path
        The ``.rec`` file.
    size : (int, int), optional
        Height and width that all images are brought to. By default they must all have one size already.
    quality : int
        JPEG quality of the images that are encoded, 1 to 100.
    threads : int, optional
        By default one per core.
    overwrite : bool
        Whether files of an earlier run may be replaced.
    progress : callable, optional
        Called with the number of images that are done and the number of all images.

    Returns
    -------
    Packed
        What was written. After an error, no file was written or replaced.

    Raises
    ------
    ValueError
        If the folder has another structure, an image cannot be read, or sizes differ. The message lists the
        files.
    FileExistsError
        If an output file exists and `overwrite` is not set.
    OSError
        If a file cannot be written.
    """
    started = time.perf_counter()
    folder, out = Path(folder), Path(out)
    _check(folder, out, size, quality, threads)
    extras = (out.with_suffix(".identities.csv"), out.with_name("property"))
    if not overwrite:
        for path in (out, out.with_suffix(".idx"), *extras):
            if path.exists():
                raise FileExistsError(errno.EEXIST, "exists already; overwrite replaces it", str(path))
    identities = _scan(folder)
    count = sum(len(images) for _, images in identities)
    labels = (label for label, (_, images) in enumerate(identities) for _ in images)
    end = count + 1
    if end + len(identities) > _EXACT_IN_FLOAT32:
        warnings.warn(
            f"{out}: with more than {_EXACT_IN_FLOAT32:,} records the identities' ranges of keys, which this "
            "layout stores as float32, are rounded. Readers that go by the labels, as fasttriplet does, are "
            "not affected",
            RecordWarning,
            stacklevel=2,
        )
    kept, problems = 0, _Problems()
    first: tuple[Path, tuple[int, int]] | None = None
    with ExitStack() as resources:
        names, about = resources.enter_context(replacing_all(*extras))
        writer = resources.enter_context(RecordWriter(out))
        writer.write(0, IRHeader(0, np.array([end, end + len(identities)], np.float32), 0, 0), b"")
        ready = resources.enter_context(closing(_prepare(_paths(folder, identities), size, quality, threads)))
        paths = _paths(folder, identities)
        for key, (path, label, image) in enumerate(zip(paths, labels, ready, strict=True), start=1):
            if isinstance(image, _Problem):
                problems.add(path, str(image))
            else:
                first = first or (path, image.size)
                if image.size != first[1]:
                    problems.add(path, _two_sizes(image.size, *first))
                elif not problems:  # after a problem, images are only looked at, so that all are named
                    writer.write(key, IRHeader(0, float(label), key, 0), image.content)
                    kept += image.kept
            if progress is not None:
                progress(key, count)
        problems.check()
        assert first is not None  # there was an image or a problem: _scan refuses empty folders
        key = 1
        for number, (_, images) in enumerate(identities):
            images_of_one = np.array([key, key + len(images)], np.float32)
            writer.write(end + number, IRHeader(0, images_of_one, end + number, 0), b"")
            key += len(images)
        height, width = first[1]
        _write_names(names, identities)
        about.write_text(f"{len(identities)},{height},{width}\n", encoding="ascii")
    return Packed(
        path=out,
        images=count,
        identities=len(identities),
        size=first[1],
        kept=kept,
        bytes=out.stat().st_size,
        seconds=time.perf_counter() - started,
    )


def _check(folder: Path, out: Path, size: tuple[int, int] | None, quality: int, threads: int | None) -> None:
    if out.suffix != ".rec":
        raise ValueError(f"{out}: the name of the output must end in .rec")
    if not folder.is_dir():
        reason = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"{folder}: {reason}; expected a folder with one folder for each identity")
    if folder.resolve() in out.resolve().parents:
        raise ValueError(
            f"{out}: lies inside {folder}, where it would be taken for an image; choose another place"
        )
    if size is not None and max(image_size(size)) > 2**14:
        raise ValueError(f"size: expected height and width of 1 to {2**14} pixels, got {size}")
    whole_number("quality", quality, 1, 100)
    thread_count(threads)
    check_can_be_written(out)


class _Problems:
    """Collects what is wrong with the folder, so that one error names it all."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._count = 0

    def add(self, path: Path, what: str) -> None:
        self._count += 1
        if len(self._shown) < _PROBLEMS_SHOWN:
            self._shown.append(f"{_printable(path)}: {what}")

    def __bool__(self) -> bool:
        return self._count > 0

    def check(self) -> None:
        if self._count == 1:
            raise ValueError(f"{self._shown[0]}. Nothing was written")
        if self._count > len(self._shown):
            self._shown.append(f"... and {self._count - len(self._shown):,} more")
        if self._count:
            raise ValueError("\n  ".join([f"{self._count:,} problems, nothing was written:", *self._shown]))


def _paths(folder: Path, identities: list[tuple[str, list[str]]]) -> Iterator[Path]:
    return (folder / name / image for name, images in identities for image in images)


def _scan(folder: Path) -> list[tuple[str, list[str]]]:
    """Return the names of the identities, each with the names of its images, in natural order."""
    problems = _Problems()
    identities = []
    for entry in _entries(folder, problems):
        path = folder / entry.name
        if not entry.is_dir():
            problems.add(path, "lies beside the identities' folders; move it into one of them, or away")
            continue
        images = []
        for inner in _entries(path, problems):
            if inner.is_dir():
                problems.add(
                    path / inner.name,
                    "is a folder inside an identity's folder; expected FOLDER/identity/image. If the "
                    "identities are one level deeper, pack that folder",
                )
            elif not inner.is_file():
                problems.add(path / inner.name, "is not a file (a broken link?); remove it")
            else:
                images.append(inner.name)
        if not images and not problems:
            problems.add(path, "has no images; remove the folder")
        identities.append((entry.name, images))
    problems.check()
    if not identities:
        raise ValueError(f"{folder}: is empty; expected one folder for each identity")
    return identities


def _entries(folder: Path, problems: _Problems) -> Iterator[os.DirEntry[str]]:
    """Go through a folder in natural order; what is hidden is a problem."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: natural(entry.name))
    for entry in found:
        if entry.name.startswith("."):
            problems.add(folder / entry.name, "is hidden; remove it, or move it out of the folder")
        else:
            yield entry


def natural(name: str) -> tuple[list[tuple[int, str]], bytes]:
    """Make a sort key that puts ``p2`` before ``p10``. Equal keys are ordered by the bytes of the name."""
    parts = re.split(r"([0-9]+)", name)
    # Text and numbers alternate, so numbers are only compared with numbers.
    pairs = [(int(part), "") if number % 2 else (0, part) for number, part in enumerate(parts)]
    return pairs, os.fsencode(name)


def _printable(path: Path) -> str:
    return str(path).encode(errors="backslashreplace").decode()


def _two_sizes(size: tuple[int, int], first: Path, expected: tuple[int, int]) -> str:
    (height, width), (other_height, other_width) = size, expected
    return (
        f"is {height} x {width} pixels (height x width), {_printable(first)} is {other_height} x "
        f"{other_width}; --size {other_height}x{other_width} brings all to one size"
    )


def _prepare(
    paths: Iterator[Path], size: tuple[int, int] | None, quality: int, threads: int | None
) -> Generator[_Ready | _Problem, None, None]:
    """Read images, and encode them where needed, on threads: in order, 16 per thread ahead of the caller."""
    workers = threads or os.cpu_count() or 1
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[_Ready | _Problem]] = deque()
    try:
        for path in paths:
            waiting.append(pool.submit(_read_and_encode, path, size, quality))
            if len(waiting) >= 16 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read_and_encode(path: Path, size: tuple[int, int] | None, quality: int) -> _Ready | _Problem:
    try:
        return _encode(path.read_bytes(), size, quality)
    except _Problem as problem:
        return problem
    except OSError as error:
        return _Problem(f"cannot be read: {error.strerror or error}")


def _encode(data: bytes, size: tuple[int, int] | None, quality: int) -> _Ready:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata
        try:
            if data.startswith((b"\xff\xd8", b"\x89PNG")):
                # Our own decoder shows a reader the pixels that MXNet would have shown of the original.
                pixels = decode_images([data], threads=1)[0]
                own = pixels.shape[0], pixels.shape[1]
                picture = Image.open(io.BytesIO(data))
                turned = picture.getexif().get(_ORIENTATION, 1) in _TURNS
                if picture.format == "JPEG" and not turned and size in (None, own):
                    return _Ready(data, own, kept=True)
                upright = _upright(picture, pixels)
            else:
                upright = _any_format(Image.open(io.BytesIO(data)))
        except RecordError as error:
            raise _Problem(error.reason) from None
        except UnidentifiedImageError:
            raise _Problem("is no image that can be read; remove it, or convert it to JPEG or PNG") from None
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise _Problem(f"cannot be read: {error}") from None
        if size is not None and upright.size != (size[1], size[0]):
            upright = upright.resize((size[1], size[0]), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        upright.save(buffer, "JPEG", quality=quality)
    return _Ready(buffer.getvalue(), (upright.height, upright.width), kept=False)


def _upright(picture: Image.Image, pixels: NDArray[np.uint8]) -> Image.Image:
    turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    if turn is not None and picture.format == "JPEG":  # our decoder has turned some of them, as MXNet does
        return _any_format(picture)
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0]) if picture.mode in _GRAY else pixels)
    return image if turn is None else image.transpose(turn)


def _any_format(picture: Image.Image) -> Image.Image:
    frames = getattr(picture, "n_frames", 1)
    if frames > 1:
        raise _Problem(f"has {frames} frames; save the one you want as JPEG or PNG")
    if picture.mode not in _TAKES:
        raise _Problem(
            f"is of Pillow's mode {picture.mode}, not of 8 bits a channel; convert it to JPEG or PNG"
        )
    image = ImageOps.exif_transpose(picture)
    return image.convert("L" if picture.mode in _GRAY else "RGB")


def _write_names(path: Path, identities: list[tuple[str, list[str]]]) -> None:
    # Names that are not Unicode are written as the bytes they are.
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["label", "folder", "images"])
        table.writerows((label, name, len(images)) for label, (name, images) in enumerate(identities))
