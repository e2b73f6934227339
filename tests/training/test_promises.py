"""What docs/training.md promises, from the outside."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from fasttriplet.training import Trained, TrainSettings, options_at, train_rec
from tests.small_rec import identities
from tests.training.small import records, same_numbers, state, weights, write_pairs, write_patterns

pytestmark = [pytest.mark.heavy, pytest.mark.mxnet, pytest.mark.usefixtures("mx")]

FILES = ("-symbol.json", "-0000.params", "-best-symbol.json", "-best-0000.params", "-state.npz", "-log.jsonl")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of datasets, and of files of pairs."""
    folder = tmp_path_factory.mktemp("data")
    write_patterns(folder / "train.rec", identities(12, 6))
    write_patterns(folder / "gray.rec", identities(12, 6, 500), "JPEG")
    write_patterns(folder / "damaged.rec", identities(12, 6), damaged=(3, 40, 71))
    for seed, name in enumerate(("one.bin", "two.bin")):
        write_pairs(folder / "train.rec", folder / name, 20, seed)
    return folder


def settings(data: Path, *recs: str, **options: Any) -> TrainSettings:
    usual: dict[str, Any] = {"network": "small", "embedding_size": 8, "batch_size": 12, "bag_size": 40}
    rec = tuple(str(data / name) for name in recs or ("train.rec",))
    return TrainSettings(rec=rec, **usual | {"band": "violating"} | options)


def train(chosen: TrainSettings, out: Path, batches: int, **how: Any) -> Trained:
    return train_rec(chosen, out, batches=batches, **{"log_every": 1} | how)


# Files


def test_the_files_are_networks_without_the_loss(mx: Any, data: Path, tmp_path: Path) -> None:
    done = train(settings(data), tmp_path / "a", 3, verify_on=[data / "one.bin"])
    assert {file.name for file in tmp_path.iterdir()} == {f"a{end}" for end in FILES}
    assert done.batches == 3
    assert (done.last, done.best) == (f"mxnet:{tmp_path / 'a'},0", f"mxnet:{tmp_path / 'a'}-best,0")
    index = ft.index_rec(data / "train.rec")
    images = ft.RecordFile(data / "train.rec").decode(index["key"].to_numpy())
    for spec in (done.last, done.best):
        assert spec is not None
        embedder = ft.load_embedder(spec)
        embedder.prepare(index)
        assert embedder.embed(index, images).shape == (72, 8)
    assert "softmax_label" not in mx.sym.load(str(tmp_path / "a-symbol.json")).list_arguments()
    size = (tmp_path / "a-state.npz").stat().st_size
    assert size == pytest.approx(2 * len(weights(tmp_path / "a")), rel=0.1)


@pytest.mark.parametrize("end", FILES)
def test_it_does_not_begin_where_a_file_exists(data: Path, tmp_path: Path, end: str) -> None:
    (tmp_path / f"a{end}").write_bytes(b"somebody's")
    with pytest.raises(FileExistsError):
        train(settings(data), tmp_path / "a", 1)
    assert [file.name for file in tmp_path.iterdir()] == [f"a{end}"]
    assert (tmp_path / f"a{end}").read_bytes() == b"somebody's"


def test_it_goes_on_without_the_files_of_the_network(data: Path, tmp_path: Path) -> None:
    train(settings(data), tmp_path / "a", 9)
    train(settings(data), tmp_path / "b", 4)
    for end in FILES[:2]:
        (tmp_path / f"b{end}").unlink()
    train(settings(data), tmp_path / "b", 9, resume=True)
    assert same_numbers(tmp_path / "a", tmp_path / "b")


