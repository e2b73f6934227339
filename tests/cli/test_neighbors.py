"""`fasttriplet neighbors`: the table that it writes, what it says of itself, and who takes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from tests.cli.command import Capture
from tests.small_rec import identities, write_rec


@pytest.fixture
def words(rec: Path, tmp_path: Path) -> list[str]:
    return ["neighbors", "--rec", str(rec), "--model", "pixels", "--out", str(tmp_path / "g.parquet")]


def embedded(rec: Path | list[Path], rows: Any = slice(None)) -> tuple[np.ndarray[Any, Any], Any]:
    dataset, model = ft.Dataset(rec), ft.load_embedder("pixels")
    model.prepare(dataset.index)
    return model.embed(dataset.index, dataset.decode(dataset.index).pixels)[rows], dataset.labels[rows]


def test_it_is_what_python_gives(rec: Path, words: list[str], tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "g.parquet"
    assert main(words) == 0
    expected = ft.neighbors(*embedded(rec), 20, of="identities").to_frame()
    assert pl.read_parquet(out).equals(expected)
    assert expected.height == 12 * 11  # of all others, fewer than 20
    printed = capsys.readouterr().out
    for text in (
        "72 images of 12 identities in",
        "pixels: thumbnails",
        "132 of 12 identities",
        "s of it for",
    ):
        assert text in printed
    assert printed.endswith(f"Neighbors are in {out}\n")
    about = ft.read_metadata(out)
    assert about.pop("version") == ft.__version__
    assert about == {
        "kind": "neighbors",
        "dataset": ft.Dataset(rec).fingerprint,
        "files": ["train.rec"],
        "exclude": None,
        "model": ft.load_embedder("pixels").description,
        "options": {"of": "identities", "k": 20, "metric": "sqeuclidean", "normalize": True},
    }
    assert main([*words, "--overwrite", "--k", "2", "--metric", "euclidean", "--no-normalize"]) == 0
    expected = ft.neighbors(
        *embedded(rec), 2, of="identities", metric="euclidean", normalize=False
    ).to_frame()
    assert pl.read_parquet(out).equals(expected)


def test_embeddings_of_a_file(rec: Path, words: list[str], tmp_path: Path) -> None:
    vectors, out = tmp_path / "e.npy", tmp_path / "of-file.parquet"
    assert main(["embed", "--rec", str(rec), "--model", "pixels", "--out", str(vectors)]) == 0
    assert main(words) == 0
    assert main(["neighbors", "--rec", str(rec), "--model", f"npy:{vectors}", "--out", str(out)]) == 0
    assert pl.read_parquet(out).equals(pl.read_parquet(tmp_path / "g.parquet"))


def test_a_file_in_which_images_were_skipped(tmp_path: Path, capsys: Capture) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(5, 3), damaged=frozenset({2, 7}))
    vectors, out = tmp_path / "e.npy", tmp_path / "g.parquet"
    of = ["--rec", str(rec), "--on-error", "skip"]
    assert main(["embed", *of, "--model", "pixels", "--out", str(vectors)]) == 0
    words = ["neighbors", "--rec", str(rec), "--model", f"npy:{vectors}", "--out", str(out), "--json"]
    capsys.readouterr()
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "key 2" in said
    assert "which was skipped when the file was made" in said
    assert main([*words, "--on-error", "skip"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["row"], one["key"], one["file"]) for one in found["skipped"]] == [(1, 2, 0), (6, 7, 0)]
    assert found["images"] == 13
    again = tmp_path / "again.parquet"
    assert main(["neighbors", *of, "--model", "pixels", "--out", str(again)]) == 0
    assert pl.read_parquet(out).equals(pl.read_parquet(again))


def test_images_that_are_left_out(tmp_path: Path, capsys: Capture) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(5, 3), damaged=frozenset({2, 13, 14, 15}))
    out, table = tmp_path / "g.parquet", tmp_path / "excluded.parquet"
    pl.DataFrame({"key": [1, 2, 6]}).write_parquet(table)
    words = ["neighbors", "--rec", str(rec), "--model", "pixels", "--out", str(out), "--json"]
    words += ["--exclude", str(table)]
    assert main(words) == 1
    assert not out.exists()
    capsys.readouterr()
    assert main([*words, "--on-error", "skip"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["identities"], found["images_excluded"]) == (9, 4, 3)
    assert [one["key"] for one in found["skipped"]] == [13, 14, 15]
    assert (found["out"], found["of"], found["neighbors"]) == (str(out), "identities", 12)
    whole = write_rec(tmp_path / "whole.rec", identities(5, 3))
    keys = np.array([3, 4, 5, 7, 8, 9, 10, 11, 12])
    expected = ft.neighbors(*embedded(whole, keys - 1), 20, of="identities").to_frame()
    assert pl.read_parquet(out).equals(expected)
    assert ft.read_metadata(out)["exclude"] is not None
    bags: dict[str, Any] = {"band": "any", "bag_size": 6, "neighbors": out, "on_error": "skip"}
    mined = ft.mine_rec(rec, model="pixels", **bags)
    assert mined.summary.identities_without_neighbors == 1


def test_of_images(rec: Path, words: list[str], tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "g.parquet"
    assert main([*words, "--of", "rows", "--k", "3"]) == 0
    assert "216 of 72 images" in capsys.readouterr().out
    expected = ft.neighbors(*embedded(rec), 3).to_frame()
    found = pl.read_parquet(out)
    assert found.columns == ["key", "neighbor_key", "label", "neighbor_label", "rank", "distance"]
    assert found["key"].to_list() == (expected["row"] + 1).to_list()
    assert found["neighbor_key"].to_list() == (expected["neighbor"] + 1).to_list()
    assert found["distance"].equals(expected["distance"])
    with pytest.raises(ft.OptionError, match=f"must be of identities, and rows have neighbors of {out}"):
        ft.mine_rec(rec, model="pixels", neighbors=out)


def test_of_images_of_several_files(rec: Path, tmp_path: Path) -> None:
    other = write_rec(tmp_path / "other.rec", identities(2, 3))
    out = tmp_path / "g.parquet"
    words = ["--rec", str(rec), "--rec", str(other), "--labels", "separate", "--of", "rows"]
    assert main(["neighbors", *words, "--model", "pixels", "--out", str(out), "--k", "1"]) == 0
    found = pl.read_parquet(out)
    assert found.columns[:4] == ["key", "file", "neighbor_key", "neighbor_file"]
    assert found.select("key", "file").unique().height == found.height == 78
    dataset = ft.Dataset([rec, other], labels="separate")
    labels = {(row["key"], row["file"]): row["label"] for row in dataset.index.iter_rows(named=True)}
    for row in found.iter_rows(named=True):
        assert labels[row["key"], row["file"]] == row["label"]
        assert labels[row["neighbor_key"], row["neighbor_file"]] == row["neighbor_label"]


def test_a_graph_of_another_dataset_is_refused(words: list[str], tmp_path: Path, capsys: Capture) -> None:
    """Its identities have the same labels, so only the metadata tell."""
    out = tmp_path / "g.parquet"
    assert main(words) == 0
    other = write_rec(tmp_path / "other.rec", identities(12, 5))
    mine = ["mine", "--rec", str(other), "--neighbors", str(out), "--out", str(tmp_path / "t.parquet")]
    capsys.readouterr()
    assert main(mine) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"--neighbors must be of this dataset, and {out} is of another one" in said
    pl.read_parquet(out).write_parquet(out)  # which says nothing
    assert main([*mine, "--band", "any"]) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--out", "g.csv"], "g.csv: the name must end in .parquet."),
        (["--of", "people"], "'people' is not one of"),
        (["--k", "0"], "0 is not in the range"),
        (["--metric", "cosine", "--no-normalize"], "--metric 'cosine' compares"),
        (
            ["--exclude", "g.parquet"],
            "--out must be another file than the table of excluded images, not 'g.p",
        ),
        (["--exclude-kinds", "outlier"], "--exclude-kinds goes with --exclude FILE"),
        (["--model", "none"], "--model: unknown embedder 'none'"),
    ],
)
def test_what_is_not_understood(
    rec: Path, more: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(rec.parent)
    before = {*rec.parent.iterdir()}
    assert main(["neighbors", "--rec", str(rec), "--model", "pixels", "--out", "g.parquet", *more]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert {*rec.parent.iterdir()} == before


def test_embeddings_are_not_replaced_by_what_is_found_in_them(
    rec: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(rec.parent)
    with Path("e.parquet").open("wb") as file:  # whatever its name, it is what numpy.save writes
        np.save(file, np.eye(ft.index_rec(rec).height, dtype=np.float32))
    before = Path("e.parquet").read_bytes()
    words = ["neighbors", "--rec", str(rec), "--model", "npy:e.parquet", "--out", "e.parquet", "--overwrite"]
    assert main(words) == 2
    assert "--out must be another file than the embeddings" in " ".join(capsys.readouterr().err.split())
    assert Path("e.parquet").read_bytes() == before


def test_a_file_that_is_there_is_not_replaced_unasked(words: list[str], capsys: Capture) -> None:
    out = Path(words[-1])
    out.write_text("mine")
    assert main(words) == 1
    assert f"{out}: exists already; --overwrite replaces it" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([*words, "--overwrite"]) == 0
    assert pl.read_parquet(out).height == 132


def test_a_dataset_of_which_nothing_can_be_embedded(tmp_path: Path, capsys: Capture) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(2, 2), damaged=frozenset(range(1, 5)))
    words = ["neighbors", "--rec", str(rec), "--model", "pixels", "--on-error", "skip"]
    assert main([*words, "--out", str(tmp_path / "g.parquet")]) == 1
    assert "none of 4 images can be decoded" in capsys.readouterr().err
    assert not (tmp_path / "g.parquet").exists()
