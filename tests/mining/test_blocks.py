"""Mining in blocks gives, to the last bit, what one call gives."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fasttriplet as ft
from fasttriplet import _core
from fasttriplet._metadata import as_parquet
from fasttriplet.mining._blocks import (
    AllRows,
    Part,
    bytes_of_row,
    collect,
    collect_between,
    finish,
    merge,
    most_rows,
    usual_memory,
)
from fasttriplet.mining._options import MiningOptions
from fasttriplet.mining._steps import Merger, Step, Steps
from tests.mining.defined import each_kind_of_values, rows
from tests.strategies import datasets, options


def ranges(cuts: list[int]) -> list[tuple[int, int]]:
    return list(pairwise(cuts))


def cuts_of(data: st.DataObject, n: int) -> list[int]:
    inner = data.draw(st.sets(st.integers(1, max(1, n - 1)), max_size=4))
    return sorted({0, n} | {cut for cut in inner if cut < n})


def numbered(labels: Any) -> Any:
    return np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int64)


def check_together(mined: list[ft.Triplets], whole: ft.Triplets) -> None:
    """Whether the triplets of all anchors' blocks together are those of one call, with its counts."""
    assert sorted(row for one in mined for row in rows(one)) == rows(whole)
    for count in ("pairs", "pairs_over_max_ap", "pairs_without_negative"):
        assert sum(getattr(one.stats, count) for one in mined) == getattr(whole.stats, count), count


@pytest.mark.heavy
@each_kind_of_values
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_split_gives_what_one_call_gives(values: st.SearchStrategy[Any], data: st.DataObject) -> None:
    dataset = data.draw(datasets(values, most=40).filter(lambda drawn: len(drawn["labels"]) > 0))
    wanted = data.draw(options())
    seed = wanted.pop("seed")
    n = len(dataset["labels"])
    ids = np.arange(n) if dataset["ids"] is None else np.array(dataset["ids"], dtype=np.int64)
    every = AllRows(dataset["embeddings"], numbered(dataset["labels"]), ids, "rows")
    mined = []
    for anchors in ranges(cuts_of(data, n)):
        blocks = ranges(cuts_of(data, n))
        parts = [collect(every, anchors, block, MiningOptions(**wanted), seed=seed) for block in blocks]
        parts = data.draw(st.permutations(parts))
        while len(parts) > 1:  # in any order, and any nesting
            taken = data.draw(st.integers(2, len(parts)))
            parts = data.draw(st.permutations([*parts[taken:], merge(parts[:taken])]))
        mined.append(finish(parts[0]))
    whole = ft.mine(dataset["embeddings"], dataset["labels"], ids=ids, seed=seed, **wanted)
    check_together(mined, whole)


@pytest.mark.heavy
@each_kind_of_values
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_blocks_of_identities_are_mined_for_each_other(
    values: st.SearchStrategy[Any], data: st.DataObject
) -> None:
    dataset = data.draw(datasets(values, most=40).filter(lambda drawn: len(drawn["labels"]) > 0))
    wanted = data.draw(options())
    seed = wanted.pop("seed")
    n = len(dataset["labels"])
    ids = np.arange(n) if dataset["ids"] is None else np.array(dataset["ids"], dtype=np.int64)
    labels = numbered(dataset["labels"])
    order = np.argsort(labels, kind="stable")  # pairs depend on the order of the rows of an identity
    every = AllRows(np.asarray(dataset["embeddings"])[order], labels[order], ids[order], "rows")
    edges = [0, *(np.flatnonzero(np.diff(labels[order])) + 1).tolist(), n]
    cuts = data.draw(st.sets(st.sampled_from(edges), max_size=3))
    blocks = ranges(sorted({0, n} | cuts))
    parts: dict[Any, list[Part]] = {block: [] for block in blocks}
    for i, block in enumerate(blocks):
        parts[block].append(collect(every, block, block, MiningOptions(**wanted), seed=seed))
        for other in blocks[i + 1 :]:
            here, there = collect_between(every, block, other, MiningOptions(**wanted), seed=seed)
            parts[block].append(here)
            parts[other].append(there)
    mined = []
    for of_block in parts.values():
        shuffled = data.draw(st.permutations(of_block))
        while len(shuffled) > 1:
            taken = data.draw(st.integers(2, len(shuffled)))
            shuffled = data.draw(st.permutations([*shuffled[taken:], merge(shuffled[:taken])]))
        mined.append(finish(shuffled[0]))
    whole = ft.mine(dataset["embeddings"], dataset["labels"], ids=ids, seed=seed, **wanted)
    check_together(mined, whole)


