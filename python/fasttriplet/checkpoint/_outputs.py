"""Finds the embedding in a network that was saved with its losses and labels."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path

from fasttriplet.checkpoint._symbol import Entry, Symbol, read_symbol

SAVE_WITHOUT_LOSS = "For a training, save the symbol with the embedding as its only output"

# Operators that return their input unchanged.
_TRANSPARENT = {"BlockGrad", "stop_gradient", "identity", "_copy"}
_LOSSES = {
    "CTCLoss", "IdentityAttachKLSparseReg", "LinearRegressionOutput", "LogisticRegressionOutput",
    "MAERegressionOutput", "MakeLoss", "SVMOutput", "Softmax", "SoftmaxActivation", "SoftmaxOutput",
    "log_softmax", "make_loss", "softmax", "softmax_cross_entropy",
}  # fmt: skip
# The search from a loss towards the images ends at these. Losses are built of other operators: differences,
# sums, slices, relu, and the L2 normalisation of triplet losses.
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

    The first of these that exists is taken: the output that is asked for; the only output of the network
    that is neither a loss nor computed from labels (among several, ``fc1``, which is InsightFace's name of
    the embedding); ``fc1`` anywhere inside; the layer from which the loss is computed.

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
    ends = graph.ends()
    plain = [end for end in ends if not graph.is_loss(end.node) and graph.is_embedding(end.node)]
    everywhere = [Entry(node, 0) for node in range(len(symbol.nodes))]
    fc1 = [
        entry
        for entry in plain or everywhere
        if symbol.nodes[entry.node].name == "fc1" and graph.is_embedding(entry.node)
    ]
    found = fc1 or plain or graph.layers_before(end.node for end in ends if graph.is_loss(end.node))
    if len(found) != 1:
        raise ValueError(
            "cannot tell which output of the network is the embedding; choose one with output=NAME. "
            f"Candidates: {', '.join(graph.short_name(entry) for entry in found or graph.layers()[-8:])}"
        )
    return found[0]


def read_up_to_embedding(path: Path) -> Symbol:
    """Read a symbol for a training, up to its embedding; its input must be called data."""
    graph = read_symbol(path)
    # Without a file of weights, each input that is neither the image nor a label is a weight.
    params = [name for name in graph.arguments() if name != "data" and not name.endswith("label")]
    try:
        if find_data(graph, params) != "data":
            raise ValueError("the input for images must be called data")
        return graph.up_to(find_embedding(graph, data="data", params=params))
    except ValueError as error:
        raise ValueError(f"{path}: {error}. {SAVE_WITHOUT_LOSS}") from error


class _Graph:
    """The nodes of a symbol by their number."""

    def __init__(self, symbol: Symbol, data: str, params: Collection[str]) -> None:
        self._symbol = symbol
        self._data = data
        self._ops: list[str] = [node.op for node in symbol.nodes]
        self._inputs: list[list[int]] = [[entry.node for entry in node.inputs] for node in symbol.nodes]
        variables = {node.name for node in symbol.nodes if node.is_variable}
        # Other variables that the file of weights lacks are missing weights.
        of_losses = {
            symbol.nodes[node].name
            for op, inputs in zip(self._ops, self._inputs, strict=True)
            for node in inputs[1:2]
            if op in _LOSSES
        }
        labels = {name for name in variables if name in of_losses or name.endswith("label")}
        self._labels = labels.difference(params, {data})
        # Whether each node is computed from the images, and from labels.
        self._of_images: list[bool] = []
        self._of_labels: list[bool] = []
        for node, inputs in zip(symbol.nodes, self._inputs, strict=True):
            of_images, of_labels = node.name == data, node.name in self._labels
            if not node.is_variable:
                of_images = any(self._of_images[source] for source in inputs)
                of_labels = any(self._of_labels[source] for source in inputs)
            self._of_images.append(of_images)
            self._of_labels.append(of_labels)

    def is_embedding(self, node: int) -> bool:
        """Whether the node is computed from the images and nothing else."""
        return self._ops[node] != "null" and self._of_images[node] and not self._of_labels[node]

    def is_loss(self, node: int) -> bool:
        op = self._ops[node]
        return op != "null" and (op in _LOSSES or self._of_labels[node])

    def ends(self) -> list[Entry]:
        """The outputs of the network, or what they wrap."""
        wrapped: dict[int, Entry] = {}
        for number, node in enumerate(self._symbol.nodes):
            if node.op in _TRANSPARENT and node.inputs:
                wrapped[number] = wrapped.get(node.inputs[0].node, node.inputs[0])
        return sorted({wrapped.get(head.node, head) for head in self._symbol.heads})

    def short_name(self, entry: Entry) -> str:
        return self._symbol.name_of(entry).removesuffix("_output")

    def layers(self) -> list[Entry]:
        return [Entry(n, 0) for n, op in enumerate(self._ops) if op in _LAYERS and self.is_embedding(n)]

    def layers_before(self, losses: Iterable[int]) -> list[Entry]:
        """Walk from the losses towards the images, up to the first layer on each path."""
        layers, seen = {layer.node for layer in self.layers()}, set()
        ahead = [node for loss in losses for node in self._inputs[loss][:1]]
        while ahead:
            node = ahead.pop()
            if node not in seen and node not in layers:
                ahead += self._inputs[node]
            seen.add(node)
        return [Entry(node, 0) for node in sorted(seen & layers)]

    def output(self, wanted: str) -> Entry:
        """Find an output by its name; it must be computed from the images alone."""
        outputs: dict[str, list[Entry]] = {}
        for name, entry in self._symbol.entries():
            if self._ops[entry.node] != "null":  # variables are among them under their bare names
                outputs.setdefault(name, []).append(entry)
        names = (wanted, f"{wanted}_output", f"{wanted}_output0")
        found = next((outputs[name] for name in names if name in outputs), [])
        if len(found) > 1:
            raise ValueError(
                f"the network has {len(found)} outputs {wanted!r}; their nodes have the same name"
            )
        if not found:
            known = [name.removesuffix("_output") for name in outputs]
            close = difflib.get_close_matches(wanted, known, n=5) or known[-5:]
            raise ValueError(
                f"the network has no output {wanted!r}; it has, among {len(known)}: {', '.join(close)}"
            )
        if not self.is_embedding(found[0].node):
            needs = {self._data, *self._labels}.intersection(self._symbol.up_to(found[0]).arguments())
            from_what = ", ".join(sorted(needs)) or "weights only"
            raise ValueError(
                f"output {wanted!r} is computed from {from_what}; an embedding needs the images alone"
            )
        return found[0]
