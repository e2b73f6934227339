"""Graphs: against MXNet's own loading, in the form of every age, and made by someone hostile."""

from __future__ import annotations

import copy
import ctypes
import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttriplet.checkpoint._operators import output_names, states_of
from fasttriplet.checkpoint._symbol import Entry, Node, Symbol, parse_symbol, read_symbol
from fasttriplet.mxnet import mobilefacenet, small_convnet
from tests.mxnet.small_networks import NETWORKS

# --- MXNet


def loaded(mx: Any, text: str) -> Any:
    return mx.sym.load_json(text)


def check_same(mx: Any, text: str) -> None:
    """The graph is what MXNet makes of it, with the same names, and comes back from it as it was."""
    symbol, theirs = parse_symbol(text), loaded(mx, text)
    assert symbol == parse_symbol(theirs.tojson())
    assert [name for name, _ in symbol.entries()] == theirs.get_internals().list_outputs()
    assert [symbol.name_of(head) for head in symbol.heads] == theirs.list_outputs()
    assert symbol.arguments() == theirs.list_arguments()
    assert symbol.auxiliary_states() == theirs.list_auxiliary_states()
    assert parse_symbol(loaded(mx, symbol.to_json()).tojson()) == symbol


@pytest.mark.mxnet
@pytest.mark.parametrize(
    "name",
    ["model-y1/model", "symbols/r34-amf", "symbols/mobilefacenet-dim512", "symbols/retinaface-mnet10"],
)
def test_real_networks(mx: Any, real_data: Path, name: str) -> None:
    path = real_data / f"{name}-symbol.json"
    check_same(mx, path.read_text())
    # To the last byte, once MXNet has written both.
    theirs = loaded(mx, path.read_text())
    assert loaded(mx, read_symbol(path).to_json()).tojson() == theirs.tojson()


@pytest.mark.mxnet
@pytest.mark.parametrize("case", NETWORKS)
def test_small_networks(mx: Any, case: str) -> None:
    check_same(mx, NETWORKS[case][0](mx).tojson())


@pytest.mark.mxnet
def test_nodes_that_no_output_needs(mx: Any) -> None:
    graph = json.loads(NETWORKS["plain"][0](mx).tojson())
    for heads in ([[3, 0, 0]], [[1, 0, 0], [4, 0, 0]], [[0, 0, 0]]):
        check_same(mx, json.dumps(graph | {"heads": heads}))


@pytest.mark.mxnet
def test_names_of_any_kind(mx: Any) -> None:
    data = mx.sym.Variable('ä "quoted" \\ and\ttab\n', attr={"note": "ü"}, lr_mult=2, shape=(1, 2))
    check_same(mx, mx.sym.FullyConnected(data, num_hidden=2, name="名").tojson())


@pytest.mark.mxnet
def test_loops_keep_their_bodies(mx: Any) -> None:
    data, state = mx.sym.Variable("data"), mx.sym.Variable("state")
    outputs, _ = mx.sym.contrib.foreach(lambda row, total: (row * total, row + total), data, state)
    symbol = parse_symbol(outputs.tojson())
    (loop,) = (node for node in symbol.nodes if node.subgraphs)
    assert [node.op for node in loop.subgraphs[0].nodes if not node.is_variable]
    again = loaded(mx, symbol.to_json())
    values = {"data": mx.nd.array([[1.0], [2], [3]]), "state": mx.nd.array([4.0])}
    expected = outputs.bind(mx.cpu(), values).forward()[0].asnumpy()
    np.testing.assert_array_equal(again.bind(mx.cpu(), values).forward()[0].asnumpy(), expected)


