"""Streams that are closed, full or in another encoding."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import click
import polars as pl
import pytest

from fasttriplet.cli import main
from tests.cli.command import COMMAND, Capture

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize(
    "arguments", [["--help"], ["index", "--json"], ["index"], ["mine", "--json"], ["mine"]]
)
def test_a_reader_that_has_seen_enough_is_no_error(rec: Path, tmp_path: Path, arguments: list[str]) -> None:
    if arguments != ["--help"]:
        arguments = [*arguments, "--rec", str(rec)]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=pipe, stderr=subprocess.PIPE, cwd=tmp_path, timeout=60, check=False
        )
    assert done.returncode == 0
    assert b"roken" not in done.stderr
    assert (tmp_path / "triplets.parquet").exists() == ("mine" in arguments)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_streams_that_are_closed(rec: Path, tmp_path: Path, closed: str) -> None:
    out = tmp_path / "triplets.parquet"
    command = f'"$0" -m fasttriplet mine --rec "$1" --out "$2" --band any {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable, rec, out], timeout=60, check=False)
    assert done.returncode == 0
    assert pl.read_parquet(out).height > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_standard_output_is_named(rec: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "index", "--rec", rec, "--no-cache"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "fasttriplet: standard output: No space left on device\n"


def test_names_in_other_encodings(rec: Path, tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for name, code in ((b"\xc3\xbc.parquet", 0), (b"\xff.parquet", 2)):
        out = os.fsencode(tmp_path) + b"/" + name
        command = [*map(os.fsencode, [*COMMAND, "mine", "--rec", str(rec), "--band", "any", "--out"]), out]
        done = subprocess.run(command, env=os.environ | plain, capture_output=True, check=False)
        assert done.returncode == code, done.stderr
        assert os.path.exists(out) == (code == 0)  # noqa: PTH110
        assert (b"--out must be a name in UTF-8" in done.stderr) == (code == 2)
        assert b"Traceback" not in done.stderr


def test_what_a_thread_prints_is_no_result(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Ray's threads print to stdout, where a program may read JSON."""

    def command() -> None:
        thread = threading.Thread(target=print, args=("a machine died",))
        thread.start()
        thread.join()
        click.echo("a result")

    monkeypatch.setattr("fasttriplet.cli._mine.mine", click.Command("mine", callback=command))
    assert main(["mine"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "a result\n"
    assert "a machine died" in printed.err
