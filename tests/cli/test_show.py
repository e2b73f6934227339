"""What is printed, on terminals of any width."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from click import Context

from fasttriplet.cli import _demo, _mine, _show, main
from fasttriplet.run._summary import Summary
from tests.cli.command import Capture
from tests.small_rec import write_rec

LONG = "MXNet network models/a-network-of-a-long-name, epoch 0, output fc1, on cpu, 64 images at a time"


def mined() -> Summary:
    summary = Summary(LONG, images_indexed=1, identities=1, bags=1, images=1, triplets=1, pairs=1)
    for stage in ("index", "decode", "embed", "mine", "write", "assemble"):
        with summary.clock(stage):
            pass
        summary.seconds[stage] = 12_345.67
    summary.seconds["total"] = 99_999.0
    quantiles = {f"{q:g}": q + 0.1234 for q in (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)}
    summary.quantiles = {"d_ap": quantiles, "d_an": quantiles}
    summary.bags_without_triplets, summary.why_no_triplets = 1, "epoch 0, bag 0: it has none"
    summary.skipped = ["a.rec, key 1: no image"]
    return summary


@pytest.mark.parametrize("columns", ["40", "60", "80", "120"])
def test_nothing_is_cut_off(columns: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with Context(_mine.mine):
        _show.summary(mined())
    shown = capsys.readouterr().out
    assert "…" not in shown
    for word in ("stage", "assemble", "waited", "12,346 s", "quantile", "0.1734", "1.1234", "d_an"):
        assert word in shown
    in_tables = [line for line in shown.splitlines() if line[0] in "┏┃┡│└┌"]
    assert max(map(len, in_tables)) <= int(columns)
    assert not [line for line in shown.splitlines() if line != line.rstrip()]


def test_one_of_a_thing_is_not_several(tmp_path: Path, capsys: Capture) -> None:
    with Context(_mine.mine):
        _show.summary(mined())
    rec = write_rec(tmp_path / "a.rec", {1: 0})
    assert main(["index", "--rec", str(rec)]) == 0
    found = capsys.readouterr().out
    assert "1 image of 1 identity" in found
    assert "1 bag with 1 image" in found
    assert "1 bag gave no triplet" in found
    assert "Left out: 1 image, the first: a.rec, key 1" in found
    assert not [word for word in ("images", "bags", "identities") if f" 1 {word}" in found]


class Demo:
    rec, pairs, triplets = Path("demo/train.rec"), Path("demo/unseen.bin"), Path("demo/triplets.parquet")
    contact_sheet, triplet_sheet = Path("demo/faces.png"), Path("demo/triplets.png")
    report = Path("demo/report.html")
    model, no_network, seconds = "mxnet:demo/network,0", None, 12.3
    verifications = (
        {"batch": 0, "accuracy": 0.7, "auc": 0.8, "tar": {"0.01": 0.3}},
        {"batch": 400, "accuracy": 0.9, "auc": 0.95, "tar": {}},
    )


@pytest.mark.parametrize("columns", ["40", "60", "80"])
def test_the_demo_fits(columns: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    _demo._print_verifications(Demo)  # type: ignore[arg-type]
    _demo._print_files(Demo)  # type: ignore[arg-type]
    shown = capsys.readouterr().out
    assert "…" not in shown
    for word in ("accuracy", "TAR at FAR 0.01", "90.0%", "demo/triplets.png", "train --out demo/network"):
        assert word in shown


def test_the_program_is_named_as_it_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / ".venv" / "bin" / "fasttriplet"
    script.parent.mkdir(parents=True)
    script.touch(0o755)
    monkeypatch.setattr(sys, "argv", [".venv/bin/fasttriplet", "demo"])
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert _show.program() == ".venv/bin/fasttriplet"
    monkeypatch.setattr(sys, "argv", [str(script), "demo"])
    assert _show.program() == ".venv/bin/fasttriplet"
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/fasttriplet")  # another one
    assert _show.program() == ".venv/bin/fasttriplet"
    monkeypatch.setattr(shutil, "which", lambda _: str(script))
    assert _show.program() == "fasttriplet"
    monkeypatch.chdir(script.parent)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert _show.program() == "./fasttriplet"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert _show.program() == str(script)
    monkeypatch.setattr(sys, "argv", ["/a/fasttriplet/__main__.py", "demo"])
    assert _show.program() == f"{sys.executable} -m fasttriplet"
