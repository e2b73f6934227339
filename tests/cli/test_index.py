"""`fasttriplet index`: what it says of a file."""

from __future__ import annotations

import json
from pathlib import Path

from fasttriplet.cli import main
from tests.cli.command import Capture


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
