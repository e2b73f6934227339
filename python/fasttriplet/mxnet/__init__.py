"""Everything that needs MXNet itself, imported only when it is used."""

from fasttriplet.mxnet.loss import triplet_loss

__all__ = ["triplet_loss"]
