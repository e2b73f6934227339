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
from tests.training.small import records, settings, train

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
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        train(chosen, tmp_path / "b" / "a")
    with pytest.raises(FileNotFoundError, match=r"x\.bin"):
        train(chosen, tmp_path / "a", verify_on=[tmp_path / "x.bin"])
    train(chosen, tmp_path / "a", batches=3)
    with pytest.raises(FileExistsError, match=r"there is a training at .*resume it"):
        train(chosen, tmp_path / "a", batches=3)
    (tmp_path / "mine-0000.params").write_bytes(b"years of work")
    with pytest.raises(FileExistsError, match=r"mine-0000.params exists; give another prefix"):
        train(chosen, tmp_path / "mine", batches=3)
    assert (tmp_path / "mine-0000.params").read_bytes() == b"years of work"
    with pytest.raises(ValueError, match=r"with margin 0.3 \(now 0.5\), seed 0 \(now 3\): it can only"):
        train(replace(chosen, margin=0.5, seed=3), tmp_path / "a", batches=5, resume=True)


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


def test_tensorboard_files(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    folder = tmp_path / "board"
    train(settings(data), tmp_path / "a", verify_on=[data / "pairs.bin"], tensorboard=folder, batches=20)
    train(settings(data), tmp_path / "a", tensorboard=folder, batches=30, resume=True)
    content = b"".join(file.read_bytes() for file in folder.iterdir())
    for tag in (b"train/loss", b"train/active", b"verification/pairs.bin/auc"):
        assert tag in content


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
    with pytest.raises(ValueError, match="needs the beginning of a name"):
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
