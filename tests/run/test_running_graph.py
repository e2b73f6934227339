"""Feeds that make the identity graph themselves, of the embeddings that they mine."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet.cli import main
from fasttriplet.run._running import ARRAYS
from fasttriplet.run._stages import Stages
from tests.cli.command import Capture
from tests.run.plain_feed import ids_of
from tests.run.test_feed_state import same
from tests.run.thread_group import ThreadGroup, results
from tests.small_rec import identities, random_table, write_rec

OPTIONS: dict[str, Any] = {
    "batch_size": 3, "bag_size": 40, "images_per_identity": 3, "band": "any", "neighbors": "running",
}  # fmt: skip
IDENTITIES, IMAGES = 50, 4


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50 identities: more than an identity has neighbors."""
    return write_rec(tmp_path_factory.mktemp("many") / "train.rec", identities(IDENTITIES, IMAGES))


class Learning:
    """An embedder that says something else after each batch, and remembers what it was asked."""

    description = "a table that turns"
    needs_images = False

    def __init__(self, batches: int = 0) -> None:
        self.batches = batches  # that it has learned from
        self.bags: list[tuple[pl.DataFrame, NDArray[np.float32]]] = []
        self._rows = random_table(1 + IDENTITIES * IMAGES, 8).rows

    def prepare(self, index: pl.DataFrame) -> None:
        pass

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        assert images is None
        angle = 0.01 * self.batches
        own = self._rows[rows["key"].to_numpy()]
        found: NDArray[np.float32] = (
            np.cos(angle) * own + np.sin(angle) * np.roll(own, 1, axis=1) * own
        ).astype(np.float32)
        self.bags.append((rows, found))
        return found


def taken(feed: ft.Feed, model: Learning, most: int | None = None) -> list[ft.TripletBatch]:
    """Batches, from each of which the model learns."""
    found = []
    for batch in islice(feed, most):
        model.batches += 1
        found.append(batch)
    return found


# The definition


def unit(row: NDArray[np.floating[Any]], *, normalize: bool) -> NDArray[np.float64]:
    wide = row.astype(np.float64)
    norm = np.sqrt((wide * wide).sum()) if normalize else 1.0
    return (wide / norm).astype(np.float32).astype(np.float64)


class Plain:
    """Running means by identity, and what is nearest."""

    def __init__(self, *, normalize: bool) -> None:
        self.normalize = normalize
        self.means: dict[int, NDArray[np.float32]] = {}

    def add(self, rows: pl.DataFrame, embeddings: NDArray[np.float32]) -> None:
        labels, ids = rows["label"].to_list(), ids_of(rows).tolist()
        for label in set(labels):
            total = np.zeros(embeddings.shape[1])
            own = sorted((ids[at], at) for at in range(len(ids)) if labels[at] == label)
            for _, at in own:
                total = total + unit(embeddings[at], normalize=self.normalize)
            mean = (total / len(own)).astype(np.float32)
            before = self.means.get(label, mean)
            self.means[label] = np.float32(0.5) * before + np.float32(0.5) * mean

    def graph(self) -> pl.DataFrame:
        labels = sorted(self.means)
        rows = {label: unit(self.means[label], normalize=self.normalize) for label in labels}
        links = []
        for label in labels:
            near = sorted(
                (float(((rows[label] - rows[other]) ** 2).sum()), other) for other in labels if other != label
            )
            links += [(label, other, rank) for rank, (_, other) in enumerate(near[:20])]
        return pl.DataFrame(links, ["label", "neighbor_label", "rank"], orient="row")


