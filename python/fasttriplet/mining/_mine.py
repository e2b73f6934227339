"""Triplets from embeddings."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Unpack

import numpy as np
import polars as pl
from numpy import ma, random  # NumPy 2 imports them at their first use: here no fork comes in between
from numpy.typing import ArrayLike, NDArray

from fasttriplet import _core
from fasttriplet._checks import rows_not_finite, seed_number, thread_count
from fasttriplet._options import shows
from fasttriplet._words import counted
from fasttriplet.errors import CollapseWarning
from fasttriplet.mining._options import MiningKeywords, MiningOptions

# The largest scatter of a network that has collapsed. Rounding gives up to 1e-12. Networks of random weights
# have more than 0.1 on noise, and 1e-4 on noise that is nearly black (tests/mxnet/test_networks.py).
COLLAPSED = 1e-6
# Without numbers: Python takes a warning with other numbers for another one, and shows it again.
COLLAPSE = (
    "the embeddings of different identities are nearly equal: the network has collapsed, or its input is "
    "constant, and what is computed from them is noise"
)

_BYTES = 40  # of a triplet
_MOST = 2**40  # more than there are rows, and less than a machine word holds


@dataclass(frozen=True, slots=True)
class MiningStats:
    """What a call of :func:`mine` did.

    Attributes
    ----------
    pairs : int
        Pairs that negatives were looked for.
    pairs_over_max_ap : int
        Pairs skipped because their ``d_ap`` is above ``max_ap``.
    pairs_without_negative : int
        Pairs that no negative qualified for.
    pairs_screened : int
        Pairs that were not settled by testing the few rows that draw lowest, so that distances to all
        negatives were estimated.
    exact_distances : int
        Float64 distances evaluated for negatives.
    scatter : float or None
        How far apart the rows of different identities are: the median of ``2 |x - y|^2 / (|x|^2 + |y|^2)``
        over up to 1,024 pairs of rows that negatives may come from, as they were mined. It is 0 for equal
        rows, and 2 for unit rows at right angles. None if the rows are of fewer than two identities.
    seconds : float
        Wall time.
    """

    pairs: int
    pairs_over_max_ap: int
    pairs_without_negative: int
    pairs_screened: int
    exact_distances: int
    scatter: float | None
    seconds: float

    @property
    def collapsed(self) -> bool:
        """Whether `scatter` is at most 1e-6: the rows are nearly equal, and triplets of them are noise."""
        return self.scatter is not None and self.scatter <= COLLAPSED


@dataclass(frozen=True, slots=True, eq=False)
class Triplets:
    """Mined triplets, in ascending order of anchor, positive and negative.

    Unpacks as ``anchor, positive, negative = triplets``.

    Attributes
    ----------
    anchor, positive, negative : (T,) int64
        Ids where ``ids`` were given, else positions of rows; of positive and negative among the references
        where there are any.
    d_ap, d_an : (T,) float64
        Distances of anchor and positive, anchor and negative: squared L2, unless another metric was asked
        for.
    stats : MiningStats
        Counts of the call.
    """

    anchor: NDArray[np.int64]
    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    d_ap: NDArray[np.float64]
    d_an: NDArray[np.float64]
    stats: MiningStats

    def __len__(self) -> int:
        return len(self.anchor)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return iter((self.anchor, self.positive, self.negative))

    def to_frame(self) -> pl.DataFrame:
        """The triplets as columns ``anchor, positive, negative, d_ap, d_an``.

        Raises
        ------
        MemoryError
            If they do not fit the memory.
        """
        _core.probe_memory(_BYTES * len(self), f"a frame of {counted(len(self), 'triplet')}")
        names = ("anchor", "positive", "negative", "d_ap", "d_an")
        return pl.DataFrame({name: getattr(self, name) for name in names})

    def shuffle(self, seed: int) -> Triplets:
        """The same triplets in a random order, the same for the same seed and triplets.

        Raises
        ------
        MemoryError
            If they do not fit the memory once more.
        """
        _core.probe_memory((_BYTES + 8) * len(self), f"the order of {counted(len(self), 'triplet')}")
        order = random.Generator(random.PCG64(seed_number(seed))).permutation(len(self))
        anchor, positive, negative = (role[order] for role in self)
        return Triplets(anchor, positive, negative, self.d_ap[order], self.d_an[order], self.stats)


@shows(MiningOptions)
def mine(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    references: ArrayLike | None = None,
    reference_labels: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    reference_ids: ArrayLike | None = None,
    seed: int = 0,
    threads: int | None = None,
    **options: Unpack[MiningKeywords],
) -> Triplets:
    """Pick triplets (anchor, positive, negative) exactly.

    Anchor and positive share a label, the negative has another. Distances are *squared* L2 unless `metric`
    says otherwise, evaluated in float64 on the float32 embeddings, and every comparison below is made on
    them: however fast the search, the result is what that definition gives.

    Parameters
    ----------
    embeddings : (N, D) float32
        One row per image, finite. Other float types are rounded to float32 first. Must not be changed by
        another thread during the call.
    labels : (N,) int or str
        Identity of each row. Rows may come in any order.
    margin : float, default 0.3
        On the scale of `metric`, by default the squared distance (FaceNet's alpha; InsightFace's
        ``triplet_alpha``). ``inf`` for none.
    band : str, default "semihard"
        Which negatives qualify for a pair: *semihard* ``d_ap < d_an < d_ap + margin`` (FaceNet,
        arXiv:1503.03832, section 3.2; both strict), *violating* ``d_an < d_ap + margin`` (what
        InsightFace calls the VGG Face rule), *hard* ``d_an <= d_ap``, *easy* ``d_an >= d_ap + margin``, *any*
        all of them. Or limits on ``d_an``, which may depend on ``d_ap`` and ``margin``:
        ``"d_ap + 0.1 < d_an < d_ap + margin and d_an < 0.9"``. Each is brought to the form
        ``d_an < slope * d_ap + offset`` (or another comparison), evaluated in float64.
    ranks : (int, int or None), optional
        Choose only from the qualifying negatives of these ranks, ``(first, end)``, ``end`` left out. The
        nearest to the anchor has rank 0: ``(10, 100)`` leaves out the 10 nearest, which are often wrong
        labels, and takes the next 90 into account; ``(10, None)`` takes all others. The draw decides ties.
    pick : {"random", "hardest", "distance", "all"}, default "random"
        Which of these are returned: a uniform choice, the nearest to the anchor, all, or a
        *distance*-weighted choice: with a probability in proportion to the inverse of the density of their
        distance on the unit sphere, so that near, middling and far ones are picked alike (Wu et al. 2017,
        arXiv:1706.07567, section 4). L2 distances below 0.5 are weighted as 0.5, those above ``sqrt(2)`` as
        ``sqrt(2)``.
    negatives_per_pair : int, default 1
        How many at most; without meaning for ``pick="all"``.
    fallback : {"farthest"}, optional
        What a pair without any of these gets: the farthest of all negatives (smallest id on ties), as in
        TensorFlow Addons' semi-hard loss.
    pairs : {"unordered", "ordered", "hardest", "easiest"}, default "unordered"
        *unordered*: each pair once, the earlier row is the anchor (as InsightFace); *ordered*: both ways;
        *hardest*, *easiest*: for each anchor its farthest or nearest positive (smallest id on ties). Among
        references every positive makes a pair, and *unordered* is *ordered*.
    positives_per_anchor : int, optional
        Most pairs of an anchor. With *hardest* and *easiest*, it has that many of its farthest or nearest
        positives (by default 1), otherwise a uniform choice of its pairs (by default all).
    triplets_per_anchor : int, optional
        Most triplets of an anchor, a uniform choice among those of all its pairs. By default all.
    max_ap : float, optional
        Pairs with a larger ``d_ap`` are skipped, before the hardest or easiest is chosen.
    metric : {"sqeuclidean", "euclidean", "cosine"}, default "sqeuclidean"
        The scale of the distances, of `margin` and of `max_ap`: squared L2; its square root in float64; or
        half of it, which for unit rows is 1 - cosine (exactly half, so that a margin of 0.15 is one of 0.3
        on squared L2; needs ``normalize=True``).
    normalize : bool, default True
        Divide each row by its L2 norm, evaluated in float64 and rounded to float32. Zero rows stay zero.
    references : (M, D) float32, optional
        Where positives and negatives come from: anchors are the `embeddings` alone.
    reference_labels : (M,) int or str
        Identity of each reference: the same label means the same identity in both sets.
    ids, reference_ids : (N,), (M,) int, optional
        Unique numbers to call the rows by, by default their positions. Picks depend on ids, not on
        positions, and the triplets hold ids. With references give both or neither: a reference with the
        anchor's id is the anchor itself, and no positive of it. Without ids nothing is taken for the same.
    seed : int, default 0
        A random choice is a pure function of seed, anchor id, positive id and the ids of the qualifying
        negatives: the same for any number of threads, machine, and order of the rows.
    threads : int, optional
        By default one for each core, or the calling thread alone where that takes less than about 1 ms.

    Returns
    -------
    Triplets
        Ascending by anchor, positive, negative; use :meth:`Triplets.shuffle` for training order.

    Raises
    ------
    ValueError
        For shapes, types and values that cannot be mined; the first offending row is named.
    MemoryError
        If the rows or the triplets do not fit the memory that is available (of the machine, or of the
        control group of a container or batch job). The message says how many bytes of what, for
        ``pick="all"`` about how many triplets there would have been, and what to change.

    Warns
    -----
    CollapseWarning
        If the rows of different identities are nearly equal, see :class:`MiningStats`.

    Notes
    -----
    Subnormal numbers count, as IEEE 754 has it. Where they are flushed to zero in the calling thread
    (``torch.set_flush_denormal``), rows without `normalize` that hold such numbers may be told apart less
    well.

    Examples
    --------
    >>> import numpy as np, fasttriplet as ft
    >>> embeddings = np.array([[1, 0], [0.9, 0.1], [0.8, 0.3]], dtype=np.float32)
    >>> anchor, positive, negative = ft.mine(embeddings, ["ann", "ann", "bob"])
    >>> anchor, positive, negative
    (array([0]), array([1]), array([2]))
    """
    triplets = mine_rows(
        MiningOptions.of(mine, options),
        (embeddings, labels, ids),
        (references, reference_labels, reference_ids),
        seed=seed,
        threads=threads,
    )
    warn_if_collapsed(triplets.stats, stacklevel=3)
    return triplets


def warn_if_collapsed(stats: MiningStats, *, stacklevel: int) -> None:
    """Warn of rows that are nearly equal: by default once for each place in the caller's code."""
    if stats.collapsed and stats.pairs:
        warnings.warn(COLLAPSE, CollapseWarning, stacklevel=stacklevel)


