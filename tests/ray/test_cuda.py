"""Networks on the GPUs of a cluster, beside a GPU without Ray."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from tests.cli.command import run
from tests.small_rec import identities, write_rec

pytest.importorskip("torch")

import torch

pytestmark = [
    pytest.mark.ray,
    pytest.mark.torch,
    pytest.mark.cuda,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


@pytest.fixture(scope="module")
def with_gpu(ray: Any) -> Iterator[Any]:  # noqa: ARG001  it is installed
    """A cluster of a machine without a GPU and one that has one."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    head = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=1, num_gpus=1)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A `.rec` of 80 identities, and the spec of a network that takes its images."""
    folder = tmp_path_factory.mktemp("cuda")
    rec = write_rec(folder / "train.rec", identities(80, 4))
    torch.manual_seed(0)
    nn = torch.nn
    net = nn.Sequential(
        *[nn.Conv2d(3, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.PReLU(32), nn.Conv2d(32, 64, 3, 2, 1)],
        *[nn.PReLU(64), nn.Flatten(), nn.Linear(64 * 6 * 6, 32)],
    ).eval()
    shapes = ({0: torch.export.Dim("batch", min=2, max=512)},)
    exported = torch.export.export(net, (torch.zeros(4, 3, 24, 24),), dynamic_shapes=shapes)
    torch.export.save(exported, folder / "net.pt2")
    return rec, f"torch:{folder / 'net.pt2'}"


@pytest.mark.parametrize("options", [{"bag_size": 80, "epochs": 2}, {"bag_size": None, "memory": 40_000}])
def test_the_triplets_of_one_gpu(
    with_gpu: Any, trained: tuple[Path, str], tmp_path: Path, options: dict[str, Any]
) -> None:
    rec, spec = trained
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    ft.mine_rec(rec, model=ft.load_embedder(spec, devices="cuda:0"), out=here, band="any", **options)
    found = ft.mine_rec(rec, model=spec, out=there, band="any", ray=with_gpu.address, **options)
    assert there.read_bytes() == here.read_bytes()
    assert "on cuda:0, " in found.summary.embedder


def test_a_task_has_a_gpu_or_the_cpu(with_gpu: Any, trained: tuple[Path, str], tmp_path: Path) -> None:
    rec, spec = trained
    for devices in ("cuda", "cpu"):
        here, there = tmp_path / f"{devices}.npy", tmp_path / f"{devices}-there.npy"
        embed: list[str | Path] = ["embed", "--rec", rec, "--model", spec, "--devices", devices]
        for out, how in ((here, []), (there, ["--ray", with_gpu.address])):
            done: subprocess.CompletedProcess[str] = run(*embed, "--out", out, *how)
            assert done.returncode == 0, done.stderr
        assert there.read_bytes() == here.read_bytes()
    cuda, cpu = (np.load(tmp_path / f"{devices}.npy") for devices in ("cuda", "cpu"))
    assert 0 < np.abs(cuda - cpu).max() < 1e-4
