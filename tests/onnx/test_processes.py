"""ONNX models in other threads and processes, and Ctrl-C."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.onnx._embedder import OnnxEmbedder
from tests.onnx.models import WIDTH, random_images, rows_of

pytestmark = pytest.mark.onnx


def test_runs_in_another_thread_and_after_pickling(spec: str) -> None:
    images = random_images(5)
    embedder = ft.load_embedder(f"{spec},color=bgr,std=2", batch_size=4, output="embedding")
    expected = embedder.embed(rows_of(5), images)
    copy = pickle.loads(pickle.dumps(embedder))
    assert copy.description == embedder.description
    found: list[NDArray[np.float32]] = []
    threads = [
        threading.Thread(target=lambda: found.append(copy.embed(rows_of(5), images))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for some in found:
        np.testing.assert_array_equal(some, expected)


_PROCESSES = """
import multiprocessing, os, sys
import numpy as np, polars as pl
import fasttriplet as ft

def work(embedder, images):
    print(embedder.embed(pl.DataFrame({"key": range(len(images))}), images).sum(), flush=True)

if __name__ == "__main__":
    embedder = ft.load_embedder(sys.argv[1], batch_size=2)
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)
    work(embedder, images)
    for method in ("fork", "spawn"):
        child = multiprocessing.get_context(method).Process(target=work, args=(embedder, images))
        child.start()
        child.join()
        assert child.exitcode == 0, child.exitcode
    for end in ("exit", "free"):
        child = os.fork()
        if child == 0:
            if end == "free":
                del embedder
            sys.exit(3)  # through the end of the interpreter, which frees everything
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    work(embedder, images)
"""


def test_forked_and_spawned_processes(tmp_path: Path, spec: str) -> None:
    script = tmp_path / "processes.py"
    script.write_text(_PROCESSES)
    done = subprocess.run(
        [sys.executable, script, spec], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len(lines := done.stdout.splitlines()) == 4
    assert len(set(lines)) == 1


_INTERRUPTED = """
import signal, sys
import numpy as np, polars as pl
import fasttriplet as ft

signal.signal(signal.SIGINT, signal.default_int_handler)
embedder = ft.load_embedder(sys.argv[1], batch_size=1)
images = np.zeros((100_000, 24, 24, 3), np.uint8)
rows = pl.DataFrame({"key": range(len(images))})
embedder.embed(rows[:1], images[:1])
print("ready", flush=True)
try:
    embedder.embed(rows, images)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_ends_it_between_two_batches(spec: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, spec], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "interrupted\n"


def test_nothing_is_reported_to_others(spec: str) -> None:
    code = """
import os, sys
import fasttriplet as ft
ft.load_embedder(sys.argv[1])
print(os.environ["ORT_DISABLE_TELEMETRY"])
"""
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    for chosen in ({}, {"ORT_DISABLE_TELEMETRY": "true"}):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, spec],
            env=environment | chosen,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{chosen.get('ORT_DISABLE_TELEMETRY', '1')}\n"


def test_a_session_has_no_threads_and_each_core_a_batch(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(Path("/proc/self/task").iterdir())
    embedder = ft.load_embedder(spec, batch_size=1)
    assert set(Path("/proc/self/task").iterdir()) == before
    meeting, used, run = threading.Barrier(3, timeout=30), set(), OnnxEmbedder._run

    def meet(*arguments: Any) -> Any:
        used.add(threading.current_thread())
        meeting.wait()
        return run(*arguments)

    monkeypatch.setattr("fasttriplet.onnx._embedder.cores", lambda: 3)
    monkeypatch.setattr(OnnxEmbedder, "_run", meet)
    assert embedder.embed(rows_of(9), random_images(9)).shape == (9, WIDTH)
    assert len(used) == 3


def test_the_number_of_cores_changes_no_bit(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, found = random_images(50), []
    for cores in (1, 2, 3):
        monkeypatch.setattr("fasttriplet.onnx._embedder.cores", lambda cores=cores: cores)
        found.append(ft.load_embedder(spec).embed(rows_of(50), images))
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])