def mine_rows(
    options: MiningOptions,
    rows: tuple[ArrayLike, ArrayLike, ArrayLike | None],
    references: tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None] = (None, None, None),
    *,
    only: NDArray[np.bool_] | None = None,
    seed: int,
    threads: int | None,
) -> Triplets:
    """Do what :func:`mine` does, with the options in one object; each set is (embeddings, labels, ids).

    Of the rows, those are anchors for which `only` is true.
    """
    started = time.perf_counter()
    anchors, candidates = _sets(rows, references)
    (anchor, positive, negative, d_ap, d_an, counts), scatter = _core.mine(
        anchors, only, candidates, core_options(options, seed), thread_count(threads)
    )
    stats = MiningStats(*counts, scatter=scatter, seconds=time.perf_counter() - started)
    return Triplets(anchor, positive, negative, d_ap, d_an, stats)


def core_options(options: MiningOptions, seed: int) -> _core.Options:
    """The options as Rust takes them."""

    def count(given: int | None) -> int | None:
        return None if given is None else min(int(given), _MOST)

    first, end = options.ranks or (0, None)
    return _core.Options(
        limits=[(limit.side, limit.inclusive, limit.slope, limit.offset) for limit in options.limits()],
        ranks=(min(first, _MOST - 1), count(end)),
        pick=options.pick,
        negatives_per_pair=min(int(options.negatives_per_pair), _MOST),
        fallback=options.fallback is not None,
        pairs=options.pairs,
        positives_per_anchor=count(options.positives_per_anchor),
        triplets_per_anchor=count(options.triplets_per_anchor),
        metric=options.metric,
        max_ap=None if options.max_ap is None else float(options.max_ap),
        normalize=bool(options.normalize),
        seed=seed_number(seed),
    )