@pytest.mark.mxnet
@pytest.mark.parametrize("build", [small_convnet, mobilefacenet])
def test_outputs_are_the_same(mx: Any, build: Any) -> None:
    """Of the network that is written, and of a part of it."""
    theirs = build()
    symbol = parse_symbol(theirs.tojson())
    inner = next(entry for name, entry in symbol.entries() if name.endswith("relu0_output") or "conv" in name)
    arrays: dict[str, Any] = {}
    shapes, _, states = theirs.infer_shape(data=(2, 3, 112, 112))
    rng = np.random.default_rng(3)
    for name, shape in zip(
        theirs.list_arguments() + theirs.list_auxiliary_states(), shapes + states, strict=True
    ):
        arrays[name] = mx.nd.array((rng.random(shape) + 0.1) / np.prod(shape[1:]))
    for ours, other in (
        (symbol, theirs),
        (symbol.up_to(inner), theirs.get_internals()[symbol.name_of(inner)]),
    ):
        found, expected = (
            network.bind(
                mx.cpu(),
                {name: arrays[name] for name in network.list_arguments()},
                aux_states={name: arrays[name] for name in network.list_auxiliary_states()},
            )
            .forward()[0]
            .asnumpy()
            for network in (loaded(mx, ours.to_json()), other)
        )
        assert found.std() > 0
        np.testing.assert_array_equal(found, expected)


RNN = {"state_size": "1", "num_layers": "1"}
MOMENTS = [{"output_mean_var": value} for value in ("True", "1", "False")]
SCORES = [{"output_score": value} for value in ("True", "1", "False")]
COUNTS = [{"num_outputs": count} for count in ("1", "2", "12")]
QUANTIZED = {"_contrib_quantized_conv": {"kernel": "(1,1)", "num_filter": "2"}}
QUANTIZED |= {
    "_contrib_quantized_fully_connected": {"num_hidden": "2"},
    "_contrib_quantized_concat": {"num_args": "2"},
}
# Attributes that decide about outputs.
ATTRIBUTES: dict[str, list[dict[str, str]]] = {
    **dict.fromkeys(("BatchNorm", "BatchNorm_v1", "_contrib_BatchNormWithReLU"), MOMENTS),
    **dict.fromkeys(("LayerNorm", "GroupNorm"), MOMENTS),
    **dict.fromkeys(("_contrib_Proposal", "_contrib_MultiProposal"), SCORES),
    **dict.fromkeys(("SliceChannel", "split", "amp_multicast"), COUNTS),
    **{operator: [attributes] for operator, attributes in QUANTIZED.items()},
    "_split_v2": [
        *({"indices": "[]", "sections": count} for count in "123"),
        *({"indices": indices} for indices in ("(0,)", "(0, 2)", "[0, 2, 4]")),
    ],
    "topk": [{"ret_typ": kind} for kind in ("both", "value", "mask")],
    "LeakyReLU": [{"act_type": kind} for kind in ("prelu", "rrelu", "gelu")],
    "RNN": [{**RNN, "mode": mode, "state_outputs": value} for mode in ("lstm", "gru") for value in "01"],
}  # fmt: skip


@pytest.mark.mxnet
def test_operators_are_those_of_mxnet(mx: Any) -> None:
    """Outputs and running statistics of all that can be made with these attributes, or with none."""
    base, create = mx.base, mx.symbol.register._symbol_creator
    size, names = ctypes.c_uint(), ctypes.POINTER(ctypes.c_char_p)()
    base.check_call(base._LIB.MXListAllOpNames(ctypes.byref(size), ctypes.byref(names)))
    # Not parts of networks; MXNet ends the process of whoever makes the last without attributes.
    other = re.compile(r".*backward|_npi|_np_|_npx|.*_update|_sg_")
    compared = set()
    for operator in [names[number].decode() for number in range(size.value)]:  # at once: its memory is reused
        if other.match(operator):
            continue
        handle = ctypes.c_void_p()
        base.check_call(base._LIB.NNGetOpHandle(operator.encode(), ctypes.byref(handle)))
        for attributes in ({}, *ATTRIBUTES.get(operator, [])):
            try:
                symbol = create(
                    handle.value, None, None, list(attributes), list(attributes.values()), "x", False
                )
            except base.MXNetError:
                assert not attributes  # it needs some
                continue
            states = symbol.list_auxiliary_states()
            variables = {*symbol.list_arguments(), *states}
            outputs = [name for name in symbol.get_internals().list_outputs() if name not in variables]
            assert [f"x_{name}" for name in output_names(operator, attributes)] == outputs, (
                operator,
                attributes,
            )
            assert [f"x_{name}" for name in states_of(operator).values()] == states
            compared.add(operator)
    assert len(compared) > 350
    assert compared > ATTRIBUTES.keys()


# --- older graphs


