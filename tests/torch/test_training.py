"""Trainings with PyTorch: resumed with the same bits, and read, verified and exported afterwards."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import fasttriplet as ft
import torch
from fasttriplet.cli import main
from fasttriplet.errors import OptionError
from fasttriplet.training import TrainSettings, options_at
from tests.processes import run_python
from tests.torch.trainings import importable, one_thread
from tests.training.small import records, same_arrays, settings, state, train
from tests.training.test_resume import KILLED

pytestmark = [pytest.mark.heavy, pytest.mark.torch, pytest.mark.usefixtures("alone", "trainable")]

FILES = (".json", ".safetensors", "-best.json", "-best.safetensors")
KINDS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw": {"optimizer": "adamw", "learning_rate": 0.002, "weight_decay": 0.05},
    "clip_norm": {"clip_norm": 0.1, "loss": "angular"},
    "bfloat16": {"precision": "bfloat16"},
    "dropout": {"network": "torch:trainable:with_noise,color=bgr,mean=0,std=255"},
    "lazy": {"network": "torch:trainable:lazy"},
    "schedule": {"lr_schedule": "linear", "warmup": 4, "lr_end": 20},
    "mobilefacenet": {"network": "mobilefacenet", "batch_size": 6, "bag_size": 24},
}


@pytest.fixture
def alone() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A module of the user's that can be imported."""
    with importable(tmp_path_factory.mktemp("trainable"), "trainable"):
        yield


def chosen_in(data: Path, **options: Any) -> TrainSettings:
    return settings(data, framework="torch", **options)


def run(chosen: TrainSettings, out: Path, **options: Any) -> Any:
    """A training of 12 batches, with verifications after 0, 5, 10 and 12, and checkpoints after 4 and 8."""
    how: dict[str, Any] = {"batches": 12, "verify_every": 5, "checkpoint_every": 4, "log_every": 1}
    verify_on = str(Path(chosen.rec[0]).with_name("pairs.bin"))
    return train(chosen, out, verify_on=[verify_on], **how | options)


def same(out: Path, other: Path) -> None:
    for ending in FILES:
        assert Path(f"{out}{ending}").read_bytes() == Path(f"{other}{ending}").read_bytes(), ending
    assert same_arrays(out, other)
    assert {**state(out).plain, "options": None} == {**state(other).plain, "options": None}
    assert records(out) == records(other)


def stop_at(kind: str, batch: int, error: type[BaseException] = KeyboardInterrupt) -> Any:
    def progress(record: Mapping[str, Any]) -> None:
        if record["kind"] == kind and record["batch"] >= batch:
            raise error

    return progress


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind == "mobilefacenet")) for kind in KINDS]
)
def test_a_resumed_training_ends_with_the_same_bits(data: Path, tmp_path: Path, kind: str) -> None:
    chosen = chosen_in(data, **KINDS[kind])
    how = {"verify_every": 12} if kind == "mobilefacenet" else {}  # which embeds slowly
    run(chosen, tmp_path / "a", **how)
    for batch in (3, 7):
        with pytest.raises(KeyboardInterrupt):
            run(chosen, tmp_path / "b", resume=batch > 3, progress=stop_at("step", batch), **how)
        assert state(tmp_path / "b").plain["batch"] == batch
    done = run(chosen, tmp_path / "b", resume=True, **how)
    same(tmp_path / "a", tmp_path / "b")
    assert (done.last, done.best) == (f"torch:{tmp_path / 'b'}", f"torch:{tmp_path / 'b'}-best")
    before = [Path(f"{tmp_path / 'b'}{ending}").read_bytes() for ending in FILES]
    for ending in FILES:  # which a run that resumes writes again, where the best network is that of the state
        if done.best_batch == 12 or "best" not in ending:
            Path(f"{tmp_path / 'b'}{ending}").unlink()
    run(chosen, tmp_path / "b", resume=True, **how)
    assert [Path(f"{tmp_path / 'b'}{ending}").read_bytes() for ending in FILES] == before