Set = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64] | None]


def _sets(
    given: tuple[ArrayLike, ArrayLike, ArrayLike | None],
    given_references: tuple[ArrayLike | None, ArrayLike | None, ArrayLike | None],
) -> tuple[Set, Set | None]:
    embeddings, labels, ids = given
    references, reference_labels, reference_ids = given_references
    rows = as_rows("embeddings", embeddings)
    row_labels = as_labels("labels", labels, len(rows))
    row_ids = None if ids is None else as_ids("ids", ids, len(rows))
    if references is None:
        for name, values in (("reference_labels", reference_labels), ("reference_ids", reference_ids)):
            if values is not None:
                raise ValueError(f"{name} are given, but no references")
        return (rows, numbered(row_labels)[0], row_ids), None
    if reference_labels is None:
        raise ValueError(
            "references are given without reference_labels: one identity per reference is needed"
        )
    if (ids is None) != (reference_ids is None):
        one, missing = ("ids", "reference_ids") if reference_ids is None else ("reference_ids", "ids")
        raise ValueError(
            f"{one} are given without {missing}: give both, so that a reference that is the anchor itself "
            "can be told, or neither"
        )
    others = as_rows("references", references)
    if others.shape[1] != rows.shape[1]:
        raise ValueError(
            f"references have {counted(others.shape[1], 'column')}, but embeddings have {rows.shape[1]}: "
            "both must come from the same network"
        )
    other_labels = as_labels("reference_labels", reference_labels, len(others))
    other_ids = None if reference_ids is None else as_ids("reference_ids", reference_ids, len(others))
    kinds, other_kinds = _kinds(row_labels), _kinds(other_labels)
    if kinds and other_kinds and kinds.isdisjoint(other_kinds):
        raise ValueError(
            f"labels and reference_labels are {' or '.join(sorted(kinds))} and "
            f"{' or '.join(sorted(other_kinds))}: no two of them would be equal"
        )
    row_numbers, other_numbers = numbered(row_labels, other_labels)
    if row_ids is not None and other_ids is not None:
        both, first, second = np.intersect1d(row_ids, other_ids, return_indices=True)
        for at in np.flatnonzero(row_numbers[first] != other_numbers[second])[:1]:
            raise ValueError(
                f"id {both[at]} has the label {row_labels[first[at]]} among the embeddings, but "
                f"{other_labels[second[at]]} among the references: the same id must be the same image"
            )
    return (rows, row_numbers, row_ids), (others, other_numbers, other_ids)


