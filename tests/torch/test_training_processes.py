"""Trainings in two processes that torchrun starts: one network, one set of files, and one end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.small_rec import identities
from tests.torch.test_group import free_port
from tests.training.small import records, same_arrays, state, write_data

pytest.importorskip("torch")

import torch.distributed as dist

import torch
from fasttriplet.torch._processes import Processes

pytestmark = [pytest.mark.heavy, pytest.mark.torch]

OPTIONS = [
    *("--rec", "train.rec", "--framework", "torch", "--network", "small", "--embedding-size", "16"),
    *("--batch-size", "12", "--bag-size", "48", "--devices", "cpu"),
]
HOW = ["--log-every", "5", "--checkpoint-every", "10", "--verify-on", "pairs.bin", "--verify-every", "15"]
FILES = (".json", ".safetensors", "-best.json", "-best.safetensors")


def start(command: Sequence[str], folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(folder: Path, *words: str, processes: int = 2) -> tuple[str, str]:
    """Run a training to its end, by torchrun; returns what it prints."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    process = start([*launcher, "-m", "fasttriplet", "train", *words, *HOW], folder)
    try:
        output, errors = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return output, errors


def begin(folder: Path, *words: str) -> list[subprocess.Popen[str]]:
    """Start two processes of a training, as torchrun does, but with nobody who ends both."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    shared |= {"LOCAL_WORLD_SIZE": "2"}
    return [
        start(
            [sys.executable, "-m", "fasttriplet", "train", *words, *HOW],
            folder,
            **shared,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
        )
        for rank in range(2)
    ]


def after_batch(folder: Path, name: str, batch: int) -> None:
    """Wait until the log is there."""
    log = folder / f"{name}-log.jsonl"
    until = time.monotonic() + 100
    while not log.exists() or f'"kind": "train", "batch": {batch},' not in log.read_text():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("processes"), identities(16, 6), 30)


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> tuple[str, str]:
    """What a training prints that nothing stopped; its prefix is `a`."""
    return train(folder, *OPTIONS, "--batches", "40", "--out", "a")


def test_one_process_reports(folder: Path, unbroken: tuple[str, str]) -> None:
    output, errors = unbroken
    assert output.count("last network") == 1
    assert errors.count("batch 40 of 40") == 1
    assert errors.count("with PyTorch in 2 processes, this one on cpu; batch 0 of 40") == 1
    assert [line["batch"] for line in records(folder / "a", "train")] == [*range(5, 41, 5)]
    assert all((folder / f"a{ending}").exists() for ending in FILES)


@pytest.mark.usefixtures("unbroken")
def test_another_number_of_processes_is_refused(folder: Path) -> None:
    command = [sys.executable, "-m", "fasttriplet", "train", "--out", "a", "--resume", "--batches", "50"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "a-state.npz is of a training on 2 processes, not on 1: resume it on as many" in ended.stderr


@pytest.mark.parametrize("killed", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.usefixtures("unbroken")
def test_it_is_resumed_with_the_same_bits(folder: Path, killed: bool) -> None:
    """The second process is killed, or Ctrl-C comes to both."""
    name = "killed" if killed else "stopped"
    first, second = processes = begin(folder, *OPTIONS, "--batches", "40", "--out", name)
    try:
        after_batch(folder, name, 15)
        if not killed:
            first.send_signal(signal.SIGINT)
            second.send_signal(signal.SIGINT)
        else:
            second.kill()
        errors = [process.communicate(timeout=30)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert first.returncode == (1 if killed else 130)
    assert ("ended" if killed else "To resume: ") in errors[0]
    assert second.returncode == (-signal.SIGKILL if killed else 1)
    train(folder, "--out", name, "--resume")
    assert same_arrays(folder / "a", folder / name)
    assert records(folder / "a") == records(folder / name)
    for ending in FILES:
        assert (folder / f"a{ending}").read_bytes() == (folder / f"{name}{ending}").read_bytes()


@pytest.mark.slow
def test_a_running_graph_is_resumed_with_the_same_bits(folder: Path) -> None:
    """Both processes make the graph; the batches are those of three epochs."""
    words = [*OPTIONS, "--neighbors", "running", "--band", "any"]
    train(folder, *words, "--batches", "45", "--out", "whole")
    train(folder, *words, "--batches", "27", "--out", "halves")
    train(folder, "--out", "halves", "--resume", "--batches", "45")
    assert same_arrays(folder / "whole", folder / "halves")
    assert records(folder / "whole", "train") == records(folder / "halves", "train")
    last = state(folder / "whole")
    assert last.plain["feed"]["epoch"] > 1
    assert len(last.arrays["graph_labels"]) == len(last.arrays["means"]) == 16


def test_weights_that_only_some_processes_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has reached the first weight, the other the second, and none the third."""
    first, second, third = weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    first.grad = torch.tensor([1.0, 3.0])
    of_other = [torch.tensor([7.0, 0, 1, 0]), torch.tensor([0.0, 0, 2, 4])]
    monkeypatch.setattr(dist, "all_reduce", lambda values: values.add_(of_other.pop(0)))
    processes, sums = Processes.__new__(Processes), torch.tensor([1.0])
    processes.group = SimpleNamespace(size=2)  # type: ignore[assignment]
    processes.average(weights, sums)
    assert sums.tolist() == [8]
    assert [weight.grad.tolist() for weight in weights if weight.grad is not None] == [[0.5, 1.5], [1, 2]]
    assert second.grad is not None
    assert third.grad is None
