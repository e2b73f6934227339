"""The command line: what it prints where, its exit codes, and how it ends when it is stopped."""

from __future__ import annotations

import inspect
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.cli import cli, main
from tests.small_rec import identities, write_rec

COMMAND = [sys.executable, "-m", "fasttriplet"]


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    return write_rec(tmp_path / "train.rec", identities(12, 6))


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False, **options
    )


Capture = pytest.CaptureFixture[str]

# Help


def test_help_lists_the_commands_and_waits_for_nothing_heavy() -> None:
    code = (
        "import sys; from fasttriplet.cli import main; codes = [main(['--help']), main(['mine', '--help'])];"
        "assert codes == [0, 0]; assert not {'numpy', 'polars', 'rich', 'mxnet'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in cli.list_commands(
        cli.make_context("fasttriplet", ["mine", "--help"], resilient_parsing=True)
    ):
        assert re.search(rf"^  {command}\b", done.stdout, re.MULTILINE)
    assert "d_ap < d_an < d_ap + margin" in done.stdout


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert ft.__version__ in capsys.readouterr().out


def test_flags_have_the_defaults_of_mine_rec() -> None:
    from fasttriplet.cli._mine import mine  # noqa: PLC0415

    arguments = inspect.signature(ft.mine_rec).parameters
    compared = set()
    for flag in mine.params:
        assert flag.name
        if flag.name in arguments and flag.name not in ("rec", "out"):
            wanted = arguments[flag.name].default
            assert flag.to_info_dict()["default"] == wanted, flag.name
            compared.add(flag.name)
    assert compared >= {
        "bag_size",
        "images_per_identity",
        "margin",
        "max_ap",
        "band",
        "pick",
        "seed",
        "epochs",
    }
    assert arguments["bag_size"].default == 7200
    assert arguments["images_per_identity"].default == 5
    assert arguments["margin"].default == 0.3
    assert arguments["max_ap"].default is None


# mine


