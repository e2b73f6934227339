"""The graph of a network, as ``PREFIX-symbol.json`` holds it, whatever version of MXNet wrote it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fasttriplet._contents import describe_wrong_file
from fasttriplet.checkpoint._operators import INPUTS, initializers_of, output_names, states_of

# Versions are 10,000 * major + 100 * minor + patch. MXNet before 0.9 wrote none.
_WRITTEN_AS, _WITHOUT_ONE = 10901, 800
_STATES_ARE_LISTED, _INITIALIZERS_ARE_NOTED, _AXES_ARE_OPTIONAL = 900, 904, 905
_ANNOTATION = re.compile(r"__.*__", re.DOTALL)
# Their old names. Those of an input were attributes of its operator, such as weight_lr_mult.
_ONCE_AN_ANNOTATION = re.compile(
    r"(?:(?P<input>.+)_)?(?P<key>ctx_group|lr_mult|wd_mult|force_mirroring|mirror_stage)", re.DOTALL
)
# MXNet cannot read these, or not as they are written here.
_NO_TEXT = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
_MOST_OUTPUTS = 1 << 16  # of a node
_DEEPEST = 16  # levels of loops inside of loops
_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
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
        Those of the operator. Those of a variable mean nothing: MXNet copies them from the operator that
        uses it.
    inputs : tuple of Entry
        Outputs of nodes with lower numbers.
    annotations : mapping of str to str
        Attributes that do not change the outputs, such as ``__lr_mult__``, ``__ctx_group__``, ``__shape__``.
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
        """Whether it is an input of the network: images, weights, running statistics or labels."""
        return self.op == "null"

    def output_names(self) -> list[str]:
        """Name the outputs, such as ``["fc1_output"]``; a variable has one, with its own name."""
        if self.is_variable:
            return [self.name]
        endings = output_names(self.op, self.attributes)
        return [f"{self.name}_{ending}" if self.name else ending for ending in endings]


@dataclass(frozen=True)
class Symbol:
    """A graph: the inputs of a node have lower numbers than the node, and `heads` are the graph's outputs."""

    nodes: tuple[Node, ...]
    heads: tuple[Entry, ...]

    def arguments(self) -> list[str]:
        """List the variables that are images, weights or labels, as MXNet's ``list_arguments()``."""
        states = self._states()
        return [n.name for number, n in enumerate(self.nodes) if n.is_variable and number not in states]

    def auxiliary_states(self) -> list[str]:
        """List the variables that are running statistics, as MXNet's ``list_auxiliary_states()``."""
        return [self.nodes[number].name for number in sorted(self._states())]

    def _states(self) -> set[int]:
        sources = (
            node.inputs[number].node
            for node in self.nodes
            for number in states_of(node.op)
            if number < len(node.inputs)
        )
        return {source for source in sources if self.nodes[source].is_variable}

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Iterate over all outputs inside the graph with their names, as MXNet's ``get_internals()`` does."""
        for number, node in enumerate(self.nodes):
            for output, name in enumerate(node.output_names()):
                yield name, Entry(number, output)

    def name_of(self, entry: Entry) -> str:
        """Name one output, such as ``"fc1_output"``."""
        node = self.nodes[entry.node]
        names = node.output_names()
        return names[entry.output] if entry.output < len(names) else f"{node.name}_output{entry.output}"

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
        """Write the graph as MXNet 1.9.1 loads it, with one line per node."""
        parts = {**self._parts(), "attrs": {"mxnet_version": ["int", _WRITTEN_AS]}}
        nodes = ",\n".join(_json(node) for node in parts.pop("nodes"))
        rest = ",\n".join(f'"{key}": {_json(value)}' for key, value in parts.items())
        return f'{{\n"nodes": [\n{nodes}\n],\n{rest}\n}}\n'

    def _parts(self) -> dict[str, Any]:
        return {
            "nodes": [_written(node) for node in self.nodes],
            "arg_nodes": [number for number, node in enumerate(self.nodes) if node.is_variable],
            "heads": [[*head, 0] for head in self.heads],
        }


