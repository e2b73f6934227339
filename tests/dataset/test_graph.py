"""Bags of identities that are near each other, against a definition in plain Python."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fasttriplet as ft
from fasttriplet.dataset._graph import Graph
from tests.dataset.test_order import identity_index
from tests.small_rec import identities, write_rec


def plain_order(
    runs: list[tuple[int, int]], graph: dict[int, list[int]], size: int, boundary: str, share: float
) -> list[int]:
    """Labels in their new order; `runs` are labels and numbers of images in random order."""
    images = dict(runs)
    left = [label for label, _ in runs]
    near_at_most = math.floor(size * (1 - share))
    order: list[int] = []
    filled = 0

    def take(label: int) -> None:
        nonlocal filled
        left.remove(label)
        order.append(label)
        filled += images[label]

    def fits(label: int, most: int) -> bool:
        return filled < most if boundary == "split" else filled + images[label] <= most

    while left:
        walk = [left[0]]
        take(left[0])
        full = False
        for label in walk:  # which grows
            found = [other for other in graph.get(label, []) if other in left]
            for other in found:
                full = full or not fits(other, near_at_most)
                if not full:
                    take(other)
                    walk.append(other)
            if label == walk[-1] and left and not full and filled < near_at_most:
                full = not fits(left[0], near_at_most)
                if not full:
                    walk.append(left[0])
                    take(left[0])
            if full or filled >= near_at_most:
                break
        while left and fits(left[0], size):
            take(left[0])
        filled = filled % size if boundary == "split" else 0
    return order


def table(graph: dict[int, list[int]]) -> pl.DataFrame:
    rows = [(label, other, rank) for label, near in graph.items() for rank, other in enumerate(near)]
    names = ("label", "neighbor_label", "rank")
    return pl.DataFrame(rows, schema=dict.fromkeys(names, pl.Int64), orient="row")


@st.composite
def graphs(draw: st.DrawFn, labels: list[int]) -> dict[int, list[int]]:
    """Neighbors of some of the identities; not always the ones that name them, too."""
    found = {}
    for label in labels:
        others = [other for other in labels if other != label]
        if len(others) > 0 and draw(st.booleans()):
            found[label] = draw(st.lists(st.sampled_from(others), unique=True, max_size=4))
    return found


@settings(max_examples=300, deadline=None)
@given(
    data=st.data(),
    sizes=st.lists(st.integers(1, 6), max_size=25),
    of_epoch=st.tuples(st.integers(1, 6), st.integers(0, 2**64 - 1), st.integers(0, 50)),
    size=st.integers(1, 15),
    boundary=st.sampled_from(["keep", "split"]),
    share=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
)
def test_orders_are_those_of_the_definition(
    data: st.DataObject, sizes: list[int], of_epoch: tuple[int, int, int], size: int, **how: Any
) -> None:
    boundary, share = how["boundary"], how["share"]
    labels = [7 * number - 20 for number in range(len(sizes))]
    graph = data.draw(graphs(labels))
    rows = [label for label, count in zip(labels, sizes, strict=True) for _ in range(count)]
    index = pl.DataFrame(
        {"key": np.random.default_rng(len(rows)).permutation(len(rows)), "label": rows},
        schema={"key": pl.Int64, "label": pl.Int64},
    )
    index = index.sample(fraction=1, shuffle=True, seed=1)
    uniform = ft.triplet_seq(index, *of_epoch)
    found = ft.triplet_seq(
        index,
        *of_epoch,
        neighbors=table(graph),
        random_share=share,
        bag_size=size,
        boundary=boundary,
    )
    assert found.schema == uniform.schema
    # Nothing is lost or twice: each identity has the images, in the order, of the uniform order.
    by_label = {key: part.rows() for key, part in uniform.group_by("label", maintain_order=True)}
    runs = [(label, len(by_label[(label,)])) for label in dict.fromkeys(uniform["label"])]
    expected = plain_order(runs, graph, size, boundary, share)
    assert sorted(expected) == sorted(label for label, _ in runs)
    assert found.rows() == [row for label in expected for row in by_label[(label,)]]
    if share == 1:
        assert found.equals(uniform)


def circle(identities: int, k: int = 10) -> pl.DataFrame:
    """A graph in which identities of close numbers are near each other."""
    steps = [step * sign for step in range(1, k // 2 + 1) for sign in (1, -1)]
    return table({label: [(label + step) % identities for step in steps] for label in range(identities)})


def distance_to_next(bag: ft.Bag, identities: int) -> float:
    """Mean number of steps on the circle from an identity of the bag to the nearest other one of it."""
    labels = np.unique(bag.rows["label"].to_numpy())
    steps = np.diff(labels, append=labels[0] + identities)
    return float(np.minimum(steps, np.roll(steps, 1)).mean())


def test_bags_begin_with_an_identity_in_random_order_and_end_between_walks() -> None:
    graph, index = circle(300), identity_index(300, 5)
    seq = ft.triplet_seq(index, neighbors=graph, bag_size=100)
    first, *_ = found = list(ft.bags(seq, 100))
    assert [bag.rows.height for bag in found] == [100] * 15
    labels = first.rows["label"].unique().sort().to_numpy()
    assert len(labels) == 20
    start = int(first.rows["label"][0])
    assert start == ft.triplet_seq(index)["label"][0]
    around = {(start + step) % 300 for step in range(-10, 11)}
    assert len({*labels.tolist()} & around) == 20


def test_identities_of_a_bag_are_near_each_other_in_every_epoch() -> None:
    graph, index = circle(1000), identity_index(1000, 5)
    orders = set()
    for epoch in range(4):
        similar = ft.triplet_seq(index, seed=3, epoch=epoch, neighbors=graph, bag_size=200)
        uniform = ft.triplet_seq(index, seed=3, epoch=epoch)
        near, far = (
            np.mean([distance_to_next(bag, 1000) for bag in ft.bags(seq, 200)]) for seq in (similar, uniform)
        )
        assert near < 2
        assert far > 5 * near
        assert similar.sort("key").equals(uniform.sort("key"))
        orders.add(tuple(similar["key"]))
        assert similar.equals(
            ft.triplet_seq(index[::-1], seed=3, epoch=epoch, neighbors=graph[::-1], bag_size=200)
        )
    assert len(orders) == 4


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_share_of_each_bag_is_random(share: float) -> None:
    graph, index = circle(1000), identity_index(1000, 5)
    seq = ft.triplet_seq(index, neighbors=graph, bag_size=200, random_share=share)
    near = 40 - round(40 * share)
    for bag in [*ft.bags(seq, 200)][:5]:
        labels = bag.rows["label"][::5].to_numpy()
        assert len(labels) == 40
        from_start = np.abs((labels - labels[0] + 500) % 1000 - 500)
        assert (from_start[:near] < 120).all()
        assert from_start[near:].mean() > 150  # of random ones it is 250


def test_identities_that_the_graph_does_not_name_are_placed_at_random() -> None:
    index = identity_index(60, 5)
    graph = circle(40)
    seq = ft.triplet_seq(index, neighbors=graph, bag_size=50)
    assert sorted(seq["key"]) == list(range(300))
    assert Graph.of(graph, np.arange(60)).without(np.arange(60)) == 20


def test_the_tail_is_kept_or_dropped_as_in_any_order() -> None:
    index = identity_index(47, 5)
    seq = ft.triplet_seq(index, neighbors=circle(47), bag_size=50)
    assert [bag.rows.height for bag in ft.bags(seq, 50)] == [50] * 4 + [35]
    assert [bag.rows.height for bag in ft.bags(seq, 50, tail="drop")] == [50] * 4
    split = ft.triplet_seq(index, neighbors=circle(47), bag_size=48, boundary="split")
    assert [bag.rows.height for bag in ft.bags(split, 48, "split")] == [48] * 4 + [43]
    assert set(split["key"]) == set(seq["key"])


def test_orders_of_graphs_are_frozen() -> None:
    """Orders are a promise between versions: these values must not change."""
    seq = ft.triplet_seq(
        identity_index(12, 3), 2, 7, 1, neighbors=circle(12, 4), bag_size=8, random_share=0.3
    )
    assert seq["label"][::2].to_list() == [9, 10, 7, 0, 6, 5, 4, 2, 11, 1, 8, 3]


def test_a_graph_may_have_distances_copies_and_itself() -> None:
    index, graph = identity_index(30, 5), circle(30)
    expected = ft.triplet_seq(index, neighbors=graph, bag_size=40)
    again = graph.with_columns(rank=pl.col("rank") + 50)
    itself = pl.DataFrame({"label": [3], "neighbor_label": [3], "rank": [-1]})
    twice = pl.concat([again, graph, itself])
    assert ft.triplet_seq(index, neighbors=twice, bag_size=40).equals(expected)
    distances = graph.select("label", "neighbor_label", distance=pl.col("rank") / 10)
    assert ft.triplet_seq(index, neighbors=distances, bag_size=40).equals(expected)
    known = np.arange(30)
    assert Graph.of(twice, known).digest == Graph.of(distances, known).digest
    assert Graph.of(graph[1:], known).digest != Graph.of(graph, known).digest


def test_a_graph_of_embeddings_is_one() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(100), 4)
    rows = (rng.standard_normal((100, 8))[labels] + 0.1 * rng.standard_normal((400, 8))).astype(np.float32)
    graph = ft.neighbors(rows, labels, 10, of="identities").to_frame()
    index = pl.DataFrame({"key": np.arange(400), "label": labels})
    seq = ft.triplet_seq(index, neighbors=graph, bag_size=80)
    assert sorted(seq["key"]) == list(range(400))


@pytest.mark.parametrize(
    ("graph", "options", "message"),
    [
        (
            pl.DataFrame({"label": [1], "neighbor_label": [2]}),
            {},
            "must have the columns 'label', 'neighbor_label' and 'rank' or 'distance', and has label, neigh",
        ),
        (
            pl.DataFrame({"label": ["a"], "neighbor_label": [2], "rank": [0]}),
            {},
            "neighbors must have integers, and no nulls, in the column 'label', not String",
        ),
        (
            circle(5).with_columns(neighbor_label=pl.lit(None, dtype=pl.Int64)),
            {},
            "no nulls, in the column 'neighbor_label', not Int64 with nulls",
        ),
        (
            circle(5).with_columns(neighbor_label=pl.lit(2**63, dtype=pl.UInt64)),
            {},
            r"no nulls, in the column 'neighbor_label', not UInt64 from 2\^63 on",
        ),
        (
            pl.DataFrame({"row": [1], "neighbor": [0], "label": [1], "neighbor_label": [2], "rank": [0]}),
            {},
            "neighbors must be of identities, and rows have neighbors: give of='identities'",
        ),
        (
            table({1: [2, 77], 78: [3], 79: [1], 80: [1], 81: [1], 82: [1], 83: [1]}),
            {},
            "neighbors must be of this dataset, and names 7 identities that it does not have: "
            "77, 78, 79, 80, 81 and 2 more",
        ),
        (circle(5), {"random_share": 1.5}, "random_share must be a number from 0 to 1, not 1.5"),
        (None, {"random_share": 0.5}, "random_share goes with neighbors=FILE, an identity graph"),
        ([1, 2], {}, "neighbors must be a Parquet file or a frame, an identity graph, not "),
        (circle(5).lazy(), {}, "neighbors must be a DataFrame of polars, not a LazyFrame of polars"),
        ("graph.parquet", {}, r"neighbors must be a frame here: give polars.read_parquet\('graph.parquet'\)"),
        (circle(5), {"bag_size": 0}, "bag_size must be a whole number >= 1"),
        (circle(5), {"bag_size": None}, "bag_size must be a whole number >= 1, not None"),
    ],
)  # fmt: skip
def test_what_is_not_a_graph_is_named(graph: Any, options: Any, message: str) -> None:
    with pytest.raises(ft.OptionError, match=message):
        ft.triplet_seq(identity_index(50, 5), neighbors=graph, **options)


def test_the_digest_is_that_of_states_that_are_kept() -> None:
    """64 bits of BLAKE2b over 64-bit integers; a state of an older version names its graph by them."""
    graph = Graph.of_positions(np.array([3, 5, 9]), np.array([[1, 2], [0, -1], [-1, -1]]))
    assert graph.starts.tolist() == [0, 2, 3, 3]
    numbers = np.array([3, 5, 9, *graph.starts, 1, 2, 0], dtype="<i8")
    assert graph.digest == hashlib.blake2b(numbers.tobytes(), digest_size=8).hexdigest()
    as_int32 = Graph(graph.labels, graph.starts.astype(np.int32), graph.neighbors)
    assert as_int32.digest == graph.digest


def test_a_graph_of_a_dataset_is_a_frame_or_a_file(tmp_path: Path) -> None:
    dataset = ft.Dataset(write_rec(tmp_path / "a.rec", identities(5, 2)))
    frame = table({0: [1, 2], 3: [4]})
    path = tmp_path / "graph.parquet"
    frame.write_parquet(path)
    expected = Graph.of(frame, np.arange(5))
    assert expected.labels.tolist() == [0, 1, 2, 3, 4]
    for given_graph in (frame, path, str(path)):
        assert Graph.of_dataset(dataset, given_graph).digest == expected.digest
    text = frame.with_columns(rank=pl.lit("a"))
    wrong = {
        "must have the columns 'label', 'neighbor_label' and 'rank' or 'distance' of {}, and": frame[:, :1],
        "must be of identities, and rows have neighbors of {}: give": frame.with_columns(neighbor_key=1),
        "must have numbers, and no nulls, in the column 'rank' of {}, not String": text,
        "must be of this dataset, and names 1 identity that it does not have of {}: 9": table({9: [1]}),
    }
    for words, other in wrong.items():
        for where in ("", f" of {path}"):
            other.write_parquet(path)
            with pytest.raises(ft.OptionError) as caught:
                Graph.of_dataset(dataset, path if where else other)
            assert str(caught.value).startswith(f"neighbors {words.replace(' of {}', where)}")


def test_identities_that_a_graph_does_not_name() -> None:
    graph = Graph.of(table({5: [9]}), np.array([9, 5, 7]))
    assert (graph.labels.tolist(), graph.starts.tolist(), graph.neighbors.tolist()) == (
        [5, 9],
        [0, 1, 1],
        [1],
    )
    assert [graph.without(np.array(labels)) for labels in ([5], [7, 9, 1], [5, 9], [])] == [0, 2, 0, 0]
    nothing = Graph.of(table({}), np.array([9, 5, 7]))
    assert nothing.without(np.array([5, 9])) == 2
    assert nothing.starts.tolist() == [0]
    itself = Graph.of(table({5: [5]}), np.array([5]))
    assert itself.labels.tolist() == []


@pytest.mark.parametrize("name", ["label", "neighbor_label"])
def test_labels_of_a_graph_up_to_the_largest(name: str) -> None:
    known = np.array([1, 2**63 - 1])
    graph = pl.DataFrame({"label": [1], "neighbor_label": [1], "rank": [0.5]})
    large = graph.with_columns(pl.lit(2**63 - 1, pl.UInt64).alias(name))
    assert Graph.of(large, known).labels.tolist() == known.tolist()
    for dtype, said in ((pl.Float64, "Float64"), (pl.String, "String")):
        with pytest.raises(
            ft.OptionError, match=f"integers, and no nulls, in the column '{name}', not {said}$"
        ):
            Graph.of(graph.with_columns(pl.col(name).cast(dtype)), known)
    with pytest.raises(
        ft.OptionError, match="numbers, and no nulls, in the column 'rank', not Float64 with nu"
    ):
        Graph.of(graph.with_columns(rank=pl.lit(None, pl.Float64)), known)
