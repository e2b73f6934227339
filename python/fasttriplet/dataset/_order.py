"""The order of an epoch: identities shuffled, then cut into bags."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._checks import epoch_number, polars_frame, seed_number, whole_number
from fasttriplet._forks import ensure_polars_threads
from fasttriplet._splitmix import GOLDEN, mix, mix_column, unsigned
from fasttriplet.dataset._graph import Graph, why_no_integers
from fasttriplet.dataset._options import BAG_SIZE, RUNNING, BagOptions, Boundary, Tail
from fasttriplet.errors import OptionError


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """Images that are embedded and mined together.

    Attributes
    ----------
    number : int
        Position in the epoch, from 0.
    rows : pl.DataFrame
        Rows of the index; the images of an identity follow each other.
    """

    number: int
    rows: pl.DataFrame


def epoch_seed(seed: int, epoch: int) -> int:
    """Derive the seed of one epoch: what :func:`fasttriplet.mine_rec` gives to ``mine``.

    Parameters
    ----------
    seed, epoch : int
        At least 0, below 2**64.

    Returns
    -------
    int
        Below 2**64, different for each epoch of a seed.
    """
    seed, epoch = seed_number(seed), epoch_number(epoch)
    return mix(mix(seed + GOLDEN) + epoch)


def check_index(index: pl.DataFrame, *names: str, option: str = "index") -> None:
    """Raise a ValueError if a user's rows of an index lack one of these columns, or it is not of integers."""
    polars_frame(option, index)
    missing = [name for name in names if name not in index.columns]
    if missing:
        raise ValueError(
            f"the index needs the columns {' and '.join(names)}; {' and '.join(missing)} not found"
        )
    for name in (*names, *({"file"} & {*index.columns})):
        if (found := why_no_integers(index, name)) is not None:
            raise ValueError(
                f"the index must have integers, and no nulls, in the column {name!r}, not {found}"
            )


def triplet_seq(
    index: pl.DataFrame,
    images_per_identity: int = BagOptions.images_per_identity,
    seed: int = 0,
    epoch: int = 0,
    *,
    neighbors: pl.DataFrame | None = None,
    random_share: float = BagOptions.random_share,
    bag_size: int = BAG_SIZE,
    boundary: Boundary = BagOptions.boundary,
) -> pl.DataFrame:
    """Order the images for one epoch of mining.

    Identities come in random order, each as a run of at most `images_per_identity` of its images,
    chosen and ordered at random anew each epoch. The order is that of SplitMix64 hashes of the labels
    and keys: a pure function of the arguments, whatever the order of the rows, the number of threads
    and the version of Polars.

    With `neighbors`, an identity graph, a bag holds identities that are near each other: an identity, those
    near it, those near these, and so on, until the bag is full. The first identity in random order that is
    left begins the next bag. An epoch has the same images as without a graph.

    Parameters
    ----------
    index : pl.DataFrame
        One row per image with at least ``key`` and ``label`` (and ``file``, where there are several),
        as :func:`fasttriplet.index_rec` returns it.
    images_per_identity : int, default 5
        At least 1. Identities with fewer images give all they have; those with one can only be
        negatives.
    seed, epoch : int, default 0
        At least 0, below 2**64. Change the epoch for each pass over the data.
    neighbors : pl.DataFrame, optional
        Which identities are near which: ``label, neighbor_label`` and ``rank`` or ``distance``, the nearest
        with the least; what :meth:`fasttriplet.Neighbors.to_frame` gives for identities. Those that it does
        not name are placed at random. It may be another one for each epoch.
    random_share : float, default 0
        With `neighbors`, the share of a bag's images that are of identities in random order, 0 to 1.
    bag_size, boundary
        With `neighbors`, what :func:`bags` will be given.

    Returns
    -------
    pl.DataFrame
        The chosen rows of the index with the same columns, in the new order.

    Raises
    ------
    RuntimeError
        In a process that was forked after its parent had used Polars; it would hang.
    ValueError
        If a column is missing or not of integers, a number is out of range, or `neighbors` names an identity
        that is not in the index.
    """
    options = BagOptions(
        images_per_identity=images_per_identity,
        neighbors=neighbors,
        random_share=random_share,
        bag_size=bag_size,
        boundary=boundary,
    )
    whole_number("bag_size", bag_size, 1)
    check_index(index, "key", "label")
    state = epoch_seed(seed, epoch)
    if options.has_running_graph:
        raise OptionError(
            "neighbors", f"{RUNNING!r} is for a training, which makes the graph of its embeddings"
        )
    if isinstance(neighbors, (str, os.PathLike)):
        raise OptionError("neighbors", f"must be a frame here: give polars.read_parquet({str(neighbors)!r})")
    graph = None if neighbors is None else Graph.of(neighbors, index["label"].to_numpy())
    return order_of_epoch(index, options, state, graph)


