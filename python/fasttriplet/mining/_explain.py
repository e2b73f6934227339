"""Why a bag, or a whole dataset, gives no triplet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._words import counted
from fasttriplet.dataset._options import BagOptions
from fasttriplet.mining._mine import COLLAPSED, MiningStats, Triplets, mine_rows
from fasttriplet.mining._options import MiningOptions

_ANCHORS = 256  # whose pairs are explained: a fifth of the time that a bag of 7,200 x 512 is mined in
_EXAMPLES = 4  # of each reason


def why_never_triplets(images_each: NDArray[np.int64], options: BagOptions) -> str | None:
    """Say why no bag of a dataset can give a triplet, whatever the embeddings; None if one can.

    `images_each` has the number of images of each identity.
    """
    two = "anchor and positive are two images of one identity"
    if len(images_each) == 1:
        return (
            f"{counted(int(images_each[0]), 'image')} of one identity and none of another, so there is no "
            "negative: add other identities, or check the labels"
        )
    if options.images_per_identity == 1:
        return f"images_per_identity is 1, and {two}: raise it"
    if len(images_each) == 0 or images_each.max() == 1:
        identities = counted(len(images_each), "identity")
        return f"each of the {identities} has one image, and {two}: check the labels"
    least, or_else = 3, ""
    if options.boundary == "keep":
        or_else = ", lower images_per_identity, or allow boundary='split'"
        in_bags = np.sort(np.minimum(images_each, min(options.images_per_identity, int(images_each.max()))))
        # Two images of one identity, and the smallest of the other identities.
        least = int(in_bags[in_bags > 1][0] + in_bags[0 if in_bags[0] == 1 else 1])
    if options.bag_size < least:
        return (
            f"a bag of {counted(options.bag_size, 'image')} has no room for a pair and a negative: raise "
            f"bag_size to {least} or more{or_else}"
        )
    return None


def why_no_triplets(  # noqa: PLR0911
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    stats: MiningStats,
    options: MiningOptions,
    *,
    threads: int | None = None,
) -> str:
    """Explain in a sentence or two why a call of ``mine`` with these options and counts found nothing.

    It names the cause, with the numbers that show it on the scale of the metric, and what to change.
    """
    sizes = np.unique(labels, return_counts=True)[1]
    if len(sizes) == 0:
        return "none of its images could be decoded"
    if len(sizes) < 2:
        return (
            f"it has {counted(len(labels), 'image')} of one identity and none of another, so there is no "
            "negative: bags must hold several identities (raise bag_size or lower images_per_identity)"
        )
    if sizes.max() < 2:
        return (
            f"each of the {counted(len(sizes), 'identity')} has one image, so there is no positive: "
            "raise bag_size or images_per_identity"
        )
    if stats.collapsed:
        return why_collapsed(stats)
    nearest = mine_rows(
        replace(options, band="any", pick="hardest", negatives_per_pair=1, max_ap=None),
        (embeddings, labels, None),
        seed=0,
        threads=threads,
    )
    d_ap, d_an = nearest.d_ap, nearest.d_an
    if stats.pairs == 0 and stats.pairs_over_max_ap:
        return (
            f"max_ap={options.max_ap} skips {counted(stats.pairs_over_max_ap, 'pair')} and leaves none "
            f"(the nearest pair has d_ap={d_ap.min():.4g}): raise max_ap or leave it out"
        )
    margin = options.margin
    reach = {"semihard": margin, "violating": margin, "hard": 0.0}.get(options.band, np.inf)
    gap = d_an - d_ap
    if gap.min() >= reach:
        limit = "d_ap" if options.band == "hard" else f"d_ap + margin ({margin})"
        return (
            f"no negative is nearer than {limit}: for the closest of {counted(len(gap), 'pair')} "
            f"d_an - d_ap is {gap.min():.4g}, at the median {np.median(gap):.4g}. The embeddings separate "
            "these identities; raise the margin, or mine larger bags"
        )
    return (
        f"no negative lies strictly between d_ap and d_ap + margin ({margin}): the nearest negatives are at "
        f"d_an - d_ap = {gap.min():.4g} to {gap.max():.4g}. Raise the margin, or mine band='violating'"
    )


def why_without_negative(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    ids: NDArray[np.int64],
    triplets: Triplets,
    options: MiningOptions,
    *,
    threads: int | None = None,
) -> dict[str, Any] | None:
    """Find out why pairs of a bag have no negative, by the nearest negative of each, for up to 256 anchors.

    Returns plain data: how many `pairs` of these anchors have none; how many of them are `separated`, whose
    nearest negative is beyond the band, and how many have `nearer` negatives alone, which the band leaves
    out; and `examples` of both, each with the `ids` of anchor, positive and nearest negative, `d_ap` and
    `d_an`. None if all these pairs have a negative.
    """
    if triplets.stats.pairs_without_negative == 0:
        return None
    some = np.unique(np.linspace(0, len(ids) - 1, min(_ANCHORS, len(ids))).astype(int))
    nearest = mine_rows(
        replace(options, band="any", pick="hardest", negatives_per_pair=1),
        (embeddings[some], labels[some], some),
        (embeddings, labels, np.arange(len(ids))),
        seed=0,
        threads=threads,
    ).to_frame()
    if options.pairs == "unordered":  # among references each pair is there both ways round
        nearest = nearest.filter(pl.col("anchor") < pl.col("positive"))
    roles = ("anchor", "positive", "negative")
    nearest = nearest.with_columns(pl.Series(role, ids[nearest[role].to_numpy()]) for role in roles)
    reach = 0.0 if options.band == "hard" else options.margin
    found = triplets.to_frame().select("anchor", "positive").unique()
    without = nearest.join(found, on=["anchor", "positive"], how="anti").with_columns(
        separated=pl.col("d_an") >= pl.col("d_ap") + reach
    )
    if without.is_empty():
        return None
    examples = {}
    for name, order, of in (
        ("separated", "d_an", without.filter("separated")),
        ("nearer", "d_ap", without.filter(~pl.col("separated"))),
    ):
        farthest = of.sort(order, "anchor", "positive", descending=[True, False, False])
        most = farthest.unique("anchor", keep="first", maintain_order=True).head(_EXAMPLES)
        examples[name] = [
            {"ids": [anchor, positive, negative], "d_ap": d_ap, "d_an": d_an}
            for anchor, positive, negative, d_ap, d_an, _ in most.iter_rows()
        ]
    separated = int(without["separated"].sum())
    return {
        "pairs": without.height,
        "separated": separated,
        "nearer": without.height - separated,
        "examples": examples,
    }


def why_collapsed(stats: MiningStats) -> str:
    """Say how near the rows of a bag that has collapsed are to each other, and why that may be."""
    return (
        "the embeddings are all but equal (the median squared L2 distance between identities is "
        f"{stats.scatter:.2g} of the squared norm, and up to {COLLAPSED:g} is noise): the network has "
        "collapsed, or its input is constant"
    )
