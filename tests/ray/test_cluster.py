"""Runs on a real Ray cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from tests.ray.slow_embedder import SlowEmbedder
from tests.run.leftovers import besides_datasets
from tests.run.test_whole import SMALL
from tests.small_rec import identities, write_rec

pytestmark = [pytest.mark.heavy, pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
BAGS: dict[str, Any] = {"bag_size": 40, "epochs": 2, "margin": 1.0}
WHOLE: dict[str, Any] = {"bag_size": None, "memory": SMALL}


def mined(data: tuple[Path, Path], out: Path | None, **options: Any) -> ft.MineResult:
    rec, file = data
    return ft.mine_rec(rec, **{"model": f"npy:{file}", "out": out} | options)


@pytest.mark.parametrize("options", [BAGS, WHOLE])
def test_two_machines(cluster: Any, data: tuple[Path, Path], tmp_path: Path, options: dict[str, Any]) -> None:
    here, there = tmp_path / "here.parquet", tmp_path / "there.parquet"
    mined(data, here, **options)
    found = mined(data, there, ray=cluster.address, **options)
    assert there.read_bytes() == here.read_bytes()
    assert found.summary.seconds["mine"] > 0
    assert sorted(besides_datasets(tmp_path)) == ["here.parquet", "there.parquet"]


@pytest.mark.parametrize("once", [pytest.param("", marks=pytest.mark.slow), "kill"])
def test_four_workers_and_one_that_is_killed(
    cluster: Any, data: tuple[Path, Path], tmp_path: Path, once: str
) -> None:
    table = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    here = SlowEmbedder(table, 0, "", tmp_path / "here")
    mined(data, tmp_path / "here.parquet", model=here, **BAGS)
    extra = cluster.add_node(num_cpus=2)
    try:
        there = SlowEmbedder(table, 0.3, once, tmp_path / "there")
        mined(data, tmp_path / "there.parquet", model=there, ray=cluster.address, **BAGS)
    finally:
        cluster.remove_node(extra)
    assert (tmp_path / "there.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()
    assert len(set((tmp_path / "there" / "pids").read_text().split())) > 2
    assert (tmp_path / "there" / once).exists()


def test_a_machine_that_dies(cluster: Any, data: tuple[Path, Path], tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    mined(data, tmp_path / "here.parquet", model=SlowEmbedder(table, 0, "", tmp_path / "here"), **BAGS)
    extra = cluster.add_node(num_cpus=2)
    removed: list[Any] = []

    def remove(now: Any) -> None:
        if now.images and not removed:
            removed.append(now)
            cluster.remove_node(extra, allow_graceful=False)

    there = SlowEmbedder(table, 0.3, "", tmp_path / "there")
    mined(data, tmp_path / "there.parquet", model=there, ray=cluster.address, progress=remove, **BAGS)
    assert removed
    assert (tmp_path / "there.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()


def test_an_error_of_a_job_names_the_machine(cluster: Any, data: tuple[Path, Path], tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    model, out = SlowEmbedder(table, 0, "error", tmp_path), tmp_path / "t.parquet"
    with pytest.raises(MemoryError, match="no room for a thought") as failed:
        mined(data, out, model=model, ray=cluster.address, **BAGS)
    notes = failed.value.__notes__
    assert any(note.startswith("on the machine ") and "127.0.0.1" not in note for note in notes)
    assert any("kept in" in note for note in notes)
    mined(data, out, model=model, ray=cluster.address, resume=True, **BAGS)
    assert sorted(besides_datasets(tmp_path)) == ["error", "pids", "t.parquet"]


def test_images_are_embedded_there(cluster: Any, data: tuple[Path, Path], tmp_path: Path) -> None:
    for ray, name in ((None, "here.npy"), (cluster.address, "there.npy")):
        ft.embed_rec(data[0], model="pixels", out=tmp_path / name, ray=ray)
    assert (tmp_path / "there.npy").read_bytes() == (tmp_path / "here.npy").read_bytes()


RUN = """
import sys, time
import fasttriplet as ft
rec, file, out, address, whole = sys.argv[1:]
def progress(now):
    print(now.steps if whole == "1" else now.images // 40, flush=True)
    time.sleep(0.2)
how = dict(bag_size=None, memory=40_000) if whole == "1" else dict(bag_size=40, epochs=2, margin=1.0)
ft.mine_rec(rec, model=f"npy:{file}", out=out, ray=address, resume=True, progress=progress, **how)
"""


def wait_for_steps(run: subprocess.Popen[str], count: int) -> None:
    assert run.stdout is not None
    for line in run.stdout:
        if line.strip().isdecimal() and int(line) >= count:  # Ray prints there, too
            return
    raise AssertionError("the run has ended")


@pytest.mark.parametrize("options", [BAGS, WHOLE])
def test_a_run_that_is_killed_is_resumed(
    cluster: Any, data: tuple[Path, Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    out, whole = tmp_path / "t.parquet", str(int(options is WHOLE))
    mined(data, tmp_path / "here.parquet", **options)
    arguments = [sys.executable, "-c", RUN, str(data[0]), str(data[1]), str(out), cluster.address, whole]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as run:
        wait_for_steps(run, 4)
        run.kill()
    assert len(list((tmp_path / "t.parquet.unfinished").glob("*/*"))) > 2
    mined(data, out, ray=cluster.address, resume=True, **options)
    assert out.read_bytes() == (tmp_path / "here.parquet").read_bytes()


def test_ctrl_c(cluster: Any, data: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    arguments = [sys.executable, "-c", RUN, str(data[0]), str(data[1]), str(out), cluster.address, "1"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        wait_for_steps(run, 2)
        started = time.monotonic()
        run.send_signal(signal.SIGINT)
        _, error = run.communicate(timeout=60)
    assert time.monotonic() - started < 15
    assert "KeyboardInterrupt" in error
    assert "pairs of blocks; resume=True continues" in error


def test_a_connection_of_the_users_stays(
    cluster: Any, ray: Any, data: tuple[Path, Path], tmp_path: Path
) -> None:
    mined(data, tmp_path / "here.parquet", **WHOLE)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        mined(data, tmp_path / "there.parquet", ray="auto", **WHOLE)
        assert ray.is_initialized()
        for other in ("local", "127.0.0.1:1"):
            with pytest.raises(ft.OptionError, match="ray must be 'auto' in a process that is connected"):
                mined(data, None, ray=other, **BAGS)
    finally:
        ray.shutdown()
    assert (tmp_path / "there.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()


def test_two_runs_of_a_process(cluster: Any, ray: Any, data: tuple[Path, Path], tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        outs = [tmp_path / f"{number}.parquet" for number in range(2)]
        runs = [pool.submit(mined, data, out, ray=cluster.address, **WHOLE) for out in outs]
        for run in runs:
            run.result()
    assert outs[0].read_bytes() == outs[1].read_bytes()
    assert not ray.is_initialized()


@pytest.mark.onnx
@pytest.mark.parametrize(
    "options", [{"bag_size": 20}, pytest.param({"bag_size": None}, marks=pytest.mark.slow)]
)
def test_a_network(cluster: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    """Each process loads it; from the command line, too."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from tests.cli.command import run  # noqa: PLC0415  after the look whether there is ONNX Runtime
    from tests.onnx.models import Builder  # noqa: PLC0415

    rec = write_rec(tmp_path / "train.rec", identities(20, 4))
    spec = Builder().layers().save(tmp_path / "net.onnx")
    here, there, again = (tmp_path / f"{name}.parquet" for name in ("here", "there", "again"))
    ft.mine_rec(rec, model=spec, out=here, band="any", **options)
    found = ft.mine_rec(rec, model=spec, out=there, band="any", ray=cluster.address, **options)
    assert there.read_bytes() == here.read_bytes()
    flags = ["--whole"] if options["bag_size"] is None else ["--bag-size", "20"]
    mine = ["mine", "--rec", rec, "--model", spec, "--band", "any", *flags, "--ray", cluster.address]
    done = run(*mine, "--out", again)
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == here.read_bytes()
    assert found.summary.embedder == ft.load_embedder(spec).description
    refused = run(*mine, "--devices", "cuda:0,1", "--out", tmp_path / "other.parquet")
    assert "--devices must be 'cpu' or 'cuda' on a cluster" in refused.stderr


# What is wrong with a cluster


def test_a_machine_without_the_dataset(cluster: Any, tmp_path: Path, data: tuple[Path, Path]) -> None:
    """The second machine has an empty folder where the first has the dataset."""
    private = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True)
    if private.returncode:
        pytest.skip("mounting needs rights that this user does not have")
    folder = data[0].parent
    script = (
        f"mount -t tmpfs none {folder} && {sys.executable} -m ray.scripts.scripts start --block "
        f"--address {cluster.address} --num-cpus 2"
    )
    with (tmp_path / "log").open("w") as log:
        node = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            wait_for_cpus(cluster, 4)
            for options in (BAGS, WHOLE):  # with two CPUs for each task, which that machine alone has
                with pytest.raises(FileNotFoundError) as failed:
                    mined(data, tmp_path / "t.parquet", ray=cluster.address, threads=2, **options)
                error = str(failed.value)
                assert str(folder) in error
                assert " on the machine " in error
                assert "; all machines need the same files under the same paths" in error
        finally:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()


