"""Trainings on a GPU: resumed with the same bits, near to those of a CPU, and one GPU for each process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from tests.torch.test_group import free_port
from tests.torch.test_training import FILES, KINDS, chosen_in, run, same, stop_at, trainable
from tests.torch.trainings import batches, settings
from tests.training.small import records, state

pytest.importorskip("torch")

import torch
from fasttriplet.torch._backend import TrainingBackend

__all__ = ["trainable"]  # a fixture
pytestmark = [
    pytest.mark.torch,
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.usefixtures("trainable"),
]

ON_CUDA: dict[str, dict[str, Any]] = KINDS | {"tf32": {"precision": "tf32"}}

# A group of one process, as two processes cannot share a GPU in nccl.
ALONE = """
import json
import torch.distributed as dist
import torch
from fasttriplet.torch._processes import Processes

dist.init_process_group("nccl", rank=0, world_size=1)
processes, net = Processes(), torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).cuda()
sums = torch.tensor([1.0, 2.0], dtype=torch.float64, device="cuda")
net[0].weight.grad = torch.full_like(net[0].weight, 3)
processes.average(net.parameters(), sums)
processes.take_first([*net.parameters(), *net.buffers()])
gathered = processes.group.gather([net[0].weight.detach().numpy(force=True)])
equal = bool((gathered[0][0] == net[0].weight.detach().numpy(force=True)).all())
print(json.dumps([sums.tolist(), net[0].weight.grad.unique().tolist(), net[0].bias.grad is None, equal]))
dist.destroy_process_group()
"""


@pytest.mark.parametrize("kind", ON_CUDA)
def test_a_resumed_training_ends_with_the_same_bits(data: Path, tmp_path: Path, kind: str) -> None:
    chosen = chosen_in(data, **ON_CUDA[kind])
    run(chosen, tmp_path / "a", devices="cuda:0")
    for batch in (3, 7):
        with pytest.raises(KeyboardInterrupt):
            run(chosen, tmp_path / "b", devices="cuda:0", resume=batch > 3, progress=stop_at("step", batch))
        assert state(tmp_path / "b").plain["batch"] == batch
    run(chosen, tmp_path / "b", resume=True, devices="cuda:0")
    same(tmp_path / "a", tmp_path / "b")
    for name, values in state(tmp_path / "b").arrays.items():
        assert np.isfinite(values).all(), name


@pytest.mark.parametrize("network", ["small", "mobilefacenet"])
def test_a_step_is_that_of_a_cpu(network: str) -> None:
    """Each from the weights that the CPU has: what is left is the order in which kernels add."""
    chosen = settings(network=network)
    cpu, gpu = TrainingBackend(chosen, "cpu"), TrainingBackend(chosen, "cuda:0")
    cpu.begin((24, 24))
    for number, batch in enumerate(batches(20)):
        pixels = batch.images.transpose(0, 2, 3, 1).round().astype(np.uint8, order="C")
        rows = np.arange(len(pixels))
        before, lost = cpu.arrays(), []
        gpu.load(cpu.network, before, (24, 24))
        for backend in (cpu, gpu):
            images = backend.layout(pixels, rows, ids=rows)
            assert images.is_pinned() == (backend is gpu)
            earlier = backend.sums[0]
            backend.step(replace(batch, images=images), 0.05, number)
            lost.append(backend.sums[0] - earlier)
        assert lost[1] == pytest.approx(lost[0], rel=1e-4), number
        after, found = cpu.arrays(), gpu.arrays()
        for name, values in after.items():
            moved = np.linalg.norm(values - before.get(name, 0))
            assert np.linalg.norm(found[name] - values) <= 0.05 * moved + 1e-6, (number, name)


def test_the_command_and_its_network_on_a_cpu(data: Path, tmp_path: Path) -> None:
    """The network of a training on a GPU embeds on a CPU."""
    out = tmp_path / "a"
    run(chosen_in(data, precision="bfloat16"), out, devices="cuda")
    assert {line["kind"] for line in records(out)} == {"train", "verification"}
    assert all(Path(f"{out}{ending}").exists() for ending in FILES)
    index = ft.index_rec(data / "train.rec")
    pixels = ft.RecordFile(data / "train.rec").decode(index["key"].to_numpy())
    rows = [
        ft.load_embedder(f"torch:{out}", devices=device).embed(index, pixels) for device in ("cpu", "cuda:0")
    ]
    assert np.allclose(rows[0], rows[1], rtol=0, atol=1e-4 * np.abs(rows[0]).max())


def test_each_process_needs_a_gpu(data: Path, tmp_path: Path) -> None:
    count = torch.cuda.device_count()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count + 1)]
    command += ["-m", "fasttriplet", "train", "--rec", str(data / "train.rec"), "--framework", "torch"]
    command += ["--network", "small", "--batches", "2", "--out", str(tmp_path / "a")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode != 0
    wanted = f"must have a GPU for each of the {count + 1} processes on this machine, not {count}"
    assert wanted in " ".join(ended.stderr.split())
    assert not list(tmp_path.iterdir())


def test_a_group_of_nccl() -> None:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ended = subprocess.run(
        [sys.executable, "-c", ALONE],
        env=os.environ | address,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1]) == [[1.0, 2.0], [3.0], True, True]
