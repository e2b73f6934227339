"""`export`: the bytes of records as files, with names that say what they are."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

import fasttriplet as ft
from tests.auditing.findings import suspects, write_suspects
from tests.small_rec import identities, picture, random_table, write_rec


def of(key: int, images: int = 6) -> bytes:
    return picture(1000 * ((key - 1) // images) + key)


def written(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_keys_become_files(rec: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    out = tmp_path / "new" / "pictures"
    done = ft.export(rec, out, keys=[5, 72, 1, 5], progress=lambda *now: calls.append(now))
    assert done == ft.Exported(out, 3)
    assert written(out) == {"5.jpg": of(5), "72.jpg": of(72), "1.jpg": of(1)}
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert ft.export(rec, tmp_path / "two", keys=range(10, 20), first=2).pictures == 2
    assert {*written(tmp_path / "two")} == {"10.jpg", "11.jpg"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["pictures"]


def test_the_ending_is_that_of_the_format(tmp_path: Path) -> None:
    contents = {}
    for kind in ("png", "gif", "webp", "bmp"):
        file = io.BytesIO()
        Image.new("RGB", (4, 4)).save(file, kind)
        contents[kind] = file.getvalue()
    contents["bin"] = b"no image at all"
    with ft.RecordWriter(tmp_path / "a.rec") as writer:
        for key, content in enumerate(contents.values()):
            writer.write(key, ft.IRHeader(0, 0.0, key, 0), content)
    ft.export(tmp_path / "a.rec", tmp_path / "out", keys=range(5))
    assert written(tmp_path / "out") == {
        f"{key}.{ending}": content for key, (ending, content) in enumerate(contents.items())
    }


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "ndjson", "arrow", "feather"])
def test_triplets_become_folders(rec: Path, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"t.{ending}"
    table = ft.mine_rec(rec, model=random_table(), out=file, bag_size=24).triplets.collect()
    done = ft.export(rec, tmp_path / "out", triplets=file, first=4)
    expected = {
        f"{row:06}/{role}-{triplet[f'{role}_key']}.jpg": of(triplet[f"{role}_key"])
        for row, triplet in enumerate(table.head(4).iter_rows(named=True))
        for role in ("anchor", "positive", "negative")
    }
    assert written(tmp_path / "out") == expected
    assert done.pictures == len(expected) == 12
    ft.export(rec, tmp_path / "frame", triplets=table, first=4)
    assert written(tmp_path / "frame") == expected
    assert ft.export(rec, tmp_path / "all", triplets=file).pictures == 3 * table.height


def test_pictures_of_several_files_say_which(rec: Path, tmp_path: Path) -> None:
    shards = [rec, write_rec(tmp_path / "b.rec", {1: 40, 2: 40})]
    table = pl.DataFrame({"anchor_key": [1], "positive_key": [2], "negative_key": [1]})
    table = table.with_columns(anchor_file=1, positive_file=1, negative_file=0)
    ft.export(shards, tmp_path / "out", triplets=table)
    assert written(tmp_path / "out") == {
        "000000/anchor-1-1.jpg": picture(40_001),
        "000000/positive-1-2.jpg": picture(40_002),
        "000000/negative-0-1.jpg": of(1),
    }
    with pytest.raises(ft.OptionError, match="keys must be of one file: the dataset has 2, and a key alone"):
        ft.export(shards, tmp_path / "none", keys=[1])
    with pytest.raises(ft.OptionError, match=r"does not have the keys 7 of file 1$"):
        ft.export(shards, tmp_path / "none", triplets=table.with_columns(anchor_key=7))
    with pytest.raises(ft.OptionError, match=r"does not have the keys 1 of file 1, 2 of file 1$"):
        ft.export(rec, tmp_path / "none", triplets=table)
    with pytest.raises(ft.OptionError, match="lacks anchor_file, positive_file, negative_file"):
        ft.export(shards, tmp_path / "none", triplets=table.drop("^.*_file$"))


def test_suspects_become_folders_with_their_evidence(rec: Path, tmp_path: Path) -> None:
    evidence: dict[str, Any] = {"evidence_keys": [9, 10], "evidence_files": [0, 0]}
    table = suspects(
        {"kind": "mislabelled", "key": 1, **evidence},
        {"finding": 1, "kind": "two-people", "key": 3, "evidence_keys": [4, 9], "evidence_files": [0, 0]},
        {"finding": 1, "kind": "two-people", "key": 4, **evidence},
        {"finding": 2, "kind": "bad-picture", "key": 72},
    )
    done = ft.export(rec, tmp_path / "out", suspects=table)
    expected = {
        "mislabelled/000000/suspect-1.jpg": of(1),
        "mislabelled/000000/evidence-9.jpg": of(9),
        "mislabelled/000000/evidence-10.jpg": of(10),
        "two-people/000001/suspect-3.jpg": of(3),
        "two-people/000001/suspect-4.jpg": of(4),
        "two-people/000001/evidence-9.jpg": of(9),
        "two-people/000001/evidence-10.jpg": of(10),
        "bad-picture/000002/suspect-72.jpg": of(72),
    }
    assert written(tmp_path / "out") == expected
    assert done.pictures == len(expected)
    table.write_parquet(tmp_path / "s.parquet")
    ft.export(rec, tmp_path / "first", suspects=tmp_path / "s.parquet", first=1)
    assert written(tmp_path / "first") == dict([*expected.items()][:3])


def test_what_cannot_be_exported(rec: Path, tmp_path: Path) -> None:
    def refuse(message: str, **options: Any) -> None:
        with pytest.raises(ft.OptionError, match=message):
            ft.export(rec, tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
        assert not [*tmp_path.glob(".*")]

    refuse("keys must be given, or triplets, or suspects: one of the three")
    refuse("keys must be given, or triplets, or suspects: one of the three", keys=[1], triplets="t.parquet")
    refuse(
        "keys must name images of the dataset, which does not have the keys 0, 73, 99$", keys=[0, 73, 1, 99]
    )
    refuse("which does not have the keys 73, 74, 75, 76, 77 and 23 more$", keys=range(1, 101))
    refuse("first must be a whole number >= 1", keys=[1], first=0)
    refuse(r"triplets must end in \.parquet, \.csv", triplets=tmp_path / "t.txt")
    refuse("triplets must have the columns anchor_key, .* and lacks anchor_key", triplets=pl.DataFrame())
    (tmp_path / "t.arrow").write_bytes(b"ARROW1 and then nothing")
    refuse("triplets cannot be read", triplets=tmp_path / "t.arrow")
    roles = ["anchor_key", "positive_key", "negative_key"]
    refuse("triplets cannot be read", triplets=pl.DataFrame({role: ["x"] for role in roles}))
    other = write_rec(tmp_path / "other.rec", identities(12, 5))
    ft.mine_rec(other, model=random_table(), out=tmp_path / "other.parquet")
    refuse("triplets must be of this dataset, and .* is of another one", triplets=tmp_path / "other.parquet")
    write_suspects(tmp_path / "s.parquet", other, {"kind": "outlier", "key": 1})
    refuse("suspects must be of this dataset, and .* is of another one", suspects=tmp_path / "s.parquet")
    for name in ("triplets", "suspects"):
        refuse(f"{name} must be a DataFrame of polars, not a LazyFrame of polars", **{name: pl.LazyFrame()})
        refuse(f"{name} must be a DataFrame of polars, not a int", **{name: 5})
    bad = suspects({"kind": "../../outlier", "key": 1})
    refuse("suspects: each kind must be one of", suspects=bad)
    refuse("suspects must have the columns .* and lacks evidence_keys", suspects=bad.drop("evidence_keys"))
    for name in ("t.csv", "none.parquet"):
        with pytest.raises(FileNotFoundError, match=name):
            ft.export(rec, tmp_path / "out", triplets=tmp_path / name)
    (tmp_path / "device.csv").symlink_to("/dev/null")
    with pytest.raises(OSError, match=r"a table of triplets.*device\.csv"):
        ft.export(rec, tmp_path / "out", triplets=tmp_path / "device.csv")


def test_nothing_is_overwritten_and_nothing_is_left(rec: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder"):
        with pytest.raises(FileExistsError, match="exists already; give the name of a new folder"):
            ft.export(rec, tmp_path / name, keys=[1])

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ft.export(rec, tmp_path / "new" / "out", keys=[1, 2, 3], progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
