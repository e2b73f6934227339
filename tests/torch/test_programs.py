"""Files of ``torch.export`` that bring code, or that were exported in training mode."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fasttriplet as ft
from tests.torch.small_modules import SIZE, random_images, rows_of

pytest.importorskip("torch")

import torch
from fasttriplet.torch._models import _in_training_mode

pytestmark = pytest.mark.torch


class Net(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3 * SIZE[0] * SIZE[1], 4)
        self.shift = torch.ones(4)  # a constant

    def forward(self, x: Any) -> Any:
        return self.fc(x.flatten(1)) + self.shift


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    torch.manual_seed(0)
    torch.export.save(torch.export.export(Net().eval(), (torch.zeros(2, 3, *SIZE),)), path)
    return path


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> Any:
        return Path.touch, (self.made,)


def pickled(what: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(what, buffer)
    return buffer.getvalue()


def changed(path: Path, source: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """A copy of an archive with other entries, stored as PyTorch stores them."""
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def entry(entries: dict[str, bytes], ending: str) -> str:
    return next(name for name in entries if name.endswith(ending))


def example(evil: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(entries: dict[str, bytes]) -> None:
        entries[entry(entries, "sample_inputs/model.pt")] = evil

    return change


def legacy(folder: str, evil: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(entries: dict[str, bytes]) -> None:
        top = entry(entries, "archive_format").removesuffix("archive_format")
        entries[f"{top}data/{folder}/model.pt"] = evil

    return change


def payload(folder: str, name: str, evil: bytes, *, use_pickle: bool) -> Callable[[dict[str, bytes]], None]:
    def change(entries: dict[str, bytes]) -> None:
        config = entry(entries, f"data/{folder}/model_{folder}_config.json")
        content = json.loads(entries[config])
        first = next(iter(content["config"].values()))
        first["path_name"], first["use_pickle"] = name, use_pickle
        entries[config] = json.dumps(content).encode()
        entries[f"{config.rpartition('/')[0]}/{name}"] = evil

    return change


def older(evil: bytes) -> Callable[[dict[str, bytes]], None]:
    """A file as PyTorch wrote it before 2.8."""

    def change(entries: dict[str, bytes]) -> None:
        program = entries[entry(entries, "models/model.json")]
        entries.clear()
        entries |= {"version": b"8.8", "serialized_exported_program.json": program}
        entries |= dict.fromkeys(("serialized_state_dict.pt", "serialized_example_inputs.pt"), pickled({}))
        entries["serialized_constants.pt"] = evil

    return change


CHANGES: dict[str, Callable[[bytes], Callable[[dict[str, bytes]], None]]] = {
    "example inputs": example,
    "weights of before": lambda evil: legacy("weights", evil),
    "constants of before": lambda evil: legacy("constants", evil),
    "a weight": lambda evil: payload("weights", "weight_0", evil, use_pickle=True),
    "a constant": lambda evil: payload("constants", "tensor_0", evil, use_pickle=True),
    "an object": lambda evil: payload("constants", "opaque_obj_0", evil, use_pickle=False),
    "an object of C++": lambda evil: payload("constants", "custom_obj_0", evil, use_pickle=True),
    "an older file": older,
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_would_run_code_is_not_unpickled(case: str, saved: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    plain = case == "an object"
    evil = pickle.dumps(Evil(made)) if plain else pickled((Evil(made), {}))
    path = changed(tmp_path / "evil.pt2", saved, CHANGES[case](evil))
    with pytest.raises(
        ValueError,
        match=r"evil\.pt2 holds Python objects \(.*\), and reading those runs code of whoever wrote",
    ):
        ft.load_embedder(f"torch:{path}", devices="cpu")
    assert not made.exists()
    if case == "example inputs":  # the test is one: PyTorch itself does it
        torch.export.load(path)
        assert made.exists()


def test_a_compiled_library_is_not_loaded(saved: Path, tmp_path: Path) -> None:
    def change(entries: dict[str, bytes]) -> None:
        top = entry(entries, "archive_format").removesuffix("archive_format")
        entries[f"{top}data/aotinductor/model/a.so"] = b"\x7fELF"

    path = changed(tmp_path / "net.pt2", saved, change)
    with pytest.raises(
        ValueError, match=r"net\.pt2 holds compiled code \(data/aotinductor/model/a\.so\); give"
    ):
        ft.load_embedder(f"torch:{path}", devices="cpu")


def test_pickles_of_tensors_alone_are_read(saved: Path, tmp_path: Path) -> None:
    change = payload("constants", "tensor_0", pickled(torch.ones(4)), use_pickle=True)
    path = changed(tmp_path / "net.pt2", saved, change)
    images = random_images(3)
    found, expected = (
        ft.load_embedder(f"torch:{each}", devices="cpu").embed(rows_of(3), images) for each in (path, saved)
    )
    assert (found == expected).all()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"config": 3}', b'{"config": {"a": {}}}', b'{"config": {"a": 3}}', b"\xff"],
)
def test_damaged_lists_of_weights(saved: Path, tmp_path: Path, content: bytes) -> None:
    def change(entries: dict[str, bytes]) -> None:
        entries[entry(entries, "model_weights_config.json")] = content

    path = changed(tmp_path / "net.pt2", saved, change)
    with pytest.raises(
        ValueError, match=r"net\.pt2 is not a program that torch\.export saved, or is damaged \("
    ):
        ft.load_embedder(f"torch:{path}", devices="cpu")


@pytest.mark.parametrize("kept", ["the end", "all, after other bytes"])
def test_a_damaged_program_is_told_once(
    saved: Path, tmp_path: Path, kept: str, caplog: pytest.LogCaptureFixture
) -> None:
    """PyTorch itself logs tracebacks."""
    content = saved.read_bytes()
    path = tmp_path / "net.pt2"
    path.write_bytes(content[len(content) // 2 :] if kept == "the end" else b"xx" + content)
    with pytest.raises(
        ValueError,
        match=r"net\.pt2 is not a program .*, or is damaged \(RuntimeError: Pyt\w+ failed [^.]*\)$",
    ):
        ft.load_embedder(f"torch:{path}", devices="cpu")
    assert not caplog.records


def test_the_ending_does_not_matter(saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(saved, tmp_path / "net.pt")
    ft.load_embedder(f"torch:{tmp_path}/net.pt", devices="cpu")
    assert not caplog.records


@pytest.mark.parametrize("ending", [".pt2", ".pt", ".pth"])
def test_archives_that_would_fill_the_memory(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb{ending}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(20 << 20))
    specs = [f"torch:{path}", f"torch:torch.nn:Flatten,weights={path}"]
    for spec in specs:
        with pytest.raises(
            ValueError, match=r"is damaged: it has \d\d,\d+ bytes, and its entries announce 20,9"
        ):
            ft.load_embedder(spec, devices="cpu")


@pytest.mark.parametrize("ending", [".pt2", ".pt", ".pth"])
def test_a_damaged_list_of_an_archive(saved: Path, ending: str, tmp_path: Path) -> None:
    """The end of the file is right, and what is before it is not."""
    path = tmp_path / f"net{ending}"
    shutil.copy(saved, path)
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\5\6")
    (start,) = struct.unpack_from("<I", content, end + 16)
    if start == 0xFFFFFFFF:
        start = end - 100
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"net\{ending} is not .*, or is damaged"):
        ft.load_embedder(f"torch:{path}", devices="cpu")


@pytest.mark.parametrize("ending", [".pt2", ".pt", ".pth", ".safetensors"])
def test_folders(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"net{ending}"
    path.mkdir()
    specs = [f"torch:torch.nn:Flatten,weights={path}"]
    specs += [f"torch:{path}"] if ending != ".safetensors" else []
    for spec in specs:
        with pytest.raises(OSError, match="is a folder; expected a file of") as caught:
            ft.load_embedder(spec, devices="cpu")
        assert caught.value.filename == str(path)


def test_the_system_s_errors_stay_what_they_are(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    error: Exception
    monkeypatch.setattr(torch.export, "load", fails)
    for error in (PermissionError(13, "no"), MemoryError(), ImportError("torchvision")):
        with pytest.raises(type(error)):
            ft.load_embedder(f"torch:{saved}", devices="cpu")
    error = RuntimeError("DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(MemoryError, match=r"^not enough memory to load .*net\.pt2$"):
        ft.load_embedder(f"torch:{saved}", devices="cpu")


# --- training mode


class Normalises(torch.nn.Module):  # type: ignore[misc, unused-ignore]
    def __init__(self, *layers: Any) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        return self.layers(x).mean((2, 3))


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (lambda: torch.nn.BatchNorm2d(3), "batch_norm"),
        (lambda: torch.nn.Dropout(), "dropout"),  # noqa: PLW0108
        (lambda: torch.nn.FeatureAlphaDropout(), "feature_alpha_dropout"),  # noqa: PLW0108
        (lambda: torch.nn.RReLU(), "rrelu"),  # noqa: PLW0108
    ],
)
@pytest.mark.parametrize("lowered", [False, True])
def test_layers_in_training_mode_are_found(layer: Any, name: str, lowered: bool) -> None:
    for training in (True, False):
        net = Normalises(layer()).train(training)
        program: Any = torch.export.export(net, (torch.rand(2, 3, 4, 4),))
        found = _in_training_mode(
            program.run_decompositions() if lowered and name == "batch_norm" else program
        )
        assert (found is not None and name in found) == training


def test_operators_of_others_are_not_misread() -> None:
    library = torch.library.Library("fasttriplet_test", "FRAGMENT")
    library.define("my_batch_norm(Tensor x) -> Tensor")
    library.impl("my_batch_norm", lambda x: x * 1, "CompositeImplicitAutograd")

    class Custom(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def forward(self, x: Any) -> Any:
            return torch.ops.fasttriplet_test.my_batch_norm(x).flatten(1)

    graph = torch.fx.symbolic_trace(Custom()).graph
    for node in graph.nodes:
        if node.op == "call_function":
            node.target = torch.ops.fasttriplet_test.my_batch_norm.default
    assert _in_training_mode(type("Program", (), {"graph": graph})) is None
