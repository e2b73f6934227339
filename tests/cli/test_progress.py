"""Progress, on a terminal and elsewhere."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from itertools import pairwise
from pathlib import Path

import pytest

from fasttriplet.cli._progress import clock as shown_as
from fasttriplet.cli._progress import display
from tests.cli.command import COMMAND, Capture
from tests.clock import Clock


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
    assert b"epoch 20 of 20" in shown
    assert "images/s" in out


@pytest.fixture
def clock(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr("fasttriplet.cli._progress._BEAT", 3600)  # on this clock there is nothing to hear
    return clock


def test_lines_now_and_then(clock: Clock, capsys: Capture) -> None:
    with display() as shown:
        shown.update("lfw.bin", 0, 4000)
        clock.now += 10
        shown.update("lfw.bin", 1000, 4000, note="bag 1 of 4")
        shown.update("lfw.bin", 2000, 4000)  # too soon
        clock.now += 100
        shown.update("lfw.bin", 4000, 4000)
    assert capsys.readouterr().err.splitlines() == [
        "lfw.bin: 1,000 of 4,000 images, 100 images/s, 0:00:30 left, bag 1 of 4",
        "lfw.bin: 4,000 of 4,000 images, 36 images/s",
    ]


def test_lines_come_less_and_less_often(clock: Clock, capsys: Capture) -> None:
    """In a log file the first minute is watched, an hour is not."""
    told = []
    with display() as shown:
        for step in ("mining", "writing"):
            for second in range(600):
                shown.update(step, second + 1, 600)
                clock.now += 1
                if capsys.readouterr().err:
                    told.append((step, second))
    pauses = [after - before for (_, before), (_, after) in pairwise(told[:12])]
    assert told[0] == ("mining", 5)
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60
    first_of_the_next = next(second for step, second in told if step == "writing")
    assert first_of_the_next <= 5


def test_what_is_not_known_is_not_said(clock: Clock, capsys: Capture) -> None:
    with display() as shown:
        shown.update("indexing a.rec")
        clock.now += 6
        shown.update("indexing a.rec")
        shown.update("training", 0, 40, unit="batch")
        clock.now += 10
        shown.update("training", 0, 40, unit="batch")
        clock.now += 20
        shown.update("training", 2, 40, unit="batch")
        clock.now += 60
        shown.update("training", 4, 40, unit="batch", left=90061, note="loss 0.1")
        clock.now += 60
        shown.update("one", 1, 1)
    assert capsys.readouterr().err.splitlines() == [
        "indexing a.rec: 0:00:06 so far",
        "training: 0 of 40 batches, 0:00:10 so far",
        "training: 2 of 40 batches, 15.0 s per batch, 0:09:30 left",
        "training: 4 of 40 batches, 22.5 s per batch, 1 day, 1:01:01 left, loss 0.1",
        "one: 1 of 1 image",
    ]


def test_a_call_that_reports_nothing_is_not_silent(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("fasttriplet.cli._progress._BEAT", 0.01)
    monkeypatch.setattr("fasttriplet.cli._progress._FIRST_PAUSE", 0.01)
    err = ""
    with display() as shown:
        shown.update("indexing")
        for _ in range(1000):
            err += capsys.readouterr().err
            if err:
                break
            time.sleep(0.01)
    assert err.startswith("indexing")


def test_a_step_may_begin_again_and_another_go_on(clock: Clock, capsys: Capture) -> None:
    with display() as shown:
        shown.update("training", 500, 1000, unit="batch")  # resumed: these took no time
        for _ in range(2):
            shown.update("embedding", 1024)
            clock.now += 10
            shown.update("embedding", 4096)
        shown.say("batch 520")
        shown.update("training", 520, 1000, unit="batch")
        clock.now += 20
        shown.update("training", 540, 1000, unit="batch")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("embedding")] == [
        "embedding: 4,096 images, 307 images/s"
    ] * 2
    assert lines[-2] == "batch 520"
    assert lines[-1] == "training: 540 of 1,000 batches, 1.0 batches/s, 0:07:40 left"


def test_steps_can_be_announced(capsys: Capture) -> None:
    with display(announce=True) as shown:
        for step in ("drawing", "mining"):
            for done in range(3):
                shown.update(step, done, 2)
        shown.update("loading")
    assert capsys.readouterr().err.splitlines() == ["drawing: 2 images", "mining: 2 images", "loading"]


def test_a_line_is_one_line(clock: Clock, capsys: Capture) -> None:
    with display() as shown:
        shown.update("a\nb\x1b[2J\udcff.bin", 0, 2)
        clock.now += 10
        shown.update("a\nb\x1b[2J\udcff.bin", 1, 2)
        shown.say("pairs of \r.bin")
    assert capsys.readouterr().err.splitlines() == [
        r"a\nb\x1b[2J\udcff.bin: 1 of 2 images, 10.0 s per image, 0:00:10 left",
        r"pairs of \r.bin",
    ]


def test_a_terminal_that_draws_nothing_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that of Emacs."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    for term, bar in (("dumb", False), ("xterm", True)):
        monkeypatch.setenv("TERM", term)
        with display() as shown:
            assert (type(shown).__name__ == "_BarDisplay") == bar


def test_any_time_can_be_shown() -> None:
    """A training may be asked for 10^15 batches."""
    assert shown_as(3661) == "1:01:01"
    assert shown_as(1e300) == shown_as(1e20)
