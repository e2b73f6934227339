"""The examples run, and the one with Lightning computes what the plain one does."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.small_rec import identities, write_rec

pytest.importorskip("torch")

import torch

pytestmark = pytest.mark.torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rec(tmp_path / "train.rec", identities(20, 6))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)


def run(name: str, epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run an example in this process, which has imported the parts of PyTorch that take seconds."""
    monkeypatch.setattr(sys, "argv", [name, "train.rec", "--epochs", str(epochs)])
    monkeypatch.delitem(sys.modules, "train", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ["train.py", "train_metric_learning.py"])
def test_an_epoch_whose_triplets_fill_no_batch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "train_metric_learning.py":
        pytest.importorskip("pytorch_metric_learning")
    write_rec(tmp_path / "train.rec", identities(3, 3))
    run(name, 3, monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["epoch 2"]


@pytest.mark.filterwarnings("ignore")  # of Lightning's own
def test_plain_and_with_lightning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plain one is stopped after two epochs and resumed."""
    pytest.importorskip("lightning")
    run("train.py", 2, monkeypatch)
    run("train.py", 3, monkeypatch)
    *_, plain = lines = capsys.readouterr().out.splitlines()
    losses = [re.fullmatch(r"epoch (\d): loss (0\.\d{4}), active (0\.\d{4})", line) for line in lines]
    assert [loss and loss[1] for loss in losses] == ["0", "1", "2"]
    run("train_lightning.py", 3, monkeypatch)
    *_, of_lightning = capsys.readouterr().out.splitlines()
    found = dict(re.findall(r"'(\w+)': (\d\.\d+)", of_lightning))
    assert float(found["loss"]) == pytest.approx(float(plain.split("loss ")[1][:6]), abs=2e-4)
    assert float(found["active"]) == pytest.approx(float(plain.split("active ")[1]), abs=2e-4)


def test_with_a_loss_of_pytorch_metric_learning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pytorch_metric_learning")
    run("train_metric_learning.py", 1, monkeypatch)
    assert re.fullmatch(r"epoch 0: loss 0\.\d{4} of the active triplets\n", capsys.readouterr().out)


@pytest.mark.heavy
def test_distributed() -> None:
    """By torchrun, with two processes."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *(EXAMPLES / "train.py", "train.rec", "--epochs", "2"),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"(epoch \d: loss 0\.\d{4}, active 0\.\d{4}\n){2}", done.stdout)
    state = torch.load("triplets.pt", weights_only=True)
    assert state["feed"]["arguments"]["processes"] == 2
    assert state["feed"]["epoch"] == 2
    assert {"0.0.weight", "0.1.running_mean"} <= set(state["module"])
