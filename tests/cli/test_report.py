"""`fasttriplet report`, and `fasttriplet mine --report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from tests.cli.command import Capture
from tests.reporting.made import log_lines, one_of_each, write_audit, write_log
from tests.reporting.test_page import Elements, page_of


def names(page: Path) -> list[str]:
    return [str(one["id"]) for one in Elements(page.read_text()).all("section")]


def test_report_takes_what_the_commands_write(
    rec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(rec.parent)
    assert main(["mine", "--rec", "train.rec", "--out", "t.parquet", "--json"]) == 0
    Path("run.json").write_text(capsys.readouterr().out)
    verify = ["verify", "--rec", "train.rec", "--model", "pixels", "--pairs-per-kind", "30", "--json"]
    assert main(verify) == 0
    Path("verify.json").write_text(capsys.readouterr().out)
    write_log(Path("net-log.jsonl"), log_lines())
    dataset = ft.Dataset("train.rec")
    write_audit(Path("audit"), dataset, one_of_each(dataset))
    given = ["--triplets", "t.parquet", "--run", "run.json", "--verify", "verify.json", "--audit", "audit"]
    command = ["report", "--rec", "train.rec", *given, "--log", "net-log.jsonl", "--pictures", "150"]
    assert main(command) == 0
    assert capsys.readouterr().out == "The page is in report.html\n"
    assert names(Path("report.html")) == ["dataset", "triplets", "run", "training", "verification", "audit"]
    assert main(command) == 1  # it is there
    assert "report.html: exists already; --overwrite replaces it" in capsys.readouterr().err
    expected = ft.report(
        "b.html", rec="train.rec", triplets="t.parquet", run="run.json", verify="verify.json", audit="audit",
        log="net-log.jsonl", pictures=150,
    )  # fmt: skip
    assert Path("report.html").read_bytes() == expected.read_bytes()


def test_the_verified_files_are_found_beside_the_result(
    rec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(rec.parent)
    dataset = ft.Dataset(rec)
    pairs = ft.draw_pairs(dataset.index, 20)
    images = [dataset.read(row)[1] for both in zip(*pairs[:2], strict=True) for row in both]
    ft.write_pairs("p.bin", images, pairs.same)
    assert main(["verify", "--pairs", "p.bin", "--model", "pixels", "--json"]) == 0
    Path("verify.json").write_text(capsys.readouterr().out)
    (rec.parent / "elsewhere").mkdir()
    monkeypatch.chdir(rec.parent / "elsewhere")
    page = page_of(Path(), verify="../verify.json")
    assert len(page.all("img")) == 40
    Path("../p.bin").unlink()
    page = page_of(Path(), verify="../verify.json")
    assert "Their pictures cannot be shown: p.bin No such file or directory." in page.text
    assert not page.all("img")


def test_a_result_of_another_dataset_shows_no_pictures(
    rec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(rec.parent)
    assert main(["verify", "--rec", "train.rec", "--model", "pixels", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    found["results"][0]["dataset"] = "0123"
    Path("verify.json").write_text(json.dumps(found))
    page = page_of(Path(), verify="verify.json")
    assert "cannot be shown: train.rec is another dataset now than the one that was verified." in page.text


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_mine_writes_a_page(rec: Path, ending: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(rec.parent)
    command = ["mine", "--rec", "train.rec", "--out", f"t.{ending}", "--margin", "0.25", "--json"]
    assert main([*command, "--report", "new/page.html", "--pictures", "100"]) == 0
    shown = capsys.readouterr()
    assert "The page is in new/page.html" in shown.err
    summary = json.loads(shown.out)
    page = Path("new/page.html").read_text()
    assert names(Path("new/page.html")) == ["dataset", "triplets", "run"]
    for said in (f"{summary['triplets']:,} triplets.", "d_ap + 0.25", "margin 0.25", "squared L2", "pixels"):
        assert said in page
    assert main([*command, "--report", "new/page.html"]) == 1
    assert f"t.{ending}: exists already" in capsys.readouterr().err
    Path(f"t.{ending}").unlink()
    assert main([*command, "--report", "new/page.html"]) == 1  # before anything is mined
    assert "new/page.html: exists already" in capsys.readouterr().err
    assert not Path(f"t.{ending}").exists()


def test_a_page_needs_something_to_show(capsys: Capture) -> None:
    assert main(["report"]) == 2
    assert "give --rec, or another part: --triplets, --run, --audit" in capsys.readouterr().err
    assert main(["report", "--log", "x", "--out", "a.pdf"]) == 2
    assert "must end in .html or .htm" in capsys.readouterr().err
