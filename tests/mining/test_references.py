"""Mining against a second set equals the float64 definition, and mining alone where both sets are one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fasttriplet as ft
from fasttriplet import _core
from tests.mining.defined import assert_defined, each_kind_of_values, rows
from tests.processes import megabytes_more
from tests.strategies import (
    BANDS,
    METRICS,
    PAIRS,
    PICKS,
    datasets,
    datasets_with_references,
    grid_values,
    options,
)


@each_kind_of_values
@settings(max_examples=150, deadline=None)
@given(data=st.data(), threads=st.integers(1, 4))
def test_equals_the_definition(values: st.SearchStrategy[Any], data: st.DataObject, threads: int) -> None:
    assert_defined(**data.draw(datasets_with_references(values)), **data.draw(options()), threads=threads)


def gallery(
    n: int, m: int, dim: int, *, identities: int, spread: float = 1.6, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """N embeddings and M references around the same centres, in any order, labelled 0 .. identities + 1.

    The last identity but one has embeddings only, the last has references only.
    """
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(identities + 2, dim))
    labels = rng.integers(0, identities + 1, n)
    reference_labels = rng.integers(0, identities + 1, m)
    reference_labels[reference_labels == identities] = identities + 1
    return {
        "embeddings": (centres[labels] + spread * rng.normal(size=(n, dim))).astype(np.float32),
        "labels": labels,
        "references": (centres[reference_labels] + spread * rng.normal(size=(m, dim))).astype(np.float32),
        "reference_labels": reference_labels,
    }


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("pick", PICKS)
@pytest.mark.parametrize("band", BANDS)
def test_every_combination_on_enough_rows_to_fill_tiles(band: str, pick: str, pairs: str) -> None:
    """More anchors than a block has, more references than panels and tries; half of the ids in both sets."""
    case = BANDS.index(band) * 12 + PICKS.index(pick) * 4 + PAIRS.index(pairs)
    sets: dict[str, Any] = gallery(150, 130, 70, identities=45, seed=case)
    shared = 65  # the first of the references are embeddings again
    sets["references"][:shared] = sets["embeddings"][:shared]
    sets["reference_labels"][:shared] = sets["labels"][:shared]
    ids = np.random.default_rng(case).permutation(1000)
    sets |= {"ids": ids[:150], "reference_ids": np.concatenate([ids[:shared], ids[150 : 280 - shared]])}
    # A third of the pairs are within max_ap; the last distance is on the scale of each metric.
    wanted: dict[str, Any] = {
        "band": band, "pick": pick, "pairs": pairs, "negatives_per_pair": 1 + case % 3, "seed": case,
    }  # fmt: skip
    metric = METRICS[case % 3]
    scale = {"sqeuclidean": (0.2, 1.5), "euclidean": (0.09, 1.22), "cosine": (0.1, 0.75)}[metric]
    wanted |= {"metric": metric, "margin": scale[0], "max_ap": scale[1]}
    assert assert_defined(**sets, **wanted) > 0


@pytest.mark.parametrize(
    ("n", "m"),
    [(1, 97), (97, 1), (2, 2), (31, 33), (33, 95), (95, 31), (96, 32), (97, 129), (193, 65), (200, 31)],
)
def test_numbers_of_rows_that_fill_no_tile(n: int, m: int) -> None:
    for pick in PICKS:
        sets = gallery(n, m, 24, identities=min(n, m, 12), seed=n * m)
        assert_defined(**sets, pick=pick, pairs="hardest", band="violating", margin=0.05)
        assert_defined(**sets, pick=pick, margin=0.02, max_ap=1.4, metric="cosine")


@each_kind_of_values
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_set_against_itself_is_the_set_alone(values: st.SearchStrategy[Any], data: st.DataObject) -> None:
    dataset = data.draw(datasets(values))
    embeddings, labels = dataset["embeddings"], dataset["labels"]
    ids = range(len(labels)) if dataset["ids"] is None else dataset["ids"]
    wanted = data.draw(options())
    same: dict[str, Any] = {
        "references": embeddings, "reference_labels": labels, "ids": ids, "reference_ids": ids,
    }  # fmt: skip
    pairs = "ordered" if wanted["pairs"] == "unordered" else wanted["pairs"]
    alone = ft.mine(embeddings, labels, ids=ids, **(wanted | {"pairs": pairs}))
    assert rows(ft.mine(embeddings, labels, **same, **wanted)) == rows(alone)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_order_of_rows_changes_nothing(data: st.DataObject) -> None:
    sets = data.draw(datasets_with_references(grid_values, most=30).filter(lambda d: d["ids"] is not None))
    wanted = data.draw(options())
    moved: dict[str, Any] = {}
    for names in (("embeddings", "labels", "ids"), ("references", "reference_labels", "reference_ids")):
        order = data.draw(st.permutations(range(len(sets[names[0]]))))
        moved[names[0]] = sets[names[0]][np.array(order, dtype=np.int64)]
        moved |= {name: [sets[name][row] for row in order] for name in names[1:]}
    assert rows(ft.mine(**moved, **wanted)) == rows(ft.mine(**sets, **wanted))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), pick=st.sampled_from(PICKS))
def test_unordered_and_ordered_pairs_are_the_same(data: st.DataObject, pick: str) -> None:
    sets = data.draw(datasets_with_references(grid_values))
    wanted: dict[str, Any] = {"band": "any", "pick": pick}
    unordered = ft.mine(**sets, **wanted, pairs="unordered")
    assert rows(unordered) == rows(ft.mine(**sets, **wanted, pairs="ordered"))


@pytest.mark.parametrize("metric", METRICS)
def test_threads_and_instruction_sets_agree_at_size(metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sets: dict[str, Any] = gallery(1500, 2100, 64, identities=500, spread=0.8)
    for pick in ("random", "hardest"):
        results = []
        for name in _core.instruction_sets():
            monkeypatch.setenv("FASTTRIPLET_ISA", name)
            results += [
                rows(ft.mine(**sets, pick=pick, metric=metric, margin=0.1, threads=threads))
                for threads in (1, 2, 4)
            ]
        assert len(results[0]) > 0
        assert all(other == results[0] for other in results[1:])


@pytest.mark.parametrize("pick", ["random", "hardest"])
@pytest.mark.parametrize("pairs", ["ordered", "hardest"])
def test_work_can_be_split_by_anchors(pairs: Any, pick: Any) -> None:
    """Parts of a set, each mined against the whole with its ids, are together the set mined alone."""
    sets = gallery(1000, 0, 32, identities=250, spread=0.8)
    embeddings, labels, ids = sets["embeddings"], sets["labels"], np.arange(1000) * 7 - 1500
    whole = ft.mine(embeddings, labels, ids=ids, pairs=pairs, pick=pick)
    parts = []
    for part in (slice(0, 1), slice(1, 301), slice(301, 1000)):
        mined = ft.mine(
            embeddings[part], labels[part], ids=ids[part], pairs=pairs, pick=pick,
            references=embeddings, reference_labels=labels, reference_ids=ids,
        )  # fmt: skip
        parts += rows(mined)
    assert len(whole) > 0
    assert parts == rows(whole)


def test_conditions_and_counts_hold_at_size() -> None:
    """Recomputed with plain NumPy: too many rows for the reference, not for the definition."""
    sets: dict[str, Any] = gallery(1500, 2000, 64, identities=500, spread=0.9)
    labels, reference_labels = sets["labels"], sets["reference_labels"]
    wide = [sets[name].astype(np.float64) for name in ("embeddings", "references")]
    unit = [(w / np.linalg.norm(w, axis=1, keepdims=True)).astype(np.float32).astype(float) for w in wide]
    distances = (unit[0] ** 2).sum(1)[:, None] + (unit[1] ** 2).sum(1) - 2 * unit[0] @ unit[1].T
    triplets = ft.mine(**sets, margin=0.1, max_ap=1.2)
    a, p, n = triplets
    assert (labels[a] == reference_labels[p]).all()
    assert (labels[a] != reference_labels[n]).all()
    np.testing.assert_allclose(triplets.d_ap, distances[a, p], atol=1e-12)
    np.testing.assert_allclose(triplets.d_an, distances[a, n], atol=1e-12)
    assert ((triplets.d_ap < triplets.d_an) & (triplets.d_an < triplets.d_ap + 0.1)).all()
    same = labels[:, None] == reference_labels
    with_negative = 0
    for i, j in np.argwhere(same & (distances <= 1.2)):
        d_an = distances[i][~same[i]]
        with_negative += bool(np.any((d_an > distances[i, j]) & (d_an < distances[i, j] + 0.1)))
    assert 0 < len(triplets) == with_negative
    assert triplets.stats.pairs == (same & (distances <= 1.2)).sum()
    assert triplets.stats.pairs_over_max_ap == (same & (distances > 1.2)).sum() > 0
    assert triplets.stats.pairs_without_negative == triplets.stats.pairs - with_negative


@pytest.mark.parametrize(("n", "m"), [(200, 20000), (20000, 200), (10000, 10000)])
def test_memory_does_not_hold_a_matrix(n: int, m: int) -> None:
    """10,000 x 10,000: a float32 distance matrix would be 400 MB; the rows are 5 MB."""
    prepare = f"""
