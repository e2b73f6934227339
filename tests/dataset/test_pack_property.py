"""`property` in a folder with several `.rec`: each keeps its own numbers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import fasttriplet as ft
from tests.dataset.pictures import save


def stated(folder: Path) -> str:
    return (folder / "property").read_text()


def another(folder: Path) -> None:
    """Add an identity."""
    save(folder / f"p{len(list(folder.iterdir())) + 10}" / "a.jpg", quality=95)


@pytest.mark.parametrize("names", [("train", "val"), ("val", "train"), ("a", "b"), ("b", "a")])
@pytest.mark.parametrize("as_many", [True, False])
def test_each_keeps_its_numbers(folder: Path, tmp_path: Path, names: tuple[str, str], as_many: bool) -> None:
    first, second = (tmp_path / f"{name}.rec" for name in names)
    done = ft.pack(folder, first)
    assert done.property == tmp_path / "property"
    assert done.notes == ()
    assert stated(tmp_path) == "3,12,10\n"
    if not as_many:
        another(folder)
    for overwrite in (False, True):
        done = ft.pack(folder, second, overwrite=overwrite)
        assert done.property is None
        assert f"describes {first.name}" in done.notes[0]
        assert (
            f"to use {second.name} with InsightFace's scripts, pack it into a folder of its own"
            in done.notes[0]
        )
        assert stated(tmp_path) == "3,12,10\n"
    another(folder)
    ft.pack(folder, second, overwrite=True)
    assert stated(tmp_path) == "3,12,10\n"
    another(folder)
    done = ft.pack(folder, first, overwrite=True)
    assert done.notes == ()
    assert stated(tmp_path) == f"{done.identities},12,10\n" != "3,12,10\n"
    ft.pack(folder, second, overwrite=True)
    another(folder)
    ft.pack(folder, second, overwrite=True)
    assert stated(tmp_path) == f"{done.identities},12,10\n"


def test_alone_it_is_always_its_own(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.rec"
    ft.pack(folder, out)
    for spoilt in ("7,7,7\n", "", "x", "\xff"):
        (tmp_path / "property").write_text(spoilt, encoding="latin1")
        assert ft.pack(folder, out, overwrite=True).property is not None
        assert stated(tmp_path) == "3,12,10\n"


@pytest.mark.parametrize(
    "label", [0.0, [2, 7, 1], [float("nan"), 1], [1, float("inf")], [2**24, 2**24 + 4], None]
)
def test_of_a_dataset_from_elsewhere(folder: Path, tmp_path: Path, label: Any) -> None:
    """Where the first record does not say how many identities there are, they may be as many as stated."""
    other, own = tmp_path / "other.rec", tmp_path / "own.rec"
    if label is None:
        other.write_bytes(b"not records")
    else:
        with ft.RecordWriter(other) as writer:
            writer.write(1, ft.IRHeader(0, label, 1, 0), b"image")
    (tmp_path / "property").write_text("3,112,112\n")
    shutil.copystat(other, tmp_path / "property")
    assert "describes other.rec" in ft.pack(folder, own).notes[0]
    assert ft.pack(folder, own, overwrite=True).property is None
    assert stated(tmp_path) == "3,112,112\n"


def test_of_none_of_them(folder: Path, tmp_path: Path) -> None:
    for name in ("a.rec", "b.rec"):
        ft.pack(folder, tmp_path / name)
    (tmp_path / "property").write_text("85742,112,112\n")
    done = ft.pack(folder, tmp_path / "a.rec", overwrite=True)
    assert "describes another .rec" in done.notes[0]
    assert stated(tmp_path) == "85742,112,112\n"


def test_insightface_would_read_it_with_train_rec(folder: Path, tmp_path: Path) -> None:
    ft.pack(folder, tmp_path / "train.rec")
    (tmp_path / "property").unlink()
    done = ft.pack(folder, tmp_path / "val.rec")
    assert "would read it with train.rec" in done.notes[0]
    assert not (tmp_path / "property").exists()
    assert ft.pack(folder, tmp_path / "train.rec", overwrite=True).property is not None
    assert stated(tmp_path) == "3,12,10\n"


def test_without_its_rec_it_is_a_file_that_exists(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "property").write_text("9,9,9\n")
    with pytest.raises(FileExistsError, match="property"):
        ft.pack(folder, tmp_path / "a.rec")
    ft.pack(folder, tmp_path / "a.rec", overwrite=True)
    assert stated(tmp_path) == "3,12,10\n"


def test_what_only_looks_like_another_rec(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.rec").mkdir()
    (tmp_path / "broken.rec").symlink_to("nowhere")
    for _ in range(2):
        assert ft.pack(folder, tmp_path / "a.rec", overwrite=True).property is not None


def test_with_a_split_it_describes_the_training_part(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "train.rec"
    out.parent.mkdir()
    another(folder)
    for _ in range(3):  # 2 of 4, so that both have as many
        ft.pack(folder, out, split=0.5, overwrite=True)
        assert stated(out.parent) == "2,12,10\n"
    ft.pack(folder, out, split=0.1, overwrite=True)
    assert stated(out.parent) == "3,12,10\n"
    ft.pack(folder, out, overwrite=True)
    assert stated(out.parent) == "4,12,10\n"


def test_times_are_copied_with_the_files(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    for name in ("b.rec", "a.rec"):
        ft.pack(folder, place / name)
    shutil.copytree(place, tmp_path / "copy")
    another(folder)
    ft.pack(folder, tmp_path / "copy" / "a.rec", overwrite=True)
    assert stated(tmp_path / "copy") == "3,12,10\n"
    ft.pack(folder, tmp_path / "copy" / "b.rec", overwrite=True)
    assert stated(tmp_path / "copy") == "4,12,10\n"
