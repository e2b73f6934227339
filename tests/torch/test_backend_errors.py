"""What a training with PyTorch cannot use is refused in one sentence, and nothing is left behind."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from fasttriplet.checkpoint._networks import network_of
from fasttriplet.torch._backend import TrainingBackend
from fasttriplet.training import train_rec
from fasttriplet.training._state import State, save_state
from tests.torch.trainings import batches, importable, one_thread, settings
from tests.training.small import settings as settings_in
from tests.training.small import state

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("trainable")]


@pytest.fixture(scope="module")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A module of the user's that can be imported."""
    with importable(tmp_path_factory.mktemp("wrong"), "wrongly"), one_thread():
        yield


NETWORKS: dict[str, tuple[dict[str, Any], str]] = {
    "another size": (
        {"network": "torch:wrongly:of_32x24"},
        r"^the network does not take images of 24 x 24 \(H x W\): .*shape",
    ),
    "weights in another precision": (
        {"network": "torch:wrongly:in_half_precision"},
        r"\(H x W\): .*\. It has weights in torch\.float16, and gets float32$",
    ),
    "complex weights": (
        {"network": "torch:wrongly:complex_weights"},
        r"has complex numbers, in turn: make two",
    ),
    "weights that have no values": (
        {"network": "torch:wrongly:on_meta"},
        "is on the device meta, which holds",
    ),
    "another size, by an option": (
        {"network": "torch:wrongly:square,size=32x24"},
        r"takes images of 32 x 24 \(H x W\), and the dataset has 24 x 24$",
    ),
    "one number": (
        {"network": "torch:wrongly:one_number"},
        r"output 0 has the shape \(3,\) for 3 images, and an embedding has \(3, D\)$",
    ),
    "several outputs": (
        {"network": "torch:wrongly:Several"},
        r"several outputs; choose one with output=NAME: embedding: float32 \(3, 8\), norms: float32 \(3,\)$",
    ),
    "an output that it lacks": (
        {"network": "torch:wrongly:Several,output=vectors"},
        r"no output 'vectors'; it has embedding",
    ),
    "nothing to train": ({"network": "torch:wrongly:frozen"}, "has no weights that can be trained$"),
    "a function that fails": (
        {"network": "torch:wrongly:fails"},
        r"the call without arguments failed, .*wrongly\.py, line \d+: OSError: no such table$",
    ),
    "a function with arguments": ({"network": "torch:wrongly:needs_arguments"}, "without arguments failed"),
    "another object": ({"network": "torch:wrongly:gives_a_number"}, "returns a int, not a torch.nn.Module$"),
    "a number": ({"network": "torch:wrongly:number"}, "number is a int, not a function or a Module$"),
    "a name that is not there": ({"network": "torch:wrongly:squares"}, "did you mean 'square'"),
    "a module that is not there": ({"network": "torch:absent:net"}, "there is no module 'absent'"),
    "no function": ({"network": "torch:wrongly"}, "PACKAGE.MODULE:NAME"),
    "an option that is not known": ({"network": "torch:wrongly:square,colour=bgr"}, "colour"),
    "tf32": ({"precision": "tf32"}, r"precision cannot be 'tf32' on cpu"),
    "pretrained": ({"pretrained": "face"}, r"pretrained must be PREFIX,EPOCH .*, torch:PREFIX or a file"),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_that_cannot_be_trained(kind: str) -> None:
    options, message = NETWORKS[kind]
    with pytest.raises(ValueError, match=message) as raised:
        TrainingBackend(settings(**options), "cpu").begin((24, 24))
    assert "\n" not in str(raised.value)


def test_devices() -> None:
    with pytest.raises(ValueError, match=r"finds no GPU"):
        TrainingBackend(settings(), "cuda" if not torch.cuda.is_available() else "cuda:99")
    with pytest.raises(ValueError, match="devices"):
        TrainingBackend(settings(), "tpu")


@pytest.mark.parametrize("seen", [2])
def test_several_gpus_are_for_several_processes(seen: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from fasttriplet.torch import _backend, _processes  # noqa: PLC0415

    found = [torch.device("cuda", number) for number in range(seen)]
    monkeypatch.setattr(_processes, "devices_of", lambda _: found)
    monkeypatch.setattr(_backend, "NetworkInTraining", lambda *_: None)
    with pytest.raises(ValueError, match=r"^devices must name one device .* torchrun --nproc-per-node 2 -m"):
        TrainingBackend(settings(), "cuda:0,1")
    assert TrainingBackend(settings(), None).devices == ("cuda:0",)


def test_first_weights_that_are_not_finite(data: Path, tmp_path: Path) -> None:
    chosen = settings_in(data, framework="torch", network="torch:wrongly:not_finite", embedding_size=128)
    with pytest.raises(ValueError, match=r"after batch 0 is not finite: begin with other weights$"):
        train_rec(chosen, tmp_path / "a", batches=1)
    assert not list(tmp_path.iterdir())


def test_a_network_without_gradients() -> None:
    backend = TrainingBackend(settings(network="torch:wrongly:square"), "cpu")
    backend.begin((24, 24))
    backend._network.register_forward_hook(lambda *given: given[-1].detach())
    with pytest.raises(ValueError, match=r"^the embedding has no gradient: the network detaches it, or"):
        backend.step(next(batches(1)), 0.1, 0)


def test_an_error_of_the_network_in_a_step_is_its_own() -> None:
    backend = TrainingBackend(settings(network="torch:wrongly:square"), "cpu")
    backend.begin((24, 24))
    (batch,) = batches(1)
    before = backend.arrays()

    def fail(*_: Any) -> None:
        raise LookupError("of the user's")

    backend._network.stem.register_forward_hook(fail)
    with pytest.raises(LookupError, match="of the user's"):
        backend.step(batch, 0.1, 0)
    assert all(np.array_equal(values, before[name]) for name, values in backend.arrays().items())


def test_a_module_that_keeps_its_output_is_trained(data: Path, tmp_path: Path) -> None:
    chosen = settings_in(data, framework="torch", network="torch:wrongly:remembering", bag_size=12)
    done = train_rec(chosen, tmp_path / "a", batches=8, verify_on=data / "pairs.bin", verify_every=3)
    assert done.batches == 8


# States


def wrong_states(whole: State) -> dict[str, tuple[Any, Any]]:
    """What is wrong about it, by the message: other arrays, or another network."""
    name = "network:block2_conv.weight"
    arrays, network = whole.arrays, whole.plain["network"]
    graph = json.loads(json.dumps(network["symbol"]))
    ring = json.loads(json.dumps(graph))
    number = next(n for n, node in enumerate(ring["nodes"]) if node["name"] == "block2_conv")
    ring["nodes"][number]["inputs"][0] = [number, 0, 0]
    wide = json.loads(network_of("small", (24, 24), 1_000_000_000).to_json())
    return {
        rf"{name} is missing": ({key: values for key, values in arrays.items() if key != name}, {}),
        rf"{name} is float64 \(64, 32, 3, 3\), not float32": (
            arrays | {name: arrays[name].astype(np.float64)},
            {},
        ),
        rf"{name} is float32 \(64, 32, 9\), not": (arrays | {name: arrays[name].reshape(64, 32, 9)}, {}),
        rf"{name} holds NaN": (arrays | {name: np.full_like(arrays[name], np.nan)}, {}),
        r"momentum_buffer:fc1\.bias is missing": (
            {key: values for key, values in arrays.items() if key != "momentum_buffer:fc1.bias"},
            {},
        ),
        "the network has no network:more": (arrays | {"network:more": np.zeros(3)}, {}),
        r"network: it must be an object": (arrays, 5),
        r"network: it must be an object with": (arrays, {**network, "more": 1}),
        "either symbol or factory": (arrays, {**network, "factory": "a:b"}),
        "network: factory must be a text": (arrays, {**network, "symbol": None, "factory": 5}),
        "network: output must be a text": (arrays, {**network, "output": ["a"]}),
        "network: mean must be a list": (arrays, {**network, "mean": "0"}),
        "network: mean must be .* three": (arrays, {**network, "mean": [0, "1", 2]}),
        "network: mean must be three finite": (arrays, {**network, "mean": [0, 1e999, 2]}),
        "network: std must be above 0": (arrays, {**network, "std": [0, 1, 1]}),
        "network: color must be one of": (arrays, {**network, "color": "cmyk"}),
        r"network: image_size must be": (arrays, {**network, "image_size": 24}),
        r"network: the height in size must be": (arrays, {**network, "image_size": [2.5, 24]}),
        r"network is for images of \(10000000, 24\) \(H, W\), and the dataset has \(24, 24\)": (
            arrays,
            {**network, "image_size": [10**7, 24]},
        ),
        "network: ": (arrays, {**network, "symbol": ring}),
        r"network: it must be an object, not \[1\]": (arrays, {**network, "symbol": [1]}),
        "more than the file holds": (arrays, {**network, "symbol": wide}),
        "network is not the one that the settings name": (
            arrays,
            {**network, "symbol": None, "factory": "wrongly:fails"},
        ),
    }


def test_states_that_do_not_fit_are_named(data: Path, tmp_path: Path) -> None:
    chosen, out = settings_in(data, framework="torch"), tmp_path / "a"
    train_rec(chosen, out, batches=2)
    whole = state(out)
    for message, (arrays, network) in wrong_states(whole).items():
        plain = whole.plain | ({"network": network} if network != {} else {})
        save_state(Path(f"{out}-state.npz"), State(plain, arrays))
        with pytest.raises(ValueError, match=rf"a-state\.npz.*{message}") as raised:
            train_rec(chosen, out, batches=3, resume=True)
        assert "\n" not in str(raised.value), message
    save_state(Path(f"{out}-state.npz"), whole)
    assert train_rec(chosen, out, batches=3, resume=True).batches == 3


# Missing packages


def hidden(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in [one for one in sys.modules if one.split(".")[0] in names]:
        monkeypatch.delitem(sys.modules, name)
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def test_safetensors_is_asked_for_before_a_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden(monkeypatch, "safetensors")
    with pytest.raises(ImportError, match=r"safetensors, which is not installed\. Install it: .*safetensors"):
        train_rec(settings_in(data, framework="torch"), tmp_path / "a", batches=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", [("onnx",), ("onnxscript",), ("onnx", "onnxscript")])
def test_what_an_export_needs_is_asked_for_before_a_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    hidden(monkeypatch, *missing)
    message = rf"export='onnx' needs {' and '.join(missing)}\. Install it"
    with pytest.raises(ImportError, match=message) as raised:
        train_rec(settings_in(data, framework="torch"), tmp_path / "a", batches=1, export=["onnx"])
    assert raised.value.name == missing[0]
    assert not list(tmp_path.iterdir())