def test_half_a_network_does_not_appear(data: Path, tmp_path: Path) -> None:
    """Files may be so large that all of the weights but the last bytes fit."""
    train(settings(data), tmp_path / "a", 1)
    full = len(weights(tmp_path / "a"))
    words = [sys.executable, "-m", "fasttriplet", "train", "--rec", str(data / "train.rec"), "--network"]
    words += ["small", "--embedding-size", "8", "--batch-size", "12", "--out", str(tmp_path / "b")]
    done = subprocess.run(
        [*words, "--batches", "1"],
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (full - 1, full - 1)),
    )
    assert done.returncode == 1
    assert [file.stat().st_size for file in tmp_path.glob("b-0000.params")] in ([], [full])


# The network


@pytest.mark.parametrize("shape", ["(B, D)", "(B, D, 1, 1)"])
def test_a_symbol_as_insightface_saves_them(mx: Any, data: Path, tmp_path: Path, shape: str) -> None:
    layer = mx.sym.Convolution(
        (mx.sym.Variable("data") - 127.5) / 128, num_filter=8, kernel=(3, 3), name="c1"
    )
    layer = mx.sym.Pooling(layer, global_pool=True, kernel=(1, 1), pool_type="avg", name="pool")
    if shape == "(B, D)":
        layer = mx.sym.FullyConnected(layer, num_hidden=8, no_bias=True, name="pre_fc1")
        layer = mx.sym.BatchNorm(layer, fix_gamma=True, name="fc1")
        layer = mx.sym.FullyConnected(layer, num_hidden=12, name="fc7")
        layer = mx.sym.SoftmaxOutput(layer, mx.sym.Variable("softmax_label"), name="softmax")
    else:
        layer = mx.sym.Convolution(layer, num_filter=8, kernel=(1, 1), name="fc1")
    layer.save(str(tmp_path / "face-symbol.json"))
    chosen = settings(data, network=None, symbol=str(tmp_path / "face-symbol.json"), embedding_size=128)
    done = train(chosen, tmp_path / "a", 3)
    mined = ft.mine_rec(data / "train.rec", model=done.last, out=None, bag_size=40, band="violating")
    assert mined.summary.triplets > 0


def test_the_learning_rate_is_changed_by_another_training(data: Path, tmp_path: Path) -> None:
    chosen = settings(data)
    train(chosen, tmp_path / "a", 2, verify_on=[data / "one.bin"])
    with pytest.raises(ValueError, match="learning_rate"):
        train(replace(chosen, learning_rate=0.0), tmp_path / "a", 3, resume=True)
    frozen = replace(chosen, learning_rate=0.0, pretrained=f"{tmp_path / 'a'},0")
    train(frozen, tmp_path / "b", 2, verify_on=[data / "one.bin"])
    before, after = state(tmp_path / "a").arrays, state(tmp_path / "b").arrays
    names = [name for name in before if name.startswith("arg:")]
    assert names
    assert all(np.array_equal(before[name], after[name]) for name in names)


# Stopping and going on


@pytest.mark.parametrize(
    ("recs", "options"),
    [
        (("train.rec", "gray.rec"), {"loss": "angular", "margin": 0.35}),
        (("damaged.rec",), {"on_error": "skip", "pick": "all", "color_jitter": 0.2, "cutoff": 5}),
        (("train.rec",), {"pick": "hardest", "pairs": "hardest", "boundary": "split", "momentum": 0.0}),
    ],
)
def test_it_stops_behind_any_batch(
    data: Path, tmp_path: Path, recs: tuple[str, ...], options: dict[str, Any]
) -> None:
    chosen = settings(data, *recs, **options)
    train(chosen, tmp_path / "a", 14)
    for batches in (1, 2, 3, 5, 8, 9, 12, 14):
        train(chosen, tmp_path / "b", batches, resume=batches > 1)
    assert same_numbers(tmp_path / "a", tmp_path / "b")
    assert records(tmp_path / "a") == records(tmp_path / "b")


