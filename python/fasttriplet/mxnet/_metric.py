"""The metric of a training with the triplet loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from fasttriplet._checks import number, one_of
from fasttriplet.mxnet._compat import import_mxnet
from fasttriplet.training._settings import Loss

_mx: Any = import_mxnet()


class TripletMetric(_mx.metric.EvalMetric):  # type: ignore[misc]
    """The loss, the share of active triplets and the norm of the embeddings, over all devices.

    For a module with the outputs of :func:`fasttriplet.mxnet.triplet_loss`. A triplet is active if its loss
    is above 0; nothing is learned from the rest. A norm that keeps growing is a sign of a learning rate that
    is too high.

    Parameters
    ----------
    margin : float
    kind : {"squared", "angular"}, default "squared"
        As given to the loss.
    """

    def __init__(self, margin: float, kind: Loss = "squared") -> None:
        one_of("kind", kind, get_args(Loss))
        self._margin, self._kind = number("margin", margin, 0), kind
        super().__init__("triplet")

    def reset(self) -> None:
        """Forget all batches."""
        self.sums = [0.0] * 4  # losses, active triplets, norms, triplets

    def update(self, labels: Any, preds: Sequence[Any]) -> None:  # noqa: ARG002  the names are MXNet's
        """Count the batch of one device: `preds` are embedding (3T, D), labels (3T,) and loss (1,)."""
        embedding, _, loss = (output.asnumpy() for output in preds)
        with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite says enough
            norms = np.linalg.norm(embedding, axis=1)
            anchor, positive, negative = np.split(embedding / np.maximum(norms, 1e-10)[:, None], 3)
            d_ap, d_an = (self._distance(anchor, other) for other in (positive, negative))
        triplets = len(anchor)
        active = float(np.count_nonzero(d_ap - d_an + self._margin > 0))
        of_batch = (float(loss.mean()) * triplets, active, float(norms.mean()) * triplets, triplets)
        self.sums = [total + more for total, more in zip(self.sums, of_batch, strict=True)]

    def _distance(self, rows: Any, others: Any) -> Any:
        if self._kind == "squared":
            return ((rows - others) ** 2).sum(axis=1)
        return np.arccos(np.clip((rows * others).sum(axis=1), -1, 1))

    def get(self) -> tuple[list[str], list[float]]:
        """The names ``loss``, ``active`` and ``norm``, and their values; NaN before the first batch.

        Values are means over the triplets since the last reset: of the loss, of whether it is above 0, and of
        the L2 norms of the embeddings.
        """
        *sums, triplets = self.sums
        values = [total / triplets if triplets else float("nan") for total in sums]
        return ["loss", "active", "norm"], values
