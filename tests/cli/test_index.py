"""`fasttriplet index`: what it says of a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fasttriplet as ft
from fasttriplet.cli import main
from tests.cli.command import Capture


def plain(table: str) -> str:
    """The text of a table, without its lines."""
    return " ".join(table.replace("│", " ").split())


def test_index_prints_what_is_in_a_file(rec: Path, capsys: Capture) -> None:
    assert main(["index", "--rec", str(rec)]) == 0
    out = capsys.readouterr().out
    for said in (str(rec), "flat", "72", "12", "images per identity │ 6 ", "none found"):
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
    assert not rec.with_name("train.rec.index").exists()
    # and `mine` says so in one line, without the place in the code
    assert main(["mine", "--rec", str(rec), "--out", str(rec.with_name("t.parquet"))]) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fasttriplet: ")]
    assert warned
    assert all("RecordWarning" not in line and ".py" not in line for line in warned)


def test_index_shows_the_first_problems_and_json_has_all(rec: Path, capsys: Capture) -> None:
    idx = rec.with_suffix(".idx")
    idx.write_text("rubbish\n" * 50 + idx.read_text())
    assert main(["index", "--rec", str(rec), "--no-cache"]) == 0
    out = capsys.readouterr().out
    text = plain(out)
    assert "(the first of 50 broken lines)" in text
    assert "... and 40 more lines: --json has them all" in text
    assert len(out.splitlines()) < 60
    assert main(["index", "--rec", str(rec), "--no-cache", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 50


def test_index_says_what_the_labels_are(tmp_path: Path, capsys: Capture) -> None:
    box = [3.0, 0.1, 0.1, 0.5, 0.6]
    cases: list[tuple[dict[int, Any], str]] = [
        ({1: 4, 2: [7.0]}, "1 per image; 4 to 7"),
        (
            {1: [4, 1], 2: [7, 0], 3: 5},
            "1 in 1, 2 in 2 images; the first, 4 to 7, is the identity",
        ),
        (
            {1: [2, 5, *box], 2: [2, 5, *box, *box]},
            "the first, 2, is the identity, except in 2 images labelled for object detection",
        ),
    ]
    for labels, said in cases:
        path = tmp_path / "a.rec"
        with ft.RecordWriter(path, overwrite=True) as writer:
            for key, label in labels.items():
                writer.write(key, ft.IRHeader(0, label, key, 0), b"image")
        assert main(["index", "--rec", str(path), "--no-cache"]) == 0
        assert said in plain(capsys.readouterr().out)
