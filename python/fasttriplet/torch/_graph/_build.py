"""Converts a graph, node by node."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from fasttriplet.checkpoint._operators import states_of
from fasttriplet.checkpoint._symbol import Entry, Node, Symbol
from fasttriplet.torch._graph._arithmetic import CASTS, TYPES
from fasttriplet.torch._graph._assembly import Assembly, Weights
from fasttriplet.torch._graph._attributes import Attributes
from fasttriplet.torch._graph._network import ConvertedNetwork, Origin
from fasttriplet.torch._graph._operator import Operator, Weight
from fasttriplet.torch._graph._operators import LAYERS, OPERATORS
from torch import fx, nn

# Called before a node is converted, with the results that are its inputs (None for weights) and the module.
Fill = Callable[[Node, Sequence[fx.Node | None], nn.Module], None]


def build(symbol: Symbol, data: str, weights: Weights, fill: Fill | None = None) -> ConvertedNetwork:
    """Convert a network to a module.

    Parameters
    ----------
    symbol : Symbol
        With only the nodes that its outputs need. If it has several outputs, the module returns a tuple.
    data : str
        Name of the variable for the images; all other variables are weights.
    weights : mapping of str to array
        Weights and running statistics by their names, without ``arg:`` and ``aux:``.
    fill : callable, optional
        Adds the weights of a node that are not there yet.

    Raises
    ------
    ValueError
        If an operator or one of its attributes cannot be converted, or a weight has another shape than its
        layer; names the node.
    """
    assembly = Assembly(weights, {*dir(ConvertedNetwork(nn.Module(), fx.Graph())), "origin"})
    keys, types = _keys(symbol, data), _types(symbol, data)
    values: dict[Entry, fx.Node] = {}

    def given(entry: Entry) -> fx.Node | Weight:
        name = symbol.nodes[entry.node].name
        return values[entry] if entry in values else Weight(name, weights[name], types[entry.node])

    for number, node in enumerate(symbol.nodes):
        if node.is_variable:
            if node.name == data:
                values[Entry(number, 0)] = assembly.placeholder(data)
            continue
        with torch.device("cpu"):  # where the weights are, whatever PyTorch's default device is
            if fill is not None:
                fill(node, [values.get(entry) for entry in node.inputs], assembly.root)
            inputs = [given(_checked(entry, symbol, values)) for entry in node.inputs]
            outputs = _converted(node, inputs, keys.get(number, number), types[number], assembly)
        values |= {Entry(number, output): result for output, result in enumerate(outputs)}
    results = tuple(values[_checked(head, symbol, values)] for head in symbol.heads)
    assembly.graph.output(results[0] if len(results) == 1 else results)
    module = ConvertedNetwork(assembly.root, assembly.graph)
    variables = {node.name for node in symbol.nodes if node.is_variable} - {data, *assembly.places}
    places = {place: (name, weights[name].shape) for name, place in assembly.places.items()}
    module.origin = Origin(symbol.to_json(), places, {name: weights[name] for name in variables})
    return module


def _converted(
    node: Node, inputs: Sequence[fx.Node | Weight], key: object, dtype: torch.dtype, assembly: Assembly
) -> Sequence[fx.Node]:
    attributes = Attributes(node.name, node.op, node.attributes)
    if node.op not in OPERATORS:
        close = difflib.get_close_matches(node.op, OPERATORS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise attributes.error(f"the operator cannot be converted{hint}")
    owns_weights = not isinstance(key, int)
    op = Operator(node.op, node.name, attributes, inputs, owns_weights, key, dtype, assembly)
    result = OPERATORS[node.op](op)
    op.finish()
    return [result] if isinstance(result, fx.Node) else result


def _checked(entry: Entry, symbol: Symbol, values: dict[Entry, fx.Node]) -> Entry:
    node = symbol.nodes[entry.node]
    if entry not in values and (entry.output or not node.is_variable):
        raise ValueError(
            f"node {node.name!r} ({node.op}): its output {entry.output} is used, which cannot be converted"
        )
    return entry


def _types(symbol: Symbol, data: str) -> list[torch.dtype]:
    """Find the type of each node: images are float32, and a weight has that of the data it is used with."""
    found: list[torch.dtype | None] = []
    for node in symbol.nodes:
        if node.op in CASTS:
            found.append(TYPES.get(node.attributes.get("dtype", "")))
        elif node.is_variable:
            found.append(torch.float32 if node.name == data else None)
        else:
            found.append(next(filter(None, (found[entry.node] for entry in node.inputs)), None))
    for number in reversed(range(len(found))):
        node, dtype = symbol.nodes[number], found[number]
        for place, entry in enumerate(node.inputs):
            # MXNet keeps the weights of a float16 normalisation in float32.
            single = place > 0 and dtype is torch.float16 and bool(states_of(node.op))
            if found[entry.node] is None and node.op not in CASTS:
                found[entry.node] = torch.float32 if single else dtype
    return [dtype if dtype is not None and dtype.is_floating_point else torch.float32 for dtype in found]


def _keys(symbol: Symbol, data: str) -> dict[int, object]:
    """Find the nodes that own their weights. Those with the same key are one sub-module.

    A node owns its weights if no other node uses them, except the same layer, called again with other data.
    If one of them is used elsewhere, all of them become parameters of the whole module.
    """
    weights = {number for number, node in enumerate(symbol.nodes) if node.is_variable and node.name != data}
    keys: dict[int, object] = {}
    users: dict[str, set[object]] = defaultdict(set)
    for number, node in enumerate(symbol.nodes):
        names = [symbol.nodes[entry.node].name for entry in node.inputs]
        key: object = number
        if node.op in LAYERS and len(names) > 1 and all(entry.node in weights for entry in node.inputs[1:]):
            key = keys[number] = (node.op, tuple(sorted(node.attributes.items())), tuple(names[1:]))
        for name, entry in zip(names, node.inputs, strict=True):
            if entry.node in weights:
                users[name].add(key if entry in node.inputs[1:] else (number, "data"))
    return {
        number: key
        for number, key in keys.items()
        if all(len(users[symbol.nodes[entry.node].name]) == 1 for entry in symbol.nodes[number].inputs[1:])
    }
