"""Why a bag, or a whole dataset, gives no triplet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._words import counted
from fasttriplet.dataset._options import BagOptions
from fasttriplet.mining._band import BANDS
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
    if options.bag_size is None:
        return None
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
    whole: bool = False,
    threads: int | None = None,
) -> str:
    """Explain in a sentence or two why a call of ``mine`` with these options and counts found nothing.

    It names the cause, with the numbers that show it on the scale of the metric, and what to change. `whole`
    says that the rows show a whole dataset, which was mined without bags.
    """
    or_else = "" if whole else ", or mine larger bags"
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
    anywhere = replace(_nearest(options), band="any", ranks=None, max_ap=None)
    nearest = mine_rows(anywhere, (embeddings, labels, None), seed=0, threads=threads)
    d_ap, d_an = nearest.d_ap, nearest.d_an
    if stats.pairs == 0 and stats.pairs_over_max_ap:
        return (
            f"max_ap={options.max_ap} skips {counted(stats.pairs_over_max_ap, 'pair')} and leaves none "
            f"(the nearest pair has d_ap={d_ap.min():.4g}): raise max_ap or leave it out"
        )
    margin, gap = options.margin, d_an - d_ap
    if not _near_enough(options, d_ap, d_an).any():
        rule = f"the band ({options.band}) has a place for"
        if options.band in BANDS:
            rule = "d_ap" if options.band == "hard" else f"d_ap + margin ({margin})"
        return (
            f"no negative is nearer than {rule}: for the closest of {counted(len(gap), 'pair')} "
            f"d_an - d_ap is {gap.min():.4g}, at the median {np.median(gap):.4g}. The embeddings separate "
            f"these identities; raise the margin{or_else}"
        )
    if options.ranks is not None:
        in_band = replace(_nearest(options), ranks=None)
        if len(mine_rows(in_band, (embeddings, labels, None), seed=0, threads=threads)):
            return (
                f"no pair has more than {counted(options.ranks[0], 'negative')} that qualify, and ranks "
                f"leave these out: lower the first of the ranks{or_else}"
            )
    if options.band == "semihard":
        return (
            f"no negative lies strictly between d_ap and d_ap + margin ({margin}): the nearest negatives are "
            f"at d_an - d_ap = {gap.min():.4g} to {gap.max():.4g}. Raise the margin, or mine band='violating'"
        )
    rule = BANDS.get(options.band, options.band).replace("margin", f"margin ({margin})")
    return (
        f"no negative has {rule}: the nearest negatives are at d_an = {d_an.min():.4g} to {d_an.max():.4g}, "
        f"which is d_an - d_ap = {gap.min():.4g} to {gap.max():.4g}. Take another band"
    )


def _nearest(options: MiningOptions) -> MiningOptions:
    """The same search for the nearest negative of each pair."""
    return replace(options, pick="hardest", negatives_per_pair=1, fallback=None, triplets_per_anchor=None)


def _near_enough(
    options: MiningOptions, d_ap: NDArray[np.float64], d_an: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Whether the band leaves negatives at these distances out for being too far, if at all."""
    near = np.ones(len(d_ap), dtype=bool)
    for limit in options.limits():
        if limit.side == "below":
            near &= limit.holds(d_ap, d_an)
    return near


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
    nearest negative is beyond the band, how many have `nearer` negatives alone, which the band leaves out,
    and how many have `few`, which the ranks leave out; and `examples` of the first two, each with the `ids`
    of anchor, positive and nearest negative, `d_ap` and `d_an`. None if all these pairs have a negative.
    """
    if triplets.stats.pairs_without_negative == 0:
        return None
    only = np.zeros(len(ids), dtype=bool)
    only[np.unique(np.linspace(0, len(ids) - 1, min(_ANCHORS, len(ids))).astype(int))] = True

    def nearest(**changed: Any) -> pl.DataFrame:
        searched = replace(_nearest(options), **changed)
        rows = (embeddings, labels, ids)
        return mine_rows(searched, rows, only=only, seed=0, threads=threads).to_frame()

    pair = ["anchor", "positive"]
    without = nearest(band="any", ranks=None).join(nearest(), on=pair, how="anti")
    if without.is_empty():
        return None
    few = nearest(ranks=None) if options.ranks else without.clear()
    d_ap, d_an = without["d_ap"].to_numpy(), without["d_an"].to_numpy()
    rest = without.with_columns(separated=~_near_enough(options, d_ap, d_an)).join(few, on=pair, how="anti")
    examples = {}
    for name, order, of in (
        ("separated", "d_an", rest.filter("separated")),
        ("nearer", "d_ap", rest.filter(~pl.col("separated"))),
    ):
        farthest = of.sort(order, *pair, descending=[True, False, False])
        most = farthest.unique("anchor", keep="first", maintain_order=True).head(_EXAMPLES)
        examples[name] = [
            {"ids": [anchor, positive, negative], "d_ap": d_ap, "d_an": d_an}
            for anchor, positive, negative, d_ap, d_an, _ in most.iter_rows()
        ]
    separated = int(rest["separated"].sum())
    return {
        "pairs": without.height,
        "separated": separated,
        "nearer": rest.height - separated,
        "few": without.height - rest.height,
        "examples": examples,
    }


def why_collapsed(stats: MiningStats) -> str:
    """Say how near the rows of a bag that has collapsed are to each other, and why that may be."""
    return (
        "the embeddings are nearly equal (the median squared L2 distance between identities is "
        f"{stats.scatter:.2g} of the squared norm, and up to {COLLAPSED:g} is noise): the network has "
        "collapsed, or its input is constant"
    )
