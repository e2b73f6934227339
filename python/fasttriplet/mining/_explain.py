"""Why a bag gave no triplet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fasttriplet.mining._mine import Band, MiningStats, Pairs, mine

# Embeddings have collapsed if no squared distance is above this share of their mean squared norm.
_COLLAPSED = 1e-6


def why_no_triplets(  # noqa: PLR0911
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    stats: MiningStats,
    *,
    margin: float,
    band: Band,
    pairs: Pairs,
    max_ap: float | None,
    normalize: bool,
    threads: int | None = None,
) -> str:
    """Explain in a sentence or two why mining these rows with these options found nothing.

    Parameters
    ----------
    embeddings : (N, D) float32
    labels : (N,) int64
    stats : MiningStats
        Of the call that found nothing.
    margin, band, pairs, max_ap, normalize, threads
        As given to :func:`fasttriplet.mine`.

    Returns
    -------
    str
        The cause, with the numbers that show it, and what to change.
    """
    sizes = np.unique(labels, return_counts=True)[1]
    if len(sizes) == 0:
        return "none of its images could be decoded"
    if len(sizes) < 2:
        return (
            f"all {len(labels)} images are of one identity, so there is no negative: "
            "bags must hold several identities (raise bag_size or lower images_per_identity)"
        )
    if sizes.max() < 2:
        return (
            f"each of the {len(sizes)} identities has one image, so there is no positive: "
            "raise images_per_identity, or check the labels"
        )
    nearest = mine(
        embeddings,
        labels,
        band="any",
        pick="hardest",
        pairs=pairs,
        margin=margin,
        normalize=normalize,
        threads=threads,
    )
    d_ap, d_an = nearest.d_ap, nearest.d_an
    farthest = max(d_ap.max(), d_an.max())
    scale = 1.0 if normalize else float(np.square(embeddings, dtype=np.float64).sum(axis=1).mean())
    if farthest <= _COLLAPSED * scale:
        return (
            f"the embeddings are all but equal (no squared distance above {farthest:.2g}): "
            "the network has collapsed or its input is constant"
        )
    if stats.pairs == 0 and stats.pairs_over_max_ap:
        return (
            f"all {stats.pairs_over_max_ap} pairs are over max_ap={max_ap} "
            f"(the nearest pair has d_ap={d_ap.min():.4g}): raise max_ap or leave it out"
        )
    reach = {"semihard": margin, "violating": margin, "hard": 0.0}.get(band, np.inf)
    gap = d_an - d_ap
    if gap.min() >= reach:
        limit = "d_ap" if band == "hard" else f"d_ap + margin ({margin})"
        return (
            f"no negative is nearer than {limit}: for the closest of {len(gap)} pairs d_an - d_ap is "
            f"{gap.min():.4g}, at the median {np.median(gap):.4g}. The embeddings separate these identities; "
            "raise the margin, or mine larger bags"
        )
    return (
        f"no negative lies strictly between d_ap and d_ap + margin ({margin}): the nearest negatives are at "
        f"d_an - d_ap = {gap.min():.4g} to {gap.max():.4g}. Raise the margin, or mine band='violating'"
    )