def as_array(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return what a user gives as an array; a ValueError says why it is none."""
    if ma.is_masked(values):  # type: ignore[no-untyped-call]
        raise ValueError(f"{name} are a masked array with masked values: fill them or leave them out")
    try:
        array = np.asarray(values)
    except MemoryError:
        raise
    except Exception as error:  # lists of several lengths, a tensor that requires grad, one on a GPU
        raise ValueError(f"{name} cannot be read as an array: {error}") from error
    if array.ndim == 0:
        raise ValueError(f"{name} must be an array, not {values!r:.100}")
    return array


def as_rows(name: str, values: ArrayLike) -> NDArray[np.float32]:
    return as_finite(name, as_table(name, values))


def as_table(name: str, values: ArrayLike) -> NDArray[np.floating[Any]]:
    """Rows of any float type."""
    rows = as_array(name, values)
    if rows.ndim != 2:
        raise ValueError(f"{name} must be 2-D (one row per image), but have the shape {rows.shape}")
    if rows.dtype.kind != "f":
        raise ValueError(f"{name} must be floating point, but are {rows.dtype}")
    if rows.shape[1] == 0:
        raise ValueError(f"{name} have the shape {rows.shape}: no columns")
    return rows


def as_finite(
    name: str, given: NDArray[np.floating[Any]], at: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Round rows to float32, which must be finite. `at` has their numbers, if they are some of others."""
    with np.errstate(over="ignore"):  # what overflows float32 is reported below
        rows = np.require(given, np.float32, ["C_CONTIGUOUS", "ALIGNED"])
    for row in rows_not_finite(rows):
        column = int(np.flatnonzero(~np.isfinite(rows[row]))[0])
        raise ValueError(
            f"{name} must be finite float32 numbers, but row {row if at is None else at[row]}, column "
            f"{column} is {given[row, column]}: look for a division by zero, an overflow (float16?) or a "
            "damaged checkpoint"
        )
    return rows


def as_labels(name: str, values: ArrayLike, count: int) -> NDArray[Any]:
    labels = as_array(name, values)
    if labels.dtype.kind in "US" and isinstance(values, (list, tuple)):
        labels = np.array(values, dtype=object)  # NumPy would make 1 and "1", "a" and "a\0" the same
    if labels.shape != (count,):
        raise ValueError(f"{name} must have the shape ({count},), one per row, not {labels.shape}")
    if labels.dtype.kind == "O":
        for row, label in enumerate(labels):
            if not isinstance(label, (Integral, str, bytes)):
                raise ValueError(f"{name} must be integers or strings, but that of row {row} is {label!r}")
    elif count and labels.dtype.kind not in "iubUST":
        hint = " (are some missing?)" if labels.dtype.kind == "f" else ""
        raise ValueError(f"{name} must be integers or strings, but are {labels.dtype}{hint}")
    return labels


def _kinds(labels: NDArray[Any]) -> set[str]:
    """The types of labels, of which no two have equal ones."""
    kinds = (
        set(map(type, labels)) if labels.dtype.kind == "O" else {labels.dtype.type} if len(labels) else set()
    )
    return {next((one.__name__ for one in (str, bytes) if issubclass(kind, one)), "int") for kind in kinds}


def numbered(*sets: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Labels as integers, equal where the labels are, in all sets."""
    if all(len(labels) == 0 or np.can_cast(labels.dtype, np.int64) for labels in sets):
        # Copies: they are read several times while other threads may run.
        return [(labels if len(labels) else np.empty(0)).astype(np.int64) for labels in sets]
    numbers: dict[Any, int] = {}
    return [
        np.array([numbers.setdefault(label, len(numbers)) for label in labels.tolist()], dtype=np.int64)
        for labels in sets
    ]


def as_ids(name: str, values: ArrayLike, count: int) -> NDArray[np.int64]:
    ids = as_array(name, values)
    if ids.shape != (count,):
        raise ValueError(f"{name} must have the shape ({count},), one per row, not {ids.shape}")
    if count and ids.dtype.kind not in "iu":
        raise ValueError(f"{name} must be integers, but are {ids.dtype}")
    if ids.dtype == np.uint64 and count and ids.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must be below 2**63")
    return ids.astype(np.int64)  # a copy, as of the labels
