"""Finds the embedding in a network that was saved with its losses and labels."""

from __future__ import annotations

import difflib
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

# Operators that may wrap an output without changing it.
_TRANSPARENT = {"BlockGrad", "stop_gradient", "identity", "_copy"}
_LOSSES = {
    "CTCLoss",
    "IdentityAttachKLSparseReg",
    "LinearRegressionOutput",
    "LogisticRegressionOutput",
    "MAERegressionOutput",
    "MakeLoss",
    "SVMOutput",
    "Softmax",
    "SoftmaxActivation",
    "SoftmaxOutput",
    "log_softmax",
    "make_loss",
    "softmax",
    "softmax_cross_entropy",
}
# Operators that end the way back from a loss. Losses are built of others: differences, sums, slices, relu,
# the L2 normalisation of triplet losses.
_LAYERS = {
    "BatchNorm",
    "Concat",
    "Convolution",
    "Deconvolution",
    "Dropout",
    "Flatten",
    "FullyConnected",
    "InstanceNorm",
    "LayerNorm",
    "LeakyReLU",
    "Pooling",
    "flatten",
}


def find_data(symbol: Any, params: Collection[str]) -> str:
    """Find the name of the network's image input.

    Parameters
    ----------
    symbol : mxnet.symbol.Symbol
        The network.
    params : collection of str
        Names that are weights.

    Returns
    -------
    str
        ``"data"`` where there is such an input, else the only input that is neither a weight nor a label.

    Raises
    ------
    ValueError
        If there is no such input, or more than one.
    """
    inputs = [name for name in symbol.list_arguments() if name not in params]
    if "data" in inputs:
        return "data"
    plausible = [name for name in inputs if not name.endswith("label")]
    if len(plausible) == 1:
        return str(plausible[0])
    found = ", ".join(inputs) or "none"
    raise ValueError(f"the network has no input called 'data'; its inputs without weights are: {found}")


def find_embedding(symbol: Any, *, data: str, params: Collection[str], wanted: str | None = None) -> str:
    """Find the name of the embedding output among all the outputs inside a network.

    It is the first of these that exists: the output that is asked for; the only output of the network that is
    neither a loss nor made of labels (among several, ``fc1``, InsightFace's name of the embedding); ``fc1``
    anywhere inside; the layer from which the loss is computed.

    Parameters
    ----------
    symbol : mxnet.symbol.Symbol
        The network.
    data : str
        Name of the image input.
    params : collection of str
        Names that are weights; other variables, except `data`, are labels.
    wanted : str, optional
        Name of an output, with or without ``_output`` at its end.

    Returns
    -------
    str
        Name of one of ``symbol.get_internals()``.

    Raises
    ------
    ValueError
        If `wanted` does not exist or depends on a label, or if nothing is wanted and several outputs may be
        the embedding; lists the candidates.
    """
    graph = _Graph(symbol, data, set(params))
    if wanted is not None:
        return graph.named(wanted)
    ends = {graph.unwrapped(end) for end in graph.ends}
    plain = [node for node in ends if not graph.is_loss(node) and graph.is_embedding(node)]
    fc1 = [
        node
        for node in plain or range(len(graph.nodes))
        if graph.name(node) == "fc1" and graph.is_embedding(node)
    ]
    found = fc1 or plain or graph.layers_before(node for node in ends if graph.is_loss(node))
    if len(found) != 1:
        raise ValueError(
            "cannot tell which output of the network is the embedding; choose one with output=NAME. "
            f"Candidates: {', '.join(graph.name(node) for node in graph.candidates(found))}"
        )
    return graph.output_of(found[0])


class _Graph:
    """The nodes of a symbol, by their number in its JSON form: inputs always precede what uses them."""

    def __init__(self, symbol: Any, data: str, params: set[str]) -> None:
        graph = json.loads(symbol.tojson())
        self.nodes: list[dict[str, Any]] = graph["nodes"]
        self.ends: list[int] = [head[0] for head in graph["heads"]]
        self.outputs: list[str] = symbol.get_internals().list_outputs()
        self._data = data
        self._fed = {data} | (self._labels() - params)

    def _labels(self) -> set[str]:
        """Names of labels; other variables that the file of weights lacks are missing weights."""
        variables = {n for n in range(len(self.nodes)) if self.op(n) == "null"}
        of_losses = {
            node for n in range(len(self.nodes)) if self.op(n) in _LOSSES for node in self.inputs(n)[1:2]
        }
        return {self.name(n) for n in variables if n in of_losses or self.name(n).endswith("label")}

    def op(self, node: int) -> str:
        return str(self.nodes[node]["op"])

    def name(self, node: int) -> str:
        return str(self.nodes[node]["name"])

    def inputs(self, node: int) -> list[int]:
        return [entry[0] for entry in self.nodes[node]["inputs"]]

    @cached_property
    def _needs(self) -> list[frozenset[str]]:
        """For each node, which of `data` and the labels it is computed from."""
        needs: list[frozenset[str]] = []
        for node, fields in enumerate(self.nodes):
            if fields["op"] == "null":
                needs.append(frozenset({fields["name"]} & self._fed))
            else:
                needs.append(frozenset().union(*(needs[one] for one in self.inputs(node))))
        return needs

    def is_embedding(self, node: int) -> bool:
        """Whether the node is computed from the images and nothing else."""
        return self.op(node) != "null" and self._needs[node] == {self._data}

    def is_loss(self, node: int) -> bool:
        labels = self._needs[node] - {self._data}
        return self.op(node) != "null" and (self.op(node) in _LOSSES or bool(labels))

    def unwrapped(self, node: int) -> int:
        while self.op(node) in _TRANSPARENT:
            node = self.inputs(node)[0]
        return node

    def layers_before(self, losses: Iterable[int]) -> list[int]:
        """Walk from the losses towards the images, as far as the first layers on every way."""
        found, seen, ahead = set(), set(), [self.inputs(loss)[0] for loss in losses]
        while ahead:
            node = ahead.pop()
            if node in seen:
                continue
            seen.add(node)
            if self.op(node) in _LAYERS and self.is_embedding(node):
                found.add(node)
            else:
                ahead += self.inputs(node)
        return sorted(found)

    def candidates(self, found: Collection[int]) -> list[int]:
        """List the nodes that a user may choose: those that were found, else the last layers."""
        layers = [n for n in range(len(self.nodes)) if self.op(n) in _LAYERS and self.is_embedding(n)]
        return sorted(found) if found else layers[-8:]

    def output_of(self, node: int) -> str:
        return self.named(self.name(node))

    def named(self, wanted: str) -> str:
        matches = [name for name in (wanted, f"{wanted}_output", f"{wanted}_output0") if name in self.outputs]
        # Variables are among the inner outputs, too, under their bare names.
        variables = {fields["name"] for fields in self.nodes if fields["op"] == "null"}
        matches = [name for name in matches if name not in variables]
        if not matches:
            known = [name.removesuffix("_output") for name in self.outputs if name not in variables]
            close = difflib.get_close_matches(wanted, known, n=5) or known[-5:]
            raise ValueError(
                f"the network has no output {wanted!r}; it has, among {len(known)}: {', '.join(close)}"
            )
        nodes = {self.name(node): node for node in range(len(self.nodes))}
        node = nodes.get(matches[0].rpartition("_output")[0])
        needs = frozenset({self._data}) if node is None else self._needs[node]
        if needs != {self._data}:
            from_what = ", ".join(sorted(needs)) or "weights only"
            raise ValueError(
                f"output {wanted!r} is computed from {from_what}; an embedding needs the images alone"
            )
        return matches[0]
