"""`fasttriplet train`: its flags, without a training; `tests/training` has those."""

from __future__ import annotations

import inspect
import json
import re
import sys
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
import pytest

from fasttriplet.cli import main
from fasttriplet.cli._train import train
from fasttriplet.run._summary import Summary
from tests.cli.command import Capture

if TYPE_CHECKING:
    from fasttriplet.training import TrainSettings

BEGIN = ["train", "--rec", "a.rec", "--network", "small", "--out", "models/a"]
FLAGS = {str(flag.name): flag for flag in train.params}


def test_every_argument_is_a_flag_and_has_the_same_default() -> None:
    from fasttriplet.training import TrainSettings, train_rec  # noqa: PLC0415

    wanted: dict[str, Any] = {one.name: one.default for one in fields(TrainSettings)}
    arguments = inspect.signature(train_rec).parameters.values()
    wanted |= {one.name: one.default for one in arguments if one.name not in ("settings", "out", "progress")}
    values = train.make_context("train", ["--out", "models/a"]).params
    assert wanted.keys() == values.keys() - {"out", "as_json"}
    for name, default in wanted.items():
        if default is not MISSING:
            assert values[name] == default, name


def test_the_help_names_all_networks_and_losses() -> None:
    from fasttriplet.checkpoint._networks import NETWORKS  # noqa: PLC0415
    from fasttriplet.training._settings import Loss  # noqa: PLC0415

    assert all(name in FLAGS["network"].to_info_dict()["help"] for name in NETWORKS)
    kind = FLAGS["loss"].type
    assert isinstance(kind, click.Choice)
    assert tuple(kind.choices) == get_args(Loss)


