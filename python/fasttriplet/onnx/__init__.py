"""Everything that needs ONNX Runtime, imported only when it is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fasttriplet import _forks

if TYPE_CHECKING:
    from fasttriplet.onnx._embedder import OnnxEmbedder

__all__ = ["OnnxEmbedder"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        with _forks.importing():
            import_module(f"{__name__}._runtime").import_onnxruntime()
            return getattr(import_module(f"{__name__}._embedder"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
