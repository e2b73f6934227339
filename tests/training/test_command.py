"""``fasttriplet train``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fasttriplet.cli import main
from fasttriplet.training import options_at
from tests.cli.command import Capture

pytestmark = [pytest.mark.mxnet, pytest.mark.usefixtures("mx")]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "fasttriplet", "train", *map(str, arguments)]
    wide = os.environ | {"COLUMNS": "300"}  # long paths stay on a line
    return subprocess.run(words, env=wide, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.heavy
def test_the_command_trains_and_goes_on(data: Path, tmp_path: Path, capsys: Capture) -> None:
    begin: list[object] = ["--rec", data / "train.rec", "--network", "small", "--embedding-size", 16]
    begin += ["--bag-size", 48, "--batch-size", 12, "--pairs", "ordered", "--lr-steps", "5,9", "--no-mirror"]
    done = command(*begin, "--out", tmp_path / "a", "--batches", 20, "--verify-on", data / "pairs.bin")
    assert done.returncode == 0, done.stderr
    assert "96 images of 16 identities, 24 x 24, with MXNet on cpu; batch 0 of 20" in done.stderr
    assert "batch 20 of 20  epoch" in done.stderr
    assert "batch 20  pairs.bin: accuracy" in done.stderr
    for name in ("last network", "best network", "a-log.jsonl", "embed", "train"):
        assert name in done.stdout
    first = json.loads((tmp_path / "a-log.jsonl").read_text().splitlines()[0])
    assert first["settings"]["pairs"] == "ordered"
    assert first["settings"]["lr_steps"] == [5, 9]
    assert first["settings"]["mirror"] is False

    again = ["train", "--out", str(tmp_path / "a"), "--resume"]
    assert main([*again, "--batches", "30", "--json", "--pairs", "ordered"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["batches"] == 30
    assert "batch 30  pairs.bin: accuracy" in err  # as it was begun
    assert main(again) == 0
    out, err = capsys.readouterr()
    assert "batch 30 of 30: nothing to do, give more --batches" in err
    assert "0 bags" not in out
    assert main([*again, "--batches", "40", "--margin", "0.7"]) == 1
    assert "margin 0.3 (now 0.7)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "a"], 2, "--rec is missing"),
        (["--rec", "x.rec", "--out", "a"], 2, "either --network or --symbol"),
        (["--rec", "x.rec", "--out", "a", "--network", "n", "--symbol", "s"], 2, "either --network or"),
        (["--rec", "x.rec", "--out", "a", "--symbol", "s", "--embedding-size", "3"], 2, "a --symbol has its"),
        (["--rec", "x.rec", "--out", "a", "--network", "small", "--lr-steps", "1;2"], 2, "between commas"),
        (["--rec", "x.rec", "--out", "a", "--network", "small"], 1, "x.rec"),
        (["--resume", "--out", "a"], 1, "no training to resume"),
    ],
)
def test_what_the_command_refuses(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    *,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.heavy
def test_a_full_disk_is_named(data: Path, tmp_path: Path) -> None:
    words = f"ulimit -f 400; trap '' XFSZ; exec {sys.executable} -m fasttriplet train --network small"  # KiB
    words += f" --rec {data / 'train.rec'} --out {tmp_path / 'a'} --batches 3 --batch-size 12 --bag-size 48"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "a-state.npz: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.params"))
    assert not list(tmp_path.glob(".*"))


def test_the_command_keeps_the_options_of_the_dataset(data: Path, tmp_path: Path, capsys: Capture) -> None:
    def train(*arguments: object) -> int:
        return main(["train", "--out", str(tmp_path / "a"), *map(str, arguments)])

    cache: list[object] = ["--cache-dir", tmp_path / "cache"]
    begin: list[object] = ["--rec", data / "train.rec", "--network", "small", "--embedding-size", 16]
    begin += ["--bag-size", 48, "--batch-size", 12, "--labels", "separate", *cache]
    assert train(*begin, "--batches", 2) == 0
    (kept,) = (tmp_path / "cache").iterdir()
    assert f"the index is kept for later runs in {kept}; --no-cache keeps none" in capsys.readouterr().err
    kept.unlink()
    assert train("--resume", "--batches", 3, "--no-cache") == 0
    assert not kept.exists()
    assert options_at(tmp_path / "a")[0].cache is False
    assert train("--resume", "--batches", 4, *cache) == 0
    assert kept.exists()
    chosen = options_at(tmp_path / "a")[0]
    assert (chosen.labels, chosen.cache) == ("separate", str(tmp_path / "cache"))
    assert train("--resume", "--batches", 5, "--labels", "shared") == 1
    assert "labels 'separate' (now 'shared')" in capsys.readouterr().err
