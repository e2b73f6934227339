"""Finds the embedding in a network that was saved with its losses and labels."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Sequence

from fasttriplet.checkpoint._symbol import Entry, Symbol

# Operators that may wrap an output without changing it.
_TRANSPARENT = {"BlockGrad", "stop_gradient", "identity", "_copy"}
_LOSSES = {
    "CTCLoss", "IdentityAttachKLSparseReg", "LinearRegressionOutput", "LogisticRegressionOutput",
    "MAERegressionOutput", "MakeLoss", "SVMOutput", "Softmax", "SoftmaxActivation", "SoftmaxOutput",
    "log_softmax", "make_loss", "softmax", "softmax_cross_entropy",
}  # fmt: skip
# Operators that end the way back from a loss. Losses are built of others: differences, sums, slices, relu,
# the L2 normalisation of triplet losses.
_LAYERS = {
    "BatchNorm", "Concat", "Convolution", "Deconvolution", "Dropout", "Flatten", "FullyConnected",
    "InstanceNorm", "LayerNorm", "LeakyReLU", "Pooling", "flatten",
}  # fmt: skip


def find_data(symbol: Symbol, params: Collection[str]) -> str:
    """Find the name of the network's image input; `params` are names of weights.

    It is ``"data"`` where there is such an input, else the only input that is neither a weight nor a label; a
    ValueError if there is no such input, or more than one.
    """
    inputs = [name for name in symbol.arguments() if name not in params]
    if "data" in inputs:
        return "data"
    plausible = [name for name in inputs if not name.endswith("label")]
    if len(plausible) == 1:
        return plausible[0]
    found = ", ".join(inputs) or "none"
    raise ValueError(f"the network has no input called 'data'; its inputs without weights are: {found}")


def find_embedding(symbol: Symbol, *, data: str, params: Collection[str], wanted: str | None = None) -> Entry:
    """Find the embedding among all the outputs inside a network.

    It is the first of these that exists: the output that is asked for; the only output of the network that is
    neither a loss nor made of labels (among several, ``fc1``, InsightFace's name of the embedding); ``fc1``
    anywhere inside; the layer from which the loss is computed.

    Parameters
    ----------
    symbol : Symbol
    data : str
        Name of the image input.
    params : collection of str
        Names that are weights; other variables, except `data`, are labels.
    wanted : str, optional
        Name of an output, with or without ``_output`` at its end.

    Returns
    -------
    Entry
        ``symbol.name_of`` names it, ``symbol.up_to`` cuts out the network that leads to it.

    Raises
    ------
    ValueError
        If `wanted` does not exist or depends on a label, or if nothing is wanted and several outputs may be
        the embedding; lists the candidates.
    """
    graph = _Graph(symbol, data, params)
    if wanted is not None:
        return graph.output(wanted)
    ends = {graph.unwrapped(end) for end in graph.ends}
    plain = [node for node in ends if not graph.is_loss(node) and graph.is_embedding(node)]
    fc1 = [
        node
        for node in plain or range(len(graph.names))
        if graph.names[node] == "fc1" and graph.is_embedding(node)
    ]
    found = fc1 or plain or graph.layers_before(node for node in ends if graph.is_loss(node))
    if len(found) != 1:
        raise ValueError(
            "cannot tell which output of the network is the embedding; choose one with output=NAME. "
            f"Candidates: {', '.join(graph.names[node] for node in sorted(found) or graph.layers()[-8:])}"
        )
    return Entry(found[0], 0)


def is_embedding(shape: Sequence[int], images: int) -> bool:
    """Whether an output of this shape has a vector for each of the images; (B, D, 1, 1) counts as (B, D)."""
    return len(shape) > 1 and shape[0] == images and shape[1] > 0 and math.prod(shape[2:]) == 1


class _Graph:
    """The nodes of a symbol by their number."""

    def __init__(self, symbol: Symbol, data: str, params: Collection[str]) -> None:
        self.ends: list[int] = [head.node for head in symbol.heads]
        self.names: list[str] = [node.name for node in symbol.nodes]
        self._ops: list[str] = [node.op for node in symbol.nodes]
        self._inputs: list[list[int]] = [[entry.node for entry in node.inputs] for node in symbol.nodes]
        # Variables are among the inner outputs, too, under their bare names.
        variables = {node.name for node in symbol.nodes if node.is_variable}
        self._outputs = {name: entry for entry, name in symbol.entries() if name not in variables}
        # Other variables that the file of weights lacks are missing weights.
        of_losses = {
            self.names[node]
            for op, inputs in zip(self._ops, self._inputs, strict=True)
            for node in inputs[1:2]
            if op in _LOSSES
        }
        labels = {name for name in variables if name in of_losses or name.endswith("label")}
        self._images = frozenset({data})
        fed = self._images | labels.difference(params)
        # For each node, which of `data` and the labels it is computed from.
        self._needs: list[frozenset[str]] = []
        for name, op, inputs in zip(self.names, self._ops, self._inputs, strict=True):
            needs = [{name} & fed] if op == "null" else [self._needs[node] for node in inputs]
            self._needs.append(frozenset().union(*needs))

    def is_embedding(self, node: int) -> bool:
        """Whether the node is computed from the images and nothing else."""
        return self._ops[node] != "null" and self._needs[node] == self._images

    def is_loss(self, node: int) -> bool:
        op = self._ops[node]
        return op != "null" and (op in _LOSSES or bool(self._needs[node] - self._images))

    def unwrapped(self, node: int) -> int:
        while self._ops[node] in _TRANSPARENT:
            node = self._inputs[node][0]
        return node

    def layers(self) -> list[int]:
        return [n for n, op in enumerate(self._ops) if op in _LAYERS and self.is_embedding(n)]

    def layers_before(self, losses: Iterable[int]) -> list[int]:
        """Walk from the losses towards the images, as far as the first layers on every way."""
        layers, seen, ahead = set(self.layers()), set(), [self._inputs[loss][0] for loss in losses]
        while ahead:
            node = ahead.pop()
            if node not in seen and node not in layers:
                ahead += self._inputs[node]
            seen.add(node)
        return sorted(seen & layers)

    def output(self, wanted: str) -> Entry:
        """The output that is called so, if it is computed from the images alone."""
        names = (wanted, f"{wanted}_output", f"{wanted}_output0")
        found = next((self._outputs[name] for name in names if name in self._outputs), None)
        if found is None:
            known = [name.removesuffix("_output") for name in self._outputs]
            close = difflib.get_close_matches(wanted, known, n=5) or known[-5:]
            raise ValueError(
                f"the network has no output {wanted!r}; it has, among {len(known)}: {', '.join(close)}"
            )
        needs = self._needs[found.node]
        if needs != self._images:
            from_what = ", ".join(sorted(needs)) or "weights only"
            raise ValueError(
                f"output {wanted!r} is computed from {from_what}; an embedding needs the images alone"
            )
        return found