def _written(node: Node) -> dict[str, Any]:
    attributes, states = {**node.attributes, **node.annotations}, states_of(node.op)
    return {
        "op": node.op,
        "name": node.name,
        **({"attrs": dict(sorted(attributes.items()))} if attributes else {}),
        # The last number is how often the input was written before: once for running statistics.
        "inputs": [[*entry, int(number in states)] for number, entry in enumerate(node.inputs)],
        **({"subgraphs": [graph._parts() for graph in node.subgraphs]} if node.subgraphs else {}),
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # MXNet does not know \u


def read_symbol(path: Path) -> Symbol:
    """Read a network without its weights: a ValueError if the file holds none, or one that is damaged."""
    if not path.is_file():
        raise FileNotFoundError(f"no network at {path}")
    content = path.read_bytes()
    try:
        return parse_symbol(content.decode())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        if content.startswith(b"{"):
            raise ValueError(f"{path} is damaged or cut off: {error}; copy or save it again") from error
        raise ValueError(describe_wrong_file(path, "an MXNet symbol")) from error
    except ValueError as error:
        raise ValueError(f"{path} is not an MXNet symbol: {error}") from error


def parse_symbol(text: str) -> Symbol:
    """Read the JSON of a symbol; a ValueError says what is wrong with it, and in which node.

    Attributes are in ``attrs``, in ``attr`` or in ``param``, by the version that wrote them. What MXNet 1.9.1
    changes in older graphs when it loads them is changed here, too: attributes for training get their present
    names, running statistics become inputs of their operators (0.8), initializers are noted at their
    variables (0.9.3), and ``axis=-1`` of argmax, which meant all axes, is left out (0.9.4).
    """
    try:
        graph = _typed(json.loads(text), dict, "it")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    found = _typed(graph.get("attrs", {}), dict, "its attrs").get("mxnet_version", ["int", _WITHOUT_ONE])
    if not isinstance(found, list) or len(found) != 2 or type(found[1]) is not int:
        raise ValueError(f'mxnet_version must be ["int", NUMBER], not {found!r:.100}')
    return _graph(graph, found[1], 0)


def _graph(graph: Mapping[str, Any], version: int, depth: int) -> Symbol:
    if depth > _DEEPEST:
        raise ValueError(f"subgraphs are nested more than {_DEEPEST} deep")
    nodes: list[Node] = []
    numbers: list[int] = []  # of the nodes of the file, which may lack running statistics
    for position, found in enumerate(_typed(graph.get("nodes"), list, "nodes")):
        node = _upgraded(_node(found, f"node {position}", numbers, version, depth), nodes, version)
        numbers.append(len(nodes))
        nodes.append(node)
    heads = _entries(graph.get("heads"), numbers, "heads")
    return Symbol(tuple(nodes), heads).up_to(*heads)  # MXNet leaves out what no output needs, too


def _node(found: Any, where: str, numbers: Sequence[int], version: int, depth: int) -> Node:
    fields = _typed(found, dict, where)
    name = _text(fields.get("name"), f"the name of {where}")
    where += f" ({name:.100})"
    if fields.get("control_deps"):
        raise ValueError(f"{where} has control_deps, which networks do not have")
    attributes: dict[str, str] = {}
    for form in ("param", "attr", "attrs"):  # by age
        for key, value in _typed(fields.get(form, {}), dict, f"{form} of {where}").items():
            attributes[_text(key, f"an attribute of {where}")] = _text(value, f"attribute {key} of {where}")
    op = _text(fields.get("op"), f"the operator of {where}")
    inputs = _entries(fields.get("inputs"), numbers, f"inputs of {where}")
    if op == "null" and inputs:
        raise ValueError(f"inputs of {where}: it is a variable, which has none")
    bodies = _typed(fields.get("subgraphs", []), list, f"subgraphs of {where}")
    return Node(
        op=op,
        name=name,
        attributes={key: value for key, value in attributes.items() if not _ANNOTATION.fullmatch(key)},
        inputs=inputs,
        annotations={key: value for key, value in attributes.items() if _ANNOTATION.fullmatch(key)},
        subgraphs=tuple(
            _graph(_typed(body, dict, f"a body of {where}"), version, depth + 1) for body in bodies
        ),
    )


def _entries(found: Any, numbers: Sequence[int], what: str) -> tuple[Entry, ...]:
    """Read ``[[node, output, version], ...]``; the nodes must have come before."""
    entries = []
    for entry in _typed(found, list, what):
        if not isinstance(entry, list) or len(entry) not in (2, 3) or any(type(n) is not int for n in entry):
            raise ValueError(f"{what}: expected [node, output, version], not {entry!r:.100}")
        node, output = entry[:2]
        if not (0 <= node < len(numbers) and 0 <= output < _MOST_OUTPUTS):
            raise ValueError(
                f"{what}: output {output} of node {node} does not exist; {len(numbers)} nodes come before it"
            )
        entries.append(Entry(numbers[node], output))
    return tuple(entries)


def _text(value: Any, what: str) -> str:
    if (found := _NO_TEXT.search(_typed(value, str, what))) is not None:
        raise ValueError(f"{what} holds {found[0]!r}, which is not text")
    return str(value)


def _typed(value: Any, kind: type[_T], what: str) -> _T:
    if not isinstance(value, kind):
        raise ValueError(f"{what} must be {_KINDS[kind]}, not {value!r:.100}")
    return value


def _upgraded(node: Node, nodes: list[Node], version: int) -> Node:
    """Return the node as MXNet 1.9.1 would write it. `nodes`, those before it, are changed, too."""
    attributes, annotations, inputs = dict(node.attributes), dict(node.annotations), list(node.inputs)
    for key, value in node.attributes.items():
        match = _ONCE_AN_ANNOTATION.fullmatch(key)
        if match is None:
            continue
        changes = {f"__{match['key']}__": value}
        if match["input"] is None:
            annotations |= changes
            del attributes[key]
        elif _annotate(nodes, inputs, INPUTS.get(match["input"]), changes):
            del attributes[key]
    if version < _STATES_ARE_LISTED:
        for number, ending in states_of(node.op).items():
            if number == len(inputs):
                inputs.append(Entry(len(nodes), 0))
                name = f"{node.name}_{ending}" if node.name else ending
                nodes.append(Node("null", name, attributes, (), annotations))
    if version < _INITIALIZERS_ARE_NOTED:
        for number, initializer in initializers_of(node.op).items():
            _annotate(nodes, inputs, number, {"__init__": initializer}, replacing=False)
    if version < _AXES_ARE_OPTIONAL and node.op in ("argmax", "argmin") and attributes.get("axis") == "-1":
        del attributes["axis"]
    return replace(node, attributes=attributes, annotations=annotations, inputs=tuple(inputs))


def _annotate(
    nodes: list[Node],
    inputs: Sequence[Entry],
    number: int | None,
    changes: Mapping[str, str],
    *,
    replacing: bool = True,
) -> bool:
    """Annotate one input of a node if it is a variable; return whether it is one."""
    if number is None or number >= len(inputs) or not nodes[inputs[number].node].is_variable:
        return False
    old = nodes[inputs[number].node].annotations
    annotations = {**old, **changes} if replacing else {**changes, **old}
    nodes[inputs[number].node] = replace(nodes[inputs[number].node], annotations=annotations)
    return True
