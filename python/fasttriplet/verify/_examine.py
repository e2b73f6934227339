"""What pairs of a file are good for, found out before anything is embedded."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._checks import thread_count
from fasttriplet._words import counted, prefixing
from fasttriplet.dataset._options import MAX_PIXELS
from fasttriplet.run._stages import PART
from fasttriplet.verify._bin_file import image_of_pair, read_pairs
from fasttriplet.verify._protocol import FOLDS, check_enough_pairs, why_no_accuracy


def read_for_folds(path: str | os.PathLike[str], folds: int) -> tuple[list[bytes], NDArray[np.bool_]]:
    """Read a ``.bin`` file, as :func:`read_pairs`, that has enough pairs for the folds."""
    images, same = read_pairs(path)
    with prefixing(os.fspath(path)):
        check_enough_pairs(len(same), folds)
    return images, same


def check_for_training(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    *,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> int:
    """Return how many images a ``.bin`` file has; a ValueError if a training cannot be verified on it.

    A training needs an accuracy over 10 folds. With `size`, the height and width of the images that the
    network is trained on, all images are decoded and must have it.
    """
    images, same = read_pairs(path)
    if len(same) < FOLDS:
        raise ValueError(
            f"{path} holds {counted(len(same), 'pair')}, and a training is verified on at least {FOLDS}, one "
            "for each fold"
        )
    if (why := why_no_accuracy(same, FOLDS)) is not None:
        raise ValueError(
            f"{path}: a training cannot be verified on its pairs, whose accuracy is undefined: {why}. Give a "
            "file in which genuine and impostor pairs alternate"
        )
    if size is None:
        return len(images)
    own, failed = look_at(images, threads=threads, max_pixels=max_pixels)
    if own is not None and own != size:
        found, wanted = ("{} x {}".format(*one) for one in (own, size))
        raise ValueError(
            f"{path}: its images are {found} (H x W), and those of the training {wanted}; verify on pairs of "
            f"{wanted} images"
        )
    if failed:
        position, reason = failed[0]
        others = f" (and {counted(len(failed) - 1, 'other image')})" if len(failed) > 1 else ""
        raise ValueError(f"{path}: {image_of_pair(position)} {reason}{others}")
    return len(images)


def look_at(
    images: Sequence[bytes], *, threads: int | None, max_pixels: int
) -> tuple[tuple[int, int] | None, list[tuple[int, str]]]:
    """Decode images to see whether all can be, and keep no pixels.

    Returns the height and width that most of the first images have, None if none can be decoded, and the
    position of each image that cannot be decoded or has another size, with the reason.
    """
    size: tuple[int, int] | None = None
    threads = thread_count(threads)
    failed: list[tuple[int, str]] = []
    for start in range(0, len(images), PART):
        part = list(images[start : start + PART])
        pixels, kept, bad = _core.decode_images(
            part, size=size, max_pixels=max_pixels, skip=True, threads=threads
        )
        size = (pixels.shape[1], pixels.shape[2]) if kept else size
        failed += [(start + position, error.reason) for position, error in bad]
    return size, failed
