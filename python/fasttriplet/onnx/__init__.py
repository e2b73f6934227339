"""Everything that needs ONNX Runtime, imported only when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fasttriplet import _lazy

if TYPE_CHECKING:
    from fasttriplet.onnx._embedder import OnnxEmbedder

__all__ = ["OnnxEmbedder"]

_imported, __dir__ = _lazy.names_of(__name__, {"_embedder": __all__})


def __getattr__(name: str) -> Any:
    if name in __all__:
        import_module(f"{__name__}._runtime").import_onnxruntime()  # its error says how to install it
    return _imported(name)
