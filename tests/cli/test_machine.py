"""What a machine lacks: threads, and a folder for temporary files."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from fasttriplet.cli import main
from tests.cli.command import Capture, run
from tests.processes import run_python

LIMITS = "raise the limit on processes (ulimit -u), or on memory if there is one (ulimit -v)"


def test_threads_that_cannot_be_started_are_counted_and_the_option_is_named(rec: Path) -> None:
    """Threads with stacks of 64 TB; those of Polars have been started before."""
    code = """
import io, os, sys
import polars
os.environ["RUST_MIN_STACK"] = str(1 << 46)
from fasttriplet.cli import main
sys.stderr = sys.stdout
for threads in ([], ["--threads", "1"], ["--threads", "7"]):
    print(main(["index", "--no-cache", "--rec", sys.argv[1], *threads]))
"""
    assert run_python(code, rec).splitlines() == [
        f"fasttriplet: cannot start {wanted}: Resource temporarily unavailable; {fewer}{LIMITS}"
        if wanted
        else "1"
        for wanted, fewer in (
            ("one thread per core", "give fewer, such as --threads 1, or "),
            ("", ""),
            ("a thread", ""),
            ("", ""),
            ("7 threads", "give fewer, such as --threads 1, or "),
            ("", ""),
        )
    ]


def test_threads_that_polars_cannot_start(rec: Path) -> None:
    done = run("index", "--no-cache", "--rec", rec, env=os.environ | {"RUST_MIN_STACK": str(1 << 46)})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("fasttriplet: failed to spawn")
    assert done.stderr.endswith(f"; {LIMITS}\n")
    assert "Traceback" not in done.stderr


class PanicException(BaseException):
    """As Polars raises it."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("can't start new thread"),  # Python's words
        PanicException('Err(Os { code: 11, kind: WouldBlock, message: "Resource temporarily unavailable" })'),
    ],
)
def test_threads_that_cannot_be_started_later(
    rec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, error: BaseException
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("fasttriplet.dataset._index.inspect_rec", broken)
    assert main(["index", "--rec", str(rec)]) == 1
    assert capsys.readouterr().err == f"fasttriplet: {error}; {LIMITS}\n"


@pytest.mark.mxnet
@pytest.mark.usefixtures("mx")
def test_no_folder_for_temporary_files_is_needed(
    rec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The lines of MXNet that are usually held back are shown then."""
    from fasttriplet.mxnet import save_untrained, small_convnet  # noqa: PLC0415

    def none(*_: Any, **__: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.chdir(rec.parent)
    monkeypatch.setattr(tempfile, "TemporaryFile", none)
    monkeypatch.setattr(tempfile, "gettempdir", none)
    save_untrained("net", small_convnet(8), (24, 24))
    commands = [
        "mine --rec train.rec --model mxnet:net,0 --out t.csv --band any",
        "verify --rec train.rec --model mxnet:net,0 --pairs-per-kind 9",
        "index --rec train.rec",
    ]
    for command in commands:
        assert main(command.split()) == 0, capsys.readouterr().err


def test_an_error_without_a_file_is_not_one_of_standard_output(
    rec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fasttriplet.dataset._index.inspect_rec", broken)
    assert main(["index", "--rec", str(rec)]) == 1
    assert capsys.readouterr().err == "fasttriplet: Input/output error\n"
