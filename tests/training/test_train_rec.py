"""A training learns, and ends where it should."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from tests.small_rec import identities, write_rec
from tests.training.events import scalars
from tests.training.small import records, settings, state, train, write_pairs

pytestmark = [pytest.mark.mxnet, pytest.mark.usefixtures("mx")]


def test_it_learns_and_keeps_the_best(data: Path, tmp_path: Path) -> None:
    chosen = settings(data, bag_size=96, images_per_identity=6, band="violating", batch_size=48)
    done = train(chosen, tmp_path / "a", batches=150, verify_every=25, verify_on=[data / "pairs.bin"])
    told = records(tmp_path / "a", "verification")
    assert [line["batch"] for line in told] == [0, 25, 50, 75, 100, 125, 150]
    best = max(told, key=lambda line: (line["accuracy"], line["auc"]))
    assert told[0]["auc"] < 0.75
    assert best["auc"] > 0.9
    assert done.best_batch == best["batch"]
    assert done.best is not None
    again = ft.verify_pairs(data / "pairs.bin", done.best)
    assert (again.accuracy, again.auc) == pytest.approx((best["accuracy"], best["auc"]), abs=1e-3)
    last = ft.verify_pairs(data / "pairs.bin", done.last)
    assert last.auc == pytest.approx(told[-1]["auc"], abs=1e-3)


def test_pretrained_weights_are_taken_by_name(mx: Any, data: Path, unbroken: Path, tmp_path: Path) -> None:
    start = f"{unbroken},0"
    train(settings(data, pretrained=start, learning_rate=0.0), tmp_path / "a", batches=1)
    before, after = (mx.nd.load(f"{prefix}-0000.params") for prefix in (unbroken, tmp_path / "a"))
    weights = [name for name in before if name.startswith("arg:")]
    assert len(weights) > 5
    assert all((before[name] == after[name]).asnumpy().all() for name in weights)

    fewer = {name: value for name, value in before.items() if "block1" not in name}
    mx.nd.save(str(tmp_path / "fewer-0000.params"), fewer)
    (tmp_path / "fewer-symbol.json").write_bytes(Path(f"{unbroken}-symbol.json").read_bytes())
    with pytest.warns(UserWarning, match="pretrained: block1_bn_beta, .* are not there; drawn at random"):
        train(settings(data, pretrained=f"{tmp_path / 'fewer'},0"), tmp_path / "b", batches=1)
    with pytest.raises(ValueError, match=r"fc1_beta has the shape \(16,\), and the network wants \(8,\)"):
        train(settings(data, pretrained=start, embedding_size=8), tmp_path / "c", batches=1)
    mx.nd.save(str(tmp_path / "fewer-0000.params"), {"arg:other": mx.nd.zeros(3)})
    with pytest.raises(ValueError, match=r"no weight of this network.*it has other"):
        train(settings(data, pretrained=f"{tmp_path / 'fewer'},0"), tmp_path / "d", batches=1)
    with pytest.raises(ValueError, match="PREFIX,EPOCH, not 'model'"):
        train(settings(data, pretrained="model"), tmp_path / "e", batches=1)
    assert not list(tmp_path.glob("[c-e]-*.params"))


def test_nothing_is_replaced(data: Path, tmp_path: Path) -> None:
    chosen = settings(data)
    with pytest.raises(FileNotFoundError, match=r"no training to resume: there is no .*a-state.npz"):
        train(chosen, tmp_path / "a", resume=True)
    with pytest.raises(FileNotFoundError, match=r"x\.bin"):
        train(chosen, tmp_path / "b" / "a", verify_on=[tmp_path / "x.bin"])
    with pytest.raises(FileNotFoundError, match=r"none\.rec"):
        train(replace(chosen, rec=("none.rec",)), tmp_path / "b" / "a")
    assert list(tmp_path.iterdir()) == []
    train(chosen, tmp_path / "a", batches=3)
    with pytest.raises(
        FileExistsError, match=r"there is a training at .*resume=True continues it, overwrite=True"
    ):
        train(chosen, tmp_path / "a", batches=3)
    (tmp_path / "mine-0000.params").write_bytes(b"years of work")
    with pytest.raises(
        FileExistsError, match=r"exists already; overwrite=True replaces it.*mine-0000.params"
    ):
        train(chosen, tmp_path / "mine", batches=3)
    assert (tmp_path / "mine-0000.params").read_bytes() == b"years of work"
    with pytest.raises(ValueError, match=r"with margin 0.3 \(now 0.5\), seed 0 \(now 3\): it can only"):
        train(replace(chosen, margin=0.5, seed=3), tmp_path / "a", batches=5, resume=True)


def test_pairs_that_do_not_fit_are_named_before_anything_is_done(data: Path, tmp_path: Path) -> None:
    chosen, good = settings(data), data / "pairs.bin"
    large = write_rec(tmp_path / "large.rec", identities(4, 4), side=30)
    write_pairs(large, tmp_path / "large.bin", 10)
    write_pairs(data / "train.rec", tmp_path / "few.bin", 3)

    def no_embedding(record: Mapping[str, Any]) -> None:
        pytest.fail(f"told {record}")

    train(chosen, tmp_path / "b", batches=1)
    for name, said in (
        ("large", r"large\.bin: its images are 30 x 30 \(H x W\), and those of the training 24 x 24"),
        ("few", r"few\.bin holds 6 pairs"),
    ):
        files = [good, tmp_path / f"{name}.bin"]
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(ValueError, match=said):
            train(chosen, tmp_path / "a", verify_on=files, progress=no_embedding)
        with pytest.raises(ValueError, match=said):
            train(chosen, tmp_path / "b", verify_on=files, progress=no_embedding, resume=True, batches=9)
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_training_is_replaced_if_asked_to(data: Path, tmp_path: Path) -> None:
    out, chosen = tmp_path / "models" / "new" / "a", settings(data)
    train(chosen, out, batches=20, verify_on=data / "pairs.bin")  # the folders are made
    before = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    with pytest.raises(ft.OptionError, match="overwrite must not be True together with resume=True"):
        train(chosen, out, overwrite=True, resume=True)
    other = replace(chosen, rec=(str(data / "pairs.bin"),))
    with pytest.raises(ValueError, match=r"pairs\.bin"):  # nothing is lost for a training that cannot begin
        train(other, out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == before

    far = tmp_path / "far.params"
    Path(f"{out}-0000.params").rename(far)
    Path(f"{out}-0000.params").symlink_to(far)
    Path(f"{out}-state.npz").chmod(0o444)
    with pytest.raises(PermissionError, match="is read-only"):
        train(chosen, out, overwrite=True)
    Path(f"{out}-state.npz").chmod(0o644)
    train(replace(chosen, seed=1), out, batches=10, overwrite=True)
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "a-0000.params",
        "a-log.jsonl",
        "a-state.npz",
        "a-symbol.json",
    ]
    assert Path(f"{out}-0000.params").is_symlink()
    assert far.read_bytes() != before["a-0000.params"]
    assert [line["batch"] for line in records(out)] == [10]


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 and no more"])
def test_a_damaged_state_is_named(data: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a-state.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a-state.npz is .*not the state of a training"):
        train(settings(data), tmp_path / "a", resume=True)


def test_another_training_of_the_same_name_waits_for_nobody(data: Path, tmp_path: Path) -> None:
    out, chosen = tmp_path / "a", settings(data)

    def progress(record: Mapping[str, Any]) -> None:
        if record["kind"] == "train":
            with pytest.raises(FileExistsError, match="another training is writing"):
                train(chosen, out, resume=True)

    train(chosen, out, batches=20, progress=progress)
    assert [line["batch"] for line in records(out)] == [10, 20]


def test_a_loss_that_is_not_finite_ends_it(mx: Any, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not finite\. Lower the learning rate"):
        train(settings(data, learning_rate=1e30), tmp_path / "a", checkpoint_every=1)
    weights = mx.nd.load(str(tmp_path / "a-0000.params"))
    assert all(np.isfinite(value.asnumpy()).all() for name, value in weights.items())


def test_an_epoch_without_triplets_ends_it_with_the_reason(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ft.NoTripletsError, match="max_ap"):
        train(settings(data, max_ap=0.0), tmp_path / "a")
    assert (tmp_path / "a-state.npz").exists()


def test_a_network_that_has_collapsed_ends_it(
    mx: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = mx.sym.FullyConnected(mx.sym.Flatten(mx.sym.Variable("data") * 0), num_hidden=8, name="fc1")
    dead.save(str(tmp_path / "dead.json"))
    chosen = settings(data, network=None, symbol=tmp_path / "dead.json", band="violating")
    with pytest.warns(ft.CollapseWarning), pytest.raises(ft.CollapsedError, match="lower learning rate"):
        train(chosen, tmp_path / "a")
    assert state(tmp_path / "a").plain["batch"] > 0  # those of the bags before the last
    options = ["--symbol", tmp_path / "dead.json", "--bag-size", "48", "--band", "violating"]
    arguments = ["train", "--rec", data / "train.rec", "--out", tmp_path / "b", *options]
    assert main(list(map(str, arguments))) == 1
    told = capsys.readouterr().err
    assert told.index("epoch 0, bag 0: the embeddings") < told.index("epoch 0, every bag: the embeddings")


def test_tensorboard_files(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "board"
    train(settings(data), tmp_path / "a", verify_on=[data / "pairs.bin"], tensorboard=folder, batches=20)
    train(settings(data), tmp_path / "a", tensorboard=folder, batches=30, resume=True)
    shown = scalars(folder)
    lines = records(tmp_path / "a")
    for line in lines:
        kind = "verification/pairs.bin" if "pairs" in line else "train"
        for name, value in line.items():
            if isinstance(value, float):
                assert shown.pop((f"{kind}/{name}", line["batch"])) == pytest.approx(value)
    assert lines
    assert not shown


def test_the_documentation_trains(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = Path(__file__).parents[2] / "docs" / "training.md"
    code = page.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    (tmp_path / "demo").mkdir()
    shutil.copy(data / "train.rec", tmp_path / "demo" / "train.rec")
    shutil.copy(data / "pairs.bin", tmp_path / "demo" / "unseen.bin")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {})
    assert capsys.readouterr().out == "mxnet:small,0 mxnet:small-best,0 train\n30\n"


def test_a_training_of_no_batches_is_replaced(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ft.NoTripletsError):
        train(settings(data, max_ap=0.0), tmp_path / "a")
    train(settings(data), tmp_path / "a", batches=3)
    with pytest.raises(FileExistsError, match="there is a training"):
        train(settings(data), tmp_path / "a", batches=3)


def test_what_does_not_fit_the_network_is_named(mx: Any, data: Path, tmp_path: Path) -> None:
    layer = mx.sym.Convolution(mx.sym.Variable("data"), num_filter=4, kernel=(30, 30), name="c")
    mx.sym.FullyConnected(layer, num_hidden=4, name="fc1").save(str(tmp_path / "large.json"))
    with pytest.raises(ValueError, match=r"the network does not take images of 24 x 24 \(H x W\): .*kernel"):
        train(settings(data, network=None, symbol=tmp_path / "large.json"), tmp_path / "a", batches=1)
    mx.sym.mean(mx.sym.FullyConnected(mx.sym.Variable("data"), num_hidden=4), axis=1, name="m").save(
        str(tmp_path / "flat.json")
    )
    with pytest.raises(ValueError, match=r"flat\.json: output m_output has shape \(1,\) for 1 image"):
        train(settings(data, network=None, symbol=tmp_path / "flat.json"), tmp_path / "a", batches=1)
    with pytest.raises(ValueError, match="out must have the beginning of a name"):
        train(settings(data), f"{tmp_path}/", batches=1)
    assert not list(tmp_path.glob("a-*"))


def test_progress_tells_what_is_done_and_how_long_the_rest_takes(data: Path, tmp_path: Path) -> None:
    told: list[Mapping[str, Any]] = []
    pairs = data / "pairs.bin"
    train(settings(data), tmp_path / "a", batches=40, verify_on=[pairs], progress=told.append)
    kinds = [record["kind"] for record in told]
    assert [record["batch"] for record in told if record["kind"] == "step"] == [*range(1, 41)]
    assert [record["seconds_left"] for record in told if record["kind"] == "start"] == [None]
    of_bags = [(record["images"], record["of"]) for record in told if record["kind"] == "embedded"]
    assert of_bags[:2] == [(0, 45), (45, 45)]
    assert all(images in (0, of) for images, of in of_bags)
    of_pairs = [(record["images"], record["of"]) for record in told if record["kind"] == "verifying"]
    count = len(ft.read_pairs(pairs)[0])
    assert of_pairs == [(0, count), (count, count)] * 3  # at the start, after 30, and at the end
    left = [record["seconds_left"] for record in told if record["kind"] == "step"]
    assert all(seconds > 0 for seconds in left)  # the last verification is still to come
    assert told[-1]["kind"] == "verification"
    assert told[-1]["seconds_left"] is not None
    assert "seconds_left" not in (tmp_path / "a-log.jsonl").read_text()
    assert "train" in kinds