def test_how_it_is_watched_may_change(data: Path, tmp_path: Path) -> None:
    chosen = settings(data)
    train(chosen, tmp_path / "a", 12, verify_on=[data / "one.bin"])
    train(chosen, tmp_path / "b", 5, log_every=3, verify_on=[data / "one.bin"], verify_every=2)
    train(chosen, tmp_path / "b", 8, resume=True, log_every=2, checkpoint_every=1, threads=1, prefetch=0)
    train(chosen, tmp_path / "b", 12, resume=True, verify_on=[data / "two.bin"], verify_every=1, memory=10**6)
    assert same_numbers(tmp_path / "a", tmp_path / "b")


def test_to_verify_changes_no_number(data: Path, tmp_path: Path) -> None:
    train(settings(data), tmp_path / "a", 6)
    train(settings(data), tmp_path / "b", 6, verify_on=[data / "one.bin"], verify_every=2)
    assert same_numbers(tmp_path / "a", tmp_path / "b")


OTHERS: dict[str, Any] = {
    "network": "mobilefacenet", "pretrained": "x,0", "embedding_size": 9, "loss": "angular",
    "loss_margin": 0.4, "margin": 0.2, "batch_size": 15, "learning_rate": 0.01, "lr_steps": (7,),
    "lr_factor": 0.5, "momentum": 0.8, "weight_decay": 0.0, "mirror": False, "cutoff": 3,
    "color_jitter": 0.1, "images_per_identity": 4, "bag_size": 41, "boundary": "split",
    "band": "semihard", "ranks": (1, None), "pick": "all", "negatives_per_pair": 2, "fallback": "farthest",
    "pairs": "ordered", "positives_per_anchor": 2, "triplets_per_anchor": 2, "max_ap": 1.0,
    "metric": "cosine", "normalize": False, "seed": 1, "labels": "separate",
    "framework": "torch", "optimizer": "adamw", "clip_norm": 1.0, "precision": "bfloat16",
    "lr_schedule": "linear", "warmup": 3,
}  # fmt: skip


def test_an_option_that_decides_is_named(data: Path, tmp_path: Path) -> None:
    chosen = settings(data)
    not_deciding = {"rec", "symbol", "on_error", "cache", "max_pixels"}
    # See test_exclude.py, test_similar_bags.py and test_running_graph.py: the images and the graphs are
    # compared.
    of_files = {"exclude", "exclude_kinds", "neighbors", "random_share", "refresh_epochs"}
    assert {field.name for field in fields(chosen)} - OTHERS.keys() == not_deciding | of_files | {"lr_end"}
    train(chosen, tmp_path / "a", 1)
    before = state(tmp_path / "a").arrays
    for name, value in OTHERS.items():
        with pytest.raises(ValueError, match=rf"with {name} "):
            train(replace(chosen, **{name: value}), tmp_path / "a", 2, resume=True)
    assert all(np.array_equal(value, before[name]) for name, value in state(tmp_path / "a").arrays.items())


def test_its_settings_are_known(data: Path, tmp_path: Path) -> None:
    chosen = settings(data, max_ap=3.5, lr_steps=(5, 9), margin=1, ranks=(1, None))
    train(chosen, tmp_path / "a", 1)
    train(chosen, tmp_path / "a", 2, resume=True)
    assert options_at(tmp_path / "a")[0] == replace(chosen, framework="mxnet")
    with pytest.raises(FileNotFoundError, match="no training"):
        options_at(tmp_path / "b")


# What it tells