@pytest.mark.parametrize(
    "where",
    [("embedded", 0, SystemExit), ("train", 6, KeyboardInterrupt), ("verification", 5, RuntimeError)],
)
def test_it_is_resumed_from_where_it_was_stopped(
    data: Path, unbroken_torch: Path, tmp_path: Path, where: tuple[str, int, type[BaseException]]
) -> None:
    kind, batch, error = where
    with pytest.raises(error):
        run(chosen_in(data), tmp_path / "a", progress=stop_at(kind, batch, error))
    run(chosen_in(data), tmp_path / "a", resume=True)
    same(tmp_path / "a", unbroken_torch)


@pytest.fixture(scope="module")
def unbroken_torch(data: Path) -> Path:
    with one_thread():
        run(chosen_in(data), data / "unbroken_torch")
    return data / "unbroken_torch"


@pytest.mark.slow
def test_a_killed_training_is_resumed(data: Path, unbroken_torch: Path, tmp_path: Path) -> None:
    always = ["train", "--out", f"{tmp_path}/a", "--batches", "12", "--verify-on", f"{data}/pairs.bin"]
    always += ["--verify-every", "5", "--checkpoint-every", "4", "--log-every", "1"]
    begin = ["--rec", f"{data / 'train.rec'}", "--network", "small", "--embedding-size", "16"]
    begin += ["--batch-size", "12", "--bag-size", "48", "--lr-steps", "25,50", "--framework", "torch"]
    code = KILLED.replace("tests.training.mxnet_command", "tests.torch.command").replace("10 *", "3 *")
    run_python(code, f"{tmp_path / 'a'}-state.npz", json.dumps(begin), *always)
    same(tmp_path / "a", unbroken_torch)


