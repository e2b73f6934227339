"""Numbers in ONNX files, which may be damaged."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from fasttriplet.onnx._runtime import import_onnx


def array_of(tensor: Any) -> NDArray[Any] | None:
    """The array that a tensor in a model is; None if it is in another file, or damaged."""
    if tensor.external_data or any(size < 0 for size in tensor.dims):
        return None
    try:
        values: NDArray[Any] = import_onnx().numpy_helper.to_array(tensor)
    except Exception:  # of any kind: an unknown type, too few bytes, text that is not UTF-8
        return None
    return values if values.size == math.prod(tensor.dims) else None


def attribute_of(node: Any, name: str, default: Any) -> Any:
    """The value of an attribute; the default where a node has none, or one of another type than that."""
    for attribute in node.attribute:
        if attribute.name == name:
            try:
                value = import_onnx().helper.get_attribute_value(attribute)
            except Exception:  # a type that does not exist
                return default
            return value if default is None or isinstance(value, type(default)) else default
    return default
