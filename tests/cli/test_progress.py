"""Progress, on a terminal and elsewhere."""

from __future__ import annotations

import os
import pty
import select
import subprocess
from pathlib import Path

import pytest

from fasttriplet.cli._progress import display
from tests.cli.command import COMMAND, Capture


def test_a_bar_on_a_terminal(rec: Path, tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    arguments = [*COMMAND, "mine", "--rec", str(rec), "--epochs", "20", "--bag-size", "24"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=terminal, cwd=tmp_path, env=environment, text=True
    ) as process:
        os.close(terminal)
        shown = b""
        while select.select([screen], [], [], 30)[0]:
            try:
                shown += os.read(screen, 65536)
            except OSError:  # closed by the other side
                break
        out, _ = process.communicate(timeout=30)
    os.close(screen)
    assert process.returncode == 0, shown.decode()
    assert b"images/s" in shown
    assert b"epoch 20/20" in shown
    assert "images/s" in out


class Clock:
    """Stands still unless it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("fasttriplet.cli._progress.time.perf_counter", clock)
    return clock


def test_lines_now_and_then(clock: Clock, capsys: Capture) -> None:
    with display() as shown:
        shown.update("lfw.bin", 0, 4000)
        clock.now += 10
        shown.update("lfw.bin", 1000, 4000, note="bag 1/4")
        shown.update("lfw.bin", 2000, 4000)  # too soon
        clock.now += 100
        shown.update("lfw.bin", 4000, 4000)
    assert capsys.readouterr().err.splitlines() == [
        "lfw.bin: 1,000/4,000 images, 100 images/s, 0:00:30 left, bag 1/4",
        "lfw.bin: 4,000/4,000 images, 36 images/s",
    ]


def test_a_step_may_begin_again_and_another_go_on(clock: Clock, capsys: Capture) -> None:
    with display() as shown:
        shown.update("training", 500, 1000, unit="batches")  # resumed: these took no time
        for _ in range(2):
            shown.update("embedding", 1024)
            clock.now += 10
            shown.update("embedding", 4096)
        shown.say("batch 520")
        shown.update("training", 520, 1000, unit="batches")
        clock.now += 10
        shown.update("training", 540, 1000, unit="batches")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("embedding")] == [
        "embedding: 4,096 images, 307 images/s"
    ] * 2
    assert lines[-2] == "batch 520"
    assert lines[-1] == "training: 540/1,000 batches, 1.3 batches/s, 0:05:45 left"


def test_steps_can_be_announced(capsys: Capture) -> None:
    with display(announce=True) as shown:
        for step in ("drawing", "mining"):
            for done in range(3):
                shown.update(step, done, 2)
    assert capsys.readouterr().err.splitlines() == ["drawing", "mining"]