def test_mine_writes_the_triplets_and_prints_a_summary(rec: Path, tmp_path: Path) -> None:
    done = run("mine", "--rec", rec, "--epochs", "2", "--bag-size", "24", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    frame = pl.read_parquet(tmp_path / "triplets.parquet")
    assert frame.equals(ft.mine_rec(rec, epochs=2, bag_size=24).triplets.collect())
    for said in (
        "72 images of 12 identities",
        "baseline",
        f"{frame.height:,}",
        "without a negative",
        "decode",
    ):
        assert said in done.stdout
    assert "images/s" in done.stdout
    assert f"{frame['d_ap'].quantile(0.5, 'linear'):.4f}" in done.stdout
    assert done.stdout.endswith("Triplets are in triplets.parquet\n")


def test_every_flag_of_mine_arrives(rec: Path, tmp_path: Path, capsys: Capture) -> None:
    options: dict[str, Any] = {
        "images_per_identity": 4, "bag_size": 18, "boundary": "split", "tail": "drop", "epochs": 3,
        "margin": 0.7, "band": "violating", "pick": "hardest", "negatives_per_pair": 2, "pairs": "ordered",
        "max_ap": 1.7, "max_triplets": 90, "on_error": "skip", "seed": 5, "threads": 2,
    }  # fmt: skip
    flags = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    out = tmp_path / "t.parquet"
    assert main(["mine", "--rec", str(rec), "--out", str(out), "--json", *flags]) == 0
    expected = ft.mine_rec(rec, **options)
    assert pl.read_parquet(out).equals(expected.triplets.collect())
    assert json.loads(capsys.readouterr().out)["stopped_at_max_triplets"]


def test_json_is_one_object_and_all_of_stdout(rec: Path, tmp_path: Path) -> None:
    done = run("mine", "--rec", rec, "--out", tmp_path / "t.parquet", "--json")
    summary = json.loads(done.stdout)
    assert summary["triplets"] == pl.read_parquet(tmp_path / "t.parquet").height
    assert set(summary["images_per_second"]) == {"decode", "embed", "mine"}
    assert set(summary["quantiles"]) == {"d_ap", "d_an"}
    assert summary["out"] == str(tmp_path / "t.parquet")
    assert (summary["images_indexed"], summary["identities"], summary["bags"]) == (72, 12, 1)


def test_several_files(tmp_path: Path, capsys: Capture) -> None:
    shards = [
        write_rec(tmp_path / f"train-{i}.rec", identities(4, 3, first_key=1 + 100 * i)) for i in range(2)
    ]
    out = tmp_path / "t.parquet"
    assert main(["mine", *(w for s in shards for w in ("--rec", str(s))), "--out", str(out), "--json"]) == 0
    frame = pl.read_parquet(out)
    assert set(frame["anchor_file"]) == {0, 1}
    assert (frame["anchor_key"] // 100 == frame["anchor_file"]).all()
    assert json.loads(capsys.readouterr().out)["files"] == [str(s) for s in shards]


def test_skipped_records_are_told(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(5, 5), frozenset({7, 20}))
    done = run("mine", "--rec", rec, "--on-error", "skip", "--band", "any", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 images were left out" in done.stdout
    assert re.search(rf"{rec}, key (7|20)", done.stdout)


@pytest.mark.mxnet
@pytest.mark.usefixtures("mx")
def test_mine_with_a_real_network(real_data: Path, tmp_path: Path) -> None:
    """As a user would: MXNet's settings for this network are nobody's concern."""
    faces, out = real_data / "lfw112-a", tmp_path / "t.parquet"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MXNET_")}
    done = run(
        "mine", "--rec", faces / "train.rec", "--model", f"mxnet:{real_data / 'model-y1' / 'model'},0",
        "--images-per-identity", "2", "--bag-size", "70", "--margin", "0.5", "--max-triplets", "4",
        "--out", out, "--json", env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "MXNet network" in json.loads(done.stdout)["embedder"]
    frame = pl.read_parquet(out)
    assert ((frame["d_ap"] < frame["d_an"]) & (frame["d_an"] < frame["d_ap"] + 0.5)).all()
    rows = np.load(faces / "emb_a.npy")
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    keys = ft.index_rec(faces / "train.rec")["key"].to_numpy()
    a, p, n = (
        np.searchsorted(keys, frame[f"{r}_key"].to_numpy()) for r in ("anchor", "positive", "negative")
    )
    np.testing.assert_allclose(frame["d_ap"].to_numpy(), ((rows[a] - rows[p]) ** 2).sum(1), atol=1e-4)
    np.testing.assert_allclose(frame["d_an"].to_numpy(), ((rows[a] - rows[n]) ** 2).sum(1), atol=1e-4)


# index


def test_index_prints_what_is_in_a_file(rec: Path, capsys: Capture) -> None:
    assert main(["index", "--rec", str(rec)]) == 0
    out = capsys.readouterr().out
    for said in (str(rec), "flat", "72", "12", "median 6", "none found"):
        assert said in out


def test_index_of_real_faces(real_data: Path, capsys: Capture) -> None:
    assert main(["index", "--rec", str(real_data / "lfw112-a" / "train.rec"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["records"], facts["images"], facts["identities"]) == (2485, 2375, 109)
    assert (facts["layout"], facts["problems"], facts["idx_used"]) == ("insightface", [], True)
    assert facts["images_by_flag"] == {"2": 2375}
    assert (facts["images_per_identity"]["fewest"], facts["images_per_identity"]["most"]) == (8, 236)


def test_index_tells_problems(rec: Path, capsys: Capture) -> None:
    rec.with_suffix(".idx").write_text("1\t18446744073709551615\n")
    assert main(["index", "--rec", str(rec), "--no-cache", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["images"] == 72
    assert not facts["idx_used"]
    assert facts["problems"]
    assert not rec.with_name("train.rec.index.parquet").exists()
    # and `mine` says so in one line, without the place in the code
    assert main(["mine", "--rec", str(rec), "--out", str(rec.with_name("t.parquet"))]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fasttriplet: ")]
    assert warned
    assert all("RecordWarning" not in line and ".py" not in line for line in warned)


# Errors


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
        (["mine", "--rec", "REC", "--images-per-identity", "1"], "no triplet in .* one image"),
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


# Being stopped


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
        wait_for(lambda: any(out.parent.glob(".*/*.part")))
        process.send_signal(getattr(signal, sent))
        stopped = time.monotonic()
        _, err = process.communicate(timeout=30)
        assert time.monotonic() - stopped < 2
    assert process.returncode == code
    assert "Traceback" not in err
    assert not out.exists()
    assert len(list(out.parent.iterdir())) == left  # hidden; a killed process cannot clean up


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
            [*COMMAND, "index", "--rec", rec], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "fasttriplet: standard output: No space left on device\n"


def test_names_in_other_encodings(rec: Path, tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for name, code in ((b"\xc3\xbc.parquet", 0), (b"\xff.parquet", 1)):
        out = os.fsencode(tmp_path) + b"/" + name
        command = [*map(os.fsencode, [*COMMAND, "mine", "--rec", str(rec), "--band", "any", "--out"]), out]
        done = subprocess.run(command, env=os.environ | plain, capture_output=True, check=False)
        assert done.returncode == code, done.stderr
        assert os.path.exists(out) == (code == 0)  # noqa: PTH110
        assert (b"its name is not UTF-8" in done.stderr) == (code == 1)
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "flag",
    ["--images-per-identity", "--bag-size", "--max-triplets", "--negatives-per-pair", "--threads", "--seed"],
)
def test_numbers_beyond_reason_are_refused(rec: Path, flag: str, capsys: Capture) -> None:
    assert main(["mine", "--rec", str(rec), flag, "9" * 30]) == 2
    assert flag in capsys.readouterr().err
