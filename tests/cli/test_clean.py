"""``fasttriplet clean``: that every flag arrives, what it prints, and which usage it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from tests.auditing.findings import write_decisions, write_suspects
from tests.cli.command import Capture
from tests.small_rec import identities, write_rec

MOVED = {"kind": "mislabelled", "key": 1, "action": "relabel", "suggested_label": 3}
GONE = {"kind": "outlier", "key": 8}


@pytest.fixture
def a(tmp_path: Path) -> Path:
    return write_rec(tmp_path / "a.rec", identities(6, 3))


def run(*words: object) -> int:
    return main(["clean", *map(str, words)])


def test_what_it_prints(a: Path, tmp_path: Path, capsys: Capture) -> None:
    out, table = tmp_path / "b.rec", tmp_path / "s.parquet"
    same = [
        {"kind": "same-person", "key": key, "action": "relabel", "suggested_label": 5} for key in (4, 5, 6)
    ]
    write_suspects(table, a, MOVED, GONE, *same)
    assert run("--rec", a, "--suspects", table, "--out", out) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"{out}: 17 images of 5 identities, {out.stat().st_size / 1000:.1f} kB",
        "1 image dropped, 4 relabelled",
        "1 identity gone, 0 new",
        f"All changes are in {tmp_path / 'b.changes.parquet'}",
    ]
    assert run("--rec", a, "--suspects", table, "--out", out, "--overwrite", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["path"] == str(out)
    assert (facts["images"], facts["dropped"], facts["relabelled"]) == (17, 1, 4)


def test_every_flag_arrives(a: Path, tmp_path: Path, capsys: Capture) -> None:
    b = write_rec(tmp_path / "b.rec", identities(3, 2))
    table, decisions, out = tmp_path / "s.parquet", tmp_path / "d.json", tmp_path / "c.rec"
    frame = write_suspects(
        table, [a, b], MOVED, GONE, {"kind": "outlier", "key": 2, "file": 1}, labels="separate"
    )
    both = ft.Dataset([a, b], labels="separate")
    write_decisions(decisions, a, frame, {2: "keep"}, dataset=both.fingerprint)
    words = ["--rec", a, "--rec", b, "--labels", "separate", "--suspects", table, "--out", out]
    assert run(*words, "--decisions", decisions, "--kinds", "outlier", "--no-cache") == 0
    changes = pl.read_parquet(tmp_path / "c.changes.parquet").filter(pl.col("action") != "keep")
    assert changes.select("key", "file", "action").rows() == [(8, 0, "drop")]
    capsys.readouterr()
    assert run(*words, "--kinds", "outlier, noise") == 2
    assert "'noise' is not one of mislabelled, outlier," in capsys.readouterr().err
    assert run(*words) == 1
    assert f"{out}: exists already; --overwrite replaces it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--out", "a.rec", "--out must be another file than the dataset, not"),
        ("--out", "b.bin", "--out must end in .rec"),
        ("--decisions", "a.idx", "--decisions must be JSON, and "),
        ("--suspects", "a.idx", "--suspects must be a Parquet file, and "),
    ],
)
def test_usage_that_is_refused(
    a: Path, tmp_path: Path, capsys: Capture, *, flag: str, value: str, message: str
) -> None:
    write_suspects(tmp_path / "s.parquet", a, MOVED)
    flags = {"--suspects": tmp_path / "s.parquet", "--out": tmp_path / "b.rec", flag: tmp_path / value}
    assert run("--rec", a, *(word for pair in flags.items() for word in pair), "--overwrite") == 2
    assert message in capsys.readouterr().err
