"""Which folders `pack` takes for identities, which files for pictures, and what it says of all else."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

import fasttriplet as ft
from fasttriplet import pack
from fasttriplet.dataset._packing._tree import natural
from tests.dataset.pictures import people, picture, save


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.rec"


def identities(out: Path) -> dict[str, int]:
    with out.with_suffix(".identities.csv").open(encoding="utf-8", errors="surrogateescape") as file:
        return {row["folder"]: int(row["images"]) for row in csv.DictReader(file)}


def listed(out: Path) -> dict[str, tuple[str, str]]:
    """What the list of problems says: the kind and the words for each path below the folder."""
    with out.with_suffix(".problems.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {
        str(Path(row["path"]).relative_to(out.parent / "people")): (row["kind"], row["problem"])
        for row in rows
    }
    assert len(found) == len(rows)
    return found


def refused(folder: Path, out: Path, **options: Any) -> str:
    before = {path: path.read_bytes() for path in out.parent.iterdir() if path.is_file()}
    with pytest.raises(ValueError) as error:
        pack(folder, out, **options)
    after = {path: path.read_bytes() for path in out.parent.iterdir() if path.is_file()}
    after.pop(out.with_suffix(".problems.csv"), None)
    assert after == before
    return str(error.value)


def test_natural_order() -> None:
    names = ["p10", "p2", "P3", "10", "9", "p02", "", "p2a", "p"]
    assert sorted(names, key=natural) == ["", "9", "10", "P3", "p", "p02", "p2", "p2a", "p10"]


def test_hidden_and_system_files_are_ignored(folder: Path, out: Path) -> None:
    pack(folder, out)
    before = out.read_bytes()
    for name in (".DS_Store", "Thumbs.db", "p1/desktop.ini", "p1/._x.jpg", "p2/Icon\r", "p2/THUMBS.DB"):
        (folder / name).write_bytes(b"x")
    for name in ("__MACOSX", "p1/@eaDir", ".git", "lost+found"):
        save(folder / name / "inside.jpg")
    done = pack(folder, out, overwrite=True)
    assert (done.ignored, done.skipped, done.problems) == (10, 0, None)
    assert out.read_bytes() == before


def spoil(folder: Path) -> dict[str, str]:
    """Put one of all that cannot be used into a folder; the kind of each."""
    save(folder / "stray.jpg")
    save(folder / "p1" / "deep" / "z.jpg")
    (folder / "p3").mkdir()
    (folder / "p4").mkdir()
    (folder / "p4" / ".hidden").write_bytes(b"")
    (folder / "p1" / "gone.jpg").symlink_to("nowhere")
    (folder / "p1" / "around").symlink_to(folder)
    (folder / "p1" / "itself.jpg").symlink_to("itself.jpg")
    os.mkfifo(folder / "p1" / "pipe.jpg")
    (folder / "readme.txt").write_text("hello")
    (folder / "p2" / "labels.csv").write_text("a,b")
    (folder / "p2" / "empty.jpg").write_bytes(b"")
    whole = (folder / "p1" / "x.jpg").read_bytes()
    (folder / "p2" / "cut.jpg").write_bytes(whole[:-40])
    png = save(folder / "p2" / "cut.png").read_bytes()
    (folder / "p2" / "cut.png").write_bytes(png[:60])
    bmp = save(folder / "p2" / "cut.bmp").read_bytes()
    (folder / "p2" / "cut.bmp").write_bytes(bmp[:60])
    save(folder / "p2" / "floats.tiff", Image.fromarray(np.zeros((12, 10), dtype=np.float32)))
    save(folder / "p2" / "size.png", picture((12, 11)))
    (folder / "p5").mkdir()
    (folder / "p5" / "only.jpg").write_bytes(b"bad")
    return {
        "stray.jpg": "depth",
        "readme.txt": "depth",
        "p1/deep": "depth",
        "p3": "empty",
        "p4": "empty",
        "p1/gone.jpg": "unreadable",
        "p1/around": "unreadable",
        "p1/itself.jpg": "unreadable",
        "p1/pipe.jpg": "unreadable",
        "p2/labels.csv": "format",
        "p2/floats.tiff": "format",
        "p5/only.jpg": "format",
        "p2/empty.jpg": "damaged",
        "p2/cut.jpg": "damaged",
        "p2/cut.png": "damaged",
        "p2/cut.bmp": "damaged",
        "p2/size.png": "size",
    }


def test_all_problems_are_listed_at_once(folder: Path, out: Path) -> None:
    expected = spoil(folder)
    message = refused(folder, out)
    assert message.startswith(
        "17 problems, nothing was written; on_error='skip' leaves out what cannot be used:\n"
    )
    for path in expected:
        assert f"    {folder / path}: " in message
    for words in (
        "stray.jpg: lies above the identities' folders",
        "p1/deep: is a folder in an identity's folder; expected FOLDER/identity/picture",
        "p3: has no pictures in it",
        "gone.jpg: is a broken link",
        "around: is a link to a folder that it lies in",
        "itself.jpg: cannot be read: Too many levels of symbolic links",
        "pipe.jpg: is neither a file nor a folder",
        "labels.csv: is not a picture",
        "floats.tiff: has pixels of Pillow's mode F",
        "empty.jpg: is an empty file",
        "cut.jpg: damaged JPEG: cut off, its end is missing",
        "cut.png: damaged PNG: cut off",
        "cut.bmp: cannot be decoded",
        "size.png: is 12 x 11, most are 12 x 10",
        "size=HxW brings all to one size",
        "see identity_depth",
    ):
        assert words in message
    assert not out.with_suffix(".problems.csv").exists()  # the message has them all


def test_what_cannot_be_used_is_left_out(folder: Path, out: Path, tmp_path: Path) -> None:
    pack(folder, tmp_path / "clean.rec")
    expected = spoil(folder)
    done = pack(folder, out, on_error="skip")
    assert out.read_bytes() == (tmp_path / "clean.rec").read_bytes()
    assert out.with_suffix(".idx").read_bytes() == (tmp_path / "clean.idx").read_bytes()
    assert identities(out) == {"p1": 2, "p2": 1, "p10": 3}
    assert (done.images, done.kept, done.encoded, done.skipped, done.ignored) == (6, 6, 0, 18, 1)
    assert done.problems == out.with_suffix(".problems.csv")
    found = listed(out)
    assert found.pop("p5") == ("empty", "has no pictures that can be used")
    assert {path: kind for path, (kind, _) in found.items()} == expected


def test_labels_have_no_gaps_where_identities_are_left_out(folder: Path, out: Path) -> None:
    (folder / "p2" / "a.jpg").write_bytes(b"bad")
    pack(folder, out, on_error="skip")
    assert identities(out) == {"p1": 2, "p10": 3}
    assert ft.index_rec(out, cache=False)["label"].to_list() == [0, 0, 1, 1, 1]
    assert ft.inspect_rec(out, cache=False).problems == ()
    file = ft.RecordFile(out)
    ranges = [file.read(key)[0].label for key in (0, 6, 7)]
    assert np.array_equal(np.stack(ranges), [[6, 8], [1, 3], [3, 6]])
    assert (out.with_name("property")).read_text() == "2,12,10\n"


def test_a_long_list_is_a_file(folder: Path, out: Path) -> None:
    for number in range(25):
        (folder / "p10" / f"bad{number}.jpg").write_bytes(b"bad")
        (folder / f"stray{number}.txt").write_bytes(b"")
    message = refused(folder, out)
    assert message.startswith("50 problems")
    assert message.count("... and 15 more") == 2
    assert message.endswith(f"The complete list is in {out.with_suffix('.problems.csv')}")
    assert len(listed(out)) == 50
    assert pack(folder, out, on_error="skip").skipped == 50  # the list of the run before is in nobody's way
    assert len(listed(out)) == 50
    for path in [*folder.glob("p10/bad*"), *folder.glob("stray*")]:
        path.unlink()
    assert pack(folder, out, overwrite=True).problems is None
    assert not out.with_suffix(".problems.csv").exists()


def test_nothing_is_left(folder: Path, out: Path) -> None:
    for path in folder.glob("*/*"):
        path.write_bytes(b"bad")
    message = refused(folder, out, on_error="skip")
    assert message.startswith("9 problems, nothing was written; no picture is left for out.rec:\n")
    for path in folder.glob("p1*/*"):
        save(path)
    assert pack(folder, out, on_error="skip").identities == 2
    for seed in range(10):  # one of the two files would have p2 alone
        again = out.with_name(f"{seed}.rec")
        try:
            pack(folder, again, on_error="skip", split=0.4, seed=seed)
        except ValueError as error:
            assert f"no picture is left for {seed}-val.rec" in str(error)
            assert not again.exists()
            break
    else:
        raise AssertionError


def test_one_odd_picture_at_the_start(folder: Path, out: Path) -> None:
    """Sizes are compared with that of most pictures, not with that of the first."""
    save(folder / "p1" / "0.jpg", picture((20, 20)))
    message = refused(folder, out)
    assert message.startswith("1 problem, ")
    assert "0.jpg: is 20 x 20, most are 12 x 10" in message
    assert pack(folder, out, on_error="skip").images == 6


def test_places(folder: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".DS_Store").write_bytes(b"")
    assert "is empty" in refused(tmp_path / "empty", out)
    assert "does not exist" in refused(tmp_path / "nowhere", out)
    assert "is a file" in refused(folder / "p1" / "x.jpg", out)
    assert "must not lie in" in refused(folder, folder / "out.rec")
    assert "must end in .rec" in refused(folder, tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(folder: Path, out: Path) -> None:
    (folder / "p1").chmod(0)
    (folder / "p2" / "a.jpg").chmod(0)
    try:
        message = refused(folder, out)
    finally:
        (folder / "p1").chmod(0o755)
    assert "p1: cannot be read: Permission denied" in message
    assert "a.jpg: cannot be read: Permission denied" in message


class TestDepth:
    @pytest.fixture
    def deep(self, folder: Path) -> Path:
        """Two groups of two identities; a2 has pictures in folders of its own."""
        for name in ("g10/a", "g2/a1", "g2/a2/x", "g2/a2/x10/y", "g2/a2/x9", "g10/B"):
            save(folder / name / "0.jpg", quality=95)
        for name in ("p1", "p2", "p10"):
            for path in (folder / name).iterdir():
                path.unlink()
            (folder / name).rmdir()
        return folder

    def test_by_default_deeper_folders_are_a_problem(self, deep: Path, out: Path) -> None:
        message = refused(deep, out)
        assert message.startswith("4 problems")
        assert "at another depth than the pictures (see identity_depth): 4\n" in message

    def test_the_first_folders_name_the_identity(self, deep: Path, out: Path) -> None:
        pack(deep, out, identity_depth=1)
        assert identities(out) == {"g2": 4, "g10": 2}
        pack(deep, out, identity_depth=2, overwrite=True)
        assert identities(out) == {"g2/a1": 1, "g2/a2": 3, "g10/B": 1, "g10/a": 1}
        order = [
            "g2/a1/0.jpg",
            "g2/a2/x/0.jpg",
            "g2/a2/x9/0.jpg",
            "g2/a2/x10/y/0.jpg",
            "g10/B/0.jpg",
            "g10/a/0.jpg",
        ]
        file = ft.RecordFile(out)
        for key, path in enumerate(order, start=1):
            assert file.read(key)[1] == (deep / path).read_bytes()

    def test_pictures_above_are_a_problem(self, deep: Path, out: Path) -> None:
        save(deep / "g2" / "high.jpg")
        (deep / "g3").mkdir()
        (deep / "g4" / "b").mkdir(parents=True)
        pack(deep, out, identity_depth=2, on_error="skip")
        found = listed(out)
        assert {path: kind for path, (kind, _) in found.items()} == {
            "g2/high.jpg": "depth",
            "g3": "empty",
            "g4/b": "empty",
        }
        refused(deep, out.with_name("b.rec"), identity_depth=5)

    def test_links_are_followed_but_not_in_circles(self, folder: Path, tmp_path: Path, out: Path) -> None:
        people(tmp_path / "elsewhere")
        (folder / "p3").symlink_to(tmp_path / "elsewhere" / "p2")
        (folder / "p2" / "b.jpg").symlink_to(tmp_path / "elsewhere" / "p1" / "x.jpg")
        pack(folder, out)
        assert identities(out) == {"p1": 2, "p2": 2, "p3": 1, "p10": 3}
        (folder / "p1" / "around").symlink_to(folder / "p2")
        (folder / "p2" / "around").symlink_to(folder / "p1")
        pack(folder, out, identity_depth=1, on_error="skip", overwrite=True)
        assert identities(out) == {"p1": 4, "p2": 4, "p3": 1, "p10": 3}
        assert set(listed(out)) == {"p1/around/around", "p2/around/around"}


def test_names(folder: Path, out: Path) -> None:
    """Names that differ in case only, with commas and quotes, and that are not Unicode."""
    odd = os.fsdecode(b"p\xff")
    for name in ("P1", 'a "b", c', odd, "ü"):
        save(folder / name / "0.jpg", quality=95)
    (folder / odd / "bad.jpg").write_bytes(b"bad")
    done = pack(folder, out, on_error="skip")
    assert done.skipped == 1
    assert list(identities(out)) == ["P1", 'a "b", c', "p1", "p2", "p10", odd, "ü"]
    assert b"p\xff" in out.with_suffix(".identities.csv").read_bytes()
    assert "p\\xff/0.jpg" in pl.read_parquet(out.with_suffix(".sources.parquet"))["path"]
    assert b"p\xff/bad.jpg" in out.with_suffix(".problems.csv").read_bytes()
    assert "p\\udcff/bad.jpg" in refused(folder, out.with_name("other.rec"))