def aged(text: str, form: str, version: int | None) -> str:
    """A graph as an older version of MXNet would have written it."""
    graph = json.loads(text)
    drop = set()
    for node in graph["nodes"]:
        attributes = node.pop("attrs", {})
        if form == "param":
            node["param"], node["backward_source_id"] = {}, -1
            node["attr"] = {key: value for key, value in attributes.items() if key.startswith("__")}
            node["param"] |= {key: value for key, value in attributes.items() if not key.startswith("__")}
        elif attributes:
            node[form] = attributes
        node["inputs"] = [entry[:2] for entry in node["inputs"]]
        if version is None and node["op"] == "BatchNorm":
            drop |= {entry[0] for entry in node["inputs"][3:]}
            del node["inputs"][3:]
    kept = [number for number in range(len(graph["nodes"])) if number not in drop]
    numbers = {old: new for new, old in enumerate(kept)}
    nodes = [graph["nodes"][number] for number in kept]
    for node in nodes:
        node["inputs"] = [[numbers[source], output] for source, output in node["inputs"]]
    arguments = [number for number, node in enumerate(nodes) if node["op"] == "null"]
    heads = [[numbers[head[0]], head[1]] for head in graph["heads"]]
    attributes = {} if version is None else {"attrs": {"mxnet_version": ["int", version]}}
    return json.dumps({"nodes": nodes, "arg_nodes": arguments, "heads": heads, **attributes})


@pytest.mark.mxnet
@pytest.mark.parametrize(
    ("form", "version"), [("param", None), ("attr", 903), ("attr", 905), ("attr", 1000), ("attrs", 10300)]
)
@pytest.mark.parametrize("case", ["plain", "trained with softmax", "trained with triplets"])
def test_graphs_of_all_ages(mx: Any, case: str, form: str, version: int | None) -> None:
    new = NETWORKS[case][0](mx).tojson()
    old = aged(new, form, version)
    check_same(mx, old)
    ours, now = parse_symbol(old), parse_symbol(new)
    assert ours.auxiliary_states() == ["bn_moving_mean", "bn_moving_var"]
    for one, other in zip(ours.nodes, now.nodes, strict=True):
        assert (one.op, one.name, one.inputs) == (other.op, other.name, other.inputs)
        if not one.is_variable:
            assert one.attributes == other.attributes


KEYS = ["ctx_group", "lr_mult", "wd_mult", "force_mirroring", "mirror_stage"]
KEYS += [f"__{key}__" for key in KEYS] + ["__shape__", "__init__", "__anything__"]
OF_INPUTS = [f"{name}_{key}" for name in ("data", "weight", "bias") for key in KEYS[:5]]
keys = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["0", "1.5", "a"]))


@pytest.mark.mxnet
@settings(max_examples=60, deadline=None)
@given(
    st.lists(keys, min_size=2, max_size=2),
    keys | st.dictionaries(st.sampled_from(OF_INPUTS), st.sampled_from(["0", "1.5"])),
    st.sampled_from([None, 900, 903, 904, 10000, 10900]),
    st.sampled_from(["-1", "1"]),
)
def test_annotations_of_all_ages(
    mx: Any, of_variables: list[dict[str, str]], of_layer: dict[str, str], version: int | None, axis: str
) -> None:
    """They are told from an operator's own attributes, and get the names that MXNet gives them."""
    graph: dict[str, Any] = {
        "nodes": [
            {"op": "null", "name": "data", "inputs": [], "attr": of_variables[0]},
            {"op": "null", "name": "fc_weight", "inputs": [], "attr": of_variables[1]},
            {"op": "null", "name": "fc_bias", "inputs": []},
            {
                "op": "FullyConnected", "name": "fc", "inputs": [[0, 0], [1, 0], [2, 0]],
                "param": {"num_hidden": "2"}, "attr": of_layer,
            },
            {"op": "LeakyReLU", "name": "act", "inputs": [[3, 0], [1, 0]], "param": {"act_type": "prelu"}},
            {"op": "argmax", "name": "max", "inputs": [[4, 0]], "param": {"axis": axis}},
        ],
        "arg_nodes": [0, 1, 2],
        "heads": [[5, 0]],
    }  # fmt: skip
    if version is not None:
        graph["attrs"] = {"mxnet_version": ["int", version]}
    text = json.dumps(graph)
    check_same(mx, text)
    symbol = parse_symbol(text)
    assert symbol.nodes[3].attributes == {"num_hidden": "2"}
    assert all(re.fullmatch("__.*__", key) for node in symbol.nodes for key in node.annotations)
    assert ("axis" in symbol.nodes[5].attributes) is (axis == "1" or (version or 0) >= 905)


