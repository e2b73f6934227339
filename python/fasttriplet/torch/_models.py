"""The networks that specs of PyTorch name."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from fasttriplet._contents import describe_wrong_file
from fasttriplet.checkpoint._checkpoint import spec_of, split_epoch
from fasttriplet.embedders._batches import is_shortage
from fasttriplet.embedders._inputs import AS_DECODED, Inputs
from fasttriplet.embedders._objects import NAME_OF_OBJECT
from fasttriplet.errors import OptionError, SpecError
from fasttriplet.torch._architecture import made_by
from fasttriplet.torch._archives import check_no_code, kind_of
from fasttriplet.torch._fold import folded
from fasttriplet.torch._graph._arithmetic import Cast
from fasttriplet.torch._graph._network import ConvertedNetwork
from fasttriplet.torch._network_files import ENDINGS, exists, read_network
from fasttriplet.torch._state import load_state, read_state
from torch import nn

_FILES = (".pt2", ".pt", ".pth")
_FORMS = (
    "torch:PREFIX (of `fasttriplet train`), torch:mxnet:PREFIX,EPOCH, torch:FILE.pt2 (of torch.export), "
    "torch:FILE.pt (TorchScript) or torch:PACKAGE.MODULE:FACTORY"
)
_NO_CODE = "write torch:PACKAGE.MODULE:FACTORY,weights={}, with the function that makes the network"


@dataclass(frozen=True)
class Model:
    """A network that is not trained.

    Attributes
    ----------
    name : str
        What it is, for descriptions.
    on : callable
        Makes the network on a device. Each is for one thread, as a module may keep in itself what it
        computes; those on the CPU share their weights.
    inputs : Inputs
        What it expects, unless the user says something else.
    output : str or None
        The output that is still to be chosen.
    batch_sizes : (int, int or None)
        The fewest and the most images that it takes at once.
    dtype : torch.dtype
        Type of its input.
    """

    name: str
    on: Callable[[torch.device], Any]
    inputs: Inputs = Inputs()  # noqa: RUF009  frozen, too
    output: str | None = None
    batch_sizes: tuple[int, int | None] = (1, None)
    dtype: torch.dtype = torch.float32


def load_model(spec: str, target: str, options: Mapping[str, str]) -> Model:
    """Load what the target of a spec names; `options` may hold the `output` and the `weights`."""
    output = options.get("output")
    is_factory = NAME_OF_OBJECT.fullmatch(target) is not None and not target.startswith("mxnet:")
    if "weights" in options and not is_factory:
        raise OptionError("weights", f"go with torch:PACKAGE.MODULE:FACTORY, not with {spec!r}")
    if target.startswith("mxnet:"):
        return _from_mxnet(spec, target.removeprefix("mxnet:"), output)
    if is_factory:
        return _from_factory(spec, target, options.get("weights"), output)
    path = Path(target)
    if exists(target):
        return _trained(target)
    if path.suffix in ENDINGS and exists(prefix := target.removesuffix(path.suffix)):
        raise SpecError(f"{spec!r} is one of the two files of a network; write torch:{prefix}")
    if path.suffix in (".safetensors", ".onnx"):
        hint = f"write onnx:{target}" if path.suffix == ".onnx" else _NO_CODE.format(target)
        what = "is for ONNX Runtime" if path.suffix == ".onnx" else "holds weights without a network"
        raise SpecError(f"{spec!r}: {target} {what}; {hint}")
    if path.suffix not in _FILES:
        raise SpecError(f"{spec!r} is not of the form {_FORMS}; there is no {target}.json either")
    if not path.exists():
        raise FileNotFoundError(f"no network at {path}")
    return _from_file(path, output)


def dtype_of(network: nn.Module) -> torch.dtype:
    """The type that a network's input must have: that of its first floating point parameters.

    A converted network may cast its input itself, as networks of MXNet in float16 do.
    """
    layers = _before_casts(network) if isinstance(network, ConvertedNetwork) else iter([network])
    kinds = (values.dtype for layer in layers for values in layer.parameters() if values.is_floating_point())
    return next(kinds, torch.float32)


def _before_casts(network: ConvertedNetwork) -> Iterator[nn.Module]:
    """The layers that the input reaches without being cast."""
    reached: set[Any] = set()
    for node in network.graph.nodes:
        layer = network.get_submodule(node.target) if node.op == "call_module" else None
        if node.op == "placeholder" or not (
            reached.isdisjoint(node.all_input_nodes) or isinstance(layer, Cast)
        ):
            reached.add(node)
            if layer is not None:
                yield layer


def frozen(name: str, network: nn.Module, **more: Any) -> Model:
    """A model of a module, which is set to evaluation mode."""
    more = {"dtype": dtype_of(network)} | more
    network = network.eval().requires_grad_(False)

    def on(device: torch.device) -> Any:
        if device.type != "cpu":
            return copy.deepcopy(network).to(device)
        tensors = chain(network.parameters(), network.buffers())
        return copy.deepcopy(network, {id(values): values for values in tensors})  # which all share

    return Model(name, on, **more)


def _from_mxnet(spec: str, text: str, output: str | None) -> Model:
    found = split_epoch(text)
    if found is None:
        meant = spec_of(text)
        hint = f"; did you mean 'torch:{meant}'?" if meant else ", for example torch:mxnet:models/model,0"
        raise SpecError(f"{spec!r} is not of the form torch:mxnet:PREFIX,EPOCH{hint}")
    prefix, epoch = found
    network = import_module("fasttriplet.torch").from_mxnet(prefix, epoch, output=output)
    name = f"MXNet network {prefix}, epoch {epoch}{f', output {output}' if output else ''}"
    return inference_model(name, network, AS_DECODED)


def _trained(prefix: str) -> Model:
    architecture, network = read_network(prefix)
    return inference_model(f"network {prefix}", network, architecture.inputs, architecture.output)


def inference_model(name: str, network: nn.Module, inputs: Inputs, output: str | None = None) -> Model:
    """A model of a network in evaluation mode, with the numbers that it has now."""
    if isinstance(network, ConvertedNetwork):
        # Only this kind: other networks would have to be traced, which can change what they compute.
        return frozen(name, folded(network), inputs=inputs, dtype=dtype_of(network))
    return frozen(name, network, inputs=inputs, output=output)


def _from_factory(spec: str, target: str, weights: str | None, output: str | None) -> Model:
    found = made_by(spec, target)
    name = f"{target}, weights as it made them"
    if weights is not None:
        name = f"{target}, weights {load_state(found, Path(weights))}"
    return frozen(name, found, output=output)


def _from_file(path: Path, output: str | None) -> Model:
    kind = kind_of(path)
    if kind == "program":
        return _program(path, output)
    if kind == "script":
        return _script(path, output)
    read_state(path)  # or it says what else the file holds
    raise ValueError(f"{path} holds a state_dict, weights without a network; {_NO_CODE.format(path)}")


def _script(path: Path, output: str | None) -> Model:
    def loaded(device: torch.device) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated; files of it are here to stay
            jit: Any = torch.jit
            return jit.load(path, map_location=device).eval()

    def on(device: torch.device) -> Any:
        return copy.copy(network) if device.type == "cpu" else loaded(device)

    with _loading(path, "TorchScript"):
        network = loaded(torch.device("cpu"))
    return Model(f"TorchScript {path}", on, output=output, dtype=dtype_of(network))


def _program(path: Path, output: str | None) -> Model:
    def loaded() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as file:  # of a path, PyTorch complains that it does not end in .pt2
                return torch.export.load(file)

    with _loading(path, "a program that torch.export saved"):
        check_no_code(path)
        program = loaded()
    shape, dtype = _input_of(path, program)
    if trained := _in_training_mode(program):
        raise ValueError(
            f"{path} was exported in training mode ({trained}), so embeddings would depend on the other "
            "images of a batch; call eval() on the module before torch.export.export"
        )

    def on(device: torch.device) -> Any:
        if device.type == "cpu":
            return program.module()
        from torch.export.passes import move_to_device_pass  # noqa: PLC0415  since PyTorch 2.6

        return move_to_device_pass(loaded(), device).module()  # a deep copy has other names, and is refused

    sizes = [size if isinstance(size, int) else None for size in shape[2:]]
    fixed = (sizes[0], sizes[1]) if None not in sizes else None
    return Model(
        f"exported program {path}",
        on,
        Inputs(size=fixed),  # type: ignore[arg-type]
        output,
        _batch_sizes(shape[0], program.range_constraints),
        dtype,
    )


def _input_of(path: Path, program: Any) -> tuple[list[Any], torch.dtype]:
    """Shape and type of the only input; a ValueError if it is not one of images."""
    names = program.graph_signature.user_inputs
    values = [
        node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names
    ]
    shapes = [tuple(value.shape) if isinstance(value, torch.Tensor) else value for value in values]
    if len(values) != 1 or len(shapes[0]) != 4 or shapes[0][1] != 3 or not values[0].is_floating_point():
        kinds = [f"{value.dtype} {shape}" for value, shape in zip(values, shapes, strict=True)]
        raise ValueError(
            f"{path} takes {', '.join(kinds) or 'no input'}; expected one floating point tensor (B, 3, H, W)"
        )
    return list(shapes[0]), values[0].dtype


def _batch_sizes(size: Any, ranges: Mapping[Any, Any]) -> tuple[int, int | None]:
    """The fewest and the most images of a batch, from the first number of an input's shape."""
    if isinstance(size, int):
        return size, size
    limits = ranges.get(size.node.expr)
    if limits is None:
        return 1, None
    most = int(limits.upper) if limits.upper.is_Integer and limits.upper < 2**31 - 1 else None
    return max(1, int(limits.lower)), most


def _in_training_mode(program: Any) -> str | None:
    """Name what a network does in training only: statistics of the batch, or values dropped at random."""
    for node in program.graph.nodes:
        operator = node.target
        if getattr(operator, "namespace", None) != "aten":  # what operators of others mean is not known
            continue
        name = str(operator._opname)
        arguments = {argument.name: argument.default_value for argument in operator._schema.arguments}
        given = arguments | dict(zip(arguments, node.args, strict=False)) | node.kwargs
        if given.get("training", given.get("train")) is True or name == "_batch_norm_with_update":
            return name
    return None


@contextmanager
def _loading(path: Path, expected: str) -> Iterator[None]:
    """Turn what a damaged file leads PyTorch to, which may be any error, into a ValueError about the file."""
    try:
        yield
    except (OSError, MemoryError, ImportError):
        raise
    except Exception as error:
        if is_shortage(error):
            raise MemoryError(f"not enough memory to load {path}") from error
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        wrong = describe_wrong_file(path, expected, magic=b"PK")
        raise ValueError(f"{wrong}, or is damaged ({type(error).__name__}: {reason})") from error