import numpy as np, fasttriplet as ft
e = np.random.default_rng(0).normal(size=({n + m}, 64)).astype(np.float32)
labels = np.arange(len(e))
def mine(a, b):
    sets = {{"references": e[-b:], "reference_labels": labels[:b] % 4000}}
    ft.mine(e[:a], labels[:a] % 100, pick="hardest", **sets)
mine(9, 9)
"""
    assert megabytes_more(prepare, f"mine({n}, {m})") < 100


def brute_force(sets: dict[str, Any]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which (anchor, reference) share a label, and their squared distances."""
    difference = sets["embeddings"].astype(np.float64)[:, None] - sets["references"].astype(np.float64)
    return sets["labels"][:, None] == sets["reference_labels"], (difference**2).sum(2)


@pytest.mark.parametrize("pairs", ["hardest", "easiest"])
def test_batch_hard_and_easy_positive_against_a_gallery(pairs: Any) -> None:
    sets: dict[str, Any] = gallery(50, 80, 16, identities=12)
    same, distances = brute_force(sets)
    positive = np.where(same, distances, -np.inf).argmax(1)
    if pairs == "easiest":
        positive = np.where(same, distances, np.inf).argmin(1)
    negative = np.where(same, np.inf, distances).argmin(1)
    anchor = np.flatnonzero(same.any(1))
    triplets = ft.mine(**sets, pairs=pairs, band="any", pick="hardest", normalize=False)
    assert 0 < len(anchor) < 50
    np.testing.assert_array_equal(triplets.anchor, anchor)
    np.testing.assert_array_equal(triplets.positive, positive[anchor])
    np.testing.assert_array_equal(triplets.negative, negative[anchor])
    np.testing.assert_allclose(triplets.d_ap, distances[anchor, positive[anchor]])
    np.testing.assert_allclose(triplets.d_an, distances[anchor, negative[anchor]])


