"""Labels of several files: shared or separate, and when a warning says that they should be separate."""

from __future__ import annotations

import csv
import os
import pickle
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fasttriplet as ft
from tests.processes import run_python
from tests.small_rec import identities, picture, write_rec


def write_whole(path: Path, labels: Mapping[int, int]) -> Path:
    """InsightFace's layout: labels by key from 1 on, then an identity record for each label."""
    path.parent.mkdir(exist_ok=True)
    end, names = max(labels) + 1, sorted(set(labels.values()))
    with ft.RecordWriter(path) as writer:
        writer.write(0, ft.IRHeader(0, (end, end + len(names)), 0, 0), b"")
        for key, label in labels.items():
            writer.write(key, ft.IRHeader(0, float(label), key, 0), picture(1000 * label + key))
        for number, label in enumerate(names):
            keys = [key for key in labels if labels[key] == label]
            writer.write(end + number, ft.IRHeader(0, (min(keys), max(keys) + 1), 0, 0), b"")
    return path


def write_names(rec: Path, names: Sequence[str]) -> None:
    with rec.with_suffix(".identities.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("label", "folder", "images"), *((i, n, 3) for i, n in enumerate(names))])


def pack(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for image in range(3):
            pixels = np.random.default_rng([image, *name.encode()]).integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{image}.png")
    return ft.pack(folder, folder.with_suffix(".rec")).path


def doubts(rec: Any, **options: Any) -> list[str]:
    """The warnings of opening files."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ft.Dataset(rec, **options)
        ft.index_rec(rec, **options)
    calls = {line for *_, line in doubts.__code__.co_lines()}  # of the functions, in this one
    assert all(one.filename == __file__ and one.lineno in calls for one in caught)
    said = [str(one.message) for one in caught]
    assert said[: len(said) // 2] == said[len(said) // 2 :]
    return said[: len(said) // 2]


@pytest.fixture
def packed(tmp_path: Path) -> list[Path]:
    """Two folders of different people, packed one by one: both are numbered from 0."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    return [
        pack(tmp_path / "a" / "train", ["anna", "bela", "cleo"]),
        pack(tmp_path / "b" / "train", ["xena", "yves", "zoe"]),
    ]


def test_two_packed_folders_are_doubted_and_can_be_kept_apart(packed: list[Path]) -> None:
    (said,) = doubts(packed)
    assert f"label 0 is 'anna' in {packed[0]} and 'xena' in {packed[1]}, so different" in said
    assert "(labels with several names: 3, " in said
    assert "labels='separate' keeps the identities of each file apart; labels='shared' says" in said
    assert doubts(packed, labels="shared") == doubts(packed, labels="separate") == []
    dataset = ft.Dataset(packed, labels="separate")
    assert sorted(set(dataset.labels.tolist())) == list(range(6))
    assert dataset.label_shifts == (0, 3)
    in_files = dataset.labels - np.array(dataset.label_shifts)[dataset.files]
    assert in_files.tolist() == [dataset.read(row)[0].label for row in range(len(dataset))]
    assert dataset.index.equals(ft.index_rec(packed, labels="separate"))
    assert pickle.loads(pickle.dumps(dataset)).label_shifts == (0, 3)
    assert dataset.fingerprint != ft.Dataset(packed, labels="shared").fingerprint


def test_separate_labels_reach_triplets_batches_and_verification(packed: list[Path]) -> None:
    how: dict[str, Any] = {"band": "any", "labels": "separate"}
    found = ft.mine_rec(packed, **how).triplets.collect()
    assert (found["anchor_file"] == found["positive_file"]).all()
    assert set(found["anchor_label"]) == set(range(6))
    assert (
        not ft.mine_rec(packed, band="any", labels="shared")
        .triplets.collect()
        .select("anchor_label")
        .max()
        .item()
        > 2
    )
    with ft.Feed(packed, model="pixels", batch_size=6, **how) as feed:
        for batch in feed:
            files = (batch.ids >> 48).reshape(3, -1)
            assert (files[0] == files[1]).all()
            assert (batch.labels // 3 == batch.ids >> 48).all()
    with pytest.raises(ValueError, match="state is of another dataset"):
        ft.Feed(packed, model="pixels", batch_size=6, band="any", labels="shared", state=feed.state_dict())
    assert ft.verify_rec(packed, "pixels", labels="shared").genuine == 3 * 15
    assert ft.verify_rec(packed, "pixels", labels="separate").genuine == 6 * 3


def test_the_same_names_with_the_same_labels_are_one_dataset(packed: list[Path]) -> None:
    write_names(packed[1], ["anna", "bela", "cleo"])
    assert doubts(packed) == []


def test_pipes_beside_a_file_are_not_waited_for(packed: list[Path]) -> None:
    folder = packed[0].parent
    for path in (folder / "property", *(rec.with_suffix(".identities.csv") for rec in packed)):
        path.unlink()
        os.mkfifo(path)
    code = """
import sys, warnings
import fasttriplet as ft
warnings.simplefilter("ignore")
print(ft.index_rec(sys.argv[1:3]).height)
print(ft.pack(sys.argv[3], sys.argv[4]).property)
"""
    said = run_python(code, *packed, folder / "train", folder / "new.rec", timeout=30)
    assert said == "18\nNone\n"


def test_a_name_with_two_labels_is_named(packed: list[Path]) -> None:
    write_names(packed[1], ["xena", "anna", "zoe"])
    (said,) = doubts(packed)
    assert "'anna' is label 0 in" in said
    assert "pack all folders into one file" in said


def test_a_copy_is_told(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "a.rec", identities(3, 4))
    shutil.copy(rec, tmp_path / "b.rec")
    (said,) = doubts([rec, tmp_path / "b.rec"])
    assert "a.rec and" in said
    assert "are probably copies" in said
    (tmp_path / "c.rec").hardlink_to(rec)
    with pytest.raises(ft.OptionError, match=r"given twice \(also as .*a\.rec\)"):
        ft.index_rec([rec, tmp_path / "c.rec"])


def test_names_of_any_kind(tmp_path: Path) -> None:
    (tmp_path / "[1]*").mkdir()
    paths = [write_rec(tmp_path / "[1]*" / name, identities(3, 2)) for name in ("a.rec", "b.rec")]
    odd = ["Smith, Ann", 'Bob "B" \nx', "züri"]
    write_names(paths[0], odd)
    write_names(paths[1], [*odd[:2], "zürich"])
    (said,) = doubts(paths)
    assert "label 2 is 'züri' in" in said
    assert "(labels with several names: 1, " in said
    write_names(paths[1], odd)
    assert doubts(paths) == []


def test_names_that_are_not_in_utf8(packed: list[Path]) -> None:
    for path, last in zip(packed, (b"caf\xe9", b"fa\xe7ade"), strict=True):
        path.with_suffix(".identities.csv").write_bytes(b"label,folder\n0,a\n1,b\n2," + last + b"\n")
    (said,) = doubts(packed)
    assert "label 2 is 'caf\ufffd' in" in said
    assert "(labels with several names: 1, " in said


def test_names_that_are_not_those_of_the_file_are_ignored(packed: list[Path]) -> None:
    for content in [
        "",
        "label,folder\n",
        "label,folder\n0,anna\nx\n",
        "label,folder\n0\n",
        "a,b\n1,2\n",
        "\xff",
        "label,folder\n0,anna\n1,\n2,cleo\n",
        "label,folder\n0,anna\n1,anna\n2,cleo\n",
    ]:
        packed[1].with_suffix(".identities.csv").write_text(content, encoding="latin-1")
        assert "were probably numbered independently" in doubts(packed)[0]
    write_names(packed[1], ["xena", "yves", "zoe", "another"])
    assert "were probably numbered independently" in doubts(packed)[0]


def test_two_whole_datasets_are_doubted(tmp_path: Path) -> None:
    one = write_whole(tmp_path / "a" / "train.rec", identities(5, 3))
    other = write_whole(tmp_path / "b" / "train.rec", identities(5, 4))
    (said,) = doubts([one, other])
    assert "their labels are 0 to 4 and 0 to 4" in said
    assert "were probably numbered independently" in said
    # Shards in one folder, beside the property of the dataset.
    shard = write_whole(tmp_path / "a" / "more.rec", identities(5, 2))
    assert len(doubts([one, shard])) == 1
    shard.with_name("property").write_text("5,24,24\n")
    assert doubts([one, shard]) == []
    for content in (b"9,24,24\n", b"five,24,24\n", b"\xff5,24,24\n", b""):
        shard.with_name("property").write_bytes(content)
        assert len(doubts([one, shard])) == 1


def labels_of(first_key: int, *labels: int) -> dict[int, int]:
    return dict(enumerate(labels, start=first_key))


@pytest.mark.parametrize(
    ("shards", "doubted"),
    [
        pytest.param([identities(6, 2), identities(4, 2)], True, id="two lists, each from 0 on"),
        pytest.param([identities(6, 2), labels_of(1, 6, 6, 7, 8)], False, id="cut between identities"),
        pytest.param([labels_of(1, 0, 0, 1, 2), labels_of(1, 2, 3, 3)], False, id="cut in an identity"),
        pytest.param([labels_of(1, 0, 2, 4), labels_of(1, 1, 3, 5)], False, id="every other identity"),
        pytest.param([identities(6, 2), identities(6, 1)], False, id="images dealt out"),
        pytest.param([identities(6, 2), labels_of(1, 0, 2, 3)], False, id="images dealt out, one without"),
        pytest.param([identities(6, 2), identities(4, 2, 13)], False, id="training and validation by im2rec"),
        pytest.param([labels_of(1, 5, 6), identities(6, 2), labels_of(1, 0, 1, 2)], True, id="the last two"),
    ],
)  # fmt: skip
def test_shards_of_one_dataset_are_not_doubted(
    tmp_path: Path, shards: list[dict[int, int]], doubted: bool
) -> None:
    paths = [write_rec(tmp_path / f"{number}.rec", labels) for number, labels in enumerate(shards)]
    assert bool(doubts(paths)) == doubted
    assert doubts(paths, labels="shared") == doubts(paths[0]) == doubts(paths[:1]) == []


@pytest.mark.parametrize(
    ("shards", "shifts"),
    [
        ([[0, 1, 2], [0, 1], [0, 5]], (0, 3, 5)),
        ([[0, 1, 2], [3, 4]], (0, 0)),
        ([[7, 9], [1000, 1001], [-3, -1]], (0, -990, 15)),
        ([[-2, -1], [-2, 0]], (0, 2)),
    ],
)
def test_separate_labels_stay_small(tmp_path: Path, shards: list[list[int]], shifts: tuple[int, ...]) -> None:
    paths = [tmp_path / f"{number}.rec" for number in range(len(shards))]
    for path, labels in zip(paths, shards, strict=True):
        with ft.RecordWriter(path) as writer:
            for key, label in enumerate(labels):
                writer.write(key, ft.IRHeader(0, float(label), key, 0), b"image")
    dataset = ft.Dataset(paths, labels="separate")
    assert dataset.label_shifts == shifts
    assert len(set(dataset.labels.tolist())) == sum(map(len, shards))
    assert (np.diff(dataset.labels) > 0).all()


def test_separate_labels_that_float32_would_round_are_refused(tmp_path: Path) -> None:
    one = write_rec(tmp_path / "a.rec", labels_of(1, 0, 2**24 - 2))
    two = [write_rec(tmp_path / f"{n}.rec", labels_of(1, *range(5, 5 + n))) for n in (2, 3)]
    assert ft.Dataset([one, two[0]], labels="separate").labels.max() == 2**24
    with pytest.raises(
        ValueError, match=r"3\.rec, 5 to 7, would become 16777215 to 16777217, and labels above"
    ):
        ft.Dataset([one, two[1]], labels="separate")
    assert ft.Dataset(one, labels="separate").label_shifts == (0,)


def test_names_of_files_that_are_not_utf8(packed: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    os.rename(packed[1].parent, folder)  # noqa: PTH104
    (said,) = doubts([packed[0], folder / packed[1].name])
    assert f"label 0 is 'anna' in {packed[0]} and 'xena' in {folder / packed[1].name}, so different" in said


def test_a_ready_dataset_keeps_its_options(packed: list[Path], tmp_path: Path) -> None:
    dataset = ft.Dataset(packed, labels="separate", cache=tmp_path / "cache")
    how: dict[str, Any] = {"band": "any", "model": "pixels"}
    ready: list[dict[str, Any]] = [{}, {"labels": "separate"}, {"cache": str(tmp_path / "cache")}]
    for same in ready:
        assert ft.mine_rec(dataset, **how, **same).summary.identities == 6
    with pytest.raises(
        ValueError, match="labels must be 'separate', as the Dataset was made; give 'shared' to Dataset"
    ):
        ft.mine_rec(dataset, labels="shared", **how)
    with pytest.raises(ValueError, match="must be 'shared', as the Dataset was made"):
        ft.verify_rec(ft.Dataset(packed, labels="shared"), "pixels", labels="separate")
    with pytest.raises(ValueError, match=r"is indexed already; give False to Dataset\(\)"):
        ft.Feed(dataset, cache=False, **how)
    ft.mine_rec(ft.Dataset(packed[0]), labels="separate", **how)  # of one file there is nothing to keep apart


@pytest.mark.parametrize("call", [ft.index_rec, ft.Dataset, ft.mine_rec])
@pytest.mark.parametrize("options", [{"labels": "own"}, {"labels": True}, {"cache": 1}, {"cache": ""}])
def test_wrong_options_are_named(call: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        call("no.rec", **options)
