"""What a user does first with an installed package. Run as a program with the name of an extra, or none."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fasttriplet as ft
from tests.small_rec import identities, write_rec

REC = Path("train.rec")


def command(*words: str) -> str:
    """What `fasttriplet` prints, the command of this environment."""
    program = Path(sys.executable).with_name("fasttriplet")
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def refused(ask: Callable[[], object], *parts: str) -> None:
    """An extra that is not there ends in one sentence that says how to get it."""
    try:
        ask()
    except ImportError as error:
        assert all(part in str(error) for part in parts), error
    else:
        raise AssertionError(f"no error that says {parts}")


def alone() -> None:
    """The package without extras, from images to a page."""
    index = ft.index_rec(REC)
    images = ft.RecordFile(REC).decode(index["key"].to_numpy())
    assert images.shape == (72, 24, 24, 3)
    anchor, positive, negative = ft.mine(
        images.reshape(72, -1).astype(np.float32), index["label"], band="any"
    )
    assert len(anchor) == len(positive) == len(negative) == 12 * 15

    said = command("mine", "--rec", "train.rec", "--out", "triplets.parquet", "--json")
    Path("run.json").write_text(said)
    assert json.loads(said)
    assert ft.read_metadata("triplets.parquet")["kind"] == "triplets"
    command("audit", "--rec", "train.rec", "--model", "pixels", "--out", "audit")
    assert Path("audit/audit.html").exists()
    command(
        "report",
        "--rec",
        "train.rec",
        "--triplets",
        "triplets.parquet",
        "--run",
        "run.json",
        "--audit",
        "audit",
    )
    assert b"</html>" in Path("report.html").read_bytes()


def refuses() -> None:
    """Every extra is missing."""
    install = f"{sys.executable} -m pip install"
    too_new = sys.version_info >= (3, 13)
    of_mxnet = (
        "with Python 3.11 or 3.12: MXNet 1.9.1 needs NumPy 1" if too_new else f"{install} mxnet==1.9.1 'numpy"
    )
    refused(lambda: ft.load_embedder("mxnet:model,0"), "MXNet", of_mxnet)
    refused(lambda: ft.load_embedder("onnx:model.onnx"), f"{install} 'onnxruntime")
    refused(lambda: ft.load_embedder("torch:model.pt"), f"{install} 'torch")
    refused(lambda: ft.mine_rec(REC, ray="auto"), f"{install} 'ray")


def of_onnx() -> None:
    """A network of ONNX."""
    from tests.onnx.models import Builder  # noqa: PLC0415

    spec = Builder().layers().save(Path("network.onnx"))
    command("mine", "--rec", "train.rec", "--model", spec, "--band", "any", "--out", "onnx.parquet")


def of_export() -> None:
    """PyTorch alone writes with these; that they fit together shows when they are imported."""
    import onnxscript  # noqa: PLC0415

    assert onnxscript.opset18.Relu


def of_plot() -> None:
    """The picture of a verification."""
    command("verify", "--rec", "train.rec", "--model", "pixels", "--pairs-per-kind", "50", "--roc", "roc.png")
    assert Path("roc.png").read_bytes().startswith(b"\x89PNG")


def of_ray() -> None:
    """A cluster of this machine."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    here = ft.mine_rec(REC, band="any").triplets.collect()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        assert ft.mine_rec(REC, band="any", ray=cluster.address).triplets.collect().equals(here)
    finally:
        cluster.shutdown()


def trained(framework: str, *more: str) -> None:
    """A training of a few steps."""
    few = (
        "--network",
        "small",
        "--embedding-size",
        "8",
        "--batches",
        "2",
        "--batch-size",
        "12",
        "--bag-size",
        "72",
    )
    command(
        "train",
        "--rec",
        "train.rec",
        "--framework",
        framework,
        *few,
        "--band",
        "any",
        "--out",
        framework,
        *more,
    )


def of_mxnet() -> None:
    """A training, and its network at work."""
    trained("mxnet")
    command(
        "mine", "--rec", "train.rec", "--model", "mxnet:mxnet,0", "--band", "any", "--out", "mxnet.parquet"
    )


def of_torch() -> None:
    """A training that is exported, and the miner in a loop of one's own."""
    import torch  # noqa: PLC0415
    from fasttriplet.torch import TripletMiner  # noqa: PLC0415
    from fasttriplet.torch._export import check_export  # noqa: PLC0415

    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7):
        refused(lambda: check_export("onnx", is_graph=True), "needs PyTorch 2.7 or later")
        trained("torch")
    else:
        trained("torch", "--export", "onnx")

    rows = torch.randn(12, 8)
    anchor, positive, negative = TripletMiner(metric="sqeuclidean")(rows, torch.arange(12) // 4)
    assert len(anchor) == len(positive) == len(negative)


if __name__ == "__main__":
    assert Path(ft.__file__).is_relative_to(sys.prefix), ft.__file__
    write_rec(REC, identities(12, 6))
    alone()
    if sys.argv[1:]:
        globals()[f"of_{sys.argv[1]}"]()
    else:
        refuses()