def test_all_triplets_with_a_gallery() -> None:
    sets: dict[str, Any] = gallery(20, 30, 8, identities=6)
    same, distances = brute_force(sets)
    expected = np.argwhere(same[:, :, None] & ~same[:, None, :])
    triplets = ft.mine(**sets, band="any", pick="all", normalize=False)
    assert len(expected) > 0
    np.testing.assert_array_equal(np.stack(list(triplets), 1), expected)
    np.testing.assert_allclose(triplets.d_ap, distances[triplets.anchor, triplets.positive])
    np.testing.assert_allclose(triplets.d_an, distances[triplets.anchor, triplets.negative])


@pytest.mark.parametrize("count", [1, 5, 40, 1000])
def test_several_hard_negatives_of_a_gallery(count: int) -> None:
    """Also more of them than there are anchors, and than there are references."""
    sets: dict[str, Any] = gallery(12, 60, 8, identities=6)
    same, distances = brute_force(sets)
    expected = []
    for a, p in np.argwhere(same):
        nearest = np.where(same[a], np.inf, distances[a]).argsort()[: min(count, (~same[a]).sum())]
        expected += [(a, p, n) for n in sorted(nearest)]
    triplets = ft.mine(**sets, band="any", pick="hardest", negatives_per_pair=count, normalize=False)
    assert list(zip(*triplets, strict=True)) == expected