def order_of_epoch(index: pl.DataFrame, options: BagOptions, state: int, graph: Graph | None) -> pl.DataFrame:
    """Order the images as :func:`triplet_seq` does; `state` is what :func:`epoch_seed` gives."""
    ensure_polars_threads()
    identity = _hash(pl.col("label"), state)
    image = _hash(pl.col("key"), mix(state + GOLDEN))
    order = ["_identity", "_image"]
    if "file" in index.columns:
        # Keys of different files may hash to the same number; then file and key decide.
        image = _hash(pl.col("file"), image)
        order += ["file", "key"]
    # In runs, a row is past the limit if the row that many places above is of the same identity.
    past = pl.col("_identity").eq_missing(
        pl.col("_identity").shift(min(options.images_per_identity, index.height))
    )
    # Not lazy: the sort of the streaming engine takes twice as long here (Polars 2.1).
    seq = (
        index.with_columns(identity.alias("_identity"), image.alias("_image"))
        .sort(order)
        .filter(~past)
        .drop("_identity", "_image")
    )
    return seq if graph is None or seq.is_empty() else _arranged(seq, graph, options)


def _arranged(seq: pl.DataFrame, graph: Graph, options: BagOptions) -> pl.DataFrame:
    """Move the runs of identities as the graph has it; each stays as it is."""
    ends = _run_ends(seq)
    sizes = np.diff(ends, prepend=0)
    runs = graph.arranged(seq["label"].to_numpy()[ends - 1].astype(np.int64), sizes, options)
    moved = sizes[runs]
    firsts = np.cumsum(moved) - moved
    moved_seq: pl.DataFrame = seq[np.repeat(ends[runs] - moved - firsts, moved) + np.arange(seq.height)]
    return moved_seq


def bags(
    seq: pl.DataFrame,
    bag_size: int = BAG_SIZE,
    boundary: Boundary = BagOptions.boundary,
    tail: Tail = BagOptions.tail,
) -> Iterator[Bag]:
    """Cut an epoch's order into bags.

    Parameters
    ----------
    seq : pl.DataFrame
        The result of :func:`triplet_seq`.
    bag_size : int, default 7200
        Most images of a bag, at least 1.
    boundary : {"keep", "split"}, default "keep"
        ``"keep"``: a bag ends before the identity that would not fit. ``"split"``: every bag but the
        last is full, and an identity may be cut in two (as InsightFace does).
    tail : {"keep", "drop"}, default "keep"
        Whether the last bag is used when it has less than `bag_size` images (InsightFace drops it).

    Yields
    ------
    Bag
        Bags share memory with `seq`.

    Raises
    ------
    ValueError
        At the first bag: if an option is unknown, labels are not integers, or an identity has more images
        than a bag.
    """
    whole_number("bag_size", bag_size, 1)
    BagOptions(bag_size=bag_size, boundary=boundary, tail=tail)
    check_index(seq, "label", option="seq")
    ends = _run_ends(seq) if boundary == "keep" else None
    number = start = 0
    while start < seq.height:
        end = min(start + bag_size, seq.height)
        if ends is not None and end < seq.height:
            fitting = int(np.searchsorted(ends, end, side="right"))
            end = int(ends[fitting - 1]) if fitting else 0
        if end <= start:
            raise ValueError(
                f"the identity {seq['label'][start]} has more images in the sequence than the bag_size of "
                f"{bag_size}: raise bag_size, lower images_per_identity, or allow boundary='split'"
            )
        if tail == "keep" or end < seq.height or end - start == bag_size:
            yield Bag(number, seq[start:end])
        number, start = number + 1, end


def _run_ends(seq: pl.DataFrame) -> NDArray[np.int64]:
    """Positions just past the last row of each identity run."""
    labels = seq["label"].to_numpy()
    return np.append(np.flatnonzero(labels[1:] != labels[:-1]) + 1, len(labels))


def _hash(column: pl.Expr, state: int | pl.Expr) -> pl.Expr:
    """``mix(column ^ state)`` for each row; different where the column differs."""
    key = state if isinstance(state, pl.Expr) else unsigned(state)
    return mix_column(column.cast(pl.Int64).reinterpret(signed=False) ^ key)
