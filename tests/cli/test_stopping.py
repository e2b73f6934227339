"""How a command ends when it is stopped."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import fasttriplet as ft
from tests.auditing.findings import write_suspects
from tests.cli.command import COMMAND, run
from tests.processes import stop

pytestmark = pytest.mark.heavy


def endless(rec: Path, out: Path, *more: str) -> list[str]:
    return [*COMMAND, "mine", "--rec", str(rec), "--out", str(out), "--epochs", "1000000", *more]


def wait_for(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("sent", "code", "left"), [("SIGINT", 130, 0), ("SIGTERM", 143, 0), ("SIGKILL", -9, 1)]
)
def test_a_stopped_run_leaves_nothing_under_the_final_name(
    rec: Path, tmp_path: Path, sent: str, code: int, left: int
) -> None:
    out = tmp_path / "out" / "t.parquet"
    out.parent.mkdir()
    with subprocess.Popen(endless(rec, out), stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: any(out.parent.glob(".*/*/*.part")))
        took = stop(process, getattr(signal, sent))
        _, err = process.communicate()
    assert took < 2
    assert process.returncode == code
    assert "Traceback" not in err
    assert not out.exists()
    assert len(list(out.parent.iterdir())) == left  # hidden; a killed process cannot clean up
    assert run("mine", "--rec", rec, "--out", out).returncode == 0
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM"])
def test_a_stopped_clean_leaves_nothing(tmp_path: Path, sent: str) -> None:
    rec, table = tmp_path / "a.rec", tmp_path / "s.parquet"
    with ft.RecordWriter(rec) as writer:
        for key in range(100_000):  # which takes seconds to copy
            writer.write(key, ft.IRHeader(0, float(key // 10), key, 0), b"no image")
    write_suspects(table, rec, {"kind": "outlier", "key": 1})
    out = tmp_path / "new" / "b.rec"
    words = ["clean", "--rec", str(rec), "--suspects", str(table), "--out", str(out)]
    with subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: any(out.parent.glob(".b.rec*/*/parts/.*/*/b.rec")))
        process.send_signal(getattr(signal, sent))
        _, err = process.communicate(timeout=30)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 143}[sent]
    assert "Traceback" not in err
    assert not out.parent.exists()
