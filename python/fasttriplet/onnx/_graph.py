"""What the file of an ONNX model says that ONNX Runtime does not: its first operators above all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet._contents import describe_wrong_file, read_file
from fasttriplet.embedders._inputs import AS_DECODED, SAYS_AS_DECODED, Inputs
from fasttriplet.onnx._prelu import replace_prelu
from fasttriplet.onnx._runtime import import_onnx
from fasttriplet.onnx._tensors import array_of, attribute_of

_START = b"\x08"  # the first field, the version of the format
_UNIT = Inputs(mean=(0, 0, 0), std=(255, 255, 255))  # pixels from 0 to 1
_MOST_TAKEN_IN = 1 << 30  # bytes; a message of protobuf has 2 GiB at most
_MOST_STEPS = 16  # operators that normalise the input; a file may be made to go round in a circle


@dataclass(frozen=True)
class Graph:
    """Facts about the graph of a model."""

    inputs: Inputs | None  # what the file says, or the operators that normalise the input; None without these
    couples_images: bool  # whether the values of one image depend on others of the same batch
    content: bytes | None  # the model as it should be run, if that is not as it is in the file


def read_graph(path: Path, *, for_cpu: bool) -> Graph:
    """Read a model; its content as it should be run on a CPU, or on GPUs.

    A FileNotFoundError if the file, or a file of external data, does not exist; a ValueError if it is not a
    model, or one that was exported in training mode.
    """
    if not path.exists():
        raise FileNotFoundError(f"no ONNX model at {path}")
    model = _parse(path)
    try:
        return _facts(path, model, for_cpu=for_cpu)
    except UnicodeDecodeError as error:  # a name, which is decoded where it is used
        raise ValueError(_damaged(path)) from error


def _facts(path: Path, model: Any, *, for_cpu: bool) -> Graph:
    external = sorted(_external(model.graph))
    for name in external:
        if not (path.parent / name).is_file():
            raise FileNotFoundError(
                f"{path} keeps weights in {name}, which is not beside it; copy both into one folder"
            )
    whole = not external or _take_in(path, model, external)
    nodes, constants = list(_nodes(model.graph)), _constants(model.graph)
    if any(_is_training(node, constants) for node in nodes):
        raise ValueError(
            f"{path} was exported in training mode, with dropout, or batch normalisation by the images of a "
            "batch. Export it again after model.eval()"
        )
    return Graph(
        inputs=AS_DECODED if _says_as_decoded(model) else _expected(model.graph, constants),
        couples_images=any(node.op_type.startswith("DynamicQuantize") for node in nodes),
        content=_rewritten(model, for_cpu=for_cpu) if whole else None,
    )


def _parse(path: Path) -> Any:
    onnx = import_onnx()
    from google.protobuf.message import DecodeError  # noqa: PLC0415  with onnx

    content = read_file(path, "an ONNX model")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        if content.startswith(_START):
            raise ValueError(_damaged(path)) from error
        raise ValueError(describe_wrong_file(path, "an ONNX model")) from error
    if not model.graph.node or not all(node.output for node in model.graph.node):
        raise ValueError(describe_wrong_file(path, "an ONNX model"))
    return model


def _damaged(path: Path) -> str:
    return f"{path} is damaged or cut off; copy or export it again"


def _rewritten(model: Any, *, for_cpu: bool) -> bytes | None:
    """The same network in a form that runs faster; None where it is in that form."""
    changed = _make_constant(model)
    if for_cpu:
        changed |= replace_prelu(model.graph)
    content: bytes | None = model.SerializeToString() if changed else None
    return content


def _make_constant(model: Any) -> bool:
    """Take weights off the inputs, where they could be replaced; whether there were any.

    MXNet exports such models. ONNX Runtime does not join convolutions with the batch normalisation after
    them where weights may change, and takes longer.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    needed = [value for value in model.graph.input if value.name not in weights]
    if len(needed) == len(model.graph.input):
        return False
    model.ir_version = max(model.ir_version, 4)  # before, all weights had to be inputs
    del model.graph.input[:]
    model.graph.input.extend(needed)
    return True


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):  # a branch, or the body of a loop
                yield from _nodes(attribute.g)


