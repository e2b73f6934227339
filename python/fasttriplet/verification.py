"""How well embeddings tell same from different: the protocol of LFW, on pairs of a file or of a ``.rec``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from fasttriplet.checks import rows_not_finite, seed_number, thread_count, whole_number
from fasttriplet.embedders import Embedder, load_embedder
from fasttriplet.errors import RecordError
from fasttriplet.images import decode_images, decode_rows, size_of_images
from fasttriplet.index import index_rec
from fasttriplet.line import PART, image_ids
from fasttriplet.mining import mine
from fasttriplet.order import epoch_seed
from fasttriplet.pairs_file import image_of_pair, read_pairs
from fasttriplet.recordio import RecordFile

Told = Callable[[int, int], None]

_THRESHOLDS = np.arange(400) / 100  # of squared L2, those of InsightFace: 0.00 to 3.99
_LARGEST = 4.0 + 1e-3  # squared L2 of unit rows, with what rounding may add
_FAR_EXPONENTS = range(1, 7)
_FOLDS = 10
_PAIRS_AT_ONCE = 4096  # 2 x 16 MB of float64 for embeddings of 512


@dataclass(frozen=True, slots=True)
class Verification:
    """What :func:`verify_distances`, :func:`verify_pairs` and :func:`verify_rec` found.

    Distances are squared L2 between unit embeddings. A pair is accepted as one identity if its distance is
    below the threshold (strictly).

    Attributes
    ----------
    pairs, genuine, impostors : int
        Counts: of all, of one identity, of two.
    accuracy, accuracy_std : float
        Mean and standard deviation (of the population, ``numpy.std``) over the folds. The threshold of a
        fold is chosen on the other folds.
    threshold : float
        The one that is best for all pairs together; the smallest where several are.
    fold_accuracies, fold_thresholds : tuple of float
        Of each fold.
    auc : float or None
        Probability that a genuine pair is nearer than an impostor pair, ties counted half (the area under
        the ROC curve; Mann and Whitney's U over the product of the counts). None if a kind is missing.
    tar : dict of float to float
        True accept rate by false accept rate, 0.1 to 1e-6: the share of genuine pairs below the largest
        threshold that at most ``floor(FAR * impostors)`` impostors are below. Rates that would allow no
        impostor at all are left out, and all of them if there is no genuine pair.
    images : int or None
        Images that were embedded.
    flip : bool or None
        Whether the embedding of the mirrored image was added.
    xnorm : float or None
        Mean L2 norm of the embeddings, of mirrored images too, before they were added and normalised.
    recall_at_1 : float or None
        Share of the images whose nearest other image shows the same identity, among those of which there
        is another image. A tie of both kinds counts as a miss.
    recall_images : int or None
        How many those are.
    distances : (pairs,) float64
        Squared L2 of each pair.
    same : (pairs,) bool
        Whether it is genuine.
    """

    pairs: int
    genuine: int
    impostors: int
    accuracy: float
    accuracy_std: float
    threshold: float
    fold_accuracies: tuple[float, ...]
    fold_thresholds: tuple[float, ...]
    auc: float | None
    tar: dict[float, float]
    images: int | None = None
    flip: bool | None = None
    xnorm: float | None = None
    recall_at_1: float | None = None
    recall_images: int | None = None
    distances: NDArray[np.float64] = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    same: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_), repr=False, compare=False)

    def roc(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The ROC curve, exactly: one point for each distance that occurs, and (1, 1).

        Returns
        -------
        far, tar : (P,) float64
            Shares of impostor and of genuine pairs below the threshold, both ascending.

        Raises
        ------
        ValueError
            If there are no pairs of one of the kinds.
        """
        if not self.genuine or not self.impostors:
            raise ValueError(f"a ROC curve needs pairs of both kinds, and {_missing_kind(self)}")
        thresholds = np.append(np.unique(self.distances), np.inf)
        below = [
            np.searchsorted(np.sort(self.distances[kind]), thresholds, side="left") / np.count_nonzero(kind)
            for kind in (~self.same, self.same)
        ]
        return below[0], below[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON: all but the distances of the pairs."""
        plain = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("distances", "same")
        }
        return plain | {
            "fold_accuracies": list(self.fold_accuracies),
            "fold_thresholds": list(self.fold_thresholds),
            "tar": {f"{far:g}": tar for far, tar in self.tar.items()},
        }


class DrawnPairs(NamedTuple):
    """Pairs of rows of an index.

    Attributes
    ----------
    first, second : (P,) int64
        Positions of rows.
    same : (P,) bool
        Whether their labels are the same.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    same: NDArray[np.bool_]


def verify_distances(distances: ArrayLike, same: ArrayLike, folds: int = _FOLDS) -> Verification:
    """Judge the distances of pairs by the protocol of LFW, as InsightFace's ``verification.py`` has it.

    The pairs are cut, in their order, into folds of equal size (the first ones have a pair more where it
    does not come out even). For each fold, the threshold out of 0.00, 0.01, ... 3.99 that is most accurate on
    the other folds, the smallest where several are, gives the accuracy on it.

    Parameters
    ----------
    distances : (P,) float
        Squared L2 distances of unit embeddings, 0 to 4.
    same : (P,) bool
        Whether the pair shows one identity.
    folds : int, default 10
        At least 2; not more than there are pairs.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If shapes or values are not as said above; names the first pair, counted from 0.

    Examples
    --------
    >>> import fasttriplet as ft
    >>> found = ft.verify_distances([0.1, 0.2, 1.9, 2.1], [True, True, False, False], folds=2)
    >>> found.accuracy, found.auc
    (0.5, 1.0)
    """
    whole_number("folds", folds, 2)
    measured = _distances(distances)
    genuine = _truth(same, len(measured))
    _enough_pairs(len(measured), folds)
    ends = np.arange(folds + 1) * (len(measured) // folds)
    ends += np.minimum(np.arange(folds + 1), len(measured) % folds)
    right = np.stack([_right(measured[a:b], genuine[a:b]) for a, b in pairwise(ends)])  # (folds, 400)
    in_all = right.sum(axis=0)
    chosen = np.argmax(in_all - right, axis=1)  # the first maximum
    accuracies = right[np.arange(folds), chosen] / np.diff(ends)
    near, far = np.sort(measured[genuine]), np.sort(measured[~genuine])
    return Verification(
        pairs=len(measured),
        genuine=len(near),
        impostors=len(far),
        accuracy=float(accuracies.mean()),
        accuracy_std=float(accuracies.std()),
        threshold=float(_THRESHOLDS[np.argmax(in_all)]),
        fold_accuracies=tuple(accuracies.tolist()),
        fold_thresholds=tuple(_THRESHOLDS[chosen].tolist()),
        auc=_auc(near, far),
        tar=_true_accept_rates(near, far),
        distances=measured,
        same=genuine,
    )


def verify_pairs(
    path: str | os.PathLike[str],
    model: str | Embedder,
    *,
    flip: bool = True,
    threads: int | None = None,
    progress: Told | None = None,
) -> Verification:
    """Embed the pairs of a ``.bin`` file and judge their distances.

    An image and its mirror image are embedded, the two vectors added and divided by the L2 norm of the sum,
    in float64; the distances are squared L2 of these, judged as :func:`verify_distances` does. A sum of zero
    stays zero.

    Parameters
    ----------
    path : path
        The file, as :func:`read_pairs` takes it.
    model : str or Embedder
        A spec for :func:`load_embedder`, or an embedder. It must embed images: embeddings computed before
        have no rows for those of the file. Its `rows` have the ``key`` of an image, its position in the file,
        and the ``label`` -1.
    flip : bool, default True
        Whether the mirror image is used.
    threads : int, optional
        That decode; by default one for each core.
    progress : callable, optional
        Called with the number of images done and in all.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If the file, one of its images or the model is not what it should be, or there are less than 10 pairs.
    OSError, ImportError
        If a file cannot be read, or the model's package is not installed.
    """
    path = Path(path)
    threads = thread_count(threads)
    embedder = load_embedder(model) if isinstance(model, str) else model
    if not embedder.needs_images:
        raise ValueError(
            f"{path} holds images without an index, and this model embeds no images "
            f"({embedder.description}); give a network, such as mxnet:PREFIX,EPOCH"
        )
    images, same = read_pairs(path)
    with _naming(str(path)):
        _enough_pairs(len(same), _FOLDS)
    rows = pl.DataFrame({"key": np.arange(len(images)), "label": np.full(len(images), -1)})
    embedder.prepare(rows)
    size = _decoded(path, images[:1], 0, None, threads).shape[1:3]

    def parts() -> Iterator[tuple[pl.DataFrame, NDArray[np.uint8]]]:
        for start in range(0, len(images), PART):
            pixels = _decoded(path, images[start : start + PART], start, (size[0], size[1]), threads)
            yield rows[start : start + PART], pixels

    embeddings, xnorm = _embed(embedder, parts(), len(images), flip, progress)
    even = np.arange(0, len(images), 2)
    with _naming(str(path)):
        found = verify_distances(_squared(embeddings, even, even + 1), same)
    return replace(found, images=len(images), flip=flip, xnorm=xnorm)


def verify_rec(
    rec: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    model: str | Embedder,
    *,
    pairs_per_kind: int = 6000,
    seed: int = 0,
    flip: bool = True,
    recall: bool = True,
    threads: int | None = None,
    progress: Told | None = None,
) -> Verification:
    """Draw pairs from a ``.rec``, embed its images, and judge distances and neighbours.

    Embeddings and distances are those of :func:`verify_pairs`, the pairs those of :func:`draw_pairs`. For
    the recall all images are embedded, and their embeddings kept in memory in float64 (4 KB an image for 512
    numbers); without it only those of the pairs.

    Parameters
    ----------
    rec : path or sequence of paths
        The ``.rec`` file, or several that are shards of one dataset.
    model : str or Embedder
        A spec for :func:`load_embedder`, or an embedder. Where it embeds no images (``npy:FILE``), nothing
        can be mirrored, and `flip` is False in the result.
    pairs_per_kind : int, default 6000
        Genuine pairs to draw, and as many impostor pairs.
    seed : int, default 0
        Of the pairs.
    flip : bool, default True
        Whether the mirror image is used.
    recall : bool, default True
        Whether the nearest image of each image is looked for. Nearest is decided in float64 on the unit
        embeddings rounded to float32, as :func:`mine` does.
    threads : int, optional
        By default one for each core.
    progress : callable, optional
        Called with the number of images done and in all.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If the file or the model is not what it should be, or less than 10 pairs can be drawn.
    RecordError
        If a record or an image is damaged or of another size than the first; names file, key and offset.
    OSError, ImportError
        If a file cannot be read, or the model's package is not installed.
    """
    whole_number("pairs_per_kind", pairs_per_kind, 1)
    seed, threads = seed_number(seed), thread_count(threads)
    embedder = load_embedder(model) if isinstance(model, str) else model
    paths = [Path(rec)] if isinstance(rec, (str, os.PathLike)) else [Path(path) for path in rec]
    index = index_rec(paths[0] if len(paths) == 1 else paths, threads=threads)
    name = ", ".join(map(str, paths))
    with _naming(name):
        drawn = draw_pairs(index, pairs_per_kind, seed)
        _enough_pairs(len(drawn.same), _FOLDS)
    embedder.prepare(index)
    wanted = np.arange(index.height) if recall else np.unique(np.concatenate(drawn[:2]))
    rows = index[wanted]
    flip = flip and embedder.needs_images
    embeddings, xnorm = _embed(
        embedder, _parts_of_rec(paths, rows, embedder, threads), rows.height, flip, progress
    )
    first, second = (np.searchsorted(wanted, side) for side in drawn[:2])
    found = verify_distances(_squared(embeddings, first, second), drawn.same)
    found = replace(found, images=rows.height, flip=flip, xnorm=xnorm)
    if not recall:
        return found
    share, count = _recall_at_1(embeddings, rows["label"].to_numpy(), threads)
    return replace(found, recall_at_1=share, recall_images=count)


def draw_pairs(index: pl.DataFrame, pairs_per_kind: int = 6000, seed: int = 0) -> DrawnPairs:
    """Draw genuine and impostor pairs of images.

    Genuine pairs are drawn uniformly from all pairs of one label, without replacement (all of them if there
    are no more than asked for), and as many impostor pairs from all pairs of two labels, so far as there are.
    They alternate, so that consecutive folds hold both kinds alike. A pair is never drawn twice, and no
    image is paired with itself.

    Parameters
    ----------
    index : pl.DataFrame
        One row per image with at least ``key`` and ``label`` (and ``file``, where there are several), as
        :func:`index_rec` returns it.
    pairs_per_kind : int, default 6000
        At least 1.
    seed : int, default 0
        The pairs are a pure function of it and of keys and labels, whatever the order of the rows, and the
        same in every version.

    Returns
    -------
    DrawnPairs

    Raises
    ------
    ValueError
        If a column is missing, a number is out of range, or no label has two images.
    """
    missing = [name for name in ("key", "label") if name not in index.columns]
    if missing:
        raise ValueError(f"the index needs the columns key and label; {' and '.join(missing)} not found")
    whole_number("pairs_per_kind", pairs_per_kind, 1)
    seed = seed_number(seed)
    labels = index["label"].to_numpy()
    order = np.lexsort((image_ids(index), labels))
    labels, count = labels[order], len(order)
    row = np.arange(count)
    end = np.searchsorted(labels, labels, side="right")  # of the label's rows
    # Row by row, the pairs with later rows are numbered; kinds differ in which later rows these are.
    same = _Numbered(row + 1, end - row - 1)
    different = _Numbered(end, count - end)
    if same.total == 0:
        raise ValueError(
            f"none of the {count:,} labels has two images, so there are no genuine pairs"
            if count
            else "there are no images to draw pairs from"
        )
    drawn = [same.pairs(_sample(same.total, min(pairs_per_kind, same.total), epoch_seed(seed, 0)))]
    impostors = min(len(drawn[0]), different.total)
    drawn.append(different.pairs(_sample(different.total, impostors, epoch_seed(seed, 1))))
    genuine = len(drawn[0])
    # Pair i of n stands at (2i + 1) / 2n; multiplied out, so that it stays in whole numbers.
    places = [(2 * np.arange(genuine) + 1) * max(impostors, 1), (2 * np.arange(impostors) + 1) * genuine]
    mixed = np.argsort(np.concatenate(places), kind="stable")
    pairs = order[np.concatenate(drawn)[mixed]]
    return DrawnPairs(pairs[:, 0].copy(), pairs[:, 1].copy(), mixed < genuine)


class _Numbered:
    """Pairs of a row with the `counts` rows from `firsts` on, numbered from 0 without listing them."""

    def __init__(self, firsts: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
        self._firsts = firsts
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        self.total = int(self._ends[-1]) if len(counts) else 0

    def pairs(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The pairs of these numbers: (P, 2) int64."""
        row = np.searchsorted(self._ends, numbers, side="right")
        return np.stack([row, self._firsts[row] + numbers - self._starts[row]], axis=1)


def _sample(total: int, count: int, state: int) -> NDArray[np.int64]:
    """Draw `count` different whole numbers below `total`; every set is equally likely, in random order."""
    if 2 * count > total:  # it is quicker to draw those that are left out
        chosen = np.delete(np.arange(total), _first_draws(total, total - count, state))
    else:
        chosen = _first_draws(total, count, state)
    order = _mixed(chosen.astype(np.uint64) ^ np.uint64(epoch_seed(state, 1)))
    return chosen[np.argsort(order, kind="stable")]  # the mixer maps no two numbers to one


def _first_draws(total: int, count: int, state: int) -> NDArray[np.int64]:
    """The first `count` different numbers below `total` that SplitMix64 gives; ascending."""
    found = np.empty(0, dtype=np.int64)
    start = 0
    fair = 2**64 - 2**64 % max(total, 1)  # draws from here on would favour small numbers
    while len(found) < count:
        many = 2 * (count - len(found)) + 16
        counter = np.arange(start + 1, start + many + 1, dtype=np.uint64)
        draws = _mixed(counter * np.uint64(0x9E3779B97F4A7C15) + np.uint64(state))
        start += many
        draws = draws[draws <= np.uint64(fair - 1)]
        both = np.concatenate([found, (draws % np.uint64(total)).astype(np.int64)])
        found = both[np.sort(np.unique(both, return_index=True)[1])]
    return np.sort(found[:count])


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64, the one of :mod:`fasttriplet.order`."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _distances(distances: ArrayLike) -> NDArray[np.float64]:
    measured = np.array(distances, dtype=np.float64)
    if measured.ndim != 1:
        raise ValueError(f"distances must be a list of numbers, one for each pair, not {measured.shape}")
    bad = np.flatnonzero(~((measured >= 0) & (measured <= _LARGEST)))
    if bad.size:
        raise ValueError(
            f"the distance of pair {bad[0]} is {measured[bad[0]]}; squared L2 distances of unit embeddings "
            "are 0 to 4: divide the embeddings by their L2 norm first"
        )
    return measured


def _truth(same: ArrayLike, count: int) -> NDArray[np.bool_]:
    given = np.asarray(same)
    if given.shape != (count,):
        raise ValueError(f"{count} distances but truth values of shape {given.shape}; give one for each pair")
    if count and given.dtype.kind not in "biu":
        raise ValueError(f"same must be True or False for each pair, not {given.dtype}")
    bad = np.flatnonzero((given != 0) & (given != 1))
    if bad.size:
        raise ValueError(f"same of pair {bad[0]} is {given[bad[0]]}; expected True or False")
    return given.astype(np.bool_)


def _enough_pairs(pairs: int, folds: int) -> None:
    if pairs < folds:
        raise ValueError(f"{pairs} pairs are too few for {folds} folds")


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put the name of the file before the text of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _right(distances: NDArray[np.float64], same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many pairs each threshold judges right: (400,) int64."""
    accepted = np.searchsorted(np.sort(distances[same]), _THRESHOLDS, side="left")
    wrongly = np.searchsorted(np.sort(distances[~same]), _THRESHOLDS, side="left")
    return accepted - wrongly + np.count_nonzero(~same)


def _auc(near: NDArray[np.float64], far: NDArray[np.float64]) -> float | None:
    """U / (n m) of Mann and Whitney (1947), from ranks; both sorted."""
    if not len(near) or not len(far):
        return None
    not_above = np.searchsorted(far, near, side="right")
    below = np.searchsorted(far, near, side="left")
    twice = 2 * len(near) * len(far) - int(not_above.sum()) - int(below.sum())
    return twice / (2 * len(near) * len(far))


def _true_accept_rates(near: NDArray[np.float64], far: NDArray[np.float64]) -> dict[float, float]:
    rates = {}
    for exponent in _FAR_EXPONENTS:
        allowed = len(far) // 10**exponent
        if not allowed or not len(near):
            break
        # At most `allowed` impostors are below this distance, and more below any larger one.
        accepted = np.searchsorted(near, far[allowed], side="left")
        rates[float(f"1e-{exponent}")] = int(accepted) / len(near)
    return rates


def _missing_kind(found: Verification) -> str:
    return "all pairs are genuine" if not found.impostors else "all pairs are impostors"


def _decoded(
    path: Path,
    images: list[bytes],
    start: int,
    size: tuple[int, int] | None,
    threads: int | None,
) -> NDArray[np.uint8]:
    try:
        return decode_images(images, size=size, threads=threads)
    except RecordError as error:
        found = re.match(r"image \[(\d+)\]: (.*)", str(error), re.DOTALL)
        if found is None:
            raise
        raise ValueError(f"{path}: {image_of_pair(start + int(found[1]))} {found[2]}") from error


def _parts_of_rec(
    paths: list[Path], rows: pl.DataFrame, embedder: Embedder, threads: int | None
) -> Iterator[tuple[pl.DataFrame, NDArray[np.uint8] | None]]:
    if not embedder.needs_images:
        for start in range(0, rows.height, PART):
            yield rows[start : start + PART], None
        return
    files = [RecordFile(path) for path in paths]
    size = size_of_images(files, rows, on_error="raise", threads=threads)
    for start in range(0, rows.height, PART):
        part = rows[start : start + PART]
        yield part, decode_rows(files, part, size=size, threads=threads).pixels


def _embed(
    embedder: Embedder,
    parts: Iterable[tuple[pl.DataFrame, NDArray[np.uint8] | None]],
    count: int,
    flip: bool,
    progress: Told | None,
) -> tuple[NDArray[np.float64], float]:
    """Embed images and mirror images: unit rows (N, D) float64, and the mean norm before."""
    embeddings = np.empty((count, 0))
    norms, done = 0.0, 0
    if progress is not None:
        progress(0, count)
    for rows, images in parts:
        total = _rows_of(embedder, rows, images)
        norms += float(np.linalg.norm(total, axis=1).sum())
        if flip and images is not None:
            mirrored = _rows_of(embedder, rows, np.ascontiguousarray(images[:, :, ::-1]))
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


def _rows_of(embedder: Embedder, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float64]:
    embedded = np.asarray(embedder.embed(rows, images))
    if embedded.ndim != 2 or len(embedded) != rows.height or not embedded.shape[1]:
        raise ValueError(
            f"{embedder.description}: expected one vector for each of {rows.height} images, "
            f"got an array of shape {embedded.shape}"
        )
    bad = rows_not_finite(embedded)
    if bad:
        raise ValueError(
            f"{embedder.description}: the embedding of the image with key {rows['key'][bad[0]]} holds NaN or "
            "infinity"
        )
    return embedded.astype(np.float64)


def _squared(
    embeddings: NDArray[np.float64], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Squared L2 distances of rows."""
    distances = np.empty(len(first))
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        difference = embeddings[first[part]] - embeddings[second[part]]
        distances[part] = np.square(difference, out=difference).sum(axis=1)
    return distances


def _recall_at_1(
    embeddings: NDArray[np.float64], labels: NDArray[np.int64], threads: int | None
) -> tuple[float | None, int]:
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    asked = int((counts[inverse] > 1).sum())
    if asked == 0:
        return None, 0
    if len(counts) == 1:
        return 1.0, asked  # there is nobody else
    nearest = mine(
        embeddings.astype(np.float32),
        labels,
        pairs="easiest",
        band="any",
        pick="hardest",
        normalize=False,
        threads=threads,
    )
    return int((nearest.d_ap < nearest.d_an).sum()) / asked, asked