def test_flags_have_the_choices_of_the_settings() -> None:
    from fasttriplet.embedders._precision import Precision  # noqa: PLC0415
    from fasttriplet.training import _settings  # noqa: PLC0415
    from fasttriplet.training._schedule import Export  # noqa: PLC0415

    for name, expected in {
        "framework": get_args(_settings.Framework),
        "optimizer": get_args(_settings.Optimizer),
        "lr_schedule": get_args(_settings.LrSchedule),
        "precision": (*get_args(Precision), "bf16"),
        "export": get_args(Export),
    }.items():
        kind = FLAGS[name].type
        assert isinstance(kind, click.Choice)
        assert tuple(kind.choices) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--positives", "ordered"], "--positives is called --pairs now."),
        (["--pairs", "lfw.bin"], "the file lfw.bin goes to --verify-on of `fasttriplet train`."),
        (["--pairs=models/lfw.bin"], "goes to --verify-on"),
        (
            ["--metric", "cosine", "--no-normalize"],
            "Error: --metric 'cosine' compares directions: it needs --normalize",
        ),
        (["--no-normalize", "--metric", "cosine"], "Error: --metric 'cosine' compares directions"),
        (["--margin", "nan"], "'--margin'"),
        (["--loss-margin", "-1"], "'--loss-margin'"),
        (["--learning-rate", "nan"], "'--learning-rate'"),
        (["--lr-schedule", "linear", "--lr-steps", "5"], "Error: --lr-steps goes with --lr-schedule steps"),
        (
            ["--lr-schedule", "cosine", "--lr-factor", "0.1"],
            "Error: --lr-factor goes with --lr-schedule steps",
        ),
        (["--lr-end", "9"], "Error: --lr-end goes with --lr-schedule linear or --lr-schedule cosine"),
        (
            ["--framework", "torch", "--optimizer", "adamw", "--momentum", "0.9"],
            "Error: --momentum goes with --optimizer sgd",
        ),
        (["--warmup", "-1"], "'--warmup'"),
        (["--clip-norm", "0"], "Error: --clip-norm must be above 0"),
        (
            ["--framework", "mxnet", "--optimizer", "adamw"],
            "--optimizer 'adamw' is for PyTorch: give --framework torch",
        ),
        (
            ["--framework", "mxnet", "--precision", "bf16"],
            "--precision 'bfloat16' is for PyTorch: give --framework",
        ),
        (
            ["--framework", "mxnet", "--clip-norm", "1"],
            "--clip-norm 1.0 is for PyTorch: give --framework torch",
        ),
        (["--export", "pt2"], "'--export'"),
    ],
)
def test_flags_that_are_refused(arguments: list[str], message: str, capsys: Capture) -> None:
    assert main([*BEGIN, *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err.splitlines()[-1]


@dataclass
class Trained:
    batches = 7
    last = "mxnet:models/a,0"
    best = None
    best_batch = None
    best_accuracy = None
    exported = ()
    summary = Summary(files=["a.rec"], embedder="none")


class Training:
    """In the place of a training, remembers what it was called with."""

    settings: TrainSettings
    how: dict[str, Any]

    def train_rec(self, settings: TrainSettings, out: str, *, progress: Any, **how: Any) -> Trained:
        self.settings, self.how = settings, {"out": out, **how}
        start = {"kind": "start", "batch": 0, "batches": 7, "images": 9, "identities": 3}
        start |= {"framework": settings.framework or "mxnet", "image_size": (24, 20), "devices": ["cpu"]}
        start |= {"processes": 1}
        progress(start | {"seconds_left": None})
        return Trained()

    def options_at(self, out: str) -> tuple[TrainSettings, dict[str, Any]]:
        assert out == self.how.pop("out")
        assert self.how.pop("resume") is False
        return self.settings, dict(self.how)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Training:
    training = Training()
    monkeypatch.setattr("fasttriplet.training.train_rec", training.train_rec)
    monkeypatch.setattr("fasttriplet.training.options_at", training.options_at)
    return training


def test_every_flag_arrives(training: Training, capsys: Capture) -> None:
    settings: dict[str, Any] = {
        "framework": "torch", "lr_schedule": "steps", "warmup": 9, "precision": "tf32", "clip_norm": 2.0,
        "pretrained": "b,1", "embedding_size": 8, "loss": "angular", "loss_margin": 0.4, "batch_size": 12,
        "learning_rate": 0.1, "lr_steps": (3, 5), "lr_factor": 0.5, "momentum": 0.8, "weight_decay": 0.01,
        "cutoff": 3, "color_jitter": 0.2, "margin": 0.1, "band": "hard", "pick": "hardest",
        "pairs": "ordered", "negatives_per_pair": 2, "max_ap": 1.5, "metric": "euclidean",
        "images_per_identity": 4, "bag_size": 90, "boundary": "split", "on_error": "skip", "seed": 5,
    }  # fmt: skip
    how: dict[str, Any] = {
        "batches": 7, "verify_every": 2, "checkpoint_every": 3, "log_every": 4, "tensorboard": "board",
        "export": "onnx", "devices": "cpu", "threads": 2, "prefetch": 0, "memory": 3,
    }  # fmt: skip
    plain = {**settings, **how, "lr_steps": "3,5"}
    words = [word for name, value in plain.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words += ["--no-normalize", "--no-mirror", "--overwrite", "--verify-on", "x.bin", "--verify-on", "y.bin"]
    assert main([*BEGIN, *words]) == 0
    for name, value in (settings | {"normalize": False, "mirror": False, "rec": ("a.rec",)}).items():
        assert getattr(training.settings, name) == value, name
    how |= {
        "memory": 3_000_000,
        "export": ("onnx",),
        "verify_on": ("x.bin", "y.bin"),
        "resume": False,
        "overwrite": True,
        "out": "models/a",
    }
    assert training.how == how
    shown = capsys.readouterr()
    assert shown.err == "9 images of 3 identities, 24 x 20, with PyTorch on cpu; batch 0 of 7\n"
    assert "mxnet:models/a,0" in shown.out


def test_a_network_of_the_user_has_an_embedding_size_of_its_own(capsys: Capture) -> None:
    words = [
        "train",
        "--rec",
        "a.rec",
        "--out",
        "a",
        "--network",
        "torch:mynet:net",
        "--embedding-size",
        "64",
    ]
    assert main(words) == 2
    assert "--embedding-size goes with a --network by name" in capsys.readouterr().err


def test_bf16_is_short_for_bfloat16(training: Training) -> None:
    assert main([*BEGIN, "--framework", "torch", "--precision", "bf16"]) == 0
    assert training.settings.precision == "bfloat16"


def test_what_goes_with_another_schedule_is_refused_of_a_resumed_training(
    training: Training, capsys: Capture
) -> None:
    assert main([*BEGIN, "--lr-schedule", "linear", "--lr-end", "9"]) == 0
    again = ["train", "--out", "models/a", "--resume"]
    assert main([*again, "--lr-steps", "5"]) == 2
    assert "--lr-steps goes with --lr-schedule steps" in capsys.readouterr().err
    training.how |= {"out": "models/a", "resume": False}
    assert main([*again, "--lr-schedule", "steps"]) == 0  # train_rec says that it was another one
    assert (training.settings.lr_schedule, training.settings.lr_end) == ("steps", None)


@pytest.mark.usefixtures("training")
def test_the_end_says_how_good_the_best_network_is(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    best = {"best": "torch:models/a-best", "best_batch": 5, "best_accuracy": 0.98765, "exported": ("a.onnx",)}
    for name, value in best.items():
        monkeypatch.setattr(Trained, name, value)
    assert main(BEGIN) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "torch:models/a-best (after batch 5, with accuracy 98.765%)" in shown
    assert "exported │ a.onnx" in shown
    assert main([*BEGIN, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert best | {"exported": ["a.onnx"]} == {name: told[name] for name in best}


def test_resume_keeps_what_is_not_given(training: Training) -> None:
    assert main([*BEGIN, "--margin", "0.1", "--verify-on", "x.bin", "--memory", "3", "--log-every", "4"]) == 0
    begun, how = training.settings, training.how
    again = ["train", "--out", "models/a", "--resume"]
    assert main(again) == 0
    assert training.settings == begun
    assert training.how == how | {"out": "models/a", "resume": True}
    training.how |= {"resume": False}
    assert main([*again, "--log-every", "20", "--symbol", "s.json", "--rec", "b.rec"]) == 0
    assert training.how == how | {"out": "models/a", "resume": True, "log_every": 20}
    changed = training.settings
    assert (changed.network, changed.symbol, changed.rec) == (None, "s.json", ("b.rec",))
    assert changed.margin == 0.1


def test_a_stopped_training_says_how_to_resume_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def stopped(*_: Any, **__: Any) -> Trained:
        raise KeyboardInterrupt

    monkeypatch.setattr("fasttriplet.training.train_rec", stopped)
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    assert main(BEGIN) == 130
    assert "resume" not in capsys.readouterr().err
    Path("models/a-state.npz").touch()
    assert main(BEGIN) == 130
    err = capsys.readouterr().err
    assert f"To resume: {sys.executable} -m fasttriplet train --out models/a --resume\n" in err


def test_log_lines_say_how_long_the_rest_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, tmp_path: Path
) -> None:
    step: dict[str, Any] = {"epoch": 0, "loss": 0.1, "active": 0.5, "norm": 1.0, "learning_rate": 0.05}
    verifying = {"kind": "verifying", "pairs": "data/lfw.bin", "images": 3000, "of": 12000}

    def train_rec(*_: object, progress: Any, **__: object) -> Trained:
        start = {"kind": "start", "batches": 1000, "images": 1, "identities": 1, "image_size": (24, 20)}
        begun = {"framework": "mxnet", "devices": ["cpu"], "processes": 1, "batch": 0, "seconds_left": None}
        progress(start | begun)
        progress({"kind": "embedded", "images": 3072, "of": 7200, "batch": 0, "seconds_left": None})
        progress(step | {"kind": "train", "images_per_second": 60, "batch": 20, "seconds_left": 3700.4})
        progress({"kind": "step", "batch": 21, "seconds_left": 3699})
        progress(verifying | {"batch": 21, "seconds_left": 3699})
        progress({"kind": "exporting", "file": "models/a.onnx", "batch": 21, "seconds_left": 0})
        return Trained()

    monkeypatch.setattr("fasttriplet.training.train_rec", train_rec)
    monkeypatch.setattr("fasttriplet.cli._progress._FIRST_PAUSE", 0)
    monkeypatch.setattr("fasttriplet.cli._progress._BEAT", 3600)
    monkeypatch.chdir(tmp_path)
    assert main(BEGIN) == 0
    lines = [re.sub(r", \S+ batches/s", ", RATE", line) for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "preparing",
        "1 image of 1 identity, 24 x 20, with MXNet on cpu; batch 0 of 1,000",
        "training: 0 of 1,000 batches",
        "embedding a bag: 3,072 of 7,200 images, batch 0 of 1,000",
        "batch 20 of 1,000  epoch 0  loss 0.1000  active 50%  norm 1.00  learning rate 0.05  60 images/s  "
        "1:01:40 left",
        "training: 20 of 1,000 batches, RATE, 1:01:40 left, 60 images/s, loss 0.1000, active 50%",
        "training: 21 of 1,000 batches, RATE, 1:01:39 left, 60 images/s, loss 0.1000, active 50%",
        "verifying on lfw.bin: 3,000 of 12,000 images, batch 21 of 1,000, 1:01:39 left in all",
        "writing models/a.onnx",
    ]
