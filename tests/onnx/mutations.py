"""Random changes of ONNX models: in their bytes, and in their fields, where the file stays readable."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

_NUMBERS = (-1, 0, 1, 2, 3, 5, 255, -(2**31), 2**31 - 1, 2**40, -(2**63), 2**63 - 1)
_OPERATORS = (
    *("Conv", "PRelu", "Relu", "Gemm", "Flatten", "BatchNormalization", "Sub", "Mul", "Div", "Dropout"),
    *("Constant", "Identity", "Transpose", "Cast", "Nonsense", ""),
)


def mutated(content: bytes, seed: int) -> bytes:
    """Change a model in one to three places; the same for the same seed."""
    draw = random.Random(seed)
    if draw.random() < 0.4:
        return _in_bytes(content, draw)
    import onnx  # noqa: PLC0415

    model = onnx.load_model_from_string(content)
    for _ in range(draw.randint(1, 3)):
        draw.choice(_CHANGES)(model.graph, draw)
    found: bytes = model.SerializeToString()
    return found


def _in_bytes(content: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(damaged))
        match draw.randrange(4):
            case 0:
                damaged[at] = draw.randrange(256)
            case 1:
                damaged[at] ^= 1 << draw.randrange(8)
            case 2:
                del damaged[at : at + draw.randint(1, 40)]
            case _:
                damaged[at:at] = draw.randbytes(draw.randint(1, 8))
    return bytes(damaged)


def _tensor(graph: Any, draw: random.Random) -> None:
    if not graph.initializer:
        return
    tensor = draw.choice(graph.initializer)
    match draw.randrange(8):
        case 0:
            tensor.data_type = draw.choice([*range(-1, 25), 2**31 - 1])
        case 1 if tensor.dims:
            tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(_NUMBERS)
        case 2:
            tensor.dims.append(draw.choice(_NUMBERS))
        case 3:
            del tensor.dims[:]
        case 4:
            tensor.raw_data = tensor.raw_data[: draw.randrange(len(tensor.raw_data) + 1)]
        case 5:
            tensor.ClearField("raw_data")
        case 6:
            tensor.name = draw.choice([*_names(graph), "", "nothing"])
        case _:
            entry = tensor.external_data.add()
            entry.key, entry.value = (
                draw.choice(["location", "offset", "length", ""]),
                draw.choice(["weights.bin", "../weights.bin", "/etc/passwd", "", "-1", "a\0b"]),
            )
            tensor.data_location = draw.randrange(2)


def _node(graph: Any, draw: random.Random) -> None:
    if not graph.node:
        return
    at = draw.randrange(len(graph.node))
    node = graph.node[at]
    match draw.randrange(7):
        case 0:
            node.op_type = draw.choice(_OPERATORS)
        case 1 if node.input:
            node.input[draw.randrange(len(node.input))] = draw.choice([*_names(graph), "", "nothing"])
        case 2 if node.output:
            node.output[draw.randrange(len(node.output))] = draw.choice([*_names(graph), "", "nothing"])
        case 3:
            names = draw.choice([node.input, node.output])
            if names and draw.random() < 0.5:
                names.pop()
            else:
                names.append(draw.choice(_names(graph)))
        case 4:
            del graph.node[at]
        case 5:
            graph.node.add().CopyFrom(node)
        case _:
            node.domain = draw.choice(["", "ai.onnx.ml", "com.nobody"])


def _attribute(graph: Any, draw: random.Random) -> None:
    nodes = [node for node in graph.node if node.attribute]
    if not nodes:
        return
    attribute = draw.choice(draw.choice(nodes).attribute)
    match draw.randrange(5):
        case 0:
            attribute.type = draw.randrange(15)
        case 1:
            attribute.i = draw.choice(_NUMBERS)
        case 2 if attribute.ints:
            attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(_NUMBERS)
        case 3:
            attribute.ints.append(draw.choice(_NUMBERS))
        case _:
            attribute.name = draw.choice(["group", "pads", "epsilon", "training_mode", "value", ""])


def _value(graph: Any, draw: random.Random) -> None:
    value = draw.choice([*graph.input, *graph.output])
    shape = value.type.tensor_type.shape
    match draw.randrange(5):
        case 0:
            value.type.tensor_type.elem_type = draw.randrange(-1, 25)
        case 1 if shape.dim:
            shape.dim[draw.randrange(len(shape.dim))].dim_value = draw.choice(_NUMBERS)
        case 2:
            shape.dim.add().dim_value = draw.choice(_NUMBERS)
        case 3:
            value.ClearField("type")
        case _:
            value.name = draw.choice([*_names(graph), "", "nothing"])


def _names(graph: Any) -> list[str]:
    found = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        found |= {*node.input, *node.output}
    return sorted(found)


_CHANGES: tuple[Callable[[Any, random.Random], None], ...] = (_tensor, _node, _attribute, _value)
