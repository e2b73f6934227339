"""Verification of a model, on the pairs of a ``.bin`` file or on pairs drawn from a ``.rec``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._checks import pixel_limit, seed_number, thread_count, truth_value, whole_number
from fasttriplet._options import shows
from fasttriplet._words import advising, prefixing
from fasttriplet.dataset._dataset import Dataset, Rec, open_dataset
from fasttriplet.dataset._images import decode_images
from fasttriplet.dataset._options import MAX_PIXELS, DatasetKeywords, DatasetOptions
from fasttriplet.embedders import Embedder
from fasttriplet.embedders._base import check_embeddings, started
from fasttriplet.embedders._load import embedder_of
from fasttriplet.errors import RecordError
from fasttriplet.mining._mine import mine_rows
from fasttriplet.mining._options import MiningOptions
from fasttriplet.run._stages import PART
from fasttriplet.verify._bin_file import image_of_pair
from fasttriplet.verify._draw import draw_pairs
from fasttriplet.verify._examine import read_for_folds
from fasttriplet.verify._protocol import FOLDS, Verification, check_enough_pairs, verify_distances
from fasttriplet.verify._separation import what_to_try

Progress = Callable[[int, int], object]

_PAIRS_AT_ONCE = 4096  # their embeddings of 512 float64 take 2 x 16 MB


def verify_pairs(
    path: str | os.PathLike[str],
    model: str | Embedder,
    *,
    folds: int = FOLDS,
    flip: bool = True,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    progress: Progress | None = None,
) -> Verification:
    """Embed the pairs of a ``.bin`` file and judge their distances.

    An image and its mirror image are embedded, the two vectors added and divided by the L2 norm of the sum,
    in float64; a sum of zero stays zero. The distances are squared L2 between the results, and
    :func:`verify_distances` judges them. A model that separates nothing gets a ``warning`` that says what to
    try.

    Parameters
    ----------
    path : path
        The file, as :func:`read_pairs` takes it.
    model : str or Embedder
        A spec for :func:`load_embedder`, or an embedder. It must embed images: embeddings that were computed
        before have no rows for the images of this file. The ``key`` of an image is its position in the file,
        and its ``label`` is -1.
    folds : int, default 10
        At least 2, and at most the number of pairs; see :func:`verify_distances`.
    flip : bool, default True
        Whether the mirror image is used.
    threads : int, optional
        Threads that decode; by default one per core.
    max_pixels : int, default 89,478,485
        The most pixels of an image; see :func:`fasttriplet.decode_images`.
    progress : callable, optional
        Called with the number of images that are embedded and the number of all that will be.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If the file, one of its images or the model is not what it should be, or there are fewer pairs than
        folds.
    OSError, ImportError
        If a file cannot be read, or the model's package is not installed.
    """
    path = Path(path)
    whole_number("folds", folds, 2)
    threads, max_pixels = thread_count(threads), pixel_limit(max_pixels)
    flip = truth_value("flip", flip)
    embedder = embedder_of(model)
    if not embedder.needs_images:
        raise ValueError(
            f"{path} holds images without an index, and this model embeds no images "
            f"({embedder.description}); give a network, such as mxnet:PREFIX,EPOCH"
        )
    images, same = read_for_folds(path, folds)
    rows = pl.DataFrame({"key": np.arange(len(images)), "label": np.full(len(images), -1)})
    embedder.prepare(rows)

    def decode(start: int, end: int, size: tuple[int, int] | None) -> NDArray[np.uint8]:
        try:
            return decode_images(images[start:end], size=size, threads=threads, max_pixels=max_pixels)
        except RecordError as error:
            if error.position is None:
                raise
            raise ValueError(f"{path}: {image_of_pair(start + error.position)} {error.reason}") from error

    height, width = decode(0, 1, None).shape[1:3]

    def parts() -> Iterator[tuple[pl.DataFrame, NDArray[np.uint8]]]:
        for start in range(0, len(images), PART):
            yield rows[start : start + PART], decode(start, start + PART, (height, width))

    embeddings, xnorm = _embed(embedder, parts(), len(images), flip=flip, progress=progress, name=str(path))
    even = np.arange(0, len(images), 2)
    with prefixing(str(path)):
        found = _judged(_squared(embeddings, even, even + 1), same, folds, embedder)
    ids = np.stack([even, even + 1], axis=1)
    return replace(found, images=len(images), flip=flip, xnorm=xnorm, ids=ids)


@shows(DatasetOptions)
def verify_rec(
    rec: Rec,
    model: str | Embedder,
    *,
    pairs_per_kind: int = 6000,
    seed: int = 0,
    folds: int = FOLDS,
    flip: bool = True,
    recall: bool = True,
    threads: int | None = None,
    progress: Progress | None = None,
    **options: Unpack[DatasetKeywords],
) -> Verification:
    """Draw pairs from a ``.rec``, embed the images, and judge distances and neighbours.

    Pairs are drawn by :func:`draw_pairs`; embeddings and distances are computed as in :func:`verify_pairs`.
    With `recall`, all images are embedded and their embeddings kept in memory in float64 (4 KB per image for
    512 numbers); without it, only the images of the pairs are.

    Parameters
    ----------
    rec : path, sequence of paths, or Dataset
        The ``.rec`` file, several that make one dataset, or a :class:`fasttriplet.Dataset`.
    model : str or Embedder
        A spec for :func:`load_embedder`, or an embedder. Where it embeds no images (``npy:FILE``), nothing
        can be mirrored, and `flip` is False in the result.
    pairs_per_kind, seed
        See :func:`draw_pairs`.
    folds, flip, threads, progress
        See :func:`verify_pairs`.
    recall : bool, default True
        Whether the nearest neighbour of each image is found. It is decided in float64 on the unit embeddings
        rounded to float32, as :func:`mine` does.
    labels, cache
        See :func:`fasttriplet.index_rec`. A :class:`fasttriplet.Dataset` is made with options of its own.
    max_pixels : int, default 89,478,485
        The most pixels of an image that is decoded; see :func:`fasttriplet.decode_images`.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If the file or the model is not what it should be, if pairs of one kind cannot be drawn, as with a
        single identity, or if fewer pairs can be drawn than there are folds.
    RecordError
        If a record or an image is damaged or of another size than the first; names file, key and offset.
    OSError, ImportError
        If a file cannot be read, or the model's package is not installed.
    """
    chosen = DatasetOptions.of(verify_rec, options)
    whole_number("pairs_per_kind", pairs_per_kind, 1)
    whole_number("folds", folds, 2)
    seed, threads = seed_number(seed), thread_count(threads)
    flip, recall = truth_value("flip", flip), truth_value("recall", recall)
    embedder = embedder_of(model)
    dataset = open_dataset(rec, chosen, threads=threads)
    index = dataset.index
    name = ", ".join(map(str, dataset.paths))
    with prefixing(name):
        drawn = draw_pairs(index, pairs_per_kind, seed)
        check_enough_pairs(len(drawn.same), folds)
    embedder.prepare(index)
    wanted = np.arange(index.height) if recall else np.unique(np.concatenate(drawn[:2]))
    rows = index[wanted]
    flip = flip and embedder.needs_images
    parts = _parts_of_rec(dataset, rows, embedder, threads)
    embeddings, xnorm = _embed(embedder, parts, rows.height, flip=flip, progress=progress, name=name)
    first, second = (np.searchsorted(wanted, side) for side in drawn[:2])
    found = _judged(_squared(embeddings, first, second), drawn.same, folds, embedder)
    ids = np.stack([dataset.ids[side] for side in drawn[:2]], axis=1)
    found = replace(found, images=rows.height, flip=flip, xnorm=xnorm)
    found = replace(found, ids=ids, dataset=dataset.fingerprint)
    if not recall:
        return found
    share, count = _recall_at_1(embeddings, rows["label"].to_numpy(), threads)
    return replace(found, recall_at_1=share, recall_images=count)


def _parts_of_rec(
    dataset: Dataset, rows: pl.DataFrame, embedder: Embedder, threads: int | None
) -> Iterator[tuple[pl.DataFrame, NDArray[np.uint8] | None]]:
    decodes = embedder.needs_images
    size = dataset.image_size(rows, threads=threads) if decodes else None
    for start in range(0, rows.height, PART):
        part = rows[start : start + PART]
        yield part, dataset.decode(part, size=size, threads=threads).pixels if decodes else None


def _embed(
    embedder: Embedder,
    parts: Iterable[tuple[pl.DataFrame, NDArray[np.uint8] | None]],
    count: int,
    *,
    flip: bool,
    progress: Progress | None,
    name: str,
) -> tuple[NDArray[np.float64], float]:
    """Embed images and their mirror images: (count, D) unit rows, and the mean norm before normalisation.

    What the embedder does not take is an error that starts with `name`, that of the file.
    """
    embeddings = np.empty((count, 0))
    norms, done = 0.0, 0
    if progress is not None:
        progress(0, count)
    for rows, images in parts:
        total = _vectors(embedder, rows, images, name)
        norms += float(np.linalg.norm(total, axis=1).sum())
        if flip and images is not None:
            mirrored = _vectors(embedder, rows, np.ascontiguousarray(images[:, :, ::-1]), name)
            norms += float(np.linalg.norm(mirrored, axis=1).sum())
            total += mirrored
        lengths = np.linalg.norm(total, axis=1, keepdims=True)
        if done == 0:
            embeddings = np.empty((count, total.shape[1]))
        embeddings[done : done + len(total)] = total / np.where(lengths > 0, lengths, 1.0)
        done += len(total)
        if progress is not None:
            progress(done, count)
    return embeddings, norms / (count * (2 if flip else 1))


def _vectors(
    embedder: Embedder, rows: pl.DataFrame, images: NDArray[np.uint8] | None, name: str
) -> NDArray[np.float64]:
    with prefixing(name), advising("lower the batch_size of the model"):
        found = started(embedder, rows, images).result()
        return check_embeddings(found, rows, embedder.description, np.float64)


def _squared(
    embeddings: NDArray[np.float64], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Squared L2 distances between rows `first` and rows `second`."""
    distances = np.empty(len(first))
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        difference = embeddings[first[part]] - embeddings[second[part]]
        distances[part] = np.square(difference, out=difference).sum(axis=1)
    return distances


def _judged(
    distances: NDArray[np.float64], same: NDArray[np.bool_], folds: int, embedder: Embedder
) -> Verification:
    """Judge the distances; a warning says what to try with this embedder."""
    found = verify_distances(distances, same, folds)
    if found.warning is None:
        return found
    return replace(found, warning=f"{found.warning}. {what_to_try(embedder)}")


def _recall_at_1(
    embeddings: NDArray[np.float64], labels: NDArray[np.int64], threads: int | None
) -> tuple[float, int]:
    """Share of the images whose nearest image has their label, among those that could, and how many could.

    There are genuine and impostor pairs among the images.
    """
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    asked = int((counts[inverse] > 1).sum())
    options = MiningOptions(pairs="easiest", band="any", pick="hardest", normalize=False)
    rows = (embeddings.astype(np.float32), labels, None)
    nearest = mine_rows(options, rows, seed=0, threads=threads)  # a collapse is in the result's `warning`
    return int((nearest.d_ap < nearest.d_an).sum()) / asked, asked
