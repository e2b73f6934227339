"""The module that a converted network is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from torch.fx.node import map_aggregate, map_arg

from torch import fx, nn


@dataclass(frozen=True)
class Origin:
    """What the way back to MXNet needs besides the module.

    Attributes
    ----------
    symbol : str
        The network up to its outputs, as JSON.
    places : mapping of str to (str, shape)
        For each name in ``state_dict()`` that is a weight of MXNet, its name there, and its shape.
    kept : mapping of str to array
        Weights that have no place in the module: a gamma that is fixed at 1, whatever is stored.
    """

    symbol: str
    places: Mapping[str, tuple[str, tuple[int, ...]]]
    kept: Mapping[str, NDArray[Any]]


class ConvertedNetwork(fx.GraphModule):  # type: ignore[misc, unused-ignore]
    """A graph module that knows where it came from, and keeps that when it is copied or pickled.

    It pickles its graph as data. PyTorch's own way, to trace the code when it is loaded, replaces methods of
    ``nn.Module`` for the whole process meanwhile, so no other thread may use a module then.
    """

    origin: Origin

    def __deepcopy__(self, memo: dict[int, Any]) -> ConvertedNetwork:
        copied: Any = super().__deepcopy__(memo)
        copied.origin = self.origin
        return copied  # type: ignore[no-any-return]

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value for name, value in self.__dict__.items() if name not in ("_graph", "_code")}
        return _restored, (state, [_flat(node) for node in self.graph.nodes])


@dataclass(frozen=True)
class _Result:
    """Stands for the node with this name."""

    name: str


def _flat(node: fx.Node) -> tuple[Any, ...]:
    def stand_in(used: fx.Node) -> Any:
        return _Result(used.name)

    args, kwargs = (map_arg(given, stand_in) for given in (node.args, node.kwargs))
    return node.op, node.target, args, kwargs, node.name


def _restored(state: dict[str, Any], flat: list[tuple[Any, ...]]) -> ConvertedNetwork:
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}

    def found(given: Any) -> Any:
        return nodes[given.name] if isinstance(given, _Result) else given

    for op, target, args, kwargs, name in flat:
        given = map_aggregate(args, found), map_aggregate(kwargs, found)
        nodes[name] = graph.create_node(op, target, *given, name)
    root = nn.Module()
    root.__dict__.update(state)
    module = ConvertedNetwork(root, graph)
    module.__dict__.update(state)
    return module