def test_an_annotation_of_an_unknown_input_stays_an_attribute() -> None:
    """MXNet refuses it as an attribute that the operator does not have."""
    graph = {
        "nodes": [
            {"op": "null", "name": "data", "inputs": []},
            {"op": "Flatten", "name": "flat", "inputs": [[0, 0]], "attr": {"weight_lr_mult": "1"}},
        ],
        "heads": [[1, 0]],
    }
    assert parse_symbol(json.dumps(graph)).nodes[1].attributes == {"weight_lr_mult": "1"}


# --- hostile graphs


GRAPH: dict[str, Any] = {
    "nodes": [
        {"op": "null", "name": "data", "inputs": []},
        {"op": "null", "name": "fc1_weight", "attrs": {"__shape__": "(2, 3)"}, "inputs": []},
        {
            "op": "FullyConnected", "name": "fc1", "inputs": [[0, 0, 0], [1, 0, 0]],
            "attrs": {"num_hidden": "2", "no_bias": "True"},
        },
        {"op": "_foreach", "name": "loop", "inputs": [[2, 0, 0]], "subgraphs": [
            {"nodes": [{"op": "null", "name": "row", "inputs": []}], "arg_nodes": [0], "heads": [[0, 0, 0]]}
        ]},
    ],
    "arg_nodes": [0, 1],
    "heads": [[3, 0, 0]],
    "attrs": {"mxnet_version": ["int", 10901]},
}  # fmt: skip


def changed(path: tuple[str | int, ...], value: Any) -> str:
    graph = copy.deepcopy(GRAPH)
    inner: Any = graph
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(graph)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("nodes",), {}, "nodes must be a list, not {}"),
        (("nodes", 1), None, "node 1 must be an object, not None"),
        (("nodes", 2, "name"), 5, "the name of node 2 must be a text, not 5"),
        (("nodes", 2, "name"), "\0", r"the name of node 2 holds '\\x00'"),
        (("nodes", 2, "name"), "\ud800", r"the name of node 2 holds '\\ud800'"),
        (("nodes", 2, "op"), ["x"], r"the operator of node 2 \(fc1\) must be a text"),
        (("nodes", 2, "attrs"), [], r"attrs of node 2 \(fc1\) must be an object, not \[\]"),
        (
            ("nodes", 2, "attrs", "num_hidden"),
            2,
            r"attribute num_hidden of node 2 \(fc1\) must be a text, not 2",
        ),
        (("nodes", 2, "inputs"), None, r"inputs of node 2 \(fc1\) must be a list"),
        (
            ("nodes", 2, "inputs", 0),
            3,
            r"inputs of node 2 \(fc1\): expected \[node, output, version\], not 3",
        ),
        (("nodes", 2, "inputs", 0), [0.0, 0, 0], r"node 2 \(fc1\): expected \[node, output, version\]"),
        (("nodes", 2, "inputs", 0), [True, 0, 0], r"node 2 \(fc1\): expected \[node, output, version\]"),
        (
            ("nodes", 2, "inputs", 0),
            [2, 0, 0],
            r"node 2 \(fc1\): output 0 of node 2 does not exist; 2 nodes come",
        ),
        (("nodes", 2, "inputs", 0), [3, 0, 0], r"node 2 \(fc1\): output 0 of node 3 does not exist"),
        (("nodes", 2, "inputs", 0), [-1, 0, 0], r"node 2 \(fc1\): output 0 of node -1 does not exist"),
        (("nodes", 2, "inputs", 0), [10**40, 0, 0], f"output 0 of node {10**40} does not exist"),
        (("nodes", 2, "inputs", 0), [0, 10**9, 0], f"output {10**9} of node 0 does not exist"),
        (("nodes", 2, "inputs", 0), [0, -1, 0], "output -1 of node 0 does not exist"),
        (("nodes", 1, "inputs"), [[0, 0, 0]], r"inputs of node 1 \(fc1_weight\): it is a variable"),
        (("nodes", 2, "control_deps"), [0], r"node 2 \(fc1\) has control_deps"),
        (("nodes", 3, "subgraphs"), {}, r"subgraphs of node 3 \(loop\) must be a list"),
        (
            ("nodes", 3, "subgraphs", 0, "heads"),
            [[1, 0]],
            "heads: output 0 of node 1 does not exist; 1 nodes",
        ),
        (("heads",), [[4, 0, 0]], "heads: output 0 of node 4 does not exist; 4 nodes come before it"),
        (("heads",), 7, "heads must be a list, not 7"),
        (("attrs",), 7, "its attrs must be an object, not 7"),
        (("attrs", "mxnet_version"), 10901, r'mxnet_version must be \["int", NUMBER\], not 10901'),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, path: tuple[str | int, ...], value: Any, message: str
) -> None:
    file = tmp_path / "net-symbol.json"
    file.write_text(changed(path, value))
    with pytest.raises(ValueError, match=rf"net-symbol\.json is not an MXNet symbol: .*{message}"):
        read_symbol(file)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"nodes":' * 100_000, "9" * 10_000, "null", "[]", "{}", '"x"', "NaN"]
)
def test_other_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_symbol(text)


