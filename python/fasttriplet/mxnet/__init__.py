"""Everything that needs MXNet itself, imported only when it is used."""

from typing import TYPE_CHECKING, Any

from fasttriplet.mxnet.loss import triplet_loss

if TYPE_CHECKING:
    from fasttriplet.mxnet.metric import TripletMetric

__all__ = ["TripletMetric", "triplet_loss"]


def __getattr__(name: str) -> Any:
    if name == "TripletMetric":  # its base class is MXNet's, which takes a second to import
        from fasttriplet.mxnet.metric import TripletMetric  # noqa: PLC0415

        return TripletMetric
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
