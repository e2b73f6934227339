"""The graph of a network, as ``PREFIX-symbol.json`` holds it, whatever MXNet wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fasttriplet._contents import describe_wrong_file, read_file
from fasttriplet.checkpoint._operators import INPUTS, output_names, states_of

# Versions are 10,000 * major + 100 * minor + patch.
_WRITTEN_AS = 10901
_WITHOUT_VERSION = 800  # MXNet 0.8 and older wrote none
_LISTS_STATES = 900
_AXIS_NONE = 905
_MOST_OUTPUTS = 1 << 16
# Keys that are not an operator's own. MXNet < 0.11 wrote them without the underscores, and those of an input
# with its name: weight_lr_mult.
_TRAINING = ("ctx_group", "lr_mult", "wd_mult", "force_mirroring", "mirror_stage")
_ANNOTATION = re.compile(r"__.*__", re.DOTALL)
_OLD_ANNOTATION = re.compile(rf"(?:(?P<input>.+)_)?(?P<key>{'|'.join(_TRAINING)})", re.DOTALL)


_T = TypeVar("_T")


class Entry(NamedTuple):
    """One output of one node."""

    node: int
    output: int


@dataclass(frozen=True)
class Node:
    """An operator with its inputs, or a variable.

    Attributes
    ----------
    op : str
        Name of the operator; ``"null"`` is a variable.
    name : str
    attributes : mapping of str to str
        The operator's own. Variables may have some, which old versions copied from an operator.
    inputs : tuple of Entry
        Outputs of nodes with lower numbers.
    annotations : mapping of str to str
        What does not change the outputs: ``__lr_mult__``, ``__ctx_group__``, ``__shape__``, ``__init__`` ...
    subgraphs : tuple of Symbol
        Bodies of loops and branches.
    """

    op: str
    name: str
    attributes: Mapping[str, str]
    inputs: tuple[Entry, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    subgraphs: tuple[Symbol, ...] = ()

    @property
    def is_variable(self) -> bool:
        """Whether it is an input of the network: an image, a weight, a running statistic or a label."""
        return self.op == "null"


@dataclass(frozen=True)
class Symbol:
    """A graph: the inputs of a node have lower numbers than the node, and `heads` are the graph's outputs."""

    nodes: tuple[Node, ...]
    heads: tuple[Entry, ...]

    def arguments(self) -> list[str]:
        """List the variables that are images, weights or labels, as ``list_arguments()`` of MXNet."""
        states = self._states()
        return [n.name for number, n in enumerate(self.nodes) if n.is_variable and number not in states]

    def auxiliary_states(self) -> list[str]:
        """List the variables that are running statistics, as ``list_auxiliary_states()`` of MXNet."""
        return [self.nodes[number].name for number in sorted(self._states())]

    def _states(self) -> set[int]:
        return {
            node.inputs[number].node
            for node in self.nodes
            for number in states_of(node.op)
            if number < len(node.inputs) and self.nodes[node.inputs[number].node].is_variable
        }

    def entries(self) -> Iterator[tuple[Entry, str]]:
        """Go through all outputs inside the graph with their names, as ``get_internals()`` of MXNet."""
        for number, node in enumerate(self.nodes):
            if node.is_variable:
                yield Entry(number, 0), node.name
            else:
                for output, ending in enumerate(output_names(node.op, node.attributes)):
                    yield Entry(number, output), f"{node.name}_{ending}" if node.name else ending

    def name_of(self, entry: Entry) -> str:
        """Name one output, such as ``"fc1_output"``."""
        node = self.nodes[entry.node]
        if node.is_variable:
            return node.name
        endings = output_names(node.op, node.attributes)
        ending = endings[entry.output] if entry.output < len(endings) else f"output{entry.output}"
        return f"{node.name}_{ending}" if node.name else ending

    def up_to(self, *heads: Entry) -> Symbol:
        """Cut out what is needed for these outputs; nodes get new numbers and keep their order."""
        needed, ahead = set(), [head.node for head in heads]
        while ahead:
            number = ahead.pop()
            if number not in needed:
                needed.add(number)
                ahead += [entry.node for entry in self.nodes[number].inputs]
        numbers = {old: new for new, old in enumerate(sorted(needed))}

        def moved(entries: Sequence[Entry]) -> tuple[Entry, ...]:
            return tuple(Entry(numbers[entry.node], entry.output) for entry in entries)

        nodes = (self.nodes[number] for number in numbers)
        return Symbol(tuple(replace(node, inputs=moved(node.inputs)) for node in nodes), moved(heads))

    def to_json(self) -> str:
        """Write the graph as MXNet 1.9.1 does; it loads there, and gives the same outputs."""
        graph = {**self._graph(), "attrs": {"mxnet_version": ["int", _WRITTEN_AS]}}
        return json.dumps(graph, ensure_ascii=False, indent=2)

    def _graph(self) -> dict[str, Any]:
        rows = [0]
        for node in self.nodes:
            rows.append(rows[-1] + (1 if node.is_variable else len(output_names(node.op, node.attributes))))
        return {
            "nodes": [_written(node) for node in self.nodes],
            "arg_nodes": [number for number, node in enumerate(self.nodes) if node.is_variable],
            "node_row_ptr": rows,
            "heads": [[*head, 0] for head in self.heads],
        }


def _written(node: Node) -> dict[str, Any]:
    written: dict[str, Any] = {"op": node.op, "name": node.name}
    if attributes := {**node.attributes, **node.annotations}:
        written["attrs"] = dict(sorted(attributes.items()))
    written["inputs"] = [[*entry, 0] for entry in node.inputs]
    if node.subgraphs:
        written["subgraphs"] = [symbol._graph() for symbol in node.subgraphs]
    return written


