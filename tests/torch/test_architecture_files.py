"""The two files of a trained network: written together, and read whatever is in them."""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import fasttriplet as ft
import torch
from fasttriplet.cli import main
from fasttriplet.embedders._inputs import Inputs
from fasttriplet.errors import SpecError
from fasttriplet.torch import load_network
from fasttriplet.torch._architecture import Architecture, architecture_of
from fasttriplet.torch._network_files import read_network, write_network
from tests.cli.test_full_disk import largest_file
from tests.interrupted import Faults, content, fails, watched
from tests.torch.trainings import module_of

pytestmark = pytest.mark.torch

ARCHITECTURE = architecture_of("small", None, 8, (24, 24))


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A network that is there."""
    write_network(str(tmp_path / "a"), ARCHITECTURE, ARCHITECTURE.make(seed=1))
    return tmp_path / "a"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's that can be imported."""
    folder = tmp_path / "code"
    folder.mkdir()
    module_of(folder, "written")
    monkeypatch.syspath_prepend(str(folder))


def test_what_is_read_is_what_was_written(prefix: Path) -> None:
    again, network = read_network(prefix)
    assert again == ARCHITECTURE
    assert not network.training
    expected = ARCHITECTURE.make(seed=1).state_dict()
    found = network.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(values, expected[name]) for name, values in found.items())
    before = content(prefix.parent)
    write_network(str(prefix), again, network)
    assert content(prefix.parent) == before
    plain = json.loads(before["a.json"])
    assert (plain["format"], plain["version"], plain["image_size"]) == ("fasttriplet network", 1, [24, 24])


@pytest.mark.usefixtures("mine")
def test_a_network_that_a_function_makes(tmp_path: Path) -> None:
    inputs = Inputs("bgr", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (24, 24))
    architecture = Architecture(None, "written:Several", inputs, "embedding")
    state = torch.get_rng_state()
    network = architecture.make(3)
    write_network(f"{tmp_path}/f", architecture, network)
    read, again = read_network(tmp_path / "f")
    loaded = load_network(tmp_path / "f")
    assert torch.equal(torch.get_rng_state(), state)
    assert read == architecture
    for one in (again, loaded):
        assert torch.equal(one.fc.weight, network.fc.weight)
    with pytest.raises(ValueError, match=r"f\.safetensors does not fit Several"):
        write_network(f"{tmp_path}/f", architecture, torch.nn.Linear(1, 1))
        read_network(tmp_path / "f")


def test_both_files_may_be_read_by_those_who_may_read_others(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_network(str(tmp_path / "a"), ARCHITECTURE, ARCHITECTURE.make(seed=1))
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}


@pytest.mark.parametrize("missing", [".json", ".safetensors"])
def test_half_a_network_is_named(prefix: Path, missing: str) -> None:
    Path(f"{prefix}{missing}").unlink()
    message = re.escape(f"no network at {prefix}: {prefix}{missing} is missing")
    for read in (read_network, load_network, lambda path: ft.load_embedder(f"torch:{path}")):
        with pytest.raises(FileNotFoundError, match=message):
            read(prefix)


def test_no_prefix_at_all() -> None:
    with pytest.raises(ValueError, match="the prefix is empty"):
        load_network("")


@pytest.mark.parametrize("ending", [".json", ".safetensors"])
def test_one_of_the_two_files_is_not_the_name(prefix: Path, ending: str) -> None:
    with pytest.raises(
        SpecError, match=re.escape(f"one of the two files of a network; write torch:{prefix}")
    ):
        ft.load_embedder(f"torch:{prefix}{ending}")


def changed(**fields: Any) -> Callable[[bytes], bytes]:
    def change(before: bytes) -> bytes:
        return json.dumps(json.loads(before) | fields).encode()

    return change


