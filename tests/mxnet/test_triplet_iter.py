"""The iterator for MXNet's modules: what it hands out, with which weights, and that a network learns."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet import mxnet
from fasttriplet.mxnet import small_convnet, triplet_loss
from tests.small_rec import Table, identities, write_rec
from tests.training.small import write_patterns

pytestmark = pytest.mark.mxnet

SHAPE = (3, 24, 24)


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    return write_patterns(tmp_path / "train.rec", identities(16, 6))


def embeddings(batches: Any, rec: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Of all images by the iterator's module, and their labels; keys are 1 to 96."""
    index = ft.index_rec(rec)
    embedder, pixels = batches.feed._stages.embedder, ft.RecordFile(rec).decode(index["key"].to_numpy())
    parts = [embedder.embed(index[at : at + 5], pixels[at : at + 5]) for at in range(0, 96, 5)]
    return np.concatenate(parts), index["label"].to_numpy()


Make = Callable[..., Any]


@pytest.fixture
def make(mx: Any, rec: Path) -> Iterator[Make]:
    """Makes an iterator over `rec` and the module of it, bound with random weights."""
    made: list[Any] = []

    def make(batch_size: int = 12, devices: int = 1, bind: bool = True, **options: Any) -> Any:
        mx.random.seed(0)
        symbol = triplet_loss(small_convnet(16), 0.3, batch_size // devices)
        module = mx.mod.Module(symbol, context=[mx.cpu(number) for number in range(devices)])
        chosen: dict[str, Any] = {"data_shape": SHAPE, "bag_size": 48, "band": "violating"} | options
        batches = mxnet.TripletIter(rec, module, batch_size=batch_size, devices=devices, **chosen)
        if bind:
            module.bind(batches.provide_data, batches.provide_label)
            module.init_params(mx.init.Xavier())
        made.append(batches)
        return batches, module

    yield make
    for batches in made:
        batches.close()


def test_batches_are_those_of_a_feed_with_the_modules_embeddings(make: Make, rec: Path) -> None:
    batches, module = make()
    rows, _ = embeddings(batches, rec)
    table = Table(np.concatenate([np.zeros((1, 16), np.float32), rows]))  # keys begin at 1
    expected = list(ft.Feed(rec, model=table, batch_size=12, bag_size=48, band="violating", epochs=1))
    found = list(batches)
    assert len(found) == len(expected) - (len(expected[-1].labels) < 12) > 5
    for batch, other in zip(found, expected, strict=False):
        assert batch.pad == 0
        assert batch.data[0].shape == batches.provide_data[0].shape
        assert np.array_equal(batch.data[0].asnumpy(), other.images)
        assert np.array_equal(batch.label[0].asnumpy(), other.labels)
    assert module.data_names == ["data"]


def test_images_are_excluded(make: Make) -> None:
    batches, _ = make(exclude=[1, 2, 3, *range(7, 13)])
    summary = batches.feed.summary
    assert (summary.images_excluded, summary.images_indexed, summary.identities) == (9, 87, 15)
    assert 1 not in {int(label) for batch in batches for label in batch.label[0].asnumpy()}


def test_an_epoch_ends_and_reset_begins_the_next(make: Make) -> None:
    batches, _ = make()
    counts = []
    for epoch in range(3):
        assert batches.epoch == epoch
        counts.append(len(list(batches)))
        with pytest.raises(StopIteration):
            next(batches)
        batches.reset()
        batches.reset()  # before the first batch it does nothing
    assert min(counts) > 5
    next(batches)
    next(batches)
    assert batches.epoch == 3
    batches.reset()  # in the middle
    assert batches.epoch == 4
    again, _ = make(first_epoch=4)
    assert np.array_equal(next(batches).label[0].asnumpy(), next(again).label[0].asnumpy())


def test_an_epoch_that_is_left_keeps_its_means(make: Make) -> None:
    batches, _ = make(neighbors="running")
    next(batches)
    seen = batches.feed.state_dict()["mean_labels"]
    assert 0 < len(seen) < 16
    batches.reset()
    next(batches)
    assert batches.epoch == 1
    assert np.array_equal(batches.feed.state_dict()["graph_labels"], seen)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_each_device_has_triplets_of_its_own(make: Make, devices: int) -> None:
    batches, _ = make(batch_size=24, devices=devices)
    for batch in batches:
        for labels in np.split(batch.label[0].asnumpy(), devices):
            anchors, positives, negatives = np.split(labels, 3)
            assert (anchors == positives).all()
            assert (anchors != negatives).all()


@pytest.mark.parametrize(("level", "handlers"), [(logging.INFO, 1), (logging.WARNING, 0)])
def test_a_script_that_sets_the_level_alone_sees_the_bags(
    make: Make, monkeypatch: pytest.MonkeyPatch, level: int, handlers: int
) -> None:
    """As InsightFace's `train.py` does; MXNet makes a handler when it logs its first batches."""
    root = logging.getLogger()
    before = root.level
    monkeypatch.setattr(root, "handlers", [])
    root.setLevel(level)
    try:
        make(bind=False)
        assert len(root.handlers) == handlers
    finally:
        root.setLevel(before)


def auc(batches: Any, rec: Path) -> float:
    """How well same and different are told apart, over all pairs."""
    rows, labels = embeddings(batches, rec)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    squared = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    first, second = np.triu_indices(len(rows), 1)
    found = ft.verify_distances(squared[first, second], labels[first] == labels[second]).auc
    assert found is not None
    return found


def test_a_network_learns(make: Make, rec: Path) -> None:
    batches, module = make(batch_size=48, bag_size=96, augment=ft.Augment(mirror=True))
    before, losses = auc(batches, rec), []
    with pytest.warns(UserWarning, match="already initialized"):  # of the weights that `before` is about
        module.fit(
            batches,
            eval_metric=mxnet.TripletMetric(0.3),
            optimizer="sgd",
            optimizer_params={"learning_rate": 0.05, "momentum": 0.9, "rescale_grad": 1.0},
            num_epoch=8,
            batch_end_callback=lambda state: losses.append(state.eval_metric.get()[1][0]),
        )
    assert batches.epoch >= 8  # one of few triplets may be passed over
    assert np.isfinite(losses).all()
    after = auc(batches, rec)
    assert before < 0.7
    assert after > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_shape": (1, 24, 24)}, r"data_shape must be \(3, height, width\)"),
        ({"data_shape": 24}, r"data_shape must be \(3, height, width\), not 24"),
        ({"module": "model,0"}, "module must be an MXNet module, such as mx.mod.Module, not 'model,0'"),
        ({"epochs": 2}, "epochs cannot be chosen"),
        ({"tail": "drop"}, "tail cannot be chosen"),
        ({"state": {}}, "state cannot be chosen"),
        ({"batch_size": 15, "devices": 2}, "multiple of 3 .* for each of 2 devices, not 15"),
        ({"bag_size": 2}, "bag_size"),
    ],
)
def test_wrong_options_are_named(mx: Any, rec: Path, options: dict[str, Any], message: str) -> None:
    module = mx.mod.Module(triplet_loss(small_convnet(16), 0.3, 12))
    with pytest.raises(ValueError, match=message):
        mxnet.TripletIter(rec, **{"module": module, "data_shape": SHAPE} | options)


