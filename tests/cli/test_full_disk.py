"""A disk that is full: the message names the file and what to do, and all is as it was."""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fasttriplet.cli import main
from tests.auditing.findings import write_suspects
from tests.cli.command import Capture
from tests.dataset.pictures import people
from tests.interrupted import content

COMMANDS = {
    "index --rec train.rec --cache-dir cache": "cache",
    **{
        f"mine --rec train.rec --out t.{ending} --band any --pick all --no-cache": f"t.{ending}"
        for ending in ("parquet", "csv", "ndjson", "arrow")
    },
    "pack people a.rec --size 30": "a.rec",
    "clean --rec train.rec --suspects suspects.parquet --out a.rec --no-cache": "a.rec",
    "pack-pairs a.bin --rec train.rec --pairs-per-kind 50 --no-cache": "a.bin",
    "report --rec train.rec --out a.html --no-cache": "a.html",
    "verify --rec train.rec --model pixels --pairs-per-kind 50 --roc a.png --no-cache": "a.png",
    "embed --rec train.rec --model pixels --out new/e.npy --no-cache": r"new/e\.npy(\.json)?",
    "mine --rec train.rec --model pixels --whole --band any --out w.parquet --no-cache": r"\S*w\.parquet\S*",
    "neighbors --rec train.rec --model pixels --out g.parquet --no-cache": "g.parquet",
    "audit --rec train.rec --model pixels --out audit --no-cache": r"audit/[a-z.]+",
    "demo --out demo --identities 2 --images 2 --batches 1": r"demo/[a-z.]+",
}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: a limit that needs neither root nor a small disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 1000])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_file_is_named_and_what_to_do(
    rec: Path, command: str, size: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    if "verify" in command:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(rec.parent)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    people(Path("people"))
    write_suspects(Path("suspects.parquet"), rec, {"kind": "outlier", "key": 1}, cache=False)
    before = set(Path().iterdir())
    with largest_file(size):
        code = main(command.split())
    said = capsys.readouterr().err.splitlines()[-1]
    assert code == 1, said
    assert re.match(
        rf"fasttriplet: (--cache-dir )?{COMMANDS[command]}: .*File too large( after [\d,]+ bytes)?; ", said
    )
    assert "a limit of this process (ulimit -f)" in said
    assert {path for path in Path().iterdir() if path.name != "demo"} == before


def test_a_folder_of_pictures_is_named(rec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(rec.parent)
    before = set(Path().iterdir())
    with largest_file(100):
        assert main(["export", "--rec", "train.rec", "--keys", "1,2", "--out", "new/out", "--no-cache"]) == 1
    assert capsys.readouterr().err.startswith("fasttriplet: new/out: File too large")
    assert set(Path().iterdir()) == before


@pytest.mark.parametrize("size", [0, 200, 2000])
def test_files_that_are_there_stay(
    rec: Path, size: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(rec.parent)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    people(Path("people"))
    pack = "pack people a/a.rec --size 60 --split 0.5 --overwrite"
    assert main(pack.split()) == 0
    before = content(Path("a"))
    with largest_file(size):
        assert main(pack.split()) == 1
    assert "a/a" in capsys.readouterr().err
    assert content(Path("a")) == before