def _external(graph: Any) -> set[str]:
    """Files of external data, relative to the folder of the model."""
    return {
        entry.value
        for tensor in graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }


def _take_in(path: Path, model: Any, external: Sequence[str]) -> bool:
    """Read the external data into the model, unless they are too large for one message; whether they were."""
    if sum((path.parent / name).stat().st_size for name in external) > _MOST_TAKEN_IN:
        return False
    try:
        import_onnx().external_data_helper.load_external_data_for_model(model, str(path.parent))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of onnx's checker and others
        raise ValueError(
            f"{', '.join(external)}, with the weights of {path}, is damaged or cut off; copy or export both "
            "again"
        ) from error
    return True


def _is_training(node: Any, constants: dict[str, NDArray[np.float64]]) -> bool:
    if node.op_type == "Dropout":
        return len(node.input) == 3 and bool(constants.get(node.input[2], np.zeros(1)).any())
    return node.op_type == "BatchNormalization" and bool(attribute_of(node, "training_mode", 0))


def _says_as_decoded(model: Any) -> bool:
    return any((entry.key, entry.value) == SAYS_AS_DECODED for entry in model.metadata_props)


@np.errstate(all="ignore")  # a variance below 0, a scale without end: such numbers expect nothing
def _expected(graph: Any, constants: dict[str, NDArray[np.float64]]) -> Inputs | None:
    """What the operators at the start expect, if they normalise their input: pixels of 0 to 255, or 0 to 1.

    Together they compute ``factor * x + shift``. Pixels of 0 to 255 are multiplied by a small factor, or what
    is subtracted lies amidst them.
    """
    weights = {tensor.name for tensor in graph.initializer}
    images = [value.name for value in graph.input if value.name not in weights]
    if len(images) != 1:
        return None
    tensor = images[0]
    factor, shift = np.ones(1), np.zeros(1)
    learned = False
    for _ in range(_MOST_STEPS):
        users = [n for n in graph.node if tensor in n.input and n.op_type != "Shape"]
        if len(users) != 1:
            break
        node = users[0]
        step = _step(node, tensor, constants)
        if step is None:
            break
        learned |= node.op_type == "BatchNormalization"
        factor, shift = factor * step[0], shift * step[0] + step[1]
        tensor = node.output[0]
    if not np.all(factor):
        return None
    middle = -shift / factor
    if 0 < np.abs(factor).max() < 1 / 16 or (middle.min() > 8 and middle.max() < 247):
        return AS_DECODED
    # Running means of pixels from -1 to 1 may look like the middle of 0 to 1, constants do not.
    return _UNIT if not learned and middle.min() > 0.2 and middle.max() < 0.8 else None


def _constants(graph: Any) -> dict[str, NDArray[np.float64]]:
    """Small constants by name, flat: one number, or one for each colour."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        value = attribute_of(node, "value", None) if node.op_type == "Constant" else None
        if hasattr(value, "dims"):  # a tensor
            tensors[node.output[0]] = value
    found: dict[str, NDArray[np.float64]] = {}
    for name, tensor in tensors.items():
        if math.prod(tensor.dims) in (1, 3) and (values := array_of(tensor)) is not None:
            with suppress(ValueError, TypeError):  # text
                found[name] = values.astype(np.float64).ravel()
    return found


def _step(
    node: Any, tensor: str, constants: dict[str, NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Factor and shift of an operator that changes the input linearly; None of any other."""
    one, none = np.ones(1), np.zeros(1)
    others = [constants[name] for name in node.input if name in constants]
    if len(others) != sum(name != tensor for name in node.input):
        return None
    factor, shift = one, none
    match node.op_type, *others:
        case (("Cast" | "Dropout" | "Identity" | "Transpose"), *_):
            pass
        case "Add", other:
            shift = other
        case "Sub", other:
            factor, shift = (one, -other) if node.input[0] == tensor else (-one, other)
        case "Mul", other:
            factor = other
        case "Div", other if node.input[0] == tensor and other.all():
            factor = 1 / other
        case "BatchNormalization", scale, bias, mean, variance:
            factor = scale / np.sqrt(variance + attribute_of(node, "epsilon", 1e-5))
            shift = bias - factor * mean
        case _:
            return None
    return factor, shift
