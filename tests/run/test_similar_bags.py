"""Runs whose bags hold identities that are near each other."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from tests.cli.command import Capture
from tests.run.test_feed_state import same, stored
from tests.small_rec import random_table

OPTIONS: dict[str, Any] = {"bag_size": 24, "images_per_identity": 4, "epochs": 2, "band": "violating"}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the 12 identities those that differ by 3 are near each other."""
    table = pl.DataFrame({"label": np.arange(12), "neighbor_label": (np.arange(12) + 3) % 12, "rank": 0})
    path = tmp_path_factory.mktemp("graph") / "graph.parquet"
    table.write_parquet(path)
    return path


def groups_of_bags(found: pl.DataFrame) -> list[int]:
    """How many of the three groups of four identities each bag of triplets has."""
    label = pl.concat(
        [found.select("epoch", "bag", label=f"{role}_label") for role in ("anchor", "negative")]
    )
    each = label.group_by("epoch", "bag").agg((pl.col("label") % 3).n_unique())
    return each["label"].to_list()


def test_bags_hold_neighbors(rec: Path, graph: Path) -> None:
    model = random_table()
    uniform = ft.mine_rec(rec, model=model, **OPTIONS).triplets.collect()
    assert max(groups_of_bags(uniform)) == 3
    of_file = ft.mine_rec(rec, model=model, neighbors=graph, **OPTIONS)
    found = of_file.triplets.collect()
    # Of 12 identities of 4 images, 6 fill a bag: a group, and half of another one.
    assert groups_of_bags(found) == [2] * 4
    assert of_file.summary.identities_without_neighbors == 0
    assert of_file.summary.images == 2 * 48
    of_frame = ft.mine_rec(rec, model=model, neighbors=pl.read_parquet(graph), **OPTIONS).triplets.collect()
    assert of_frame.equals(found)