def test_a_pass_may_give_less_than_a_batch(mx: Any, tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "few.rec", identities(4, 2))
    symbol = triplet_loss(small_convnet(16), 4.0, 24)
    module = mx.mod.Module(symbol, context=mx.cpu())
    batches = mxnet.TripletIter(rec, module, data_shape=SHAPE, batch_size=24, bag_size=8, margin=4.0)
    module.bind(batches.provide_data, batches.provide_label)
    module.init_params(mx.init.Xavier())
    epochs = []
    for _ in range(3):
        assert len(list(batches)) == 1
        epochs.append(batches.epoch)
        batches.reset()
    batches.close()
    assert epochs[0] >= 1  # 4 pairs a pass, 8 to a batch
    assert epochs == sorted(set(epochs))


def test_what_cannot_be_embedded_is_said(make: Make) -> None:
    batches, _ = make(bind=False)
    with pytest.raises(ValueError, match="bind it and give it weights"):
        next(batches)
    with pytest.raises(ValueError, match=r"the images are 24 x 24 .* data_shape says 32 x 32"):
        make(data_shape=(3, 32, 32))


def test_an_epoch_without_a_triplet_ends_with_the_reason(make: Make) -> None:
    batches, _ = make(max_ap=0.0)
    with pytest.raises(ft.NoTripletsError, match="max_ap"):
        list(batches)


