"""Exact triplet mining over MXNet ``.rec`` image datasets."""

from fasttriplet._core import __version__
from fasttriplet.errors import RecordError

__all__ = ["RecordError", "__version__"]