def test_active_and_the_learning_rate(data: Path, tmp_path: Path) -> None:
    # Distances are 4 at most, so below a margin of 5 each triplet has a loss.
    train(settings(data, margin=5.0, lr_steps=(2, 4), lr_factor=0.5), tmp_path / "a", 6)
    lines = records(tmp_path / "a", "train")
    assert [line["batch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["learning_rate"] for line in lines] == pytest.approx(
        [0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125]
    )
    assert all(line["active"] == 1 and 1 < line["loss"] < 9 and line["norm"] > 0 for line in lines)


def test_a_line_is_of_all_batches_since_the_last(data: Path, tmp_path: Path) -> None:
    train(settings(data), tmp_path / "a", 6)
    train(settings(data), tmp_path / "b", 6, log_every=3)
    each, mean = records(tmp_path / "a", "train"), records(tmp_path / "b", "train")
    for name in ("loss", "active", "norm"):
        values = [line[name] for line in each]
        assert [line[name] for line in mean] == pytest.approx([np.mean(values[:3]), np.mean(values[3:])])


def test_the_best_has_the_highest_mean_over_the_files(data: Path, tmp_path: Path) -> None:
    verify_on = [data / "one.bin", data / "two.bin"]
    done = train(settings(data, margin=1.0), tmp_path / "a", 40, verify_on=verify_on, verify_every=4)
    lines = records(tmp_path / "a", "verification")
    assert [line["batch"] for line in lines[::2]] == [*range(0, 41, 4)]
    assert [Path(line["pairs"]).name for line in lines] == 11 * ["one.bin", "two.bin"]
    means = {
        one["batch"]: one["accuracy"] + two["accuracy"]
        for one, two in zip(lines[::2], lines[1::2], strict=True)
    }
    assert done.best_batch is not None
    assert means[done.best_batch] == max(means.values())


def test_json_is_one_object_alone(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--rec", str(data / "train.rec"), "--network", "small", "--out", str(tmp_path / "a")]
    words += ["--embedding-size", "8", "--batch-size", "12", "--bag-size", "40", "--log-every", "1", "--json"]
    assert main([*words, "--batches", "2", "--verify-on", str(data / "one.bin")]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["batches"] == 2
    assert found["last"] == f"mxnet:{tmp_path / 'a'},0"
    assert {"embed", "mine", "train"} <= found["summary"]["seconds"].keys()
    assert "batch 2 of 2  epoch 0  loss " in err
    assert "batch 2  one.bin: accuracy " in err


def test_tensorboard_where_nothing_can_be_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "board").write_bytes(b"")
    with pytest.raises(FileExistsError, match="board"):
        train(settings(data), tmp_path / "a", 1, tensorboard=tmp_path / "board")
    assert [path.name for path in tmp_path.iterdir()] == ["board"]


# How it ends


def test_an_image_that_cannot_be_decoded(data: Path, tmp_path: Path) -> None:
    chosen = settings(data, "damaged.rec")
    with pytest.raises(ft.RecordError, match=r"damaged.rec, key (3|40|71), "):
        train(chosen, tmp_path / "a", 100)
    done = train(replace(chosen, on_error="skip"), tmp_path / "b", 20)
    assert 0 < len(done.summary.skipped) <= 3
    assert all("damaged.rec, key " in line for line in done.summary.skipped)


def test_a_failure_says_what_was_left_out(data: Path, tmp_path: Path) -> None:
    whole = {"bag_size": 72, "images_per_identity": 6}
    chosen = settings(data, "damaged.rec", on_error="skip", learning_rate=1e30, **whole)
    with pytest.raises(ValueError, match="not finite") as caught:
        train(chosen, tmp_path / "a", 100)
    assert [line.split(";")[0] for line in caught.value.__notes__] == ["3 of 72 images had been left out"]


def test_a_network_that_collapses_in_training(data: Path, tmp_path: Path) -> None:
    # It learns nothing from images that are blanked out, and forgets all at the first batch.
    collapses: dict[str, Any] = {"cutoff": 1000, "learning_rate": 1.0, "weight_decay": 1.0, "momentum": 0.0}
    chosen = settings(data, bag_size=72, band="semihard", batch_size=39, **collapses)
    told: list[Mapping[str, Any]] = []
    with pytest.raises(ft.CollapsedError, match=r"epoch [1-9], every bag: the embeddings .* equal"):
        train(chosen, tmp_path / "a", 1000, progress=told.append)
    told = [record for record in told if "batch" in record]
    assert told[-1]["batch"] == state(tmp_path / "a").plain["batch"] > 0
