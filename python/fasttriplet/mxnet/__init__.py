"""Everything that needs MXNet itself, imported only when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fasttriplet import _forks

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
    "FaceImageIter": "_face_image_iter",
    "TripletIter": "_triplet_iter",
    "TripletMetric": "_metric",
    "build_network": "_networks",
    "import_mxnet": "_compat",
    "mobilefacenet": "_networks",
    "save_untrained": "_untrained",
    "small_convnet": "_networks",
    "triplet_loss": "_loss",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with _forks.importing():
            return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
