"""The triplet loss on tensors, equal to MXNet's."""

from __future__ import annotations

from typing import get_args

import torch
from fasttriplet._checks import number, one_of
from fasttriplet.training._settings import Loss
from fasttriplet.training._triplet_loss import EPSILON, FROM_ONE


def triplet_losses(embeddings: torch.Tensor, margin: float, kind: Loss = "squared") -> torch.Tensor:
    """The loss of each triplet of a batch; :func:`triplet_loss` is their mean.

    A triplet whose loss is 0 teaches nothing, so ``(losses > 0).float().mean()`` is the share of active ones.

    Parameters
    ----------
    embeddings, margin, kind
        See :func:`triplet_loss`.

    Returns
    -------
    (B,) Tensor
        ``max(0, d_ap - d_an + margin)``.

    Raises
    ------
    ValueError
        See :func:`triplet_loss`.
    """
    margin = number("margin", margin, 0)
    one_of("kind", kind, get_args(Loss))
    _check(embeddings)
    # Half precision would round a distance by up to 0.01, so autocast is off here.
    with torch.autocast(embeddings.device.type, enabled=False):
        rows = embeddings if embeddings.dtype == torch.float64 else embeddings.float()
        unit = rows / (rows.square().sum(dim=1, keepdim=True) + EPSILON).sqrt()
        anchor, positive, negative = unit.chunk(3)

        def distance(other: torch.Tensor) -> torch.Tensor:
            if kind == "squared":
                return (anchor - other).square().sum(dim=1)
            return (anchor * other).sum(dim=1).clamp(FROM_ONE - 1, 1 - FROM_ONE).arccos()

        return torch.relu(distance(positive) - distance(negative) + margin)


def triplet_loss(embeddings: torch.Tensor, margin: float, kind: Loss = "squared") -> torch.Tensor:
    """The triplet loss of a batch ``[anchors | positives | negatives]``, as feeds hand it out.

    The loss is the mean of ``max(0, d_ap - d_an + margin)`` (FaceNet, equation 3), where d is the squared L2
    distance of the embeddings divided by their norms, or the angle between them. Value and gradient are
    those of :func:`fasttriplet.mxnet.triplet_loss`.

    Parameters
    ----------
    embeddings : (3B, D) Tensor
        The network's output, not normalised: B anchors, their positives, their negatives. It is computed in
        float32, also inside autocast; float64 stays float64.
    margin : float
        At least 0; on the squared distance (0 to 4), or on the angle in radians (0 to pi). InsightFace takes
        0.3 and 0.35.
    kind : {"squared", "angular"}, default "squared"
        The distance; InsightFace's losses `triplet` and `atriplet`.

    Returns
    -------
    () Tensor

    Raises
    ------
    ValueError
        If `margin` or `kind` is out of its range, or `embeddings` has another shape or is not floating point.

    Notes
    -----
    No gradient flows back from angles below 0.0014 or that near to pi, where the slope is infinite.

    Examples
    --------
    >>> import torch
    >>> from fasttriplet.torch import triplet_loss
    >>> embeddings = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    >>> triplet_loss(embeddings, margin=2.0)
    tensor(0.4000)
    """
    return triplet_losses(embeddings, margin, kind).mean()


def _check(embeddings: object) -> None:
    if not isinstance(embeddings, torch.Tensor):
        raise ValueError(f"embeddings must be a torch.Tensor, not {type(embeddings).__name__}")
    if (
        embeddings.ndim != 2
        or embeddings.shape[0] == 0
        or embeddings.shape[0] % 3
        or embeddings.shape[1] == 0
    ):
        raise ValueError(
            "embeddings must be (3B, D): anchors, positives and negatives, one row per image, not of the "
            f"shape {tuple(embeddings.shape)}"
        )
    if not embeddings.is_floating_point():
        raise ValueError(f"embeddings must be floating point, not {embeddings.dtype}")
