"""Whether a model separates anything, and what to look at where it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fasttriplet.embedders._inputs import Inputs
from fasttriplet.embedders._pixels import PixelEmbedder
from fasttriplet.mining._mine import COLLAPSE, COLLAPSED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fasttriplet.embedders import Embedder

# Below this AUC two pairs in five are ranked wrongly; by guessing half of them are.
_ALIKE = 0.6
# A face network whose input had the wrong range (already normalised, 0 to 1, or ImageNet's) gave an AUC of
# 0.61 to 0.62 on LFW, where thumbnails give 0.64. What tells the two apart is the median distance of impostor
# pairs: 0.0008 to 0.03, and 1.4 for thumbnails, 2.0 for the same network with the right input.
_WEAK, _NEAR = 0.7, 0.1
# By guessing, one AUC in 740 is farther from 0.5 than this many standard errors, on either side.
_ERRORS = 3


def what_is_wrong(auc: float | None, near: NDArray[np.float64], far: NDArray[np.float64]) -> str | None:
    """Say that distances of genuine and impostor pairs separate nothing; None if they separate something.

    Nothing is said where pairs are so few that guessing could give an AUC of 0.6. The standard error of an
    AUC by guessing is sqrt((n + m + 1) / (12 n m)) for n genuine and m impostor pairs (Mann and Whitney
    1947); three times that is 0.1 with 151 pairs of each kind.
    """
    if auc is None:
        return None
    median = float(np.median(far))
    if max(median, float(np.median(near))) <= COLLAPSED:
        return COLLAPSE
    spread = _ERRORS * ((len(near) + len(far) + 1) / (12 * len(near) * len(far))) ** 0.5
    wrong = None
    if spread > _ALIKE - 0.5:
        pass
    elif auc < 0.5 - spread:
        wrong = "images of different identities are nearer to each other than those of the same"
    elif auc < _ALIKE:
        wrong = "same and different look alike to this model"
    elif auc < _WEAK and median < _NEAR:
        wrong = (
            "to this model all images look nearly alike (the median squared L2 distance of impostor pairs is "
            f"{median:.2g}; about 2 is usual)"
        )
    return None if wrong is None else f"AUC {auc:.2f}: {wrong}"


def what_to_try(embedder: Embedder) -> str:
    """Name the most frequent causes of embeddings that separate nothing, for this kind of embedder."""
    if isinstance(embedder, PixelEmbedder):
        return "Thumbnails say little about these images: give a network"
    if not embedder.needs_images:
        return "Does row i of the embeddings belong to image i, in the order of the keys?"
    inputs: Any = getattr(embedder, "inputs", None)
    if not isinstance(inputs, Inputs):
        return (
            "Is the network trained, and is its input what it expects (colours, range of the numbers, faces "
            "cut out and aligned)?"
        )
    tries = []
    if not getattr(embedder, "takes_uint8", False):  # such a model is fed pixels whatever is said
        itself = "the network normalises its input itself"
        raw = inputs.as_decoded
        other = f"mean=127.5 and std=128 unless {itself}" if raw else f"mean=0 and std=1 if {itself}"
        tries.append(f"{other}, otherwise the mean and std of its training")
    tries.append("color=bgr" if inputs.color == "rgb" else "color=rgb")
    return (
        f"Is its input {inputs}, as it expects? Try, at the end of a spec or as arguments, "
        f"{', and '.join(tries)}; the images must be cut out and aligned as those it was trained on"
    )