def some(n: int = 600, dim: int = 16) -> tuple[AllRows, dict[str, Any]]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, n // 5, n)
    embeddings = rng.normal(size=(n, dim)).astype(np.float32)
    ids = rng.permutation(n * 7)[:n].astype(np.int64)
    return AllRows(embeddings, labels, ids, "a"), {"embeddings": embeddings, "labels": labels, "ids": ids}


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"pick": "hardest", "negatives_per_pair": 3, "pairs": "ordered"},
        {"pick": "distance", "band": "any"},
        {"pick": "all", "margin": 0.02, "triplets_per_anchor": 5},
        {"ranks": (10, None), "band": "any"},
        {"ranks": (5, 20), "pick": "all", "band": "violating"},
        {"margin": 1e-5, "fallback": "farthest"},
    ],
)
def test_parts_go_through_files(tmp_path: Path, wanted: dict[str, Any]) -> None:
    every, dataset = some()
    found = []
    for anchors in ((0, 250), (250, 600)):
        paths = []
        for block in ((0, 100), (100, 333), (333, 600)):
            paths.append(tmp_path / f"{anchors[0]}-{block[0]}.parquet")
            collect(every, anchors, block, MiningOptions(**wanted), seed=3).save(paths[-1])
        first, second, third = map(Part.load, paths)
        merge([merge([third, first]), second]).save(paths[0])
        triplets = finish(Part.load(paths[0]))
        found += rows(triplets)
    assert sorted(found) == rows(ft.mine(**dataset, seed=3, **wanted)) != []


def test_a_part_is_small() -> None:
    every, dataset = some(3000)
    parts = [collect(every, (0, 3000), block, MiningOptions(), seed=0) for block in ((0, 1500), (1500, 3000))]
    assert len(merge(parts)) == len(ft.mine(**dataset))
    assert sum(map(len, parts)) <= 2 * len(ft.mine(**dataset))


def test_what_does_not_belong_together_is_not_merged(tmp_path: Path) -> None:
    every, _ = some()

    def part(
        anchors: tuple[int, int] = (0, 100),
        block: tuple[int, int] = (0, 300),
        of: AllRows = every,
        **wanted: Any,
    ) -> Part:
        seed = wanted.pop("seed", 0)
        return collect(of, anchors, block, MiningOptions(**wanted), seed=seed)

    rest = part(block=(300, 600))
    for other, message in (
        (part(margin=0.2), "parts of different options cannot be merged"),
        (part(seed=1), "parts of different seed cannot be merged: 0 and 1"),
        (part(of=replace(every, name="b")), "parts of different rows cannot be merged: a and b"),
        (part(anchors=(100, 200)), "parts of the anchors 0 to 99 and 100 to 199 cannot be merged"),
        (part(block=(0, 301)), "parts of overlapping blocks cannot be merged: both have the row 300"),
    ):
        with pytest.raises(ValueError, match=message):
            merge([rest, other])
    with pytest.raises(ValueError, match="the part is of the rows 300 to 599 of 600: collect the others"):
        finish(rest)
    with pytest.raises(ValueError, match="there are no parts"):
        merge([])
    for wrong in ((0, 0), (-1, 5), (5, 601)):
        message = f"from row {wrong[0]} to {wrong[1]} are not rows of 600$"
        with pytest.raises(ValueError, match=f"^block {message}"):
            part(block=wrong)
        with pytest.raises(ValueError, match=f"^anchors {message}"):
            part(anchors=wrong)
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "a.parquet", metadata=as_parquet({"kind": "suspects"}))
    pl.DataFrame({"a": [1]}).write_parquet(tmp_path / "b.parquet", metadata=as_parquet({}))
    for name, kind in (("a", "suspects"), ("b", "a table")):
        with pytest.raises(ValueError, match=rf"{name}\.parquet is {kind}, not a part of triplets$"):
            Part.load(tmp_path / f"{name}.parquet")
    part().save(tmp_path / "c.parquet")
    whole = (tmp_path / "c.parquet").read_bytes()
    (tmp_path / "c.parquet").write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(ValueError, match=r"c\.parquet is a damaged Parquet file: "):
        Part.load(tmp_path / "c.parquet")
    table = tmp_path / "t.parquet"
    table.write_bytes(b"PAR1 and more")
    with pytest.raises(ValueError, match="damaged Parquet"):
        Part.load(table)