def wrong_first(mx: Any, kind: str) -> Any:
    """A network whose first output is not what images are told apart by."""
    embedding, label, loss = triplet_loss(small_convnet(16), 0.3, 12)
    maps = embedding.get_internals()["block1_relu_output"]
    anchors = mx.sym.slice_axis(embedding, axis=0, begin=0, end=4, name="anchors")
    first = {"loss": loss, "label": label, "maps": maps, "anchors": anchors}[kind]
    return mx.sym.Group([first, label, embedding, loss])


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("loss", "(1,)"), ("label", "(12,)"), ("maps", "(12, 32, 12, 12)"), ("anchors", "(4, 16)")],
)
def test_a_first_output_that_is_not_an_embedding_is_named(mx: Any, rec: Path, kind: str, shape: str) -> None:
    module = mx.mod.Module(wrong_first(mx, kind), context=mx.cpu())
    batches = mxnet.TripletIter(rec, module, data_shape=SHAPE, batch_size=12, bag_size=48)
    module.bind(batches.provide_data, batches.provide_label)
    module.init_params(mx.init.Xavier())
    wanted = (
        rf"being trained: output '\w*' has the shape {re.escape(shape)} for 12 images, and an embedding has "
        r"\(12, D\), as 'blockgrad\d+_output' has\. Put the embedding first, as mx\.sym\.Group"
    )
    with pytest.raises(ValueError, match=wanted):
        next(batches)


def test_an_embedding_may_be_a_map_of_one_place(mx: Any, rec: Path) -> None:
    embedding, label, loss = triplet_loss(small_convnet(16), 0.3, 12)
    module = mx.mod.Module(
        mx.sym.Group([mx.sym.reshape(embedding, (-1, 16, 1, 1)), label, loss]), context=mx.cpu()
    )
    batches = mxnet.TripletIter(rec, module, data_shape=SHAPE, batch_size=12, bag_size=48, band="any")
    module.bind(batches.provide_data, batches.provide_label)
    module.init_params(mx.init.Xavier())
    rows, _ = embeddings(batches, rec)
    assert rows.shape == (96, 16)
    next(batches)
    batches.close()


def test_a_network_that_has_collapsed_is_told(mx: Any, rec: Path) -> None:
    dead = mx.sym.FullyConnected(mx.sym.Flatten(mx.sym.Variable("data") * 0), num_hidden=16, name="fc1")
    module = mx.mod.Module(triplet_loss(dead, 0.3, 12), context=mx.cpu())
    options: dict[str, Any] = {"bag_size": 48, "band": "violating"}
    batches = mxnet.TripletIter(rec, module, data_shape=SHAPE, batch_size=12, **options)
    module.bind(batches.provide_data, batches.provide_label)
    module.init_params(mx.init.Xavier())
    with (
        pytest.warns(ft.CollapseWarning, match=r"^epoch 0, bag 0: the embeddings are nearly equal"),
        pytest.raises(ft.CollapsedError, match=r"^epoch 0, every bag: "),
    ):
        list(batches)
    assert batches.feed.summary.batches > 0


def test_the_documentation_trains(
    mx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[2] / "docs" / "mxnet.md"
    section = page.read_text(encoding="utf-8").partition("## Training with the triplet loss")[2]
    code = section.partition("```python\n")[2].partition("```")[0].replace("112, 112", "24, 24")
    (tmp_path / "demo").mkdir()
    write_rec(tmp_path / "demo" / "train.rec", identities(40, 6))
    monkeypatch.chdir(tmp_path)
    mx.random.seed(0)
    exec(compile(code, str(page), "exec"), {})
    assert "batches; waited most for" in capsys.readouterr().out
