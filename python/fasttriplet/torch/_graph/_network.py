"""``ConvertedNetwork``, the class of converted networks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any

from numpy.typing import NDArray
from torch.fx.node import map_aggregate, map_arg

import torch
from torch import fx, nn

OPERATOR = "operator"  # in the meta of a node of the graph: what MXNet's node is, for errors
# Their messages do not depend on an operator; PyTorch before 2.8 has no AcceleratorError.
_OF_THE_DEVICE: tuple[type[Exception], ...] = (
    torch.cuda.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.cuda.OutOfMemoryError),
)  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """What is needed besides the module to write it as a checkpoint of MXNet.

    Attributes
    ----------
    symbol : str
        The network up to its outputs, as JSON.
    places : mapping of str to (str, shape)
        For each name in ``state_dict()`` that is a weight of MXNet: its name in MXNet, and its shape.
    kept : mapping of str to array
        Weights that have no place in the module, such as a stored gamma where MXNet uses 1.
    """

    symbol: str
    places: Mapping[str, tuple[str, tuple[int, ...]]]
    kept: Mapping[str, NDArray[Any]]


class ConvertedNetwork(fx.GraphModule):  # type: ignore[misc, unused-ignore]
    """A graph module that knows where it came from, and keeps that when it is copied or pickled.

    Copies and pickles hold the graph as data. PyTorch's own way is to trace the code when a pickle is loaded,
    and meanwhile it replaces methods of ``nn.Module`` for the whole process, also for other threads.
    """

    origin: Origin

    def __init__(self, root: nn.Module, graph: fx.Graph, class_name: str = "ConvertedNetwork") -> None:
        super().__init__(root, graph, class_name)  # which gives each module a class of its own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs; a ValueError names the node of MXNet whose operator fails for these images."""
        if torch.compiler.is_compiling():
            return super().__call__(*args, **kwargs)
        try:
            return super().__call__(*args, **kwargs)
        except _OF_THE_DEVICE:
            raise
        except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
            failed = self._failed(error)
            if failed is None:
                raise
            kind = MemoryError if "can't allocate memory" in str(error) else ValueError
            raise kind(f"{failed}: {error}") from error

    def _failed(self, error: Exception) -> str | None:
        """Describe the node that an error came from, by the line of the generated code."""
        for frame, line in walk_tb(error.__traceback__):
            if frame.f_code is type(self).forward.__code__:
                result = self.code.splitlines()[line - 1].partition("=")[0].strip()
                found = (node.meta.get(OPERATOR) for node in self.graph.nodes if node.name == result)
                return next(found, None)
        return None

    def __copy__(self) -> ConvertedNetwork:
        state, flat = self._parts()
        # The same layers and parameters; DataParallel puts others into the dicts of such copies.
        own = {name: value.copy() if isinstance(value, dict) else value for name, value in state.items()}
        return _restored(own, flat)

    def __deepcopy__(self, memo: dict[int, Any]) -> ConvertedNetwork:
        state, flat = self._parts()
        copied = memo[id(self)] = _restored(copy.deepcopy(state, memo), flat)
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, self._parts()

    def _parts(self) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
        state = {name: value for name, value in self.__dict__.items() if name not in ("_graph", "_code")}
        return state, [_flat(node) for node in self.graph.nodes]


@dataclass(frozen=True)
class _Result:
    """Stands for a node in a list of nodes, by its name."""

    name: str


def _flat(node: fx.Node) -> tuple[Any, ...]:
    def stand_in(used: fx.Node) -> Any:
        return _Result(used.name)

    args, kwargs = (map_arg(given, stand_in) for given in (node.args, node.kwargs))
    return node.op, node.target, args, kwargs, node.name, node.meta.get(OPERATOR)


def _restored(state: dict[str, Any], flat: list[tuple[Any, ...]]) -> ConvertedNetwork:
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}

    def found(given: Any) -> Any:
        return nodes[given.name] if isinstance(given, _Result) else given

    for op, target, args, kwargs, name, operator in flat:
        given = map_aggregate(args, found), map_aggregate(kwargs, found)
        nodes[name] = graph.create_node(op, target, *given, name)
        if operator is not None:
            nodes[name].meta[OPERATOR] = operator
    root = nn.Module()
    root.__dict__.update(state)
    module = ConvertedNetwork(root, graph)
    module.__dict__.update(state)
    return module