def in_order(n: int = 40, each: int = 4) -> AllRows:
    """Rows in the order of their labels."""
    rng = np.random.default_rng(0)
    return AllRows(rng.normal(size=(n, 6)).astype(np.float32), np.arange(n) // each, np.arange(n), "a")


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ((0, 8), (8, 41), "a block from row 8 to 41 is not of 40 rows"),
        ((-1, 8), (8, 40), "a block from row -1 to 8 is not of 40 rows"),
        ((8, 8), (8, 40), "a block from row 8 to 8 is not of 40 rows"),
        ((0, 9), (12, 40), "blocks must hold whole identities, and row 9 is within one"),
        ((0, 8), (11, 40), "blocks must hold whole identities, and row 11 is within one"),
        ((0, 8), (12, 39), "blocks must hold whole identities, and row 39 is within one"),
        ((8, 40), (0, 8), "the block 8 to 39 must have smaller labels than the block 0 to 7"),
        ((0, 8), (0, 8), "the block 0 to 7 must have smaller labels than the block 0 to 7"),
    ],
)
def test_blocks_that_are_not_mined_with_each_other(
    one: tuple[int, int], other: tuple[int, int], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        collect_between(in_order(), one, other, MiningOptions(), seed=0)


def test_blocks_are_in_the_order_of_labels() -> None:
    every = in_order()
    labels = every.labels.copy()
    labels[[9, 10]] = [7, 1]  # within a block whose ends are right
    with pytest.raises(ValueError, match=r"^rows must be in the order of their labels$"):
        collect_between(replace(every, labels=labels), (0, 8), (8, 40), MiningOptions(), seed=0)
    two = collect_between(every, (0, 8), (8, 40), MiningOptions(), seed=0)
    assert [part.blocks for part in two] == [((8, 40),), ((0, 8),)]
    with pytest.raises(
        ValueError, match=r"^the part is of the rows 8 to 39 of 40: collect the others, and merge them$"
    ):
        finish(two[0])
    # All other blocks, but not the anchors' own.
    one = replace(two[0], blocks=((0, 40),))
    with pytest.raises(
        ValueError, match="collected between blocks alone: merge it with that of the anchors'"
    ):
        finish(one)


def test_parts_between_blocks_are_merged_in_any_order() -> None:
    every = in_order()
    blocks = ((0, 8), (8, 20), (20, 40))
    own = collect(every, blocks[0], blocks[0], MiningOptions(), seed=0)
    others = [collect_between(every, blocks[0], block, MiningOptions(), seed=0)[0] for block in blocks[1:]]
    between = merge(others)
    assert between.blocks == ((8, 40),)
    assert between.counts[:3] == (None, None, None)
    for parts in ([own, *others], [*others, own], [between, own], [own, between]):
        merged = merge(parts)
        assert merged.blocks == ((0, 40),)
        found = finish(merged)
        embeddings: Any = every.embeddings
        whole = ft.mine(embeddings, every.labels)
        assert rows(found) == [row for row in rows(whole) if row[0] < 8]
        assert found.stats.pairs == 2 * 6
        work = [sum(part.counts[at] for part in (own, *others)) for at in (3, 4)]  # type: ignore[misc]
        assert [found.stats.pairs_screened, found.stats.exact_distances] == work
        assert 0 <= found.stats.seconds < 5


def test_anchors_that_are_the_block_and_not_whole_identities() -> None:
    every, dataset = some()
    blocks = ((0, 200), (200, 600))
    found = []
    for anchors in blocks:
        parts = [collect(every, anchors, block, MiningOptions(), seed=0) for block in blocks]
        found += rows(finish(merge(parts)))
    assert sorted(found) == rows(ft.mine(**dataset))


def test_what_two_blocks_take_is_what_the_memory_lets_them() -> None:
    """By default 2 bytes for each number of all rows, but at least 256 MB."""
    assert usual_memory((10**6, 512)) == 2 * 512 * 10**6
    assert usual_memory((10**5, 512)) == usual_memory((2, 3)) == 2**28
    for columns in (1, 512):
        each = bytes_of_row(columns)
        assert each >= 2 * 4 * columns  # at least their numbers
        for block in (2, 3, 1000):
            assert most_rows((10**6, columns), block * each) == block
            assert most_rows((10**6, columns), block * each + each - 1) == block
        assert most_rows((10**6, columns), 1) == 2
        assert most_rows((10**6, columns), None) == usual_memory((10**6, columns)) // each


def test_threads_are_as_many_as_are_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    used: dict[str, list[int | None]] = {"collect": [], "merge": [], "finish": []}

    def noted(name: str) -> Any:
        function = getattr(_core, name)

        def call(*arguments: Any) -> Any:
            used[name].append(arguments[-1])
            return function(*arguments)

        return call

    for name in used:
        monkeypatch.setattr(_core, name, noted(name))
    every = in_order()
    steps = Steps(every, ((0, 8), (8, 40)), MiningOptions(), 0, tmp_path)
    for threads in (2, 3, None):
        for job in (Step(0, 0), Step(0, 1), Step(1, 1), Merger(0, 0, 2), Merger(1, 0, 2)):
            steps.do(job, threads=threads)
        assert used == {"collect": [threads] * 3, "merge": [threads] * 2, "finish": [threads] * 2}
        for calls in used.values():
            calls.clear()
