"""The graph of a network, as ``PREFIX-symbol.json`` holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """One output of one node."""

    node: int
    output: int


@dataclass(frozen=True)
class Node:
    """An operator with its inputs, or a variable, whose operator is ``"null"``."""

    op: str
    name: str
    attributes: Mapping[str, str]
    inputs: tuple[Entry, ...]


@dataclass(frozen=True)
class Symbol:
    """A graph. The inputs of a node have lower numbers than the node."""

    nodes: tuple[Node, ...]
    heads: tuple[Entry, ...]


def parse_symbol(text: str) -> Symbol:
    """Read the JSON form of a symbol, of any age: attributes are in `attrs`, in `attr` or in `param`."""
    graph = json.loads(text)
    return Symbol(
        nodes=tuple(_node(node) for node in graph["nodes"]),
        heads=tuple(Entry(*head[:2]) for head in graph["heads"]),
    )


def read_symbol(path: Path) -> Symbol:
    """Read a network without its weights."""
    return parse_symbol(path.read_text(encoding="utf-8"))


def _node(node: Mapping[str, Any]) -> Node:
    attributes = {**node.get("param", {}), **node.get("attr", {}), **node.get("attrs", {})}
    return Node(node["op"], node["name"], attributes, tuple(Entry(*entry[:2]) for entry in node["inputs"]))