@settings(max_examples=15, deadline=None)
@given(
    refresh_epochs=st.integers(1, 3),
    normalize=st.booleans(),
    boundary=st.sampled_from(["keep", "split"]),
    random_share=st.sampled_from([0.0, 0.25]),
    tail=st.sampled_from(["keep", "drop"]),
    seed=st.integers(0, 5),
)
def test_the_order_is_that_of_the_definition(many: Path, refresh_epochs: int, **more: Any) -> None:
    epochs, model, plain = 4, Learning(), Plain(normalize=more["normalize"])
    with ft.Feed(many, model=model, epochs=epochs, refresh_epochs=refresh_epochs, **OPTIONS | more) as feed:
        batches = taken(feed, model)
        state = feed.state_dict()
    index, asked = ft.index_rec(many), iter(model.bags)
    how: dict[str, Any] = {"boundary": more["boundary"], "bag_size": OPTIONS["bag_size"]}
    graph: pl.DataFrame | None = None
    for epoch in range(epochs):
        if epoch and epoch % refresh_epochs == 0:
            graph = plain.graph()
        similar = {} if graph is None else {"neighbors": graph, "random_share": more["random_share"]}
        seq = ft.triplet_seq(index, OPTIONS["images_per_identity"], more["seed"], epoch, **how | similar)
        images = 0
        for bag in ft.bags(seq, **how, tail=more["tail"]):
            rows, embeddings = next(asked)
            assert rows["key"].to_list() == bag.rows["key"].to_list()
            plain.add(rows, embeddings)
            images += rows.height
        used = [batch.ids for batch in batches if batch.epoch == epoch]
        assert len(np.unique(np.concatenate(used))) <= images <= IDENTITIES * 3
    assert next(asked, None) is None
    assert state["mean_labels"].tolist() == sorted(plain.means)
    assert np.array_equal(state["means"], np.stack([plain.means[label] for label in sorted(plain.means)]))


# The state


def same_state(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype
        if isinstance(one[name], np.ndarray)
        else one[name] == other[name]
        for name in one
    )


@settings(max_examples=25, deadline=None)
@given(
    refresh_epochs=st.integers(1, 2),
    cut=st.sampled_from([(3, "keep"), (30, "drop"), (120, "keep"), (300, "keep")]),  # the last over bags
    behind=st.integers(0, 500),
    again=st.integers(0, 200),
)
def test_a_feed_that_is_resumed_has_the_same_batches_and_state(
    many: Path, refresh_epochs: int, cut: tuple[int, str], behind: int, again: int
) -> None:
    options = OPTIONS | {"epochs": 3, "seed": 3, "refresh_epochs": refresh_epochs}
    options |= {"batch_size": cut[0], "tail": cut[1]}

    def run(state: dict[str, Any] | None, batches: int, most: int | None) -> tuple[list[Any], dict[str, Any]]:
        model = Learning(batches)
        with ft.Feed(many, model=model, state=state, **options) as feed:
            return taken(feed, model, most), feed.state_dict()

    expected, last = run(None, 0, None)
    first, state = run(None, 0, behind)
    second, state = run(state, len(first), again)
    rest, state = run(state, len(first + second), None)
    assert len(first + second + rest) == len(expected)
    assert all(map(same, first + second + rest, expected))
    assert same_state(state, last)