def test_triplets_say_by_which_graph_they_were_mined(rec: Path, graph: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = OPTIONS | {"model": random_table(), "overwrite": True}
    out, about = tmp_path / "t.parquet", []
    table = pl.read_parquet(graph)
    for neighbors in (graph, table[::-1], table[1:], None):
        ft.mine_rec(rec, out=out, neighbors=neighbors, **options)
        about.append(ft.read_metadata(out))
    digests = [one["neighbors"] for one in about]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 16
    assert len({*digests}) == 3
    assert digests[3] is None
    ft.mine_rec(rec, out=out, neighbors=graph, random_share=0.25, **options)
    assert ft.read_metadata(out)["options"]["random_share"] == 0.25


def test_what_is_excluded_or_not_in_the_graph(rec: Path, graph: Path) -> None:
    """A graph may name identities whose images are all excluded; others are counted."""
    gone = [*range(1, 7), 72]
    options: dict[str, Any] = OPTIONS | {"model": random_table(), "exclude": gone}
    found = ft.mine_rec(rec, neighbors=graph, **options)
    assert found.summary.identities == 11
    assert found.summary.identities_without_neighbors == 0
    part = pl.read_parquet(graph)[:2]  # 0 to 3, and 1 to 4
    assert ft.mine_rec(rec, neighbors=part, **options).summary.identities_without_neighbors == 8


def test_a_feed_is_resumed_with_the_same_graph(rec: Path, graph: Path) -> None:
    options: dict[str, Any] = OPTIONS | {"model": random_table(), "batch_size": 12, "random_share": 0.25}
    with ft.Feed(rec, neighbors=graph, **options) as feed:
        expected = list(feed)
    with ft.Feed(rec, neighbors=graph, **options) as feed:
        begun, state = list(islice(feed, 5)), stored(feed.state_dict())
    with ft.Feed(rec, neighbors=pl.read_parquet(graph), state=state, **options) as feed:
        rest = list(feed)
    assert len(begun + rest) == len(expected)
    assert all(map(same, begun + rest, expected))
    with pytest.raises(ft.OptionError, match=r"neighbors must be the same graph as before: .* had another"):
        ft.Feed(rec, neighbors=pl.read_parquet(graph)[1:], state=state, **options)
    with pytest.raises(
        ValueError, match=r"state is of a Feed with random_share 0\.25, and this one has 0\.5"
    ):
        ft.Feed(rec, neighbors=graph, state=state, **options | {"random_share": 0.5})
    with ft.Feed(rec, **options | {"random_share": 0.0}) as feed:
        state = stored(feed.state_dict())
    assert state["arguments"]["neighbors"] is None
    with pytest.raises(ft.OptionError, match=r"neighbors must not be given: .* had none"):
        ft.Feed(rec, neighbors=graph, state=state, **options | {"random_share": 0.0})


def test_a_state_from_before_there_were_graphs(rec: Path) -> None:
    options: dict[str, Any] = OPTIONS | {"model": random_table(), "batch_size": 12}
    with ft.Feed(rec, **options) as feed:
        next(feed)
        state = stored(feed.state_dict())
        rest = list(feed)
    for name in ("neighbors", "random_share"):
        del state["arguments"][name]
    with ft.Feed(rec, state=state, **options) as feed:
        assert all(map(same, rest, feed))


def test_each_epoch_may_have_a_graph_of_its_own(rec: Path, graph: Path) -> None:
    options: dict[str, Any] = {name: value for name, value in OPTIONS.items() if name != "epochs"}
    options |= {"model": random_table(), "batch_size": 12}
    other = pl.read_parquet(graph).with_columns(neighbor_label=(pl.col("label") + 4) % 12)
    bags: list[set[int]] = []
    graphs: list[tuple[Any, int]] = [(graph, 3), (other, 4)]
    for epoch, (neighbors, step) in enumerate(graphs):
        with ft.Feed(rec, first_epoch=epoch, neighbors=neighbors, **options) as feed:
            first = next(feed)
        assert (first.epoch, first.bag) == (epoch, 0)
        bags.append({int(label) % step for label in first.labels})
    assert [len(bag) for bag in bags] == [2, 2]


def test_graphs_that_do_not_fit(rec: Path, graph: Path, tmp_path: Path) -> None:
    def refuse(message: str, neighbors: Any) -> None:
        with pytest.raises(ft.OptionError, match=message):
            ft.mine_rec(rec, model=random_table(), neighbors=neighbors)

    other = tmp_path / "other.parquet"
    table = pl.read_parquet(graph)
    table.with_columns(pl.col("neighbor_label") + 100).write_parquet(other)
    refuse(
        rf"names 12 identities that it does not have of {other}: 100, 101, 102, 103, 104 and 7 more", other
    )
    table.write_parquet(other, metadata={"fasttriplet": '{"dataset": "0123456789abcdef"}'})
    refuse(rf"neighbors must be of this dataset, and {other} is of another one", other)
    other.write_bytes(b"PAR1 and no more")
    refuse(f"neighbors must be a Parquet file, and {other} cannot be read", other)
    with pytest.raises(FileNotFoundError):
        ft.mine_rec(rec, model=random_table(), neighbors=tmp_path / "none.parquet")


def test_the_command_line(rec: Path, graph: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "t.parquet"
    words = ["mine", "--rec", str(rec), "--out", str(out), "--bag-size", "24", "--images-per-identity", "4"]
    words += ["--band", "violating", "--neighbors", str(graph), "--random-share", "0.25"]
    assert main([*words, "--json"]) == 0
    expected = ft.mine_rec(rec, neighbors=graph, random_share=0.25, **OPTIONS | {"epochs": 1})
    assert pl.read_parquet(out).equals(expected.triplets.collect())
    assert json.loads(capsys.readouterr().out)["identities_without_neighbors"] == 0
    part = tmp_path / "part.parquet"
    pl.read_parquet(graph)[:1].write_parquet(part)
    assert main([*words, "--overwrite", "--neighbors", str(part)]) == 0
    assert "10 identities" in capsys.readouterr().out
    capsys.readouterr()
    assert (
        main(["mine", "--rec", str(rec), "--out", str(tmp_path / "u.parquet"), "--random-share", "0.5"]) == 2
    )
    assert "--random-share" in capsys.readouterr().err