def test_numbers_depend_on_the_seed(data: Path, unbroken_torch: Path, tmp_path: Path) -> None:
    run(chosen_in(data, seed=1), tmp_path / "a", batches=1)
    first, other = (records(out, "train")[0]["loss"] for out in (tmp_path / "a", unbroken_torch))
    assert first != other
    for number in (0, 1):  # a function that makes a module draws from the seed, too
        options = KINDS["dropout"] | {"seed": number}
        run(chosen_in(data, **options), tmp_path / f"{number}", batches=1)
    one, two = (state(tmp_path / name).arrays["network:1.fc.weight"] for name in "01")
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("kind", ["sgd", "bfloat16", "dropout"])
def test_the_network_that_was_saved_embeds_as_the_training_did(
    data: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(chosen_in(data, **KINDS[kind]), tmp_path / "a")
    last = records(tmp_path / "a", "verification")[-1]
    precision = ",precision=bfloat16" if kind == "bfloat16" else ""
    arguments = ["verify", "--pairs", str(data / "pairs.bin"), "--model", f"{done.last}{precision}", "--json"]
    assert main(arguments) == 0
    (found,) = json.loads(capsys.readouterr().out)["results"]
    for name in ("accuracy", "accuracy_std", "auc"):
        assert found[name] == last[name]
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)
    assert "24 x 24" in ft.load_embedder(done.last).description
    module = ft.torch.load_network(tmp_path / "a")  # type: ignore[attr-defined]
    assert not module.training
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float32))
    taken = pixels.flip(1) / 255 if kind == "dropout" else pixels
    with torch.no_grad():
        ours = module(taken).numpy()
    theirs = ft.load_embedder(done.last).embed(ft.index_rec(data / "train.rec")[:5], images)
    assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_process_is_as_before(data: Path, tmp_path: Path) -> None:
    cudnn: Any = torch.backends.cudnn
    filling: Any = torch.utils.deterministic  # type: ignore[attr-defined]

    def seen() -> list[Any]:
        return [
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            filling.fill_uninitialized_memory,
            *(cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.get_rng_state().tolist(),
            str(np.random.get_state()),
        ]

    precision = cudnn.conv.fp32_precision
    chosen = chosen_in(data, network="torch:trainable:with_noise")
    for deterministic, name in ((False, "none"), (True, "ieee")):
        cudnn.conv.fp32_precision = name
        torch.use_deterministic_algorithms(deterministic)
        cudnn.benchmark = cudnn.deterministic = deterministic
        try:
            before = seen()
            run(chosen, tmp_path / name, batches=3)
            assert seen() == before
            run(chosen, tmp_path / name, batches=4, resume=True)
            with pytest.raises(RuntimeError):
                run(chosen, tmp_path / name, resume=True, progress=stop_at("step", 5, RuntimeError))
            ft.load_embedder(f"torch:{tmp_path / name}")
            assert seen() == before
        finally:
            cudnn.conv.fp32_precision = precision
            torch.use_deterministic_algorithms(False)
            cudnn.benchmark = cudnn.deterministic = False


def test_where_mxnet_is_missing_pytorch_trains_and_the_log_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fasttriplet.training import _backend  # noqa: PLC0415

    for name in [name for name in sys.modules if name.split(".")[0] == "mxnet"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mxnet", None)
    monkeypatch.setattr(_backend, "find_spec", lambda name: None if name == "mxnet" else find_spec(name))
    command = ["train", "--rec", str(data / "train.rec"), "--network", "small", "--out", str(tmp_path / "a")]
    options = ["--batches", "2", "--batch-size", "12", "--bag-size", "48", "--embedding-size", "8"]
    assert main([*command, *options]) == 0
    assert records(tmp_path / "a", "start")[0]["framework"] == "torch"
    assert "PyTorch" in capsys.readouterr().err
    assert options_at(tmp_path / "a")[0].framework == "torch"


def test_weights_to_begin_with(data: Path, tmp_path: Path) -> None:
    """From a training, and from files of weights, for both kinds of networks."""
    chosen = chosen_in(data)
    run(chosen, tmp_path / "a", batches=4)
    wide = replace(chosen, embedding_size=8)
    for number, source in enumerate((f"torch:{tmp_path / 'a'}", f"{tmp_path / 'a'}.safetensors")):
        out = tmp_path / f"{number}"
        run(replace(chosen, pretrained=source), out, batches=1, checkpoint_every=1, log_every=1)
        first = records(out, "verification")[0]
        assert {**first, "batch": 4} == records(tmp_path / "a", "verification")[-1]
        with pytest.raises(ValueError, match=r"fc1_beta has the shape|fc1.bias has the shape"):
            run(replace(wide, pretrained=source), tmp_path / "c", batches=1)
    of_function = chosen_in(data, network="torch:trainable:square")
    run(of_function, tmp_path / "f", batches=4)
    run(replace(of_function, pretrained=f"torch:{tmp_path / 'f'}"), tmp_path / "g", batches=1)
    first = records(tmp_path / "g", "verification")[0]
    assert {**first, "batch": 4} == records(tmp_path / "f", "verification")[-1]
    with pytest.raises(ValueError, match="is a network that a function makes"):
        run(replace(chosen, pretrained=f"torch:{tmp_path / 'f'}"), tmp_path / "h", batches=1)
    with pytest.raises(ValueError, match="does not fit"):
        run(replace(of_function, pretrained=f"torch:{tmp_path / 'a'}"), tmp_path / "h", batches=1)
    with pytest.raises(OptionError, match="must be torch:PREFIX or a file of weights"):
        run(replace(of_function, pretrained="model,0"), tmp_path / "h", batches=1)
    with pytest.raises(FileNotFoundError, match="absent"):
        run(replace(chosen, pretrained="torch:absent"), tmp_path / "h", batches=1)
    assert not list(tmp_path.glob("h*"))


@pytest.mark.mxnet
@pytest.mark.parametrize("loss", ["squared", "angular"])
def test_the_first_losses_are_those_of_mxnet(data: Path, tmp_path: Path, loss: str) -> None:
    """With the default learning rate and momentum, mined by each, from a network that has learned something.

    Before that, errors of float32 would grow a thousandfold in a few steps, see `STEPS` of test_backend.
    """
    options: dict[str, Any] = {"loss": loss, "loss_margin": 1.0, "batch_size": 24, "lr_steps": (100_000,)}
    train(chosen_in(data, **options), tmp_path / "begun", batches=60, export=["mxnet"])
    found: dict[str, list[float]] = {}
    for framework in ("mxnet", "torch"):
        chosen = settings(data, framework=framework, pretrained=f"{tmp_path / 'begun'},0", **options)
        train(chosen, tmp_path / framework, batches=20, log_every=1)
        found[framework] = [line["loss"] for line in records(tmp_path / framework, "train")]
    assert len(found["mxnet"]) == 20
    assert min(found["mxnet"]) > 0
    assert found["torch"] == pytest.approx(found["mxnet"], abs=1e-4)
