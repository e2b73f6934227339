"""What a network is without its weights, and the two files of a trained network."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fasttriplet._checks import MOST_PIXELS
from fasttriplet._checks import image_size as checked_size
from fasttriplet._contents import describe_wrong_file
from fasttriplet._extras import how_to_install
from fasttriplet._files import naming, opened, publish
from fasttriplet.checkpoint._networks import network_of
from fasttriplet.checkpoint._outputs import find_data, find_embedding
from fasttriplet.checkpoint._symbol import Entry, Node, Symbol, parse_symbol, read_symbol
from fasttriplet.embedders._inputs import AS_DECODED, OPTIONS, Inputs, given, three
from fasttriplet.embedders._objects import find_object, make
from fasttriplet.embedders._spec import split_options
from fasttriplet.errors import SpecError
from fasttriplet.torch._graph._initial import untrained
from fasttriplet.torch._reproducible import drawing_from
from fasttriplet.torch._state import load_state, read_state
from torch import nn

WEIGHTS = ".safetensors"
ENDINGS = (".json", WEIGHTS)

_FORMAT = "fasttriplet network"
_VERSION = 1  # raised when older versions could not read it
_SAVE_WITHOUT_LOSS = "For a training, save the symbol with the embedding as its only output"


@dataclass(frozen=True)
class Architecture:
    """A network without its weights.

    Attributes
    ----------
    symbol : str or None
        The graph as MXNet's JSON.
    factory : str or None
        Otherwise ``PACKAGE.MODULE:FACTORY``, what makes the module.
    inputs : Inputs
        What the network takes; the size is that of the images that it is trained with.
    output : str or None
        Which of the outputs is the embedding, where the module returns several.
    """

    symbol: str | None
    factory: str | None
    inputs: Inputs
    output: str | None = None

    def make(self, seed: int = 0, *, numbers: int | None = None) -> nn.Module:
        """Make the network, with weights that are drawn.

        With `numbers`, a graph gets none, as they will be taken from a file with that many numbers; see
        :func:`fasttriplet.torch._graph._initial.untrained`.
        """
        if self.symbol is not None:
            assert self.inputs.size is not None
            return untrained(parse_symbol(self.symbol), "data", self.inputs.size, seed, numbers=numbers)
        assert self.factory is not None
        with drawing_from(seed):
            return made_by(f"torch:{self.factory}", self.factory)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        inputs = self.inputs
        return {
            "symbol": None if self.symbol is None else json.loads(self.symbol),
            "factory": self.factory,
            "output": self.output,
            "color": inputs.color,
            "mean": list(map(float, inputs.mean)),
            "std": list(map(float, inputs.std)),
            "image_size": None if inputs.size is None else list(inputs.size),
        }

    @classmethod
    def from_dict(cls, plain: Any) -> Architecture:
        """Read what :meth:`to_dict` gave, which may come from anywhere; a ValueError says what is wrong."""
        if not isinstance(plain, dict) or plain.keys() != _FIELDS:
            raise ValueError(f"it must be an object with {', '.join(sorted(_FIELDS))}, not {plain!r:.100}")
        symbol, factory, size = plain["symbol"], plain["factory"], plain["image_size"]
        if (symbol is None) == (factory is None):
            raise ValueError("it must have either symbol or factory")
        for name in ("factory", "output"):
            if not isinstance(plain[name], (str, type(None))):
                raise ValueError(f"{name} must be a text, not {plain[name]!r:.100}")
        for name in ("mean", "std"):
            if not isinstance(plain[name], list):
                raise ValueError(f"{name} must be a list of three numbers, not {plain[name]!r:.100}")
        if not isinstance(size, list) or len(size) != 2:
            raise ValueError(f"image_size must be [height, width], not {size!r:.100}")
        mean, std = three("mean", plain["mean"]), three("std", plain["std"])
        inputs = Inputs(plain["color"], mean, std, checked_size((size[0], size[1]), MOST_PIXELS))
        if symbol is not None:
            graph = parse_symbol(json.dumps(symbol))
            if "data" not in graph.arguments():
                raise ValueError("symbol has no input data")
            symbol = graph.to_json()
        return cls(symbol, factory, inputs, plain["output"])


_FIELDS = {"symbol", "factory", "output", "color", "mean", "std", "image_size"}


def architecture_of(
    network: str | None, symbol: str | None, embedding_size: int, image_size: tuple[int, int]
) -> Architecture:
    """The network that the settings of a training name, for images of this size."""
    if symbol is not None:
        return Architecture(_embedding_in(Path(symbol)).to_json(), None, replace(AS_DECODED, size=image_size))
    assert network is not None
    if not network.startswith("torch:"):
        graph = network_of(network, image_size, embedding_size)
        return Architecture(graph.to_json(), None, replace(AS_DECODED, size=image_size))
    target, options = split_options("torch", network.removeprefix("torch:"), (*OPTIONS, "output"))
    inputs = Inputs(**given(options))
    if inputs.size not in (None, image_size):
        assert inputs.size is not None
        wanted, found = ("{} x {}".format(*size) for size in (inputs.size, image_size))
        raise ValueError(f"{network!r} takes images of {wanted} (H x W), and the dataset has {found}")
    return Architecture(None, target, replace(inputs, size=image_size), options.get("output"))


def made_by(spec: str, target: str) -> nn.Module:
    """The module that ``PACKAGE.MODULE:FACTORY`` makes, or that has this name."""
    found = find_object(spec, target)
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise SpecError(f"{spec!r}: {target} is a {type(found).__name__}, not a function or a Module")
    found = make(spec, found)
    if not isinstance(found, nn.Module):
        raise SpecError(f"{spec!r}: {target}() returns a {type(found).__name__}, not a torch.nn.Module")
    return found


def _embedding_in(path: Path) -> Symbol:
    """The graph of a file up to its embedding, (B, D)."""
    graph = read_symbol(path)
    # Without a file of weights, each input that is neither the image nor a label is a weight.
    params = [name for name in graph.arguments() if name != "data" and not name.endswith("label")]
    try:
        if find_data(graph, params) != "data":
            raise ValueError("the input for images must be called data")
        output = find_embedding(graph, data="data", params=params)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. {_SAVE_WITHOUT_LOSS}") from error
    graph = graph.up_to(output)
    # (B, D, 1, 1) counts as (B, D), which stays as it is.
    flat = Node("Flatten", "flatten_of_embedding", {}, graph.heads)
    return Symbol((*graph.nodes, flat), (Entry(len(graph.nodes), 0),))


def write_network(prefix: str, architecture: Architecture, network: nn.Module) -> None:
    """Write ``PREFIX.json`` and ``PREFIX.safetensors``, which appear when both are complete."""
    from safetensors.torch import save  # noqa: PLC0415  an extra

    plain = {"format": _FORMAT, "version": _VERSION, **architecture.to_dict()}
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":")) + "\n"
    state = {
        name: values.detach().cpu().contiguous().clone() for name, values in network.state_dict().items()
    }
    described, weights = _files_of(prefix)
    with opened(described, weights, overwrite=True) as (first, second):
        with naming(first):
            first.unfinished.write_text(text, encoding="utf-8")
        with naming(second):
            second.unfinished.write_bytes(save(state))  # save_file would make another file, with mode 0600
        publish(first, second)


def exists(prefix: str) -> bool:
    """Whether one of the two files is there."""
    return any(path.exists() for path in _files_of(prefix))


def read_network(prefix: str | os.PathLike[str]) -> tuple[Architecture, nn.Module]:
    """Read a trained network from its two files; the module is in evaluation mode, on the CPU."""
    described, weights = _files_of(prefix)
    for path in (described, weights):
        if not path.is_file():
            raise FileNotFoundError(f"no network at {prefix}: {path} is missing")
    try:
        plain = json.loads(described.read_bytes())
        if not isinstance(plain, dict) or plain.pop("format", None) != _FORMAT:
            raise ValueError(describe_wrong_file(described, "the description of a network that was trained"))
        if (version := plain.pop("version", None)) != _VERSION:
            raise ValueError(
                f"{described} has the version {version!r}, and this fasttriplet reads {_VERSION}"
            )
        architecture = Architecture.from_dict(plain)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{described} is damaged: {error}") from error
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(str(described)) else f"{described}: {text}") from error
    numbers = sum(values.numel() for values in read_state(weights).values())
    try:
        network = architecture.make(numbers=2 * numbers)  # gammas that are fixed at 1 are not in the file
    except ValueError as error:
        raise ValueError(f"{described}: {error}") from error
    load_state(network, weights)
    return architecture, network.eval()


def load_network(prefix: str | os.PathLike[str]) -> nn.Module:
    """Load a network that :func:`fasttriplet.training.train_rec` trained with PyTorch.

    Networks by name and symbols of MXNet are modules as :func:`from_mxnet` makes them, and take images
    (B, 3, H, W) of float32 with RGB from 0 to 255. A network that a function makes is made by that function,
    of the module that was named for the training, and takes what it took then: ``(pixel - mean) / std``.

    Parameters
    ----------
    prefix : path
        Path without ``.json`` and ``.safetensors``.

    Returns
    -------
    torch.nn.Module
        In evaluation mode, on the CPU. It returns the embeddings, (B, D), not normalised, or all outputs of a
        network that has several.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ImportError
        If safetensors is not installed, or the module with the function cannot be imported.
    ValueError
        If a file is damaged, the files do not fit each other, or the function fails.

    Examples
    --------
    >>> from fasttriplet.torch import load_network
    >>> module = load_network("models/face-best")  # doctest: +SKIP
    """
    return read_network(prefix)[1]


def _files_of(prefix: str | os.PathLike[str]) -> tuple[Path, Path]:
    first, second = (Path(f"{os.fspath(prefix)}{ending}") for ending in ENDINGS)
    return first, second


def check_safetensors() -> None:
    """Raise an ImportError if the package for files of weights is missing."""
    try:
        import safetensors.torch  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        raise ImportError(
            f"weights are files of safetensors, which is not installed. {how_to_install('torch')}",
            name="safetensors",
        ) from error
