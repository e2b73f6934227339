"""The triplet loss as a symbol, with InsightFace's outputs."""

from __future__ import annotations

from typing import Any, get_args

from fasttriplet._checks import batch_of_triplets, number, one_of
from fasttriplet.mxnet._compat import import_mxnet
from fasttriplet.training._settings import Loss
from fasttriplet.training._triplet_loss import EPSILON, FROM_ONE


def triplet_loss(
    embedding: Any,
    margin: float,
    per_batch_size: int,
    kind: Loss = "squared",
    *,
    label_name: str = "softmax_label",
) -> Any:
    """Put the triplet loss on an embedding.

    A batch is ``[anchors | positives | negatives]``, as :class:`fasttriplet.Feed` hands it out. The loss is
    the mean of ``max(0, d_ap - d_an + margin)`` (FaceNet, equation 3), where d is the squared L2 distance of
    the embeddings divided by their norms, or the angle between them.

    Parameters
    ----------
    embedding : mxnet.symbol.Symbol
        The network's output, (`per_batch_size`, D), not normalised.
    margin : float
        At least 0; on the squared distance (0 to 4), or on the angle in radians (0 to pi). InsightFace takes
        0.3 and 0.35.
    per_batch_size : int
        Images of a batch on each device, a multiple of 3.
    kind : {"squared", "angular"}, default "squared"
        The distance; InsightFace's losses `triplet` and `atriplet`.
    label_name : str, default "softmax_label"
        Name of the input for identities, (`per_batch_size`,). The loss does not need them; metrics may.

    Returns
    -------
    mxnet.symbol.Symbol
        Three outputs: the embedding and the labels, from which no gradient flows back, and the loss, (1,).

    Raises
    ------
    ValueError
        If `margin`, `per_batch_size` or `kind` is out of its range.

    Notes
    -----
    No gradient flows back from angles below 0.0014 or that near to pi; InsightFace's is infinite or NaN
    there.
    """
    margin = number("margin", margin, 0)
    third = batch_of_triplets("per_batch_size", per_batch_size) // 3
    one_of("kind", kind, get_args(Loss))
    mx = import_mxnet()
    unit = mx.sym.L2Normalization(embedding, mode="instance", eps=EPSILON)
    anchor, positive, negative = (
        mx.sym.slice_axis(unit, axis=0, begin=start, end=start + third) for start in (0, third, 2 * third)
    )

    def distance(other: Any) -> Any:
        if kind == "squared":
            return mx.sym.sum(mx.sym.square(anchor - other), axis=1)
        cosine = mx.sym.sum(anchor * other, axis=1)
        return mx.sym.arccos(mx.sym.clip(cosine, FROM_ONE - 1, 1 - FROM_ONE))

    lost = mx.sym.relu(distance(positive) - distance(negative) + margin)
    return mx.sym.Group(
        [
            mx.sym.BlockGrad(embedding),
            mx.sym.BlockGrad(mx.sym.Variable(label_name)),
            mx.sym.MakeLoss(mx.sym.mean(lost), name="triplet_loss"),
        ]
    )
