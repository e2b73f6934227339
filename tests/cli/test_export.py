"""``fasttriplet export``: what it writes and prints, and which usage it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from tests.auditing.findings import write_suspects
from tests.cli.command import Capture


def run(*words: object) -> int:
    return main(["export", *map(str, words)])


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.jpg")}


def test_keys_triplets_and_suspects(rec: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run("--rec", rec, "--keys", "1, 2,5-9", "--out", tmp_path / "a") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'a'}: 7 pictures\n"
    assert names(tmp_path / "a") == {f"{key}.jpg" for key in (1, 2, 5, 6, 7, 8, 9)}
    table = tmp_path / "t.csv"
    first = ft.mine_rec(rec, out=table).triplets.head(1).collect().row(0, named=True)
    assert run("--rec", rec, "--triplets", table, "--first", 2, "--out", tmp_path / "b", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "b"), "pictures": 6}
    assert f"000000/anchor-{first['anchor_key']}.jpg" in names(tmp_path / "b")
    write_suspects(tmp_path / "s.parquet", rec, {"kind": "outlier", "key": 3})
    assert run("--rec", rec, "--suspects", tmp_path / "s.parquet", "--out", tmp_path / "c") == 0
    assert names(tmp_path / "c") == {"outlier/000000/suspect-3.jpg"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--keys 1-", "expected keys as 1,2,5-9, got '1-'"),
        ("--keys 9-5", "expected keys as 1,2,5-9, got '9-5'"),
        ("--keys 1,,2", "expected keys as 1,2,5-9, got ''"),
        ("--keys 1-99999999999", "1-99999999999 are more than 10,000,000 keys"),
        ("", "give one of --keys, --triplets and --suspects"),
        ("--keys 1 --triplets t.parquet", "give one of --keys, --triplets and --suspects"),
        ("--keys 1,99", "--keys must name images of the dataset, which does not have the keys 99"),
        ("--triplets t.txt", "--triplets must end in .parquet, .csv"),
    ],
)
def test_usage_that_is_refused(rec: Path, tmp_path: Path, capsys: Capture, words: str, message: str) -> None:
    assert run("--rec", rec, "--out", tmp_path / "new", *words.split()) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_there(rec: Path, tmp_path: Path, capsys: Capture) -> None:
    assert run("--rec", rec, "--keys", 1, "--out", tmp_path) == 1
    assert (
        capsys.readouterr().err == f"fasttriplet: {tmp_path}: exists already; give the name of a new folder\n"
    )
