"""Everything that needs MXNet itself, imported only when it is used."""

from typing import TYPE_CHECKING

from fasttriplet import _lazy

if TYPE_CHECKING:
    from fasttriplet.mxnet._compat import import_mxnet
    from fasttriplet.mxnet._face_image_iter import FaceImageIter
    from fasttriplet.mxnet._loss import triplet_loss
    from fasttriplet.mxnet._metric import TripletMetric
    from fasttriplet.mxnet._networks import build_network, mobilefacenet, small_convnet
    from fasttriplet.mxnet._triplet_iter import TripletIter
    from fasttriplet.mxnet._untrained import save_untrained

__all__ = [
    "FaceImageIter",
    "TripletIter",
    "TripletMetric",
    "build_network",
    "import_mxnet",
    "mobilefacenet",
    "save_untrained",
    "small_convnet",
    "triplet_loss",
]

# Base classes of some are MXNet's, which takes a second to import.
_HOMES = {
    "_compat": ("import_mxnet",),
    "_face_image_iter": ("FaceImageIter",),
    "_loss": ("triplet_loss",),
    "_metric": ("TripletMetric",),
    "_networks": ("build_network", "mobilefacenet", "small_convnet"),
    "_triplet_iter": ("TripletIter",),
    "_untrained": ("save_untrained",),
}

__getattr__, __dir__ = _lazy.names_of(__name__, _HOMES)
