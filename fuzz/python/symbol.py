"""Graphs in JSON: a ValueError, or a sound graph that is written and read as it is, with all its parts."""

from __future__ import annotations

from fasttriplet.checkpoint._outputs import find_data, find_embedding
from fasttriplet.checkpoint._symbol import parse_symbol


def check(data: bytes) -> None:
    """`data` is a ``-symbol.json`` file."""
    try:
        symbol = parse_symbol(data.decode())
    except ValueError:
        return
    for number, node in enumerate(symbol.nodes):
        assert all(0 <= entry.node < number for entry in node.inputs)
    assert all(0 <= head.node < len(symbol.nodes) for head in symbol.heads)
    assert parse_symbol(symbol.to_json()) == symbol
    assert {*symbol.arguments(), *symbol.auxiliary_states()} == {
        node.name for node in symbol.nodes if node.is_variable
    }
    try:
        images = find_data(symbol, [])
        found = find_embedding(symbol, data=images, params=[])
    except ValueError:
        return
    part = symbol.up_to(found)
    assert part.name_of(part.heads[0]) == symbol.name_of(found)
    assert images in part.arguments()
    assert part.up_to(*part.heads) == part