def test_bodies_in_bodies() -> None:
    graph: dict[str, Any] = {"nodes": [], "heads": []}
    for depth in range(60):
        graph = {"nodes": [{"op": "_foreach", "name": "n", "inputs": [], "subgraphs": [graph]}], "heads": []}
        if depth < 16:
            assert parse_symbol(parse_symbol(json.dumps(graph)).to_json())
        else:
            with pytest.raises(ValueError, match="subgraphs are nested more than 16 deep"):
                parse_symbol(json.dumps(graph))


def test_every_truncation(tmp_path: Path) -> None:
    text, file = json.dumps(GRAPH), tmp_path / "net-symbol.json"
    for length in range(len(text)):
        file.write_text(text[:length])
        what = "damaged or cut off: .*char" if length else "empty, not an MXNet symbol"
        with pytest.raises(ValueError, match=rf"net-symbol\.json is {what}"):
            read_symbol(file)


def places(inner: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every value of a JSON document."""
    items = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def test_every_value_replaced() -> None:
    """Whatever it is, the graph is sound or refused."""
    values: list[Any] = [
        None,
        True,
        -1,
        0,
        1,
        3,
        2**31,
        10**30,
        1.5,
        "",
        "null",
        "x",
        [],
        [[]],
        [0, 0, 0],
        {},
        {"a": "b"},
    ]
    for path, value in product(places(GRAPH), values):
        try:
            symbol = parse_symbol(changed(path, value))
        except ValueError:
            continue
        check_sound(symbol)


def check_sound(symbol: Symbol) -> None:
    for number, node in enumerate(symbol.nodes):
        assert all(0 <= entry.node < number for entry in node.inputs)
    assert parse_symbol(symbol.to_json()) == symbol
    for head in symbol.heads:
        part = symbol.up_to(head)
        assert part.up_to(*part.heads) == part
        assert part.name_of(part.heads[0]) == symbol.name_of(head)


def test_parts() -> None:
    nodes = (
        Node("null", "data", {}, ()),
        Node("SliceChannel", "split", {"num_outputs": "3"}, (Entry(0, 0),)),
        Node("null", "other", {}, ()),
        Node("Concat", "both", {"num_args": "2"}, (Entry(1, 2), Entry(2, 0))),
        Node("relu", "act", {}, (Entry(1, 1),)),
    )
    symbol = Symbol(nodes, (Entry(3, 0), Entry(4, 0)))
    part = symbol.up_to(Entry(4, 0))
    assert [node.name for node in part.nodes] == ["data", "split", "act"]
    assert part.heads == (Entry(2, 0),)
    assert part.nodes[2].inputs == (Entry(1, 1),)
    assert symbol.up_to(Entry(1, 2)).heads == (Entry(1, 2),)
    assert symbol.name_of(Entry(1, 2)) == "split_output2"
    assert symbol.up_to(*symbol.heads) == symbol
