"""Batches of tensors for a loop of PyTorch: those of a Feed, pass by pass."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet.run._options import FeedOptions
from tests.run.leftovers import collected, threads
from tests.small_rec import identities, write_rec
from tests.test_architecture import test_help_shows_each_option_with_its_default as shows

pytest.importorskip("torch")

from torch.utils.data import DataLoader

import torch
from fasttriplet.torch import TorchEmbedder, TripletFeed, TripletTensors, triplet_loss
from tests.torch.group_script import descend

pytestmark = pytest.mark.torch

OPTIONS: dict[str, Any] = {"bag_size": 30, "batch_size": 9, "band": "any"}


@pytest.fixture(scope="module")
def rec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_rec(tmp_path_factory.mktemp("feed") / "train.rec", identities(12, 6))
    ft.index_rec(path)
    return path


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Two tests run at once, and these networks are too small for two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _nothing_left_of_a_test() -> Iterator[None]:
    yield
    if threads():
        collected()
    assert threads() == []


def module() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 5, stride=4),
        torch.nn.BatchNorm2d(4),
        torch.nn.Dropout(0.5),
        torch.nn.Flatten(),
        torch.nn.Linear(100, 8),
    )


def first_batches(rec: Path, count: int, embedder: Any, augment: Any = None) -> list[ft.TripletBatch]:
    with ft.Feed(rec, model=embedder, augment=augment, epochs=None, **OPTIONS) as feed:
        return list(islice(feed, count))


def ids(batches: Any) -> list[list[int]]:
    return [batch.ids.tolist() for batch in batches]


@pytest.mark.parametrize(
    "inputs", [{}, {"color": "bgr", "mean": (104, 117, 123), "std": (1, 2, 3)}, {"mean": 0, "std": 1}]
)
def test_batches_are_those_of_a_feed_as_the_module_is_fed(rec: Path, inputs: dict[str, Any]) -> None:
    seen: list[Any] = []

    class Seen(torch.nn.Module):
        def forward(self, images: Any) -> Any:
            seen.append(images)
            return images[:, :, 0, ::4].flatten(1)

    embedder = TorchEmbedder(Seen(), batch_size=1, **inputs)
    augment = ft.Augment(mirror=True)
    with TripletFeed(rec, embedder, augment=augment, **OPTIONS) as feed:
        found = [*feed, *feed]
        images = ft.Dataset(rec).decode(np.arange(72)).pixels
        of_feed = first_batches(rec, len(found), embedder, augment)
    assert len(found) == 80
    for batch, expected in zip(found, of_feed, strict=True):
        assert isinstance(batch, TripletTensors)
        assert batch.images.dtype == torch.float32
        assert batch.images.is_contiguous()
        assert not batch.images.is_pinned()
        assert batch.labels.dtype == batch.ids.dtype == torch.int64
        assert np.array_equal(batch.ids, expected.ids)
        assert np.array_equal(batch.labels, expected.labels)
    # The bits that the module sees in training are those that it sees when it embeds.
    seen.clear()
    with TripletFeed(rec, embedder, **OPTIONS) as feed:
        batch = next(iter(feed))
    seen.clear()
    at = np.searchsorted(ft.Dataset(rec).keys, batch.ids.numpy())
    embedder.embed(ft.index_rec(rec)[at], images[at])
    assert torch.equal(torch.cat(seen), batch.images)


def test_each_iteration_is_the_next_pass(rec: Path) -> None:
    expected = first_batches(rec, 120, TorchEmbedder(module()))
    with TripletFeed(rec, module(), **OPTIONS) as feed:
        for epoch in range(3):
            assert feed.epoch == epoch
            found = ids(feed)
            assert found == ids(batch for batch in expected if batch.epoch == epoch)
        assert feed.summary.batches == len(expected)
        assert feed.summary.epochs == 3
    with TripletFeed(rec, module(), first_epoch=2, **OPTIONS) as feed:
        assert ids(feed) == found


def test_a_pass_that_is_left_early(rec: Path) -> None:
    """The next one is a new pass, from its beginning; an iteration that was not begun counts for nothing."""
    with TripletFeed(rec, module(), first_epoch=1, **OPTIONS) as feed:
        second = ids(feed)
    feed = TripletFeed(rec, module(), **OPTIONS)
    iter(feed), iter(feed)
    first = []
    for batch in islice(feed, 3):
        assert feed.epoch == 0
        first.append(batch)
    assert threads() == []  # what it had ahead is given up
    iter(feed)
    assert feed.epoch == 1
    assert ids(feed) == second
    with feed:
        next(iter(feed))
        kept = iter(feed)
        assert feed.epoch == 3
        next(kept)
        assert feed.epoch == 3
        assert next(iter(feed)).ids.tolist() != first[0].ids.tolist()
        assert next(kept, None) is None  # another one has begun
        assert feed.epoch == 5
    assert threads() == []
    assert len(ids(feed)) == len(second)  # that is closed can be used again, from the next pass on
    assert feed.epoch == 6
    feed.close()
    found = ids(feed)
    with TripletFeed(rec, module(), first_epoch=6, **OPTIONS) as feed:
        assert found == ids(feed)


def loaded(feed: TripletFeed) -> dict[str, Any]:
    """The state as it comes back from a checkpoint."""
    file = io.BytesIO()
    torch.save(feed.state_dict(), file)
    file.seek(0)
    state: dict[str, Any] = torch.load(file, weights_only=True)
    return state


@pytest.mark.parametrize("more", [{}, {"neighbors": "running"}], ids=["random order", "running graph"])
@pytest.mark.parametrize("at", [0, 1, 13, 39, 40, 41, 57])
def test_a_state_after_any_batch(rec: Path, at: int, more: dict[str, Any]) -> None:
    options = OPTIONS | more

    def batches(feed: TripletFeed) -> Iterator[Any]:
        while True:
            yield from feed

    augment = ft.Augment(brightness=0.5)
    with TripletFeed(rec, module(), augment=augment, **options) as feed:
        expected = list(islice(batches(feed), 85))
    with TripletFeed(rec, module(), augment=augment, **options) as feed:
        _ = list(islice(batches(feed), at))
        state = loaded(feed)
    with TripletFeed(rec, module(), augment=augment, **options) as feed:
        if at % 2:
            next(iter(feed))  # a state can be loaded at any time
        feed.load_state_dict(state)
        assert feed.epoch == at // 40 - (at == 40)  # the end of a pass is noticed by asking for more
        found = list(islice(batches(feed), 85 - at))
    for one, other in zip(found, expected[at:], strict=True):
        assert all(map(torch.equal, one, other))


def test_a_pass_that_is_left_early_keeps_the_means(rec: Path) -> None:
    with TripletFeed(rec, module(), neighbors="running", **OPTIONS) as feed:
        for _ in feed:
            break
        seen = feed.state_dict()["mean_labels"]
        assert len(seen) == 6  # of a bag
        passed = iter(feed)
        next(passed)
        assert feed.epoch == 1
        assert feed.summary.identities_without_neighbors == 6
        assert torch.equal(feed.state_dict()["graph_labels"], seen)


def test_states_that_do_not_fit(rec: Path, tmp_path: Path) -> None:
    other = write_rec(tmp_path / "other.rec", identities(12, 5))
    with TripletFeed(rec, module(), **OPTIONS) as feed:
        first = ids([next(iter(feed))])
        for changed, message in [
            (TripletFeed(other, module(), **OPTIONS), "state is of another dataset"),
            (TripletFeed(rec, module(), **OPTIONS | {"seed": 1}), "state is of a Feed with seed 1"),
        ]:
            with changed, pytest.raises(ValueError, match=message):
                feed.load_state_dict(changed.state_dict())
        with pytest.raises(ValueError, match="state must be what state_dict"):
            feed.load_state_dict({})
        with pytest.raises(ValueError, match="state must be what state_dict"):
            feed.load_state_dict(None)  # type: ignore[arg-type]
        state = feed.state_dict()
        state["arguments"] = state["arguments"] | {"processes": 4}
        with pytest.raises(ValueError, match="state is of a training in 4 processes, and this one has 1"):
            feed.load_state_dict(state)
    with TripletFeed(rec, module(), **OPTIONS) as feed:
        assert ids([next(iter(feed))]) == first


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_a_stateful_data_loader(rec: Path) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def loader() -> Any:
        return stateful.StatefulDataLoader(TripletFeed(rec, module(), **OPTIONS), batch_size=None)

    whole = loader()
    expected = [ids(whole), ids(whole)]
    for at in (5, 40):
        first = loader()
        found = ids(islice(first, at))
        state = copy.deepcopy(first.state_dict())
        rest = loader()
        rest.load_state_dict(state)
        assert found + ids(rest) == expected[0]
        assert ids(rest) == expected[1]


def test_data_loaders(rec: Path) -> None:
    with TripletFeed(rec, module(), **OPTIONS) as feed:
        expected = ids(feed)
    with TripletFeed(rec, module(), **OPTIONS) as feed:
        assert ids(DataLoader(feed, batch_size=None)) == expected
    with TripletFeed(rec, module(), **OPTIONS) as feed:
        with pytest.raises(RuntimeError, match="give the DataLoader num_workers=0"):
            list(DataLoader(feed, batch_size=None, num_workers=1, multiprocessing_context="fork"))
        with pytest.raises(TypeError, match=r"cannot be sent to another process, .* num_workers=0"):
            pickle.dumps(feed)  # for a worker that is spawned


def test_a_training(rec: Path) -> None:
    """The module is embedded as it is at that moment, in evaluation mode, and trained in training mode."""
    net = module()
    net[1].eval()  # a part that is kept as it is
    losses = []
    with TripletFeed(rec, net, augment=ft.Augment(mirror=True), **OPTIONS) as feed:
        for _ in range(2):
            for images, labels, _ in feed:
                assert [part.training for part in net] == [True, False, True, True, True]
                assert (labels[:3] == labels[3:6]).all()
                assert (labels[:3] != labels[6:]).all()
                loss = triplet_loss(net(images), 0.5)
                descend(net, loss)
                losses.append(loss.item())
    assert all(np.isfinite(losses))
    assert np.mean(losses[-20:]) < np.mean(losses[:20])


def test_the_mode_is_given_back_after_an_error(rec: Path) -> None:
    class Fails(torch.nn.Module):
        def forward(self, _: Any) -> Any:
            assert not self.training
            raise ZeroDivisionError

    for training in (True, False):
        net = Fails().train(training)
        with TripletFeed(rec, net, **OPTIONS) as feed, pytest.raises(RuntimeError, match="Fails failed on"):
            next(iter(feed))
        assert net.training is training


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            torch.nn.Identity(),
            r"output 0 has the shape \(16, 3, 24, 24\) for 16 images, and an ",
        ),
        (torch.nn.Linear(24, 4).to("meta"), "module Linear is on the device meta, which holds no weights"),
        (torch.nn.Linear(7, 4), "module Linear failed on 16 images of 24 x 24"),
    ],
)
def test_modules_that_give_no_embedding(rec: Path, net: Any, message: str) -> None:
    with (
        pytest.raises((ValueError, RuntimeError), match=message),
        TripletFeed(rec, net, **OPTIONS) as feed,
    ):
        next(iter(feed))


def test_what_is_no_module(rec: Path) -> None:
    with pytest.raises(ValueError, match=r"must be a torch\.nn.Module or a TorchEmbedder, not 'pixels'"):
        TripletFeed(rec, "pixels")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"TripletFeed\(\) has no option 'margn'; did you mean 'margin'"):
        TripletFeed(rec, module(), margn=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"TripletFeed\(\) has no option 'epochs'"):
        TripletFeed(rec, module(), epochs=1)  # type: ignore[call-arg]
    with pytest.raises(ft.OptionError, match="first_epoch must be a whole number up to"):
        TripletFeed(rec, module(), first_epoch=2**31)

    class FullyShardedDataParallel(torch.nn.Module):
        """One of that name."""

    with pytest.raises(ValueError, match="model is sharded over processes"):
        TripletFeed(rec, FullyShardedDataParallel())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_cuda(rec: Path) -> None:
    with pytest.raises(ValueError, match=r"PyTorch .* finds no GPU"):
        TripletFeed(rec, TorchEmbedder(module(), devices="cuda"))


def test_cores_are_shared_by_the_processes_of_a_machine(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []
    decode = ft.Dataset.decode

    def counting(self: Any, rows: Any, *, threads: int | None = None, **options: Any) -> Any:
        used.append(threads)
        return decode(self, rows, threads=threads, **options)

    monkeypatch.setattr(ft.Dataset, "decode", counting)
    for processes, chosen, expected in [("", None, None), ("1000", None, 1), ("1000", 2, 2)]:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        used.clear()
        with TripletFeed(rec, module(), threads=chosen, **OPTIONS) as feed:
            next(iter(feed))
        assert set(used) == {expected}


def test_help_shows_each_option() -> None:
    shows(TripletFeed, FeedOptions)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_batches_for_a_gpu_are_pinned(rec: Path) -> None:
    net = module().cuda()
    with TripletFeed(rec, net, **OPTIONS) as feed:
        for images, labels, ids in islice(feed, 5):
            assert images.is_pinned()
            assert labels.is_pinned()
            assert ids.is_pinned()
            assert triplet_loss(net(images.cuda(non_blocking=True)), 0.5).isfinite()


def test_images_are_excluded(rec: Path, tmp_path: Path) -> None:
    gone = [1, 8, 9, *range(31, 37)]
    removed = write_rec(
        tmp_path / "removed.rec",
        {key: label for key, label in identities(12, 6).items() if key not in gone},
    )
    model = module()
    with (
        TripletFeed(removed, model, **OPTIONS) as expected,
        TripletFeed(rec, model, exclude=gone, **OPTIONS) as found,
    ):
        pairs = list(zip(expected, found, strict=True))
    assert pairs
    assert all(torch.equal(one.ids, other.ids) for one, other in pairs)