def in_graph(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def changed_graph(before: bytes) -> bytes:
        plain = json.loads(before)
        change(plain["symbol"])
        return json.dumps(plain).encode()

    return changed_graph


def of(graph: dict[str, Any], name: str) -> Any:
    return next(node for node in graph["nodes"] if node["name"] == name)


DESCRIPTIONS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "is damaged"),
    "cut": (lambda whole: whole[: len(whole) // 2], "is damaged"),
    "zeros": (lambda whole: bytes(len(whole)), "is damaged"),
    "another text": (lambda _: b"\xff\xfe\x00", "is damaged"),
    "nested": (lambda _: b"[" * 100_000, "is damaged"),
    "a list": (lambda _: b"[]", "description of a network"),
    "another file": (lambda _: b'{"nodes": []}', "description of a network"),
    "another version": (changed(version=2), "has the version 2, and this fasttriplet reads 1"),
    "a version that is no number": (changed(version=[1]), r"has the version \[1\]"),
    "one field more": (changed(more=1), "must be an object with color"),
    "a vast size": (changed(image_size=[10**9, 10**9]), "size must be at most 1,073,741,824 pixels"),
    "a huge size": (changed(image_size=[30_000, 30_000]), "more than the file holds, at 'pre_fc1_weight'"),
    "a size of texts": (changed(image_size=["24", 24]), "the height in size"),
    "no size": (changed(image_size=None), r"image_size must be \[height, width\]"),
    "a size below 1": (changed(image_size=[0, 24]), "the height in size must be"),
    "another size": (changed(image_size=[400, 400]), "more than the file holds, at 'pre_fc1_weight'"),
    "a mean of texts": (changed(mean=["a", 0, 0]), "mean must be"),
    "a mean of true": (changed(mean=[[1], 0, 0]), "mean must be"),
    "an infinite mean": (changed(mean=[float("inf"), 0, 0]), "mean must be three finite"),
    "std 0": (changed(std=[0, 1, 1]), "std must be above 0"),
    "a color that is not": (changed(color=["rgb"]), "color must be one of"),
    "both": (changed(factory="a:b"), "either symbol or factory"),
    "neither": (changed(symbol=None), "either symbol or factory"),
    "a number for a graph": (changed(symbol=5), "a.json: "),
    "a module that is not there": (changed(symbol=None, factory="absent:net"), "there is no module 'absent'"),
    "a path": (changed(symbol=None, factory="../evil"), "PACKAGE.MODULE:NAME"),
    "an expression": (changed(symbol=None, factory="os:system('x')"), "PACKAGE.MODULE:NAME"),
    "no module": (changed(symbol=None, factory="json:dumps"), "the call without arguments failed"),
    "an operator that is not": (in_graph(lambda g: of(g, "block1_relu").update(op="Evil")), "Evil"),
    "another name for the data": (in_graph(lambda g: of(g, "data").update(name="x")), "no input data"),
    "vast filters": (
        in_graph(lambda g: of(g, "block2_conv")["attrs"].update(num_filter="2000000000")),
        "its weights are more than the file holds, at 'block2_conv_weight'",
    ),
    "a filter less": (
        in_graph(lambda g: of(g, "block2_conv")["attrs"].update(num_filter="63")),
        r"a\.safetensors: block2_\w+\.\w+ has the shape \(64,.*, and ConvertedNetwork needs \(63,",
    ),
    "a ring": (in_graph(lambda g: of(g, "flatten0").update(inputs=[[len(g["nodes"]) - 1, 0, 0]])), "a.json"),
}


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_a_description_that_is_damaged_or_hostile(prefix: Path, kind: str) -> None:
    change, message = DESCRIPTIONS[kind]
    path = Path(f"{prefix}.json")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as raised:
        read_network(prefix)
    assert str(prefix) in str(raised.value)
    assert "\n" not in str(raised.value)


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def changed_header(before: bytes) -> bytes:
        (size,) = struct.unpack("<Q", before[:8])
        plain = json.loads(before[8 : 8 + size])
        change(plain)
        text = json.dumps(plain).encode()
        return struct.pack("<Q", len(text)) + text + before[8 + size :]

    return changed_header


def renamed(plain: dict[str, Any]) -> None:
    plain["other.weight"] = plain.pop("block2_conv.weight")


WEIGHTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda _: b"", "safetensors"),
    "cut": (lambda whole: whole[:-100], "safetensors"),
    "cut in its header": (lambda whole: whole[:500], "safetensors"),
    "zeros": (lambda whole: bytes(len(whole)), "safetensors"),
    "a vast header": (lambda whole: struct.pack("<Q", 2**60) + whole[8:], "safetensors"),
    "another name": (header(renamed), r"it lacks: block2_conv\.weight; unknown to the network: other"),
    "another shape": (
        header(lambda plain: plain["block2_conv.weight"].update(shape=[32, 64, 3, 3])),
        r"block2_conv\.weight has the shape \(32, 64, 3, 3\), and ConvertedNetwork needs \(64, 32, 3, 3\)",
    ),
    "beyond the end": (
        header(lambda plain: plain["block2_conv.weight"].update(data_offsets=[2**40, 2**41])),
        "safetensors",
    ),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_that_are_damaged_or_of_another_network(prefix: Path, kind: str) -> None:
    change, message = WEIGHTS[kind]
    path = Path(f"{prefix}.safetensors")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as raised:
        read_network(prefix)
    assert str(prefix) in str(raised.value)


