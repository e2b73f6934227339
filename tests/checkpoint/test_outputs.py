"""Which output of a graph is taken for the embedding; tests/mxnet/test_outputs.py has whole networks."""

from __future__ import annotations

import pytest

from fasttriplet.checkpoint._outputs import find_data, find_embedding
from fasttriplet.checkpoint._symbol import Entry, Node, Symbol

DATA = Node("null", "data", {}, ())
LABEL = Node("null", "softmax_label", {}, ())


def operator(op: str, name: str, *inputs: int | tuple[int, int], **attributes: str) -> Node:
    entries = (Entry(*entry) if isinstance(entry, tuple) else Entry(entry, 0) for entry in inputs)
    return Node(op, name, attributes, tuple(entries))


SPLIT = operator("SliceChannel", "split", 0, num_outputs="3")


def found(*nodes: Node, heads: list[tuple[int, int]], wanted: str | None = None) -> str:
    symbol = Symbol(nodes, tuple(Entry(*head) for head in heads))
    entry = find_embedding(symbol, data=find_data(symbol, []), params=[], wanted=wanted)
    return symbol.name_of(entry)


def test_an_output_that_is_not_the_first_of_its_node() -> None:
    assert found(DATA, SPLIT, heads=[(1, 2)]) == "split_output2"
    assert found(DATA, SPLIT, operator("BlockGrad", "block", (1, 1)), heads=[(2, 0)]) == "split_output1"
    loss = operator("MakeLoss", "loss", 0)
    assert found(DATA, SPLIT, loss, heads=[(1, 2), (2, 0)]) == "split_output2"
    with pytest.raises(ValueError, match=r"Candidates: split_output0, split_output2$"):
        found(DATA, SPLIT, heads=[(1, 2), (1, 0)])


def test_a_wanted_output_by_each_of_its_names() -> None:
    for wanted, name in (
        ("split", "split_output0"),
        ("split_output", None),
        ("split_output1", "split_output1"),
        ("block", "block_output"),
        ("block_output", "block_output"),
    ):
        nodes = (DATA, SPLIT, operator("BlockGrad", "block", (1, 1)))
        if name is None:
            with pytest.raises(ValueError, match="the network has no output 'split_output'"):
                found(*nodes, heads=[(2, 0)], wanted=wanted)
        else:
            assert found(*nodes, heads=[(2, 0)], wanted=wanted) == name


def test_two_outputs_with_the_name_that_is_wanted() -> None:
    layers = operator("Flatten", "fc", 0), operator("Flatten", "fc", 1)
    with pytest.raises(ValueError, match="the network has 2 outputs 'fc'; their nodes have the same name"):
        found(DATA, *layers, heads=[(2, 0)], wanted="fc")
    assert found(DATA, *layers, heads=[(2, 0)]) == "fc_output"  # the only output is clear


@pytest.mark.parametrize("op", ["SoftmaxOutput", "MakeLoss", "BlockGrad", "_copy", "softmax"])
def test_operators_without_their_inputs(op: str) -> None:
    with pytest.raises(ValueError, match="cannot tell which output of the network is the embedding"):
        found(DATA, LABEL, operator(op, "x"), heads=[(2, 0)])
    with pytest.raises(ValueError, match="'x' is computed from weights only"):
        found(DATA, LABEL, operator(op, "x"), heads=[(2, 0)], wanted="x")


def test_networks_that_would_take_long() -> None:
    """Time and memory go with the size of a graph: many labels, many outputs, long chains."""
    count = 5_000
    labels = [Node("null", f"{number}_label", {}, ()) for number in range(count)]
    wrappings = (operator("BlockGrad", "b", number) for number in range(1, count))
    chain = [DATA, operator("Flatten", "flat", 0), *wrappings]
    assert found(*chain, heads=[(number, 0) for number in range(1, count)]) == "flat_output"
    sums = [operator("elemwise_add", "sum", 0, 1)]
    sums += [operator("elemwise_add", "sum", number + 1, count + number) for number in range(1, count)]
    with pytest.raises(ValueError, match="cannot tell"):
        found(DATA, *labels, *sums, heads=[(2 * count, 0)])


def test_a_network_without_outputs() -> None:
    with pytest.raises(ValueError, match="cannot tell"):
        found(DATA, heads=[])
    with pytest.raises(ValueError, match="cannot tell"):
        found(DATA, heads=[(0, 0)])
    with pytest.raises(ValueError, match="no input called 'data'; its inputs without weights are: none"):
        found(heads=[])
