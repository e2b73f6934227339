"""What a wrong command line and wrong data are answered with, and the exit codes."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from fasttriplet.cli import cli, main
from tests.cli.command import Capture


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine"], "Missing option '--rec'"),
        (["mine", "--rec", "REC", "--bag-size", "0"], "'--bag-size'"),
        (["mine", "--rec", "REC", "--margin", "-1"], "'--margin'"),
        (["mine", "--rec", "REC", "--band", "soft"], "--band 'soft' is no band"),
        (["mine", "--rec", "REC", "--bagsize", "7"], "No such option.*--bagsize"),
        (["mine", "--rec", "REC", "--model", "resnet"], "--model: unknown embedder 'resnet'"),
        (["mine", "--rec", "REC", "--whole", "--bag-size", "9"], "--bag-size has no meaning with --whole"),
        (["mine", "--rec", "REC", "--whole", "--epochs", "2"], "--epochs has no meaning with --whole"),
        (["mine", "--rec", "REC", "--resume"], "--resume is for --whole"),
        (["mine", "--rec", "REC", "--pictures", "400"], "--pictures goes with --report"),
        (["mine", "--rec", "REC", "--model", "mxnet:model"], "--model: 'mxnet:model' is not of the form"),
        (["mine", "--rec", "REC", "--devices", "gpu"], "Error: --devices cannot be given with 'pixels'"),
        (["mine", "--rec", "REC", "--batch-size", "3"], "Error: --batch-size cannot be given with"),
        (["mine", "--rec", "REC", "--pairs", "soft"], "'--pairs'"),
        (
            ["mine", "--rec", "REC", "--rec", "REC"],
            "--rec must name each file once: .*train.rec is given twice",
        ),
        (["mine", "--rec", "REC", "--margin", "nan"], "'--margin': 'nan' is not a number."),
        (["mine", "--rec", "REC", "--margin", "wide"], "'--margin': 'wide' is not a number."),
        (["mine", "--rec", "REC", "--bag-size", "1.5"], "'--bag-size': '1.5' is not a whole number."),
        (["mine", "--rec", "REC", "--metric", "dot"], "'--metric'"),
        (["mine", "--rec", "REC", "--metric", "cosine", "--no-normalize"], "--metric 'cosine' compares"),
        (["mine", "--rec", "REC", "--out", "t.txt"], "--out must end in .parquet, .csv"),
        (["mine", "--rec", "REC", "--out", "t"], "--out must end in .*.arrow, .feather"),
        (["pack", ".", "a.bin"], "OUT.rec must end in .rec, not 'a.bin'"),
        (["pack", "a"], "Missing argument 'OUT.rec'"),
        (["pack-pairs", "a.rec"], "'OUT.bin': a.rec: the name must end in .bin"),
        (["pack-pairs", "a.bin"], "give either --rec or --list"),
        (["pack-pairs", "a.bin", "--rec", "REC", "--list", "a"], "give either --rec or --list"),
        (["pack-pairs", "a.bin", "--rec", "REC", "--folder", "a"], "--folder goes with --list"),
        (["verify", "--model", "pixels"], "give either --pairs or --rec"),
        (["verify", "--model", "pixels", "--rec", "REC", "--pairs", "a.bin"], "give either --pairs or --rec"),
        (["verify", "--rec", "REC"], "Missing option '--model'"),
        (["verify", "--rec", "REC", "--model", "pixels", "--roc", "a.gif"], "must end in .png or .svg"),
        (["verify", "--rec", "REC", "--model", "pixels", "--overwrite"], "--overwrite goes with --roc"),
        (
            ["verify", "--pairs", "a.bin", "--model", "pixels", "--labels", "separate"],
            "--labels goes with --rec",
        ),
        (["verify", "--pairs", "a.bin", "--model", "pixels", "--no-cache"], "--cache/--no-cache goes with"),
        (["pack-pairs", "a.bin", "--list", "a.txt", "--seed", "1"], "--seed goes with --rec"),
        (["train", "--out", "a", "--resume", "--overwrite"], "give either --resume or --overwrite"),
        (["completion"], "Missing argument"),
        (["completion", "tcsh"], "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
        (["mime"], "No such command 'mime'"),
    ],
)
def test_a_wrong_command_line_ends_with_2(
    rec: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(rec.parent)
    assert main([str(rec) if word == "REC" else word for word in arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.search(message, shown.err)
    assert "Traceback" not in shown.err


# What a command needs besides the option that is wrong.
NEEDS = {
    "audit": ["--rec", "REC", "--model", "pixels", "--out", "a"],
    "clean": ["--rec", "REC", "--suspects", "s.parquet", "--out", "a.rec"],
    "export": ["--rec", "REC", "--keys", "1", "--out", "new"],
    "embed": ["--rec", "REC", "--model", "pixels", "--out", "e.npy"],
    "completion": ["bash"], "demo": [], "index": ["--rec", "REC"], "mine": ["--rec", "REC"],
    "neighbors": ["--rec", "REC", "--model", "pixels", "--out", "g.parquet"],
    "pack": ["folder", "a.rec"], "pack-pairs": ["a.bin", "--rec", "REC"],
    "report": ["--rec", "REC"],
    "train": ["--rec", "REC", "--network", "small", "--out", "a"],
    "verify": ["--rec", "REC", "--model", "pixels"],
}  # fmt: skip


def wrong_values() -> list[tuple[str, str, str]]:
    """A wrong value for every option of every command that does not take all words."""
    found = []
    for name in NEEDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for option in command.params:
            if not isinstance(option, click.Option) or option.is_flag:
                continue
            words = []
            if isinstance(option.type, click.Choice):
                words = ["nonsense", ""]
            elif isinstance(option.type, (click.IntRange, click.FloatRange)):
                words = ["x", "-7"]
            found += [(name, option.opts[0], word) for word in words]
    return found


@pytest.mark.parametrize(("command", "flag", "word"), wrong_values())
def test_a_wrong_value_of_any_option_ends_with_2(  # noqa: PLR0917  what pytest passes
    rec: Path, command: str, flag: str, word: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(rec.parent)
    before = set(rec.parent.iterdir())
    assert main([command, *NEEDS[command], flag, word]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err.startswith(f"Usage: fasttriplet {command} ")) == ("", True)
    assert f"'{flag}'" in shown.err.splitlines()[-1]
    assert set(rec.parent.iterdir()) == before


def test_all_commands_have_wrong_values() -> None:
    assert set(cli.list_commands(click.Context(cli))) == NEEDS.keys()
    assert {"mine", "train", "verify", "pack", "pack-pairs", "demo"} <= {row[0] for row in wrong_values()}


@pytest.mark.mxnet
@pytest.mark.usefixtures("mx")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--batch-size", "10"], "--batch-size must be a multiple of 3 (anchors"),
        (["train", "--network", "huge"], "--network must be one of 'small', 'mobilefacenet', not 'huge'"),
        (["train", "--lr-steps", "9,5"], "--lr-steps must ascend, not (9, 5)"),
        (["train", "--lr-steps", "0"], "each of --lr-steps must be a whole number >= 1"),
        (["train", "--devices", "tpu"], "--devices must be 'cpu', 'gpu', or GPUs such as 'gpu:0,2'"),
        (["train", "--pretrained", "model"], "--pretrained must be PREFIX,EPOCH, not 'model'"),
        (["train", "--out", "models/"], "--out must have the beginning of a name after the folder"),
        (["train", "--out", "caf\udce9"], "--out must be a name in UTF-8"),
        (["mine", "--model", "mxnet:MODEL,0", "--devices", "tpu"], "--devices must be 'cpu', 'gpu', or"),
    ],
)
def test_values_that_functions_refuse_end_with_2_and_name_the_flag(
    rec: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(rec.parent)
    if "mxnet:MODEL,0" in arguments:
        from fasttriplet.mxnet import save_untrained, small_convnet  # noqa: PLC0415

        save_untrained("MODEL", small_convnet(8), (24, 24))
    before = set(rec.parent.iterdir()) | {rec.with_name("train.rec.index")}
    command, *words = arguments
    assert main([command, *(str(rec) if word == "REC" else word for word in [*NEEDS[command], *words])]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[-1].startswith(f"Error: {message}")
    assert set(rec.parent.iterdir()) <= before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "--rec", "none.rec"], "none.rec.*No such file"),
        (["mine", "--rec", "none.rec"], "none.rec.*No such file"),
        (["mine", "--rec", "none.rec", "--out", "new/t.csv"], "none.rec.*No such file"),
        (["mine", "--rec", "."], "is a folder; expected a .rec file"),
        (["mine", "--rec", "REC", "--model", "npy:none.npy"], "none.npy"),
        (["mine", "--rec", "REC", "--model", "mxnet:none,0"], "none-symbol.json|MXNet"),
        (["mine", "--rec", "REC", "--bag-size", "3"], "raise --bag-size"),
        (["mine", "--rec", "REC", "--images-per-identity", "1"], "--images-per-identity is 1"),
        (
            ["mine", "--rec", "REC", "--max-ap", "0"],
            "--max-ap 0.* skips 120 pairs .*raise --max-ap or leave it out",
        ),
        (["mine", "--rec", "REC", "--out", "train.rec/t.csv"], "t.csv: train.rec is not a folder"),
        (["mine", "--rec", "REC", "--out", "folder.csv"], "folder.csv: is a folder; give the name of a file"),
        (["mine", "--rec", "REC", "--out", "null.csv"], "null.csv: is not a regular file"),
        (["mine", "--rec", "REC", "--out", "old.csv"], "old.csv: exists already; --overwrite replaces it"),
        (
            ["mine", "--rec", "REC", "--out", "old.csv", "--whole", "--resume"],
            "old.csv: exists already, and no unfinished run is beside it, .*; --overwrite mines again",
        ),
        (["mine", "--rec", "REC", "--out", "fixed.csv", "--overwrite"], "fixed.csv: is read-only; make it"),
        (["mine", "--rec", "REC", "--out", "loop.csv"], "loop.csv: is a link that leads back to itself"),
        (["verify", "--rec", "none.rec", "--model", "pixels"], "none.rec.*No such file"),
        (["verify", "--pairs", "none.bin", "--model", "pixels"], "none.bin.*No such file"),
        (["verify", "--rec", "REC", "--model", "npy:none.npy"], "none.npy"),
        (
            ["verify", "--rec", "REC", "--model", "pixels", "--roc", "old.png"],
            "old.png: exists already; --ov",
        ),
        (["pack", "none", "new/a.rec"], "none: does not exist"),
        (["pack", "old.csv", "a.rec"], "old.csv: is a file"),
        (["pack-pairs", "new/a.bin", "--rec", "none.rec"], "none.rec.*No such file"),
        (["pack-pairs", "new/a.bin", "--list", "none.txt"], "none.txt.*No such file"),
        (
            ["pack-pairs", "new/a.bin", "--list", "list.txt", "--folder", "none"],
            "the first is none/a.jpg. Give the folder",
        ),
        (["pack-pairs", "old.bin", "--rec", "REC"], "old.bin: exists already; --overwrite replaces it"),
        (["report", "--rec", "REC", "--out", "old.html"], "old.html: exists already; --overwrite rep"),
        (["report", "--rec", "REC", "--triplets", "old.csv"], "old.csv"),
        (["report", "--rec", "REC", "--audit", "none"], "none.*No such file"),
        (["report", "--log", "old.csv"], "old.csv is .*not the log of a training"),
        (["report", "--verify", "REC"], "is a .rec file; give it as --rec, not what `fasttriplet verify"),
        (["demo", "--out", "old.csv"], "old.csv is a file"),
        (["demo", "--out", "."], "holds files that are not the demo's"),
    ],
)
def test_data_that_will_not_do_ends_with_1_and_one_message(
    rec: Path, arguments: list[str], message: str, monkeypatch: Any, capsys: Capture
) -> None:
    ends_with_1(rec, arguments, message, monkeypatch, capsys)


@pytest.mark.mxnet
@pytest.mark.usefixtures("mx")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rec", "none.rec", "--network", "small"], "none.rec: does not exist"),
        (["--rec", "REC", "--network", "small", "--verify-on", "none.bin"], "none.bin: does not exist"),
        (["--rec", "REC", "--network", "small", "--pretrained", "none,0"], "none-symbol.json"),
        (["--rec", "REC", "--symbol", "none.json"], "none.json"),
        (["--resume"], "no training to resume"),
    ],
)
def test_a_training_without_its_files_ends_with_1(
    rec: Path, arguments: list[str], message: str, monkeypatch: Any, capsys: Capture
) -> None:
    ends_with_1(rec, ["train", "--out", "new/a", *arguments], message, monkeypatch, capsys)


def ends_with_1(
    rec: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    tmp_path = rec.parent
    monkeypatch.chdir(tmp_path)
    for name in ("old.csv", "fixed.csv", "old.png", "old.bin", "old.html"):
        Path(name).write_text("old")
    Path("fixed.csv").chmod(0o444)
    Path("folder.csv").mkdir()
    Path("list.txt").write_text("a.jpg b.jpg 1\n")
    Path("null.csv").symlink_to("/dev/null")
    Path("loop.csv").symlink_to("loop.csv")
    before = set(tmp_path.iterdir()) | {rec.with_name("train.rec.index")}
    assert main([str(rec) if word == "REC" else word for word in arguments]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    last = shown.err.splitlines()[-1]
    assert re.search(message, last), last
    assert last.startswith("fasttriplet: ")
    assert "Traceback" not in shown.err
    assert set(tmp_path.iterdir()) <= before
    assert all(
        Path(name).read_text() == "old" for name in ("old.csv", "fixed.csv", "old.png", "old.bin", "old.html")
    )


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