LINE = np.array([[0], [1], [3], [4]], dtype=np.float32)


def test_an_anchor_is_not_its_own_positive_where_ids_say_so() -> None:
    """Two identities on a line, mined against themselves without and with ids."""
    labels = ["ann", "ann", "bob", "bob"]
    wanted: dict[str, Any] = {
        "references": LINE, "reference_labels": labels, "pairs": "easiest", "band": "any", "pick": "hardest",
        "normalize": False,
    }  # fmt: skip
    without = ft.mine(LINE, labels, **wanted)
    assert rows(without) == [(0, 0, 2, 0, 9), (1, 1, 2, 0, 4), (2, 2, 1, 0, 4), (3, 3, 1, 0, 9)]
    ids = [7, -3, 5, 9]
    known = ft.mine(LINE, labels, ids=ids, reference_ids=ids, **wanted)
    assert rows(known) == [(-3, 7, 5, 1, 4), (5, 9, -3, 1, 4), (7, -3, 5, 1, 9), (9, 5, -3, 1, 9)]
    others = ft.mine(LINE, labels, ids=ids, reference_ids=[70, 30, 50, 90], **wanted)
    assert rows(others) == [(-3, 30, 50, 0, 4), (5, 50, 30, 0, 4), (7, 70, 50, 0, 9), (9, 90, 30, 0, 9)]


def test_ties_of_positives_go_to_the_smallest_reference_id() -> None:
    references = np.array([[1], [-1], [1], [5]], dtype=np.float32)
    for pairs in ("hardest", "easiest"):
        sets: dict[str, Any] = {
            "embeddings": np.zeros((1, 1), np.float32), "labels": [0],
            "references": references, "reference_labels": [0, 0, 0, 1],
            "pairs": pairs, "band": "any", "normalize": False,
        }  # fmt: skip
        assert rows(ft.mine(**sets)) == [(0, 0, 3, 1, 25)]
        assert rows(ft.mine(**sets, ids=[4], reference_ids=[3, 2, -9, 1])) == [(4, -9, 1, 1, 25)]