def test_weights_that_are_not_finite_are_named(prefix: Path) -> None:
    network = ARCHITECTURE.make()
    with torch.no_grad():
        network.block2_conv.weight.fill_(float("nan"))  # type: ignore[union-attr,operator]
    write_network(str(prefix), ARCHITECTURE, network)
    embedder = ft.load_embedder(f"torch:{prefix}")
    import polars as pl  # noqa: PLC0415

    images = np.zeros((1, 24, 24, 3), np.uint8)
    with pytest.raises(ValueError, match=r"NaN|not finite"):
        embedder.embed(pl.DataFrame({"key": [1]}), images)


@pytest.mark.parametrize("size", [0, 1000, 20_000])
def test_on_a_full_disk_both_files_stay(prefix: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    before = content(prefix.parent)
    with largest_file(size), pytest.raises(OSError, match=r"File too large|os error 27") as raised:
        write_network(str(prefix), ARCHITECTURE, ARCHITECTURE.make(seed=2))
    assert f"{prefix}" in str(raised.value)
    assert content(prefix.parent) == before
    assert [path.name for path in prefix.parent.iterdir()] == [*before]


def test_whatever_call_fails_the_files_fit(prefix: Path) -> None:
    """Of one network or of the other, or the one that is missing is named."""
    both = [dict(ARCHITECTURE.make(seed=seed).state_dict()) for seed in (1, 2)]
    calls = Faults(prefix.parent)
    other = ARCHITECTURE.make(seed=2)
    with watched(calls):
        write_network(str(prefix), ARCHITECTURE, other)
    for at in range(1, len(calls.made) + 1):
        write_network(str(prefix), ARCHITECTURE, ARCHITECTURE.make(seed=1))
        with watched(Faults(prefix.parent, fails(at))):
            try:
                write_network(str(prefix), ARCHITECTURE, other)
            except OSError as error:
                assert str(prefix.parent) in str(error)
        found = read_network(prefix)[1].state_dict()
        assert any(all(torch.equal(found[name], one[name]) for name in one) for one in both)


def test_the_command_says_what_is_wrong(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path(f"{prefix}.safetensors").unlink()
    assert main(["verify", "--pairs", "absent.bin", "--model", f"torch:{prefix}"]) in (1, 2)
    assert f"{prefix}.safetensors is missing" in capsys.readouterr().err or not Path("absent.bin").exists()
