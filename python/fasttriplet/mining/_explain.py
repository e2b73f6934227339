"""Why a bag gave no triplet."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fasttriplet._words import counted
from fasttriplet.mining._mine import MiningStats, mine_rows
from fasttriplet.mining._options import MiningOptions, scale_of

# Embeddings have collapsed if no squared distance is above this share of their mean squared norm.
_COLLAPSED = 1e-6


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
            "raise images_per_identity, or check the labels"
        )
    nearest = mine_rows(
        replace(options, band="any", pick="hardest", negatives_per_pair=1, max_ap=None),
        (embeddings, labels, None),
        seed=0,
        threads=threads,
    )
    d_ap, d_an = nearest.d_ap, nearest.d_an
    farthest = float(max(d_ap.max(), d_an.max()))
    if farthest <= _collapsed(embeddings, options):
        return (
            f"the embeddings are all but equal (no {scale_of(options.metric)} distance above "
            f"{farthest:.2g}): the network has collapsed or its input is constant"
        )
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


def _collapsed(embeddings: NDArray[np.float32], options: MiningOptions) -> float:
    """The largest distance of collapsed embeddings, on the scale of the metric."""
    squared = _COLLAPSED
    if not options.normalize:
        squared *= float(np.square(embeddings, dtype=np.float64).sum(axis=1).mean())
    return {"sqeuclidean": squared, "euclidean": math.sqrt(squared), "cosine": squared / 2}[options.metric]
