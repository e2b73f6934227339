"""Everything that needs MXNet itself, imported only when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fasttriplet.mxnet._loss import triplet_loss

if TYPE_CHECKING:
    from fasttriplet.mxnet._face_image_iter import FaceImageIter
    from fasttriplet.mxnet._metric import TripletMetric
    from fasttriplet.mxnet._triplet_iter import TripletIter

__all__ = ["FaceImageIter", "TripletIter", "TripletMetric", "triplet_loss"]

# Their base classes are MXNet's, which takes a second to import.
_HOMES = {
    "FaceImageIter": "_face_image_iter",
    "TripletIter": "_triplet_iter",
    "TripletMetric": "_metric",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