def test_a_bag_that_gave_no_batch_does_not_count(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails after a bag was embedded leaves the means of before, as the bag is embedded again."""
    options = OPTIONS | {"epochs": 3, "batch_size": 30}
    model = Learning()
    with ft.Feed(many, model=model, **options) as feed:
        expected = taken(feed, model)
        last = feed.state_dict()
    mine, calls = Stages.mine, 0

    def fails(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:  # in the second epoch
            raise OSError("a fault")
        return mine(*args, **kwargs)

    model, found = Learning(), []
    feed = ft.Feed(many, model=model, **options)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="a fault"):
        patch.setattr(Stages, "mine", fails)
        for batch in feed:
            model.batches += 1
            found.append(batch)
    with ft.Feed(many, model=model, state=feed.state_dict(), **options) as feed:
        found += taken(feed, model)
        assert same_state(feed.state_dict(), last)
    assert len(found) == len(expected)
    assert all(map(same, found, expected))


def test_a_state_at_the_beginning_of_an_epoch_has_the_means_alone(
    many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its graph follows from them, so the state is the same before and after the graph is made."""
    model = Learning()
    with ft.Feed(many, model=model, epochs=None, **OPTIONS) as feed:
        for _ in range(2):
            list(feed.one_epoch())
        before = feed.state_dict()
        assert (before["epoch"], before["bag"], len(before["means"])) == (2, 0, IDENTITIES)
        assert len(before["graph_labels"]) == 0
        monkeypatch.setattr(Stages, "mine", None)
        with pytest.raises(TypeError):
            next(feed)
        assert feed.summary.seconds["neighbors"] > 0
        assert same_state(feed.state_dict(), before)


def test_an_epoch_that_is_left_keeps_its_means(many: Path) -> None:
    model = Learning()
    options = OPTIONS | {"epochs": None}
    with ft.Feed(many, model=model, **options) as feed:
        taken(feed, model, 60)
        left, state = feed.state_dict(), feed.state_dict(epoch=1)
    assert (state["epoch"], state["bag"], len(state["triplets"])) == (1, 0, 0)
    assert np.array_equal(state["means"], left["means"])
    assert 0 < len(state["mean_labels"]) < IDENTITIES
    with ft.Feed(many, model=model, state=state, **options) as feed:
        assert next(feed).epoch == 1
        assert feed.summary.identities_without_neighbors == IDENTITIES - len(state["mean_labels"])
        assert np.array_equal(feed.state_dict()["graph_labels"], state["mean_labels"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": None}, "must be what state_dict"),
        ({"means": np.zeros((3, 8), np.float32)}, "means must be finite, one for each of mean_labels"),
        ({"means": np.full((IDENTITIES, 8), np.nan, np.float32)}, "means must be finite"),
        ({"means": np.zeros((IDENTITIES, 8))}, "means must be float32 of 2 dimensions, not float64"),
        ({"mean_labels": np.arange(IDENTITIES)[::-1]}, "mean_labels must be identities of the dataset"),
        ({"mean_labels": np.arange(IDENTITIES) + 1}, "mean_labels must be identities of the dataset"),
        ({"graph_labels": np.array([0, 99])}, "graph_labels must be identities"),
        ({"graph_labels": np.array([0, 0])}, "graph_labels must be identities"),
        ({"graph_starts": np.array([0, 1])}, "graph_starts must ascend from 0 to the number"),
        ({"graph_starts": np.array([], np.int64)}, "graph_starts must ascend from 0 to the number"),
        ({"graph_neighbors": np.full(20 * IDENTITIES, 50)}, "graph_neighbors must be positions among"),
        ({"graph_neighbors": np.full(20 * IDENTITIES, -1)}, "graph_neighbors must be positions among"),
    ],
)
def test_states_that_are_damaged(many: Path, change: dict[str, Any], message: str) -> None:
    model = Learning()
    with ft.Feed(many, model=model, epochs=2, **OPTIONS) as feed:
        taken(feed, model)
        state = feed.state_dict()
    changed = {name: value for name, value in (state | change).items() if value is not None}
    with pytest.raises(ValueError, match=f"state.*{message}"):
        ft.Feed(many, model=model, epochs=2, state=changed, **OPTIONS)


def test_a_state_of_another_kind_of_feed(many: Path) -> None:
    model = Learning()
    graph = pl.DataFrame({"label": [0], "neighbor_label": [1], "rank": [0]})
    states = {}
    for name, neighbors in (("running", "running"), ("graph", graph), ("none", None)):
        with ft.Feed(many, model=model, **OPTIONS | {"neighbors": neighbors}) as feed:
            states[name] = feed.state_dict()
    for name, neighbors, message in (
        ("running", None, "neighbors must be 'running': the run that wrote the state made the graph itself"),
        ("running", graph, "neighbors must be 'running'"),
        ("graph", "running", "neighbors must be the same graph as before"),
        ("none", "running", "neighbors must not be given"),
    ):
        with pytest.raises(ft.OptionError, match=message):
            ft.Feed(many, model=model, state=states[name], **OPTIONS | {"neighbors": neighbors})
    with pytest.raises(ValueError, match="state must be what state_dict"):
        more = {"means": states["running"]["means"]}
        ft.Feed(many, model=model, state=states["none"] | more, **OPTIONS | {"neighbors": None})
    with pytest.raises(ValueError, match="state is of a Feed with refresh_epochs 1, and this one has 2"):
        ft.Feed(many, model=model, state=states["running"], refresh_epochs=2, **OPTIONS)
    wide = random_table(300, 9)
    taken_state = states["running"] | {
        "mean_labels": np.array([0]), "means": np.ones((1, 8), np.float32),
    }  # fmt: skip
    with (
        ft.Feed(many, model=wide, state=taken_state, **OPTIONS) as feed,
        pytest.raises(ValueError, match="state: means have 8 numbers, and embeddings have 9"),
    ):
        next(feed)


# Processes, and identities without images


@pytest.mark.parametrize("size", [2, 3])
def test_a_group_has_equal_means(many: Path, size: int) -> None:
    options = OPTIONS | {"epochs": 3}
    model = random_table(1 + IDENTITIES * IMAGES, 8)
    with ft.Feed(many, model=model, **options) as feed:
        list(feed)
        alone = feed.state_dict()

    def work(group: ThreadGroup) -> dict[str, Any]:
        with ft.Feed(many, model=model, group=group, **options) as feed:
            list(islice(feed, 100))
            return feed.state_dict()

    def rest(group: ThreadGroup) -> dict[str, Any]:
        with ft.Feed(many, model=model, group=group, state=states[0], **options) as feed:
            list(feed)
            return feed.state_dict()

    states = results(size, work)
    assert all(same_state(states[0], state) for state in states)
    ends = results(size, rest)
    for state in ends:
        assert same_state(ends[0], state)
        assert all(np.array_equal(alone[name], state[name]) for name in ARRAYS)


def test_identities_that_were_not_seen(tmp_path: Path) -> None:
    labels = identities(IDENTITIES, IMAGES)
    damaged = frozenset(key for key, label in labels.items() if label in {7, 8})
    rec = write_rec(tmp_path / "train.rec", labels, damaged)
    model = Learning()
    with ft.Feed(rec, model=model, epochs=2, on_error="skip", **OPTIONS) as feed:
        taken(feed, model)
        state = feed.state_dict()
    assert feed.summary.identities_without_neighbors == 2
    assert state["mean_labels"].tolist() == [label for label in range(IDENTITIES) if label not in {7, 8}]
    of_second = pl.concat([rows for rows, _ in model.bags])["key"][-3 * (IDENTITIES - 2) :]
    assert of_second.n_unique() == 3 * (IDENTITIES - 2)


def test_each_graph_is_logged(many: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = Learning()
    with (
        caplog.at_level(logging.INFO, logger="fasttriplet"),
        ft.Feed(many, model=model, epochs=3, refresh_epochs=2, **OPTIONS) as feed,
    ):
        taken(feed, model)
    graphs = [message for message in caplog.messages if "graph" in message]
    assert graphs == [f"epoch 2: bags by a graph of the running means of {IDENTITIES} identities"]


def test_without_a_graph_the_order_is_random(many: Path) -> None:
    """In the first epoch, and in one that a feed begins with."""
    for first_epoch in (0, 2):
        model = Learning()
        with ft.Feed(many, model=model, first_epoch=first_epoch, **OPTIONS) as feed:
            taken(feed, model)
        seq = ft.triplet_seq(ft.index_rec(many), OPTIONS["images_per_identity"], epoch=first_epoch)
        assert pl.concat([rows for rows, _ in model.bags]).equals(seq)


# What it does not go with


def test_it_is_for_trainings(many: Path, tmp_path: Path, capsys: Capture) -> None:
    several: list[dict[str, Any]] = [{}, {"bag_size": None}]
    for options in several:
        with pytest.raises(ft.OptionError, match="neighbors"):
            ft.mine_rec(many, model="pixels", neighbors="running", out=tmp_path / "t.parquet", **options)
    with pytest.raises(ft.OptionError, match="bag_size must be a number"):
        ft.Feed(many, model="pixels", neighbors="running", bag_size=None)
    running: Any = "running"
    with pytest.raises(ft.OptionError, match="neighbors 'running' is for a training"):
        ft.triplet_seq(ft.index_rec(many), neighbors=running)
    with pytest.raises(ft.OptionError, match="refresh_epochs goes with neighbors='running'"):
        ft.Feed(many, model="pixels", refresh_epochs=2)
    with pytest.raises(ft.OptionError, match="refresh_epochs must be a whole number >= 1, not 0"):
        ft.Feed(many, model="pixels", neighbors="running", refresh_epochs=0)
    more: dict[str, Any] = {"refresh_epochs": 1}
    with pytest.raises(TypeError, match=r"mine_rec\(\) has no option 'refresh_epochs'"):
        ft.mine_rec(many, model="pixels", **more)
    out = tmp_path / "t.parquet"
    assert main(["mine", "--rec", str(many), "--out", str(out), "--neighbors", "running"]) == 2
    said = capsys.readouterr().err
    assert "--neighbors must be an identity graph: 'running' is for a training" in " ".join(said.split())
    assert [*tmp_path.iterdir()] == []
