"""What a network in training is without its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fasttriplet._checks import MOST_PIXELS
from fasttriplet._checks import image_size as checked_size
from fasttriplet.checkpoint._networks import network_of
from fasttriplet.checkpoint._outputs import read_up_to_embedding
from fasttriplet.checkpoint._symbol import Entry, Node, Symbol, parse_symbol
from fasttriplet.embedders._inputs import AS_DECODED, OPTIONS, Inputs, given, three
from fasttriplet.embedders._objects import find_object, make
from fasttriplet.embedders._spec import split_options
from fasttriplet.errors import SpecError
from fasttriplet.torch._graph._initial import untrained
from fasttriplet.torch._reproducible import drawing_from
from torch import nn


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
    graph = read_up_to_embedding(path)
    # (B, D, 1, 1) counts as (B, D), which stays as it is.
    flat = Node("Flatten", "flatten_of_embedding", {}, graph.heads)
    return Symbol((*graph.nodes, flat), (Entry(len(graph.nodes), 0),))
