"""`--labels`, `--cache` and `--cache-dir`, which all commands with `--rec` have."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from fasttriplet.cli import main
from tests.cli.command import Capture
from tests.small_rec import identities, write_rec

COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "index": lambda _: ["index", "--json"],
    "audit": lambda out: ["audit", "--model", "pixels", "--overwrite", "--out", str(out / "audit")],
    "embed": lambda out: ["embed", "--model", "pixels", "--overwrite", "--out", str(out / "e.npy")],
    "mine": lambda out: ["mine", "--band", "any", "--overwrite", "--out", str(out / "triplets.parquet")],
    "neighbors": lambda out: [
        "neighbors",
        "--model",
        "pixels",
        "--overwrite",
        "--out",
        str(out / "graph.parquet"),
    ],
    "verify": lambda _: ["verify", "--model", "pixels", "--pairs-per-kind", "20"],
    "pack-pairs": lambda out: ["pack-pairs", str(out / "pairs.bin"), "--pairs-per-kind", "20", "--overwrite"],
}
# `train` needs MXNet: see tests/training/test_command.py.


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_index_is_announced_once(command: str, rec: Path, out: Path, capsys: Capture) -> None:
    def told(*flags: str) -> list[str]:
        assert main([*COMMANDS[command](out), "--rec", str(rec), *flags]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if "the index is kept" in line]

    beside = rec.with_name("train.rec.index")
    assert told("--no-cache") == []
    assert not beside.exists()
    hint = "--no-cache keeps none, --cache-dir FOLDER keeps it there"
    assert told() == [f"fasttriplet: the index is kept for later runs in {beside}; {hint}"]
    assert told() == []
    (line,) = told("--cache-dir", str(out / "cache"))
    (kept,) = (out / "cache").iterdir()
    assert str(kept) in line
    assert told("--cache-dir", str(out / "cache"), "--cache") == []
    assert logging.getLogger("fasttriplet.index").handlers == []


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_not_an_index_is_said_once(command: str, rec: Path, out: Path, capsys: Capture) -> None:
    beside = rec.with_name("train.rec.index")
    beside.write_text("something else")
    assert main([*COMMANDS[command](out), "--rec", str(rec)]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "index" in line]
    assert line == (
        f"fasttriplet: {beside} is not used as the index of {rec}: it is a file of another kind. It stays as "
        "it is, and the index is made at each run; move it away, or name a folder for indexes by --cache-dir "
        "FOLDER"
    )
    assert beside.read_text() == "something else"


def test_flags_of_the_cache_that_do_not_go_together(rec: Path, out: Path, capsys: Capture) -> None:
    for flags in (["--no-cache", "--cache-dir", str(out)], ["--cache-dir", str(out), "--no-cache"]):
        assert main(["index", "--rec", str(rec), *flags]) == 2
        assert "--no-cache keeps no index" in capsys.readouterr().err
    assert main(["index", "--rec", str(rec), "--cache-dir", str(rec)]) == 2
    assert "--cache-dir" in capsys.readouterr().err
    assert main(["index", "--rec", str(rec), "--cache-dir", str(rec / "cache")]) == 1
    assert f"--cache-dir {rec / 'cache'}: the index of {rec} cannot be kept" in capsys.readouterr().err
    assert logging.getLogger("fasttriplet.index").handlers == []


@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_were_numbered_independently(command: str, rec: Path, out: Path, capsys: Capture) -> None:
    other = write_rec(rec.with_name("other.rec"), identities(4, 5))

    def doubts(*flags: str) -> list[str]:
        assert main([*COMMANDS[command](out), "--rec", str(rec), "--rec", str(other), *flags]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if "numbered independently" in line]

    (line,) = doubts()
    assert line.startswith(f"fasttriplet: {rec} and {other} were probably")
    assert "--labels separate keeps the identities of each file apart; --labels shared says" in line
    assert doubts("--labels", "shared") == doubts("--labels", "separate") == []


def test_separate_labels_of_the_commands(rec: Path, out: Path, capsys: Capture) -> None:
    other = write_rec(rec.with_name("other.rec"), identities(4, 5))
    files = ["--rec", str(rec), "--rec", str(other), "--labels", "separate"]
    assert main([*COMMANDS["index"](out), *files]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["label_range"], first["label_shift"]) == ([0, 11], 0)
    assert (second["label_range"], second["label_shift"]) == ([0, 3], 12)
    assert main(["index", *files]) == 0
    assert "0 to 3, shifted to 12 to 15" in capsys.readouterr().out
    assert main([*COMMANDS["mine"](out), *files]) == 0
    triplets = pl.read_parquet(out / "triplets.parquet")
    assert set(triplets["anchor_label"]) == set(range(16))
    assert (triplets["anchor_file"] == triplets["positive_file"]).all()
    for command, genuine in (("verify", "40: 20 genuine"), ("pack-pairs", "40 pairs, 20 genuine")):
        assert main([*COMMANDS[command](out), *files]) == 0
        assert genuine in capsys.readouterr().out
