"""Embeddings tell which labels are wrong, whatever the order of the rows and whoever computes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import polars as pl
import pytest

from fasttriplet import _core
from fasttriplet.auditing._examine import Examined, examine
from fasttriplet.auditing._findings import IDENTITIES, SCHEMA, digest, numbered
from fasttriplet.auditing._frames import of_dataset, without_images
from fasttriplet.auditing._thresholds import LabelKeywords, LabelOptions
from fasttriplet.errors import OptionError
from tests.auditing.drawn import DIM, Drawn, draw, noisy


def examined(drawn: Drawn, **options: Any) -> Examined:
    return examine(drawn.embeddings, drawn.labels, drawn.keys, **options)


def of_kind(found: Examined, kind: str) -> pl.DataFrame:
    return found.suspects.filter(pl.col("kind") == kind)


def keys_of(found: Examined, kind: str) -> set[int]:
    return set(of_kind(found, kind)["key"].to_list())


def same(one: Examined, other: Examined) -> bool:
    tables = one.suspects.equals(other.suspects) and one.identities.equals(other.identities)
    return tables and one.thresholds == other.thresholds and one.notes == other.notes


@pytest.mark.parametrize("seed", [0, 1, 2, 5])
def test_each_kind_of_noise_is_found(seed: int) -> None:
    drawn, noise = noisy(seed)
    found = examined(drawn)
    person = dict(zip(drawn.keys.tolist(), drawn.person.tolist(), strict=True))
    rows = dict(zip(drawn.keys.tolist(), range(len(drawn.keys)), strict=True))
    two, one = of_kind(found, "two-people"), of_kind(found, "same-person")
    (new,) = two["suggested_label"].unique()

    assert keys_of(found, "mislabelled") == noise["moved"]
    new_person = {person[key] for key in two["key"].to_list()}
    for key, suggested in of_kind(found, "mislabelled").select("key", "suggested_label").iter_rows():
        others = (drawn.person == person[key]) & (np.arange(len(drawn.person)) != rows[key])
        assert suggested == (
            new if {person[key]} == new_person else np.bincount(drawn.labels[others]).argmax()
        )
    assert keys_of(found, "outlier") == noise["alone"]
    assert {*one["label"].to_list(), *one["suggested_label"].to_list()} == noise["split"]
    assert set(two["label"].to_list()) == noise["together"]
    assert len(new_person) == 1
    assert new == drawn.labels.max() + 1
    assert found.notes == []


def test_an_image_that_fits_nowhere_names_the_nearest_other_identity() -> None:
    """By the definition: cosines with the centres of all images that show a person."""
    drawn = draw(20, 12, noise=0.5)
    alone = np.arange(20) * 12  # one of each identity
    drawn.embeddings[alone] = np.random.default_rng(1).standard_normal((20, DIM))
    rows = drawn.embeddings.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    shown = np.setdiff1d(np.arange(len(rows)), alone)
    centres = np.stack([rows[shown[drawn.person[shown] == person]].sum(axis=0) for person in range(20)])
    cosines = rows[alone] @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
    own = cosines.diagonal().copy()
    np.fill_diagonal(cosines, -2)
    found = dict(of_kind(examined(drawn), "outlier").select("key", "reason").iter_rows())
    assert set(found) == set(drawn.keys[alone].tolist())
    nearest = cosines.argmax(axis=1)
    assert 0 in nearest
    for number, image in enumerate(alone):
        assert found[int(drawn.keys[image])] == (
            f"cosine {own[number]:.2f} with its own identity; "
            f"nearest other identity {nearest[number]}: {cosines[number].max():.2f}"
        )


def test_evidence_is_what_the_findings_are_about() -> None:
    drawn, _ = noisy()
    found = examined(drawn)
    rows = dict(zip(drawn.keys.tolist(), range(len(drawn.keys)), strict=True))
    unit = drawn.embeddings / np.linalg.norm(drawn.embeddings, axis=1, keepdims=True)
    assert found.suspects.schema == SCHEMA
    assert (found.suspects["evidence_keys"].list.len() == 5).all()
    for row in of_kind(found, "mislabelled").iter_rows(named=True):
        theirs = [rows[key] for key in row["evidence_keys"]]
        near = unit[theirs] @ unit[rows[row["key"]]]
        assert (np.diff(near) <= 1e-6).all()
        assert row["key"] not in row["evidence_keys"]
        assert f"identity {drawn.labels[theirs[0]]}," in row["reason"]
        assert row["action"] == "relabel"
        assert 0 < row["score"] <= 1
    for row in of_kind(found, "outlier").iter_rows(named=True):
        assert {drawn.labels[rows[key]] for key in row["evidence_keys"]} == {row["label"]}
        assert (row["action"], row["suggested_label"]) == ("drop", None)
    for row in of_kind(found, "same-person").iter_rows(named=True):
        assert {drawn.labels[rows[key]] for key in row["evidence_keys"]} == {row["suggested_label"]}


def test_identities_are_described() -> None:
    drawn, noise = noisy()
    found = examined(drawn)
    table = of_dataset(found.identities, found.suspects, drawn.labels)
    assert table.schema == IDENTITIES
    assert table["label"].to_list() == np.unique(drawn.labels).tolist()
    assert table["images"].to_list() == np.unique(drawn.labels, return_counts=True)[1].tolist()
    one, other = sorted(noise["split"])
    nearest = dict(table.select("label", "nearest_label").iter_rows())
    assert (nearest[one], nearest[other]) == (other, one)
    counts = dict(table.select("label", "findings").iter_rows())
    for label, rows in found.suspects.group_by("label"):
        assert counts[label[0]] == rows["finding"].n_unique()
    assert sum(count for count in counts.values()) == found.suspects.unique(["finding", "label"]).height
    assert table["spread"].is_between(0, 1).all()
    assert table["nearest_distance"].is_between(0, 4).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_rows_does_not_matter(seed: int) -> None:
    drawn, _ = noisy(seed)
    found = examined(drawn)
    order = np.random.default_rng(seed).permutation(len(drawn.keys))
    again = examined(drawn.at(order))
    assert same(found, again)
    assert np.array_equal(found.own[order], again.own)


def test_the_lengths_of_the_rows_do_not_matter() -> None:
    drawn, _ = noisy()
    lengths = 2.0 ** np.random.default_rng(0).integers(-60, 60, len(drawn.keys))
    longer = Drawn(
        (drawn.embeddings * lengths[:, None]).astype(np.float32), drawn.person, drawn.labels, drawn.keys
    )
    assert same(examined(drawn), examined(longer))


def test_threads_and_instruction_sets_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, _ = noisy()
    found = examined(drawn)
    for threads in (1, 3):
        assert same(found, examined(drawn, threads=threads))
    for name in _core.instruction_sets():
        monkeypatch.setenv("FASTTRIPLET_ISA", name)
        assert same(found, examined(drawn)), name


def test_what_numpy_and_blas_compute_with_does_not_matter() -> None:
    code = (
        "from tests.auditing.test_examine import answer; from tests.auditing.drawn import noisy; "
        "print(answer(noisy()[0]))"
    )
    older = {
        "OPENBLAS_CORETYPE": "Prescott",
        "OPENBLAS_NUM_THREADS": "1",
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX2 FMA3",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | older,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{answer(noisy()[0])}\n"


def answer(drawn: Drawn) -> str:
    """All that is found, in one line."""
    found = examined(drawn)
    return f"{digest(found.suspects)} {found.thresholds!r} {found.own.tobytes().hex()[-1000:]}"


def test_thresholds_that_are_given_again_decide_the_same() -> None:
    drawn, _ = noisy()
    found = examined(drawn)
    names = LabelOptions.names()
    given = LabelOptions(**{name: value for name, value in asdict(found.thresholds).items() if name in names})
    assert same(found, examined(drawn, options=given))


def test_thresholds_hardly_move_with_the_noise() -> None:
    """Of what they are calibrated from, a twentieth is wrong."""
    drawn = draw(60, 12, noise=0.8)
    clean = examined(drawn)
    assert clean.suspects.is_empty()
    rng = np.random.default_rng(0)
    moved = rng.permutation(len(drawn.keys))[: len(drawn.keys) // 20]
    drawn.labels[moved] = rng.permutation(60)[: len(moved)]
    noisy = examined(drawn)
    for name in ("lead", "own_below", "same_person_above", "two_people_below"):
        assert getattr(noisy.thresholds, name) == pytest.approx(getattr(clean.thresholds, name), abs=0.03), (
            name
        )


@pytest.mark.parametrize("share", [0.01, 0.2, 0.4])
def test_many_and_few_images_are_found(share: float) -> None:
    drawn = draw(60, 12, noise=0.8)
    rng = np.random.default_rng(1)
    moved = rng.permutation(len(drawn.keys))[: round(share * len(drawn.keys))]
    drawn.labels[moved] = (drawn.labels[moved] + rng.integers(1, 60, len(moved))) % 60
    found = keys_of(examined(drawn), "mislabelled")
    wrong = set(drawn.keys[moved].tolist())
    assert len(found & wrong) >= 0.99 * len(wrong)
    assert len(found - wrong) <= 0.01 * len(wrong)


def test_thresholds_can_be_given() -> None:
    drawn, noise = noisy()
    none = LabelOptions(lead=2, own_below=-1, same_person_above=2, two_people_below=-2)
    assert examined(drawn, options=none).suspects.is_empty()
    strict = examined(drawn, options=LabelOptions(own_below=0.5))
    assert keys_of(strict, "outlier") > noise["alone"]
    assert strict.thresholds.own_below == 0.5
    assert str(strict.thresholds).splitlines()[2] == "outlier: cosine with the own identity below 0.500"
    assert keys_of(examined(drawn, options=LabelOptions(lead=1.0)), "mislabelled") < noise["moved"]
    large = examined(drawn, options=LabelOptions(smallest_group=13))
    assert of_kind(large, "two-people").is_empty()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("own_below", "low", "own_below must be a number from -2 to 2, not 'low'"),
        ("lead", float("nan"), "lead must be a number from -2 to 2, not nan"),
        ("same_person_above", 3, "same_person_above must be a number from -2 to 2, not 3"),
        ("smallest_group", 1, "smallest_group must be a whole number >= 2, not 1"),
        ("smallest_group", True, "smallest_group must be a whole number >= 2, not True"),
    ],
)
def test_options_check_themselves(option: str, value: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        LabelOptions(**{option: value})


def test_keywords_are_the_options() -> None:
    assert get_type_hints(LabelKeywords) == get_type_hints(LabelOptions)


def test_images_without_embeddings_say_nothing() -> None:
    drawn, noise = noisy()
    found = examined(drawn)
    rng = np.random.default_rng(5)
    extra = rng.standard_normal((6, DIM)).astype(np.float32)
    extra[0], extra[1], extra[2, 3], extra[3, 0] = 0, np.nan, np.inf, -np.inf
    more = Drawn(
        np.concatenate([extra, drawn.embeddings]),
        np.concatenate([np.full(6, -1), drawn.person]),
        np.concatenate([drawn.labels[:6], drawn.labels]),
        np.concatenate([np.arange(6), drawn.keys]),
    )
    left_out = np.arange(len(more.keys)) < 6
    left_out[:4] = False
    again = examined(more, leave_out=left_out)
    assert same(found, again)
    assert np.isnan(again.own[:6]).all()
    assert keys_of(again, "outlier") == noise["alone"]


def test_groups_that_are_moved_are_mislabelled_images() -> None:
    """Four images of one person in another identity: they are a group, but not a new person."""
    drawn = draw(30, 12, noise=0.8)
    drawn.labels[:4] = 7
    found = examined(drawn)
    assert keys_of(found, "mislabelled") == set(drawn.keys[:4].tolist())
    assert set(of_kind(found, "mislabelled")["suggested_label"].to_list()) == {0}
    assert set(found.suspects["kind"]) == {"mislabelled"}


def test_a_large_part_that_is_another_identity_is_one_finding() -> None:
    """A third of an identity: not as many mislabelled images, but two people, of whom one is known."""
    drawn = draw(30, 24, noise=0.8)
    drawn.labels[np.flatnonzero(drawn.person == 5)[:12]] = 9
    found = examined(drawn)
    assert set(found.suspects["kind"]) == {"two-people"}
    assert set(found.suspects["suggested_label"].to_list()) == {5}
    assert keys_of(found, "two-people") == set(drawn.keys[drawn.person == 5][:12].tolist())
    assert "with the rest and is identity 5; " in found.suspects["reason"][0]


def test_three_people_in_one_and_three_labels_of_one() -> None:
    drawn = draw(40, 12, noise=0.8)
    drawn.labels[np.isin(drawn.person, (3, 4, 5))] = 3
    drawn.labels[drawn.person == 9] = np.repeat([9, 50, 51], [6, 3, 3])
    found = examined(drawn)
    two = of_kind(found, "two-people")
    assert two["finding"].n_unique() == 2
    assert set(two["suggested_label"].to_list()) == {52, 53}
    assert len(two) == 24
    one = of_kind(found, "same-person")
    assert dict(one.select("label", "suggested_label").iter_rows()) == {50: 9, 51: 9}
    assert len(one) == 6


def test_an_image_has_one_finding() -> None:
    for seed in range(4):
        found = examined(noisy(seed)[0])
        assert found.suspects["key"].is_unique().all()


def test_a_wrong_label_in_an_identity_of_two() -> None:
    """Neither of the two fits the other, but one of them fits elsewhere."""
    drawn = draw(60, 2, noise=0.6)
    drawn.labels[1] = 20  # now identity 0 has one image, and identity 20 three
    drawn.labels[5] = 0  # and identity 0 two, of different people
    found = examined(drawn)
    assert keys_of(found, "mislabelled") >= {int(drawn.keys[1])}
    kept = of_kind(found, "outlier").filter(pl.col("key") == drawn.keys[5])
    assert kept.is_empty() or kept["action"].item() == "keep"


@pytest.mark.parametrize(
    ("drawn", "note"),
    [
        (draw(1, 20), "20 images of one identity and none of another: there is nothing to compare with"),
        (draw(1, 1), "1 image of one identity and none of another"),
        (draw(1000, 1), "each of the 1,000 identities has one image, so nothing shows whether an image fits"),
        (draw(2, 5, noise=0.5), "thresholds calibrated from 2 identities are rough"),
        (draw(30, 10, noise=100), "so the embeddings say nothing about labels: does row i belong to image i"),
        (
            Drawn(np.ones((200, 8), np.float32), np.arange(200), np.arange(200) // 10, np.arange(200)),
            "the embeddings of different identities are nearly equal",
        ),
    ],
    ids=["one identity", "one image", "single images", "ten images", "noise", "equal"],
)
def test_what_shows_nothing_says_so(drawn: Drawn, note: str) -> None:
    found = examined(drawn)
    assert any(note in line for line in found.notes), found.notes
    assert found.suspects.is_empty()
    assert found.suspects.schema == SCHEMA
    assert found.identities["label"].to_list() == np.unique(drawn.labels).tolist()
    assert len(str(found.thresholds).splitlines()) == 5


@pytest.mark.parametrize(("identities", "rough"), [(9, True), (10, False)])
def test_thresholds_of_few_identities_are_rough(identities: int, rough: bool) -> None:
    notes = examined(draw(identities, 5, noise=0.5)).notes
    assert any(f"from {identities} identities are rough" in note for note in notes) == rough


def test_single_images_of_one_person_are_found() -> None:
    drawn = draw(1000, 1)
    drawn.embeddings[5] = drawn.embeddings[17] * 2 + 0.01
    found = examined(drawn)
    assert of_kind(found, "same-person")["label"].to_list() == [17]
    assert of_kind(found, "same-person")["suggested_label"].to_list() == [5]


def test_several_files_have_the_same_keys() -> None:
    drawn, noise = noisy()
    files = (drawn.labels % 2).astype(np.uint32)
    keys = np.empty_like(drawn.keys)
    for file in (0, 1):
        keys[files == file] = np.arange((files == file).sum())
    found = examine(drawn.embeddings, drawn.labels, keys, files)
    known = set(zip(files.tolist(), keys.tolist(), strict=True))
    rows = of_kind(found, "mislabelled")
    moved = np.isin(drawn.keys, list(noise["moved"]))
    expected = set(zip(files[moved].tolist(), keys[moved].tolist(), strict=True))
    assert set(rows.select("file", "key").iter_rows()) == expected
    for beside in zip(found.suspects["evidence_files"], found.suspects["evidence_keys"], strict=True):
        assert set(zip(*(column.to_list() for column in beside), strict=True)) <= known
    left = without_images(found.suspects, files[moved], keys[moved])
    assert set(left["kind"]) == {"outlier", "same-person", "two-people"}
    assert numbered([left])["finding"].max() == left["finding"].n_unique() - 1


def test_progress_and_mapped_embeddings(tmp_path: Path) -> None:
    drawn, _ = noisy()
    np.save(tmp_path / "e.npy", drawn.embeddings)
    mapped = np.load(tmp_path / "e.npy", mmap_mode="r")
    calls: list[tuple[str, int, int]] = []
    found = examine(mapped, drawn.labels, drawn.keys, progress=lambda *call: calls.append(call))
    assert same(found, examined(drawn))
    steps = list(dict.fromkeys(step for step, _, _ in calls))
    assert steps == [
        "dividing identities",
        "comparing identities",
        "comparing images",
        "gathering evidence",
    ]
    for step in steps:
        total = found.suspects["finding"].n_unique() if step == steps[-1] else len(drawn.keys)
        done = [call[1] for call in calls if call[0] == step]
        assert done == sorted(done)
        assert done[-1] == total
        assert {call[2] for call in calls if call[0] == step} == {total}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": np.zeros((4, 3))}, "embeddings must be .* float32, not float64 of the shape"),
        ({"embeddings": np.zeros(4, np.float32)}, "embeddings must be .* of the shape"),
        ({"embeddings": np.ones((4, 0), np.float32)}, r"embeddings must be .* of the shape \(4, 0\)"),
        ({"embeddings": np.zeros((4, 3), np.float32)}, "none of the 4 images has an embedding"),
        ({"embeddings": np.zeros((0, 3), np.float32)}, "labels must have the shape"),
        ({"labels": np.zeros(3, np.int64)}, "labels must have the shape"),
        ({"keys": np.zeros(5, np.int64)}, "keys must have the shape"),
        ({"leave_out": np.zeros(5, bool)}, "leave_out must have the shape"),
        ({"leave_out": np.ones(4, bool)}, "none of the 4 images has an embedding: each is left out"),
    ],
)
def test_arrays_that_do_not_fit_are_named(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "embeddings": np.ones((4, 3), np.float32),
        "labels": np.zeros(4, np.int64),
        "keys": np.arange(4),
        "leave_out": None,
    }
    with pytest.raises(ValueError, match=message):
        examine(**(given | change))
