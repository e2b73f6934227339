"""What specs of ``torch:`` name: files, states, networks of MXNet."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.errors import OptionError, SpecError
from tests.torch.small_modules import (
    ROUNDING,
    by_definition,
    distance,
    random_images,
    rows_of,
)

pytest.importorskip("torch")

import torch
from fasttriplet.torch import TorchEmbedder

pytestmark = pytest.mark.torch


def test_a_description_says_everything(net: Any) -> None:  # noqa: ARG001
    assert ft.load_embedder(
        "torch:mynet:net,weights=state.pth,precision=bfloat16", devices="cpu"
    ).description == (
        "PyTorch, mynet:net, weights state.pth; takes RGB, (pixel - 127.5) / 128, any size; on cpu in "
        "bfloat16, 16 images at a time"
    )
    assert ft.load_embedder("torch:fixed.pt2", devices="cpu").description == (
        "PyTorch, exported program fixed.pt2; takes RGB, (pixel - 127.5) / 128, 32 x 24 (H x W); on cpu, "
        "4 images at a time"
    )


def test_bfloat16_is_near(net: Any) -> None:
    images = random_images(5)
    expected = by_definition(net, images)
    for embedder in (
        TorchEmbedder(net, precision="bfloat16"),
        ft.load_embedder("torch:mynet:net,precision=bfloat16", devices="cpu"),
    ):
        found = embedder.embed(rows_of(5), images)
        assert found.dtype == np.float32
        assert 1e-4 < distance(found, expected) < 0.05


@pytest.mark.parametrize(
    ("spec", "batch_size", "message"),
    [
        ("fixed.pt2", 8, "batch_size must be 4 for exported program fixed.pt2, not 8"),
        ("dynamic.pt2", 1, "batch_size must be from 2 to 12 for exported program dynamic.pt2, not 1"),
        ("dynamic.pt2", 64, "batch_size must be from 2 to 12"),
    ],
)
@pytest.mark.usefixtures("net")
def test_batch_sizes_that_an_exported_program_does_not_take(spec: str, batch_size: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ft.load_embedder(f"torch:{spec}", batch_size=batch_size, devices="cpu")


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("none.pt2", FileNotFoundError, "no network at none.pt2"),
        ("mynet:net,weights=none.pth", FileNotFoundError, "no weights at none.pth"),
        (
            "state.pth",
            ValueError,
            r"holds a state_dict, .*write torch:PACKAGE.MODULE:FACTORY,weights=state.pth",
        ),
        ("module.pt", ValueError, r"module.pt holds Python objects, .* save its state_dict\(\)"),
        ("mynet:net,weights=module.pt", ValueError, r"module.pt holds Python objects"),
        ("training.pt2", ValueError, r"exported in training mode \(\w+\).* call eval\(\) on the module"),
        ("two.pt2", ValueError, "takes torch.float32 .*, torch.float32 .*; expected one floating point"),
        ("weights.safetensors", SpecError, "weights without a network; write torch:PACKAGE.MODULE:FACTORY,w"),
        ("r50.onnx", SpecError, "r50.onnx is for ONNX Runtime; write onnx:r50.onnx"),
        ("resnet", SpecError, "'torch:resnet' is not of the form torch:PREFIX .*; there is no resnet.json"),
        (
            "mxnet:model",
            SpecError,
            "not of the form torch:mxnet:PREFIX,EPOCH, for example torch:mxnet:models",
        ),
        (
            "fixed.pt2,weights=state.pth",
            OptionError,
            "weights go with torch:PACKAGE.MODULE:FACTORY, not with",
        ),
        ("mynet:net,wieghts=a", SpecError, "unknown option 'wieghts'; did you mean 'weights'"),
        ("mynet:net,std=a", OptionError, "std must be a number"),
        ("mynets:net", SpecError, "no module 'mynets' in the current folder, .*, nor among the installed"),
        ("mynet.models:net", SpecError, "no module 'mynet.models'"),
        ("mynet:nett", SpecError, "'torch:mynet:nett': mynet has no 'nett'; did you mean 'net'"),
        ("mynet:number", SpecError, "mynet:number is a int, not a function or a Module"),
        ("mynet:gives_a_number", SpecError, r"mynet:gives_a_number\(\) returns a int, not a torch.nn.Module"),
        ("mynet:needs_arguments", ValueError, "the call without arguments failed: TypeError: .*'depth'"),
    ],
)
@pytest.mark.usefixtures("net")
def test_specs_that_are_wrong_say_what_to_do(spec: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ft.load_embedder(f"torch:{spec}", devices="cpu")


@pytest.mark.parametrize("ending", [".pt", ".pt2", ".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"version https://git-lfs.github.com/spec/v1\n", b"PK\3\4"]
)
@pytest.mark.usefixtures("net")
def test_files_that_are_something_else(tmp_path: Path, content: bytes, ending: str) -> None:
    if ending == ".safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"file{ending}"
    path.write_bytes(content)
    what = {b"": "is empty, not", b"ver": "is a Git LFS pointer", b"PK\3": "is (not|a zip)"}.get(
        content[:3], "is not"
    )
    specs = [f"torch:mynet:net,weights={path}"]
    specs += [f"torch:{path}"] if ending != ".safetensors" else []
    for spec in specs:
        with pytest.raises(ValueError, match=f"{re.escape(path.name)} {what}"):
            ft.load_embedder(spec, devices="cpu")


@pytest.mark.parametrize("name", ["fixed.pt2", "script.pt", "state.pth"])
def test_files_that_are_cut_off(folder: Path, net: Any, tmp_path: Path, name: str) -> None:  # noqa: ARG001
    content = (folder / name).read_bytes()
    path = tmp_path / name
    for size in (len(content) // 2, len(content) - 10):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=rf"{re.escape(name)} is not .*, or is damaged"):
            ft.load_embedder(f"torch:{path}", devices="cpu")


def test_a_pickle_is_not_read(net: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001
    monkeypatch.setenv("EVIL", "no")

    class Evil:
        def __reduce__(self) -> Any:
            return exec, ("import os; os.environ['EVIL'] = 'yes'",)

    for name, form in (("new", True), ("old", False)):
        path = tmp_path / f"{name}.pt"
        torch.save({"a": Evil()}, path, _use_new_zipfile_serialization=form)
        for spec in (f"torch:{path}", f"torch:mynet:net,weights={path}"):
            with pytest.raises(ValueError, match="holds Python objects"):
                ft.load_embedder(spec, devices="cpu")
    import os  # noqa: PLC0415

    assert os.environ["EVIL"] == "no"


# --- states


def saved(path: Path, state: Any) -> str:
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path)
    else:
        torch.save(state, path)
    return f"torch:mynet:net,weights={path}"


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.model."])
def test_prefixes_are_taken_off_and_said(net: Any, tmp_path: Path, prefix: str, ending: str) -> None:
    with torch.no_grad():
        net.fc.weight.mul_(2)  # other weights than those that the function makes
    path = tmp_path / f"a{ending}"
    spec = saved(path, {f"{prefix}{name}": values for name, values in net.state_dict().items()})
    embedder = ft.load_embedder(spec, devices="cpu")
    said = f"weights {path}" + (f" without the prefix {prefix!r};" if prefix else ";")
    assert said in embedder.description
    images = random_images(3)
    assert distance(embedder.embed(rows_of(3), images), by_definition(net, images)) < ROUNDING


def test_a_checkpoint_of_a_training(net: Any, tmp_path: Path) -> None:
    state = {f"backbone.{name}": values for name, values in net.state_dict().items()}
    state["head.weight"] = torch.zeros(3, 3)
    spec = saved(tmp_path / "a.ckpt", {"epoch": 3, "model": {"state_dict": state, "lr": 0.1}, "best": 0.9})
    assert (
        "a.ckpt['model']['state_dict'] without the prefix 'backbone.', not used: head.weight;"
        in ft.load_embedder(spec, devices="cpu").description
    )


def test_states_of_another_network(net: Any, tmp_path: Path) -> None:
    state = net.state_dict()
    without = {name: values for name, values in state.items() if name != "fc.bias"}
    shape = state | {"fc.weight": torch.zeros(4, 4)}
    old = {name: values for name, values in state.items() if not name.endswith("num_batches_tracked")}
    for found, message in (
        (without, r"a.pth does not fit Net; it lacks: fc.bias$"),
        (state | {"x.y": state["fc.bias"]}, "does not fit Net; unknown to the network: x.y$"),
        ({"a": state["fc.bias"]}, r"it lacks: stem.weight, .* and \d+ more; unknown to the network: a$"),
        (shape, r"fc.weight has the shape \(4, 4\), and Net needs \(16, 2304\)"),
        ({f"module.{name}": values for name, values in without.items()}, "it lacks: fc.bias$"),
        ({"epoch": 3, "lr": 0.1}, "a.pth holds no state_dict; its entries are: epoch, lr"),
        ([1, 2], "a.pth holds a list, not a state_dict"),
    ):
        with pytest.raises(ValueError, match=message):
            ft.load_embedder(saved(tmp_path / "a.pth", found), devices="cpu")
    ft.load_embedder(saved(tmp_path / "a.pth", old), devices="cpu")  # from before PyTorch 0.4.1


# --- MXNet's networks


def test_mxnet_networks_are_converted(monkeypatch: pytest.MonkeyPatch, net: Any) -> None:
    calls: list[Any] = []

    def from_mxnet(prefix: str, epoch: int, *, output: str | None = None) -> Any:
        calls.append((prefix, epoch, output))
        return copy.deepcopy(net).eval()  # as the real one

    monkeypatch.setattr("fasttriplet.torch.from_mxnet", from_mxnet, raising=False)
    monkeypatch.setattr("fasttriplet.torch._models.folded", lambda network: network)  # needs a real one
    images = random_images(3)
    embedder = ft.load_embedder("torch:mxnet:a,b/model,0012,output=fc1", devices="cpu")
    assert embedder.description == (
        "PyTorch, MXNet network a,b/model, epoch 12, output fc1; takes RGB 0..255, any size; on cpu, 16 "
        "images at a time"
    )
    assert distance(embedder.embed(rows_of(3), images), by_definition(net, images, mean=0, std=1)) < ROUNDING
    other = ft.load_embedder("torch:mxnet:model,1,mean=127.5,std=128", output="emb", devices="cpu")
    assert distance(other.embed(rows_of(3), images), by_definition(net, images)) < ROUNDING
    assert calls == [("a,b/model", 12, "fc1"), ("model", 1, "emb")]
    with pytest.raises(SpecError, match=r"two outputs are chosen: 'fc1' in .* and output='fc2'"):
        ft.load_embedder("torch:mxnet:model,1,output=fc1", output="fc2")


@pytest.mark.parametrize("what", ["prefix", "torch:mxnet:prefix"])
def test_a_prefix_alone_gets_its_epoch(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("model-symbol.json", "model-0000.params", "model-0012.params"):
        (tmp_path / name).touch()
    spec = what.replace("prefix", f"{tmp_path}/model")
    monkeypatch.setattr("fasttriplet.embedders._load.find_spec", lambda _: None)  # MXNet is not installed
    with pytest.raises(SpecError, match=f"did you mean 'torch:mxnet:{re.escape(str(tmp_path))}/model,12'"):
        ft.load_embedder(spec)


def test_a_real_checkpoint_gives_the_recorded_embeddings(real_data: Path) -> None:
    import fasttriplet.torch  # noqa: PLC0415

    if not hasattr(fasttriplet.torch, "from_mxnet"):
        pytest.skip("from_mxnet is not there yet")
    data = ft.Dataset(real_data / "lfw112-a" / "train.rec", cache=False)
    chosen = data.index[::24]
    expected: NDArray[np.float32] = np.load(real_data / "lfw112-a" / "emb_a.npy")[::24]
    embedder = ft.load_embedder(f"torch:mxnet:{real_data}/model-y1/model,0", devices="cpu")
    found = embedder.embed(chosen, data.decode(chosen).pixels)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    assert (np.sum(found * expected, axis=1) / norms).min() > 1 - 1e-6
