"""What a wrong command line and wrong data are answered with, and the exit codes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from fasttriplet.cli import main
from tests.cli.command import Capture


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine"], "Missing option '--rec'"),
        (["mine", "--rec", "REC", "--bag-size", "0"], "'--bag-size'"),
        (["mine", "--rec", "REC", "--margin", "-1"], "'--margin'"),
        (["mine", "--rec", "REC", "--band", "soft"], "'--band'"),
        (["mine", "--rec", "REC", "--bagsize", "7"], "No such option.*--bagsize"),
        (["mine", "--rec", "REC", "--model", "resnet"], "--model: unknown embedder 'resnet'"),
        (["mine", "--rec", "REC", "--model", "mxnet:model"], "--model: 'mxnet:model' is not of the form"),
        (["mine", "--rec", "REC", "--devices", "gpu"], "--model: devices cannot be given with 'pixels'"),
        (["mine", "--rec", "REC", "--pairs", "soft"], "'--pairs'"),
        (["mine", "--rec", "REC", "--margin", "nan"], "'--margin': nan is not a number"),
        (["mine", "--rec", "REC", "--metric", "dot"], "'--metric'"),
        (["mine", "--rec", "REC", "--metric", "cosine", "--no-normalize"], "metric='cosine' compares"),
        (["pack", ".", "a.bin"], "'OUT.rec': a.bin: the name must end in .rec"),
        (["pack-pairs", "a.rec"], "'OUT.bin': a.rec: the name must end in .bin"),
        (["mime"], "No such command 'mime'"),
    ],
)
def test_a_wrong_command_line_ends_with_2(
    rec: Path, arguments: list[str], message: str, capsys: Capture
) -> None:
    assert main([str(rec) if word == "REC" else word for word in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.search(message, shown.err)
    assert "Traceback" not in shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "--rec", "none.rec"], "none.rec.*No such file"),
        (["mine", "--rec", "none.rec"], "none.rec.*No such file"),
        (["mine", "--rec", "."], "is a folder; expected a .rec file"),
        (["mine", "--rec", "REC", "--rec", "REC"], "given twice"),
        (["mine", "--rec", "REC", "--model", "npy:none.npy"], "none.npy"),
        (["mine", "--rec", "REC", "--model", "mxnet:none,0"], "none-symbol.json|MXNet"),
        (["mine", "--rec", "REC", "--bag-size", "3"], "raise bag_size"),
        (["mine", "--rec", "REC", "--images-per-identity", "1"], "images_per_identity is 1"),
        (["mine", "--rec", "REC", "--max-ap", "0"], "over max_ap=0"),
        (["mine", "--rec", "REC", "--out", "REC"], "is the dataset"),
        (["mine", "--rec", "REC", "--out", "none/t.parquet"], "there is no folder none"),
        (["mine", "--rec", "REC", "--out", "/dev/null"], "/dev/null is no regular file"),
    ],
)
def test_data_that_will_not_do_ends_with_1_and_one_message(
    rec: Path, arguments: list[str], message: str, monkeypatch: Any, capsys: Capture
) -> None:
    tmp_path = rec.parent
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir()) | {rec.with_name("train.rec.index.parquet")}
    assert main([str(rec) if word == "REC" else word for word in arguments]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    last = shown.err.splitlines()[-1]
    assert re.search(message, last)
    assert last.startswith("fasttriplet: ")
    assert "Traceback" not in shown.err
    assert set(tmp_path.iterdir()) <= before


def test_what_is_no_rec_is_named(real_data: Path, capsys: Capture) -> None:
    pointers = [
        p for p in (real_data / "bad").rglob("*") if p.is_file() and b"git-lfs" in p.read_bytes()[:200]
    ]
    assert pointers
    for path in pointers:
        assert main(["mine", "--rec", str(path)]) == 1
        assert "Git LFS" in capsys.readouterr().err


def test_an_extra_that_is_not_installed_is_named(rec: Path, monkeypatch: Any, capsys: Capture) -> None:
    monkeypatch.setitem(sys.modules, "mxnet", None)
    prefix = rec.with_name("model")
    assert main(["mine", "--rec", str(rec), "--model", f"mxnet:{prefix},0"]) == 1
    assert "mxnet" in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    "flag",
    ["--images-per-identity", "--bag-size", "--max-triplets", "--negatives-per-pair", "--threads", "--seed"],
)
def test_numbers_beyond_reason_are_refused(rec: Path, flag: str, capsys: Capture) -> None:
    assert main(["mine", "--rec", str(rec), flag, "9" * 30]) == 2
    assert flag in capsys.readouterr().err
