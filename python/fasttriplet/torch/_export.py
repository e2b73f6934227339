"""A trained network in the formats of others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from fasttriplet._extras import how_to_install
from fasttriplet._files import replacing
from fasttriplet.embedders._inputs import SAYS_AS_DECODED, Inputs
from fasttriplet.errors import OptionError
from fasttriplet.torch._from_mxnet import to_mxnet
from fasttriplet.torch._network_files import read_network
from torch import nn

# What each format appends to a prefix.
EXPORTS: Mapping[str, tuple[str, ...]] = {"mxnet": ("-symbol.json", "-0000.params"), "onnx": (".onnx",)}
_PACKAGES = ("onnx", "onnxscript")
_LEAST = (2, 7)  # of PyTorch: 2.3 has no such call; 2.5 and 2.6 fail at a BatchNorm with later onnxscript


def check_export(kind: str, *, is_graph: bool) -> None:
    """Raise an error if a network cannot be written: a package is missing or old, or it is not a graph."""
    if kind == "mxnet" and not is_graph:
        raise OptionError(
            "export", "'mxnet' is for networks by name and symbols of MXNet, not for what a function makes"
        )
    missing = [name for name in _PACKAGES if find_spec(name) is None] if kind == "onnx" else []
    if missing:
        raise ImportError(
            f"export='onnx' needs {' and '.join(missing)}. {how_to_install('export')}", name=missing[0]
        )
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    if kind == "onnx" and version < _LEAST:
        least = ".".join(map(str, _LEAST))
        raise ImportError(f"export='onnx' needs PyTorch {least} or later, and this is {torch.__version__}")


def export(prefix: str, kind: str) -> None:
    """Write a trained network in another format, beside its own files.

    The network of an ONNX file takes RGB, 0 to 255, in batches of any size, and is otherwise the same. The
    metadata of the file say so, as its first operators may not show it.
    """
    architecture, network = read_network(prefix)
    if kind == "mxnet":
        to_mxnet(network, prefix, 0, overwrite=True)
        return
    assert architecture.inputs.size is not None
    shapes = ({0: torch.export.Dim("images")},)
    options: dict[str, Any] = {"dynamo": True, "dynamic_shapes": shapes, "verbose": False}
    on_cpu = torch.device("cpu")  # whatever PyTorch's default device is
    with on_cpu, replacing(Path(f"{prefix}.onnx")) as unfinished, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        whole = _FromPixels(network, architecture.inputs).eval().cpu()
        example = torch.zeros(2, 3, *architecture.inputs.size)
        torch.onnx.export(
            whole, (example,), str(unfinished), input_names=["data"], external_data=False, **options
        )
        onnx: Any = import_module("onnx")
        model = onnx.load(unfinished)
        onnx.helper.set_model_props(model, dict([SAYS_AS_DECODED]))
        onnx.save(model, unfinished)


class _FromPixels(nn.Module):
    """A network with the normalisation of its input before it."""

    def __init__(self, network: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.network, self._reversed = network, inputs.color == "bgr"
        self._plain = inputs.as_decoded
        for name, values in (("mean", inputs.mean), ("std", inputs.std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, data: torch.Tensor) -> Any:
        """Embed images of RGB, 0 to 255."""
        data = data.flip(1) if self._reversed else data
        return self.network(data if self._plain else (data - self.mean) / self.std)
