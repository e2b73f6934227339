"""`fasttriplet audit`: what it prints, that every flag arrives, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.auditing._options import PictureOptions
from fasttriplet.auditing._thresholds import LabelOptions
from fasttriplet.cli import main
from tests.auditing.pictures import People, jpeg, plain, scene, shifted, write
from tests.cli.command import COMMAND, Capture
from tests.processes import stop

MODEL = """
import numpy as np
import polars as pl
from tests.auditing.pictures import People

class Model(People):
    def __init__(self):
        super().__init__({key: key // 4 for key in range(100)})
"""


@pytest.fixture(scope="module")
def rec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of ten people; one has a wrong label, one is a copy, and one cannot be decoded."""
    images = plain(10, 4)
    images[5] = (7, images[5][1])
    images |= {50: (2, jpeg(shifted(scene(17), 1, 0), 70)), 51: (3, b"no image")}
    return write(tmp_path_factory.mktemp("rec") / "a.rec", images)


@pytest.fixture(scope="module")
def vectors(rec: Path) -> Path:
    who = {key: key // 4 for key in range(40)} | {50: 4, 51: 3}
    keys = pl.DataFrame({"key": sorted(who)})
    path = rec.with_name("e.npy")
    np.save(path, People(who, needs_images=False).embed(keys, None))
    return path


def words(rec: Path, vectors: Path, out: Path, *more: str) -> list[str]:
    return ["audit", "--rec", str(rec), "--no-cache", "--model", f"npy:{vectors}", "--out", str(out), *more]


def test_what_is_printed(rec: Path, vectors: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert main(words(rec, vectors, out)) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert "42 images of 10 identities, of which 1 cannot be decoded" in " ".join(printed.out.split())
    rows = [line.split() for line in lines[lines.index("Findings") :] if line.startswith("│")]
    table = {row[1]: row[3::2] for row in rows[:6]}
    assert table["mislabelled"][:5] == ["1", "1", "1", "-", "-"]
    assert table["duplicate"][:5] == ["1", "1", "-", "1", "-"]
    assert table["bad-picture"][:5] == ["1", "1", "-", "1", "-"]
    assert table["outlier"][:5] == ["-"] * 5
    for said in (
        "cosine with another identity at least",
        "correlation of details at least 0.80",
        "contrast below",
    ):
        assert said in printed.out
    where = f"Suspects are in {out / 'suspects.parquet'}, identities in {out / 'identities.parquet'}. "
    assert lines[-1] == f"{where}To look at them, open {out / 'audit.html'} in a browser"
    page = (out / "audit.html").read_text(encoding="utf-8")
    assert "Mislabelled images (1)" in page
    assert "What decided" in page
    expected = ft.audit(rec, model=f"npy:{vectors}", out=tmp_path / "other", cache=False)
    assert pl.read_parquet(out / "suspects.parquet").equals(expected.suspects)


def test_json(rec: Path, vectors: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(words(rec, vectors, tmp_path / "out", "--json")) == 0
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["kinds"]["duplicate"] == {"findings": 1, "images": 1, "relabel": 0, "drop": 1, "keep": 0}
    assert found["thresholds"]["copies_above"] == 0.8
    assert found["folder"] == str(tmp_path / "out")
    assert found["undecodable"] == 1


def test_every_flag_arrives(
    rec: Path, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def remember(rec: Any, **options: Any) -> None:
        asked.update(options, rec=rec)
        raise ValueError("enough")

    monkeypatch.setattr("fasttriplet.auditing._audit.audit", remember)
    options: dict[str, Any] = {
        "other_above": -0.5, "lead": 0.2, "own_below": 0.1, "same_person_above": 0.8, "two_people_below": 0.3,
        "smallest_group": 4, "contrast_below": 3.0, "brightness_below": 4.0, "sharpness_below": 0.01,
        "copies_above": 0.9, "threads": 2, "max_pixels": 5000, "labels": "shared",
    }  # fmt: skip
    assert {*LabelOptions.names(), *PictureOptions.names()} <= options.keys()
    flags = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    more = ("--kinds", "duplicate, outlier", "--overwrite")
    assert main(words(rec, vectors, tmp_path / "out", *more, *flags)) == 1
    dataset = asked.pop("rec")
    arrived = asked | asdict(dataset.options)
    assert {name: arrived[name] for name in options} == options
    assert (asked["kinds"], asked["overwrite"], arrived["cache"]) == (("outlier", "duplicate"), True, False)
    assert dataset.paths == [rec]


@pytest.mark.parametrize(
    ("flag", "value", "code", "message"),
    [
        ("--kinds", "twins", 2, "Invalid value for '--kinds': 'twins' is not one of mislabelled, outlier, "),
        ("--kinds", "", 2, "Invalid value for '--kinds': '' is not one of mislabelled"),
        ("--copies-above", "1.2", 2, "--copies-above"),
        ("--own-below", "nan", 2, "--own-below"),
        ("--smallest-group", "1", 2, "--smallest-group"),
        ("--model", "npy:missing.npy", 1, "no file of embeddings at missing.npy"),
        ("--model", "nothing", 2, "--model"),
        ("--rec", "missing.rec", 1, "missing.rec"),
    ],
)
def test_what_is_refused(
    rec: Path, vectors: Path, capsys: Capture, *, flag: str, value: str, code: int, message: str
) -> None:
    out = rec.with_name("refused")
    given = words(rec, vectors, out, flag, value)
    if flag == "--rec":
        del given[1:3]
    assert main(given) == code
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_results_that_are_there(rec: Path, vectors: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(words(rec, vectors, tmp_path / "out")) == 0
    assert main(words(rec, vectors, tmp_path / "out")) == 1
    assert capsys.readouterr().err.endswith("suspects.parquet: exists already; --overwrite replaces it\n")
    assert main(words(rec, vectors, tmp_path / "out", "--overwrite")) == 0
    assert "is of this dataset and model, and was used again" in capsys.readouterr().err
    for name in ("suspects.parquet", "identities.parquet", "audit.html"):
        (tmp_path / "out" / name).unlink()
    np.save(tmp_path / "other.npy", np.load(vectors) + 1)
    assert main(words(rec, tmp_path / "other.npy", tmp_path / "out")) == 1
    error = capsys.readouterr().err
    assert "it is of another model" in error
    assert error.endswith("--overwrite replaces it, or give another folder\n")


def test_ctrl_c_while_embedding(rec: Path, tmp_path: Path) -> None:
    """The process ends at once, and leaves nothing; the same command then runs."""
    slow = MODEL + (
        "    def embed(self, rows, images):\n"
        "        import pathlib, time\n"
        "        found = super().embed(rows, images)\n"
        "        if pathlib.Path('slow').exists():\n"
        "            print('ready', flush=True)\n"
        "            time.sleep(60)\n"
        "        return found\n"
    )
    (tmp_path / "slow_model.py").write_text(slow)
    (tmp_path / "slow").touch()
    given = ["audit", "--rec", str(rec), "--no-cache", "--model", "python:slow_model:Model", "--out", "out"]
    environment = {
        **__import__("os").environ,
        "PYTHONPATH": ":".join(filter(None, [*sys.path, str(tmp_path)])),
    }
    process = subprocess.Popen(
        [*COMMAND, *given],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert stop(process, signal.SIGINT) < 10
    process.communicate()
    assert process.returncode == 130
    assert not (tmp_path / "out").exists()
    (tmp_path / "slow").unlink()
    subprocess.run([*COMMAND, *given], cwd=tmp_path, check=True, capture_output=True, env=environment)
    assert (tmp_path / "out/suspects.parquet").exists()