def wait_for_cpus(cluster: Any, count: int) -> None:
    import ray  # noqa: PLC0415

    ray.init(address=cluster.address, log_to_driver=False)
    try:
        end = time.monotonic() + 60
        while ray.cluster_resources().get("CPU", 0) < count:
            assert time.monotonic() < end
            time.sleep(0.2)
    finally:
        ray.shutdown()


LOST = """
import sys, time
import fasttriplet as ft
import fasttriplet.ray._cluster as room
from ray.cluster_utils import Cluster
rec, file, out = sys.argv[1:]
room._PATIENCE = 2.0
room._LOOK = 0.5
made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
gone = []
def progress(now):
    if now.steps == 2 and not gone:
        gone.append(now)
        made.head_node.kill_gcs_server()
    time.sleep(0.3)
try:
    ft.mine_rec(rec, model=f"npy:{file}", out=out, ray=made.address, progress=progress, bag_size=None,
                memory=40_000)
except ConnectionError as error:
    print(error, error.__notes__)
"""


@pytest.mark.slow
def test_a_cluster_that_goes_away(data: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    done = subprocess.run(
        [sys.executable, "-c", LOST, str(data[0]), str(data[1]), str(out)],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "the Ray cluster at " in done.stdout, done.stderr
    assert "no longer answers" in done.stdout
    assert "pairs of blocks; resume=True continues" in done.stdout
    mined(data, out, resume=True, **WHOLE)


OOM = """
import os, sys, time
from pathlib import Path
memory = {line.split(":")[0]: int(line.split()[1]) for line in open("/proc/meminfo")}
used = 1 - memory["MemAvailable"] / memory["MemTotal"]
room = 1.5e6 / memory["MemTotal"]  # 1.5 GB more than now
os.environ |= {"RAY_memory_usage_threshold": str(used + room), "RAY_memory_monitor_refresh_ms": "100"}
import fasttriplet as ft
import numpy as np
from tests.ray.slow_embedder import SlowEmbedder
rec, file, out, once = sys.argv[1:]
model = SlowEmbedder(np.load(file), 0.0, once, Path(out).parent)
try:
    ft.mine_rec(rec, model=model, out=out, ray="local", threads=2, bag_size=40, epochs=2, margin=1.0)
except MemoryError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("once", ["memory", "memory for ever"])
def test_a_machine_without_memory(data: tuple[Path, Path], tmp_path: Path, once: str) -> None:
    """Ray ends a process that takes all of it; a task that always does so is an error."""
    rows = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    model, out = SlowEmbedder(rows, 0, "", tmp_path), tmp_path / "t.parquet"
    mined(data, tmp_path / "here.parquet", model=model, **BAGS)
    done = subprocess.run(
        [sys.executable, "-c", OOM, str(data[0]), str(tmp_path / "rows.npy"), str(out), once],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if once == "memory":
        assert (tmp_path / "memory").exists()
        assert out.read_bytes() == (tmp_path / "here.parquet").read_bytes()
    else:
        assert "not enough memory: Ray ended a task because its machine had none left" in done.stdout


def test_no_cluster(data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConnectionError, match=r"ray='127\.0\.0\.1:1': nothing answers at 127\.0\.0\.1:1: "):
        mined(data, None, ray="127.0.0.1:1")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConnectionError, match=r"ray='auto': nothing answers at 127\.0\.0\.1:1: "):
        mined(data, None, ray="auto")
    with pytest.raises(ConnectionError, match="nothing answers at"):
        mined(data, None, ray="a..b:6379")
    with pytest.raises(ft.OptionError, match="out must be given with bag_size=None and ray"):
        mined(data, None, ray="127.0.0.1:1", bag_size=None)
    for wrong in ("here", "ray://127.0.0.1:1", ":6379", "host:port"):
        with pytest.raises(ft.OptionError, match="ray must be"):
            mined(data, None, ray=wrong)


def test_no_ray_and_an_old_one(ray: Any, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "__version__", "2.30.0")
    with pytest.raises(ImportError, match=r"Ray 2\.30\.0 is too old: version 2\.31 or newer is needed"):
        mined(data, None, ray="local")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"running on a cluster needs Ray\. Install it: .*ray>="):
        mined(data, None, ray="local")


def test_what_no_machine_has(cluster: Any, data: tuple[Path, Path]) -> None:
    with pytest.raises(
        RuntimeError, match=r"has no machine with 64 CPUs for a task; a machine has at most [12] CPU"
    ):
        mined(data, None, ray=cluster.address, threads=64)


def test_a_model_that_cannot_be_sent(cluster: Any, data: tuple[Path, Path], tmp_path: Path) -> None:
    table = np.zeros((400, 16), np.float32)
    model = SlowEmbedder(table, 0, "", tmp_path)
    model.lock = __import__("threading").Lock()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="what the tasks need cannot be sent to them: cannot pickle"):
        mined(data, None, ray=cluster.address, model=model, **BAGS)
