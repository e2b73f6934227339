"""`fasttriplet mine`: the triplets, the summary, and that every flag arrives."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from tests.cli.command import Capture, run
from tests.small_rec import identities, write_rec


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


def test_the_metric_arrives_and_is_named(rec: Path, tmp_path: Path, capsys: Capture) -> None:
    for metric, scale in (("sqeuclidean", "squared L2"), ("euclidean", "L2"), ("cosine", "1 - cosine")):
        out = tmp_path / f"{metric}.parquet"
        words = ["mine", "--rec", str(rec), "--out", str(out), "--metric", metric, "--margin", "0.2"]
        assert main(words) == 0
        assert f"Distances ({scale})" in capsys.readouterr().out
        expected = ft.mine_rec(rec, metric=metric, margin=0.2).triplets.collect()  # type: ignore[arg-type]
        assert pl.read_parquet(out).equals(expected)
    out = tmp_path / "raw.parquet"
    words = [
        "mine",
        "--rec",
        str(rec),
        "--out",
        str(out),
        "--no-normalize",
        "--margin",
        "50",
        "--band",
        "violating",
    ]
    assert main(words) == 0
    expected = ft.mine_rec(rec, normalize=False, margin=50, band="violating").triplets.collect()
    assert pl.read_parquet(out).equals(expected)


def test_every_way_to_choose_is_a_flag(rec: Path, tmp_path: Path) -> None:
    band = "d_ap + 0.01 < d_an < 1.9"
    wanted: dict[str, Any] = {
        "band": band, "ranks": (1, 40), "pick": "distance", "negatives_per_pair": 2, "fallback": "farthest",
        "pairs": "hardest", "positives_per_anchor": 3, "triplets_per_anchor": 4,
    }  # fmt: skip
    out = tmp_path / "t.parquet"
    words = [
        "mine", "--rec", str(rec), "--out", str(out), "--band", band, "--ranks", "1:40", "--pick", "distance",
        "--negatives-per-pair", "2", "--fallback", "farthest", "--pairs", "hardest",
        "--positives-per-anchor", "3", "--triplets-per-anchor", "4",
    ]  # fmt: skip
    assert main(words) == 0
    found = pl.read_parquet(out)
    assert found.equals(ft.mine_rec(rec, **wanted).triplets.collect())
    assert ft.read_metadata(out)["options"]["ranks"] == [1, 40]
    assert found.group_by("anchor_key").len()["len"].max() == 4
    # The run has one bag, which `mine` takes with the same options.
    dataset = ft.Dataset(rec)
    rows = next(iter(ft.bags(ft.triplet_seq(dataset.index, 5, seed=0, epoch=0), 7200))).rows
    embedder = ft.load_embedder("pixels")
    embedder.prepare(dataset.index)
    embeddings = embedder.embed(rows, dataset.decode(rows).pixels)
    mined = ft.mine(embeddings, rows["label"], ids=rows["key"], seed=ft.epoch_seed(0, 0), **wanted)
    keys = [sorted(found[name].to_list()) for name in ("anchor_key", "positive_key", "negative_key")]
    assert [sorted(role.tolist()) for role in mined] == keys


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
    assert "Left out: 2 images, the first: " in done.stdout
    assert re.search(rf"{rec}, key (7|20)", done.stdout)


@pytest.mark.mxnet
@pytest.mark.usefixtures("mx")
def test_mine_with_a_real_network(real_data: Path, tmp_path: Path, capsys: Capture) -> None:
    faces, out = real_data / "lfw112-a", tmp_path / "t.parquet"
    words = ["mine", "--rec", faces / "train.rec", "--model", f"mxnet:{real_data / 'model-y1' / 'model'},0"]
    words += ["--images-per-identity", "2", "--bag-size", "24", "--batch-size", "24", "--margin", "1.5"]
    words += ["--max-triplets", "4", "--out", out, "--json"]
    assert main([*map(str, words)]) == 0
    assert "MXNet network" in json.loads(capsys.readouterr().out)["embedder"]
    frame = pl.read_parquet(out)
    assert ((frame["d_ap"] < frame["d_an"]) & (frame["d_an"] < frame["d_ap"] + 1.5)).all()
    assert frame.height == 4
    rows = np.load(faces / "emb_a.npy")
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    keys = ft.index_rec(faces / "train.rec")["key"].to_numpy()
    a, p, n = (
        np.searchsorted(keys, frame[f"{r}_key"].to_numpy()) for r in ("anchor", "positive", "negative")
    )
    np.testing.assert_allclose(frame["d_ap"].to_numpy(), ((rows[a] - rows[p]) ** 2).sum(1), atol=1e-4)
    np.testing.assert_allclose(frame["d_an"].to_numpy(), ((rows[a] - rows[n]) ** 2).sum(1), atol=1e-4)


def test_a_run_that_may_replace_files_is_resumed(rec: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "t.parquet", tmp_path / "page.html"
    for earlier in (out, page):
        earlier.write_text("of an earlier run")

    def stop(now: Any) -> None:
        if now.steps == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ft.mine_rec(rec, out=out, overwrite=True, bag_size=None, progress=stop)
    words = ["mine", "--rec", str(rec), "--out", str(out), "--whole", "--resume", "--report", str(page)]
    assert main(words) == 0
    assert pl.read_parquet(out).equals(ft.mine_rec(rec, bag_size=None).triplets.collect())
    assert page.read_bytes().startswith(b"<!")


@pytest.mark.parametrize("module", ["fasttriplet.run._stages.mine_rows", "fasttriplet.Dataset.decode"])
def test_too_little_memory_is_one_line(
    rec: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("not enough memory: 9 GB for triplets: take pick='random' or lower bag_size")

    monkeypatch.setattr(module, fail)
    out = tmp_path / "triplets.parquet"
    assert main(["mine", "--rec", str(rec), "--out", str(out), "--pick", "all"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith(
        "fasttriplet: epoch 0, bag 0: not enough memory: 9 GB for triplets: take --pick random or lower "
        "--bag-size"
    )
    assert not list(tmp_path.glob("*triplets*"))