def test_positions_are_no_ids() -> None:
    """Without ids, row k of one set has nothing to do with row k of the other, nor have their labels."""
    triplets = ft.mine(
        LINE, [0, 0, 1, 1], references=LINE, reference_labels=[1, 0, 0, 1], band="any", pick="all"
    )
    expected = [
        (a, p, n) for a in range(4) for p in ((1, 2), (0, 3))[a // 2] for n in ((0, 3), (1, 2))[a // 2]
    ]
    assert list(zip(*triplets, strict=True)) == expected


@pytest.mark.parametrize(
    ("labels", "reference_labels"),
    [([], []), ([], [1, 2]), ([1, 2], []), ([1], [1]), ([1, 2], [3, 4]), ([1, 1], [1, 1]), (["a"], ["b"])],
    ids=str,
)
@pytest.mark.parametrize("with_ids", [False, True])
def test_nothing_to_mine(labels: list[Any], reference_labels: list[Any], with_ids: bool) -> None:
    triplets = ft.mine(
        np.ones((len(labels), 4), np.float32),
        labels,
        references=np.ones((len(reference_labels), 4), np.float32),
        reference_labels=reference_labels,
        ids=range(len(labels)) if with_ids else None,
        reference_ids=range(10, 10 + len(reference_labels)) if with_ids else None,
        band="any",
    )
    assert len(triplets) == 0
    assert all(len(column) == 0 for column in triplets)
    assert triplets.to_frame().columns == ["anchor", "positive", "negative", "d_ap", "d_an"]


def test_labels_of_any_kind() -> None:
    """A label is the same in both sets whatever arrays hold it, and however often each set has it."""
    sets: dict[str, Any] = gallery(40, 50, 8, identities=7)
    numbers, reference_numbers = sets.pop("labels"), sets.pop("reference_labels")
    expected = rows(ft.mine(**sets, labels=numbers, reference_labels=reference_numbers))
    assert expected
    integers: list[Any] = [
        np.int64, np.uint8, np.uint64, lambda n: n.tolist(), lambda n: np.array(n.tolist(), dtype=object),
    ]  # fmt: skip
    strings: list[Any] = [
        lambda n: [f"é{i}" for i in n], lambda n: np.array([f"é{i}" for i in n]),
        lambda n: np.array([f"é{i}" for i in n], dtype=object),
    ]  # fmt: skip
    for kinds in (integers, strings):
        for kind in kinds:
            for other in kinds:
                labels, reference_labels = kind(numbers), other(reference_numbers)
                assert rows(ft.mine(**sets, labels=labels, reference_labels=reference_labels)) == expected


def test_numbers_and_strings_are_different_labels() -> None:
    eye = np.eye(4, dtype=np.float32)
    mixed: list[Any] = [1, "1", "a", "a\0"]
    triplets = ft.mine(eye, mixed, references=eye, reference_labels=mixed, band="any", pick="all")
    assert list(zip(*triplets, strict=True)) == [(a, a, n) for a in range(4) for n in range(4) if n != a]


def test_floats_of_other_widths_and_strides() -> None:
    sets: dict[str, Any] = gallery(40, 50, 8, identities=7)
    references = sets.pop("references")
    expected = rows(ft.mine(**sets, references=references))
    assert expected
    for other in (
        references.astype(np.float64), np.asfortranarray(references), np.repeat(references, 2, axis=0)[::2],
    ):  # fmt: skip
        assert rows(ft.mine(**sets, references=other)) == expected


def naming(*words: str) -> str:
    """A pattern for messages that have all of these patterns, in any order."""
    return "(?s)" + "".join(f"(?=.*{word})" for word in words)


EYE = np.eye(4, dtype=np.float32)
GOOD: dict[str, Any] = {
    "embeddings": EYE, "labels": [0, 0, 1, 1], "references": EYE[:3], "reference_labels": [0, 0, 1],
}  # fmt: skip
MASKED: Any = np.ma.masked_equal([0, 0, 1], 1)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"references": None}, naming("reference_labels", "references")),
        ({"references": None, "reference_labels": None, "reference_ids": [1, 2, 3]}, "reference_ids"),
        ({"reference_labels": None}, "reference_labels"),
        ({"ids": [1, 2, 3, 4]}, "reference_ids"),
        ({"reference_ids": [1, 2, 3]}, naming("reference_ids", r"\bids\b")),
        ({"references": np.zeros(3, np.float32)}, naming("references", "2-D", r"\(3,\)")),
        ({"references": np.zeros((3, 0), np.float32)}, naming("references", r"\(3, 0\)")),
        ({"references": np.ones((3, 71), np.float32)}, naming(r"\b4\b", r"\b71\b", "references")),
        ({"embeddings": np.ones((4, 71), np.float32)}, naming(r"\b4\b", r"\b71\b", "references")),
        ({"references": EYE[:3].astype(int)}, naming("references", "floating point", "int64")),
        (
            {"references": np.array([[1, 0, 0, 0], [1, np.nan, 0, 0], [np.inf, 0, 0, 0]])},
            naming("references", "row 1, column 1", "nan"),
        ),
        (
            {"references": np.array([[1.0, 0, 0, 0], [0, 0, 0, 0], [-1e39, 0, 0, 0]])},
            naming("references", "float32", "row 2, column 0", r"-1e\+39"),
        ),
        ({"references": np.ma.masked_equal(EYE[:3], 1)}, naming("references", "masked")),  # type: ignore[no-untyped-call]
        ({"reference_labels": MASKED}, naming("reference_labels", "masked")),
        ({"reference_labels": [0, 0]}, naming("reference_labels", r"\(3,\)", r"\(2,\)")),
        ({"reference_labels": [[0], [0], [1]]}, naming("reference_labels", r"\(3,\)", r"\(3, 1\)")),
        ({"reference_labels": [0.5, 0, 1]}, naming("reference_labels", "integers or strings", "float64")),
        ({"reference_labels": [0, 0, None]}, naming("reference_labels", "row 2", "None")),
        ({"ids": [1, 2, 3], "reference_ids": [4, 5, 6]}, naming(r"\bids\b", r"\(4,\)", r"\(3,\)")),
        ({"ids": [1, 2, 3, 4], "reference_ids": [5, 6]}, naming("reference_ids", r"\(3,\)", r"\(2,\)")),
        ({"ids": [1, 2, 3, 4], "reference_ids": [5.0, 6, 7]}, naming("reference_ids", "integers", "float64")),
        (
            {"ids": [1, 2, 3, 4], "reference_ids": np.array([5, 6, 2**63], np.uint64)},
            naming("reference_ids", r"2\*\*63"),
        ),
        ({"ids": [5, 7, 5, 8], "reference_ids": [1, 2, 3]}, "rows 0 and 2.* the id 5"),
        ({"ids": [1, 2, 3, 4], "reference_ids": [57, 6, 57]}, naming("reference", "0 and 2", r"\b57\b")),
        (
            {"labels": [21, 21, 1, 1], "reference_labels": [21, 1, 34], "ids": [10, -77, 12, 13],
             "reference_ids": [10, 12, -77]},
            naming(r"-77\b", r"\b21\b", r"\b34\b"),
        ),
        (
            {"labels": ["ann", "ann", "bob", "bob"], "reference_labels": ["bob", "cleo", "bob"],
             "ids": [10, 11, 12, 13], "reference_ids": [13, 11, 12]},
            naming(r"\b11\b", "ann", "cleo"),
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ft.mine(**(GOOD | wrong))


def test_labels_of_one_dataset_have_a_type_in_common() -> None:
    embeddings = np.eye(4, dtype=np.float32)
    integers, texts = [1, 1, 2, 2], ["1", "1", "2", "2"]
    coded = [text.encode() for text in texts]
    mixed: list[Any] = [1, "1", 2, "2"]
    arrays = [np.array(labels) for labels in (integers, texts, coded)]
    for labels, others, said in (
        (coded, texts, "bytes and str"),
        (arrays[2], arrays[1], "bytes and str"),
        (integers, texts, "int and str"),
        (texts, arrays[0], "str and int"),
        (arrays[0].astype(np.uint8), arrays[1], "int and str"),
        (mixed, coded, "int or str and bytes"),
    ):
        message = f"^labels and reference_labels are {said}: no two of them would be equal$"
        with pytest.raises(ValueError, match=message):
            ft.mine(embeddings, labels, references=embeddings, reference_labels=others)
    for labels, others in ((integers, mixed), (texts, mixed), (texts, arrays[1]), (integers, arrays[0] > 1)):
        ft.mine(embeddings, labels, references=embeddings, reference_labels=others)
    assert len(ft.mine(embeddings[:0], [], references=embeddings, reference_labels=texts)) == 0
