"""Small ONNX models, made here, and what they give without ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

SIZE = (24, 24)
WIDTH = 8


def rows_of(count: int) -> pl.DataFrame:
    return pl.DataFrame({"key": np.arange(1, count + 1)})


def random_images(
    count: int, height: int = SIZE[0], width: int = SIZE[1], seed: int = 0
) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def weights(*shape: int, seed: int = 7) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return values / np.float32(np.sqrt(np.prod(shape[1:])))


class Builder:
    """A graph that grows by one operator at a time."""

    def __init__(
        self,
        shape: tuple[Any, ...] = ("N", 3, *SIZE),
        *,
        name: str = "input",
        dtype: Any = np.float32,
        opset: int = 17,
        ir_version: int = 8,
    ) -> None:
        import onnx  # noqa: PLC0415

        self.onnx, self.opset, self.ir_version = onnx, opset, ir_version
        self.kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.inputs = [onnx.helper.make_tensor_value_info(name, self.kind, shape)]
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self.last = name

    def constant(self, value: Any, name: str | None = None) -> str:
        name = name or f"constant_{len(self.constants)}"
        self.constants[name] = self.onnx.numpy_helper.from_array(np.asarray(value), name)
        return name

    def add(
        self, op: str, *constants: Any, name: str | None = None, first: bool = True, **options: Any
    ) -> str:
        """Append an operator whose input is the last output, and constants after it (or before it)."""
        others = [self.constant(value) for value in constants]
        inputs = [self.last, *others] if first else [*others, self.last]
        self.last = name or f"{op}_{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(op, inputs, [self.last], **options))
        return self.last

    def beside(self, op: str) -> str:
        """Append an operator that takes the input of the model, too, and that nothing uses."""
        self.nodes.append(self.onnx.helper.make_node(op, [self.inputs[0].name], ["beside"]))
        return "beside"

    def layers(self, *, size: tuple[int, int] | None = SIZE, output: str = "embedding") -> Builder:
        """A convolution and a layer, or an average where the size of the images is not fixed."""
        self.add("Conv", weights(4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
        self.add("Relu")
        if size is None:
            self.add("GlobalAveragePool")
        self.add("Flatten")
        inner = 4 if size is None else 4 * -(-size[0] // 2) * -(-size[1] // 2)
        self.add("Gemm", weights(inner, WIDTH), np.linspace(-1, 1, WIDTH, dtype=np.float32), name=output)
        return self

    def model(self, *outputs: tuple[str, Any, tuple[Any, ...]], weights_as_inputs: bool = False) -> Any:
        helper = self.onnx.helper
        outputs = outputs or ((self.last, np.float32, ("N", WIDTH)),)
        ends = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape)
            for name, kind, shape in outputs
        ]
        more = [
            helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims))
            for name, tensor in self.constants.items()
        ]
        graph = helper.make_graph(
            self.nodes,
            "graph",
            self.inputs + (more if weights_as_inputs else []),
            ends,
            list(self.constants.values()),
        )
        opset = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opset, ir_version=self.ir_version)

    def save(self, path: Path, *outputs: tuple[str, Any, tuple[Any, ...]], **options: Any) -> str:
        self.onnx.save(self.model(*outputs, **options), str(path))
        return f"onnx:{path}"


def reference(path: Path, feed: NDArray[Any], output: int = 0) -> NDArray[Any]:
    """What the package onnx computes, in plain NumPy."""
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415

    session: Any = ReferenceEvaluator(str(path))
    found: NDArray[Any] = session.run(None, {session.input_names[0]: feed})[output]
    return found


def planes(images: NDArray[np.uint8], mean: Any = 127.5, std: Any = 128.0) -> NDArray[np.float32]:
    """``(pixel - mean) / std`` as (B, 3, H, W)."""
    normalised = (images.astype(np.float32) - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))