def read_symbol(path: Path) -> Symbol:
    """Read a network without its weights: a ValueError if the file holds none, or one that is damaged."""
    if not path.is_file():
        raise FileNotFoundError(f"no network at {path}")
    expected = "an MXNet symbol"
    try:
        return parse_symbol(read_file(path, expected).decode())
    except ValueError as error:
        raise ValueError(f"{describe_wrong_file(path, expected)}: {error}") from error


def parse_symbol(text: str) -> Symbol:
    """Read the JSON of a symbol; a ValueError says which node is wrong.

    Attributes are in ``attrs``, in ``attr`` or in ``param``, by the age of the file. What MXNet 1.9.1 changes
    in older graphs when it loads them is changed here, too: before 0.9, running statistics were not listed
    among the inputs of their operators, and ``axis=-1`` of argmax meant all axes before 0.9.5.
    """
    try:
        graph = json.loads(text, strict=False)  # MXNet writes control characters as they are
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    graph = _typed(graph, dict, "the file")
    version = _version(graph.get("attrs"))
    return _parsed(graph, version)


def _version(attributes: Any) -> int:
    found = attributes.get("mxnet_version") if isinstance(attributes, dict) else None
    if found is None:
        return _WITHOUT_VERSION
    if not (isinstance(found, list) and len(found) == 2 and isinstance(found[1], int)):
        raise ValueError(f'mxnet_version must be ["int", NUMBER], not {found!r:.100}')
    return found[1]


def _parsed(graph: Mapping[str, Any], version: int) -> Symbol:
    nodes: list[Node] = []
    numbers: list[
        int
    ] = []  # of the nodes of the file: states that it does not list come before their operator
    for position, found in enumerate(_typed(graph.get("nodes"), list, "nodes")):
        where = f"node {position}"
        fields = _typed(found, dict, where)
        name = _typed(fields.get("name"), str, f"the name of {where}")
        where += f" ({name:.100})"
        op = _typed(fields.get("op"), str, f"the operator of {where}")
        inputs = _entries(fields.get("inputs"), numbers, f"an input of {where}")
        attributes, annotations = _attributes(fields, where)
        if fields.get("control_deps"):
            raise ValueError(f"{where} waits for other nodes (control_deps), which is not supported")
        if version < _LISTS_STATES:
            for number, ending in states_of(op).items():
                if number == len(inputs):
                    inputs.append(Entry(len(nodes), 0))
                    nodes.append(Node("null", f"{name}_{ending}", {}, ()))
        if version < _AXIS_NONE and op in ("argmax", "argmin") and attributes.get("axis") == "-1":
            attributes["axis"] = "None"
        annotations = _renamed(annotations, inputs, nodes)
        subgraphs = _typed(fields.get("subgraphs", []), list, f"the subgraphs of {where}")
        bodies = tuple(_parsed(_typed(body, dict, f"a subgraph of {where}"), version) for body in subgraphs)
        numbers.append(len(nodes))
        nodes.append(Node(op, name, attributes, tuple(inputs), annotations, bodies))
    return Symbol(tuple(nodes), tuple(_entries(graph.get("heads"), numbers, "an output of the network")))


def _attributes(fields: Mapping[str, Any], where: str) -> tuple[dict[str, str], dict[str, str]]:
    """Tell an operator's own attributes from the rest."""
    attributes: dict[str, str] = {}
    annotations: dict[str, str] = {}
    for form in ("param", "attr", "attrs"):  # the oldest first
        for key, value in _typed(fields.get(form, {}), dict, f"{form} of {where}").items():
            _typed(value, str, f"attribute {key} of {where}")
            if _ANNOTATION.fullmatch(key) or _OLD_ANNOTATION.fullmatch(key):
                annotations[key] = value
            else:
                attributes[key] = value
    return attributes, annotations


def _renamed(found: Mapping[str, str], inputs: Sequence[Entry], nodes: list[Node]) -> dict[str, str]:
    """Give annotations their present names; those of an input go to its variable."""
    own = {}
    for key, value in found.items():
        match = _OLD_ANNOTATION.fullmatch(key)
        if match is None:
            own[key] = value
        elif match["input"] is None:
            own[f"__{match['key']}__"] = value
        else:
            number = INPUTS.get(match["input"], len(inputs))
            if number < len(inputs) and (variable := nodes[inputs[number].node]).is_variable:
                annotations = {**variable.annotations, f"__{match['key']}__": value}
                nodes[inputs[number].node] = replace(variable, annotations=annotations)
            else:
                own[key] = value
    return own


def _entries(found: Any, numbers: Sequence[int], what: str) -> list[Entry]:
    """Read ``[[node, output, version], ...]``; the nodes must have come before."""
    entries = []
    for entry in _typed(found, list, f"{what}: the list"):
        if not isinstance(entry, list) or len(entry) not in (2, 3) or not all(type(n) is int for n in entry):
            raise ValueError(f"{what} must be [node, output, version], not {entry!r:.100}")
        node, output = entry[:2]
        if not 0 <= node < len(numbers):
            raise ValueError(f"{what} is node {node}, which is not among the {len(numbers)} nodes before it")
        if not 0 <= output < _MOST_OUTPUTS:
            raise ValueError(f"{what} is output {output} of node {node}, which has no such output")
        entries.append(Entry(numbers[node], output))
    return entries


_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}


def _typed(value: Any, kind: type[_T], what: str) -> _T:
    if not isinstance(value, kind):
        raise ValueError(f"{what} must be {_KINDS[kind]}, not {value!r:.100}")
    return value
