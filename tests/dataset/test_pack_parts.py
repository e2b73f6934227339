"""Parts of `pack` by themselves: its tables, what its messages list, and how a picture fits into a size."""

from __future__ import annotations

import csv
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

import fasttriplet as ft
from fasttriplet._files import opened, publish
from fasttriplet.dataset._packing import _pictures, _sources
from fasttriplet.dataset._packing._layout import Layout, changes_beside, identities_of
from fasttriplet.dataset._packing._options import PackOptions
from fasttriplet.dataset._packing._pictures import _fitted
from fasttriplet.dataset._packing._problems import Problems
from fasttriplet.dataset._packing._sources import Sources, read_sources, sources_beside
from tests.dataset.pictures import people, save


def test_the_tables_of_a_file_are_beside_it(tmp_path: Path) -> None:
    assert sources_beside(tmp_path / "a.rec") == tmp_path / "a.sources.parquet"
    assert changes_beside(tmp_path / "a.rec") == tmp_path / "a.changes.parquet"
    beside = ["a.rec", "a.idx", "a.identities.csv", "a.sources.parquet"]
    assert Layout.files_of(tmp_path / "a.rec") == tuple(tmp_path / name for name in beside)


@pytest.mark.parametrize("at_once", [1, 3, 7, 2**16])
def test_sources_are_written_in_their_order(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sources, "_AT_ONCE", at_once)
    sources = Sources()
    sources.write(tmp_path / "a.sources.parquet")
    assert list(tmp_path.iterdir()) == []
    assert read_sources(tmp_path / "a.rec") == {}
    expected = {10 - n: f"{n}.jpg" for n in range(7)} | {20: "caf\\xe9"}
    for n, (key, path) in enumerate(expected.items()):
        sources.add(key, n // 2, os.fsdecode(b"caf\xe9") if key == 20 else path)
    sources.write(tmp_path / "a.sources.parquet")
    assert read_sources(tmp_path / "a.rec") == expected
    table = pl.read_parquet(tmp_path / "a.sources.parquet")
    assert table["label"].to_list() == [n // 2 for n in range(8)]


@pytest.mark.parametrize("columns", [{"key": [1]}, {"key": ["a"], "path": ["b"]}, {"a": [1]}])
def test_what_is_no_table_of_sources(tmp_path: Path, columns: dict[str, Any]) -> None:
    path = sources_beside(tmp_path / "a.rec")
    pl.DataFrame(columns).write_parquet(path)
    assert read_sources(tmp_path / "a.rec") == {}
    path.write_bytes(b"PAR1 and more")
    assert read_sources(tmp_path / "a.rec") == {}


def test_the_first_problems_of_each_kind_are_listed(tmp_path: Path) -> None:
    table = tmp_path / "problems.csv"
    with opened(table, overwrite=False) as (output,), Problems(output) as problems:
        assert (len(problems), problems.complete, problems.lines()) == (0, True, "")
        for number in range(10):
            problems.add(Path(f"{number}.jpg"), "size", "is odd")
        problems.add(Path("a"), "empty", "has no pictures in it")
        assert (len(problems), problems.complete) == (11, True)
        lines = [
            "  folders without pictures: 1",
            "    a: has no pictures in it",
            "  of another size than most pictures (size=HxW brings all to one size): 10",
            *(f"    {number}.jpg: is odd" for number in range(10)),
        ]
        assert problems.lines().splitlines() == lines
        for number in range(10, 1211):
            problems.add(Path(f"{number}.jpg"), "size", "is odd")
        assert (len(problems), problems.complete) == (1212, False)
        lines[2] = lines[2].replace("10", "1,211")
        assert problems.lines().splitlines() == [*lines, "    ... and 1,201 more"]
        problems.add(Path(os.fsdecode(b"p\xff")), "depth", "is odd")
        assert problems.lines().splitlines()[1] == "    p\\udcff: is odd"
        problems.finish()
        publish(output)
    assert table.read_bytes().endswith(b"p\xff,depth,is odd\n")
    with table.open(newline="", errors="surrogateescape") as file:
        found = list(csv.reader(file))
    assert found[0] == ["path", "kind", "problem"]
    assert len(found) == 1214
    assert found[11] == ["a", "empty", "has no pictures in it"]


@pytest.mark.parametrize("named", [False, True])
def test_what_is_not_known_is_not_written(tmp_path: Path, named: bool) -> None:
    rec = tmp_path / "a.rec"
    files = Layout.files_of(rec)
    with opened(*files, overwrite=False) as outputs:
        with Layout(tmp_path / "part" / "a.rec", rec, named=named) as layout:
            for identity, image, source in (("b", b"1", None), ("b", b"2", "x/2"), ("a", b"3", None)):
                layout.add(identity, image, source if named else None)
            layout.finish({output.path: output for output in outputs})
        publish(*outputs)
    assert [path.exists() for path in files] == [True, True, named, named]
    if named:
        assert files[2].read_text() == "label,folder,images\n0,b,2\n1,a,1\n"
        assert read_sources(rec) == {2: "x/2"}
    assert layout.identities == [("b", 2), ("a", 1)]
    index = ft.index_rec(rec, cache=False)
    assert index["label"].to_list() == [0, 0, 1]
    assert identities_of(rec) == 2


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ([7, 10], 3),
        ([7, 7], 0),
        ([0, 2**24 - 1], 2**24 - 1),
        ([0, 2**24], None),
        ([-1, 3], None),
        ([4, 3], None),
        ([4, float("nan")], None),
        ([1, 2, 3], None),
        ([1], None),
        (3.0, None),
    ],
)
def test_how_many_identities_a_file_states(tmp_path: Path, label: Any, expected: int | None) -> None:
    with ft.RecordWriter(tmp_path / "a.rec") as writer:
        writer.write(0, ft.IRHeader(0, label, 0, 0), b"")
    assert identities_of(tmp_path / "a.rec") == expected
    assert identities_of(tmp_path / "none.rec") is None
    (tmp_path / "b.rec").write_bytes(b"no records")
    assert identities_of(tmp_path / "b.rec") is None


@pytest.mark.parametrize(
    ("shape", "size", "box"),
    [
        ((20, 40), (10, 10), (10, 0, 30, 20)),
        ((60, 30), (20, 20), (0, 15, 30, 45)),
        ((20, 40), (10, 20), (0, 0, 40, 20)),
        ((30, 30), (10, 20), (0, 7.5, 30, 22.5)),
        ((9, 12), (3, 2), (3, 0, 9, 9)),
    ],
)
def test_a_crop_is_the_largest_part_of_the_shape_in_the_middle(
    shape: tuple[int, int], size: tuple[int, int], box: tuple[float, ...]
) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8))
    expected = image.resize(size[::-1], Image.Resampling.LANCZOS, box=box)  # type: ignore[arg-type]
    assert np.array_equal(np.asarray(_fitted(image, size, "crop")), np.asarray(expected))


@pytest.mark.parametrize(
    ("shape", "size", "inner"),
    [
        ((20, 40), (10, 10), (0, 2, 10, 7)),
        ((60, 30), (20, 20), (5, 0, 15, 20)),
        ((20, 40), (10, 20), (0, 0, 20, 10)),
        ((1, 400), (9, 6), (0, 4, 6, 5)),
        ((400, 1), (9, 6), (2, 0, 3, 9)),
        ((30, 40), (10, 10), (0, 1, 10, 9)),  # 7.5 is rounded to 8
    ],
)
def test_a_picture_that_is_padded_is_as_large_as_it_fits(
    shape: tuple[int, int], size: tuple[int, int], inner: tuple[int, int, int, int]
) -> None:
    left, top, right, bottom = inner
    for mode in ("L", "RGB"):
        found = _fitted(Image.new(mode, shape[::-1], "white"), size, "pad")
        assert (found.mode, found.size) == (mode, size[::-1])
        expected = np.zeros(size, np.uint8)
        expected[top:bottom, left:right] = 255
        assert np.array_equal(np.asarray(found.convert("L")), expected)
    assert np.asarray(_fitted(Image.new("L", shape[::-1], "white"), size, "stretch")).min() == 255


@pytest.mark.parametrize("threads", [1, 2])
def test_pictures_are_read_ahead_and_no_more_after_the_end(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order, 16 for each thread; those that wait are not read when nobody takes them."""
    asked, done = [], []

    def read(path: Path, _: object) -> Any:
        time.sleep(0.005)
        done.append(path)
        return path.name

    def paths() -> Iterator[Path]:
        for number in range(100):
            asked.append(number)
            yield Path(str(number))

    monkeypatch.setattr(_pictures, "_read_and_encode", read)
    ready = _pictures.prepare(paths(), PackOptions(threads=threads))
    assert [next(ready) for _ in range(3)] == ["0", "1", "2"]  # type: ignore[comparison-overlap]
    assert len(asked) == 16 * threads + 2
    ready.close()
    assert len(done) <= 3 + 2 * threads
    whole = list(_pictures.prepare(paths(), PackOptions(threads=threads)))
    assert whole == [str(number) for number in range(100)]  # type: ignore[comparison-overlap]


def test_warnings_of_others_are_heard(tmp_path: Path) -> None:
    def progress(*_: int) -> None:
        warnings.warn("of the caller", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="of the caller") as warned:
        ft.pack(people(tmp_path / "people"), tmp_path / "a.rec", progress=progress)
    assert len(warned) == 6


def test_a_damaged_picture_that_is_as_large_as_allowed_is_not_too_large(tmp_path: Path) -> None:
    folder = people(tmp_path / "people")
    for ending in ("jpg", "png"):
        whole = save(folder / "p1" / f"cut.{ending}").read_bytes()
        (folder / "p1" / f"cut.{ending}").write_bytes(whole[:-30])
        for limit, kind in ((120, "damaged"), (119, "large")):
            options = PackOptions(max_pixels=limit)
            picture = _pictures._read_and_encode(folder / "p1" / f"cut.{ending}", options)
            assert isinstance(picture, _pictures.Unusable)
            assert picture.kind == kind


@pytest.mark.parametrize("beginning", [b"\xff\xd8", b"\x89PNG"])
def test_a_picture_whose_header_nobody_can_read_is_damaged(tmp_path: Path, beginning: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(beginning + bytes(40))
    picture = _pictures._read_and_encode(tmp_path / "a.jpg", PackOptions())
    assert isinstance(picture, _pictures.Unusable)
    assert picture.kind == "damaged"


def test_a_picture_has_no_more_than_can_be_encoded_and_says_why(tmp_path: Path) -> None:
    Image.new("L", (65501, 1)).save(tmp_path / "long.png")
    picture = _pictures._read_and_encode(tmp_path / "long.png", PackOptions())
    assert isinstance(picture, _pictures.Unusable)
    assert picture.kind == "large"
    kept = _pictures._read_and_encode(tmp_path / "long.png", PackOptions(format="png"))
    assert kept == _pictures.Ready((tmp_path / "long.png").read_bytes(), (1, 65501), kept=True)
    resized = _pictures._read_and_encode(tmp_path / "long.png", PackOptions(size=(3, 5)))
    assert isinstance(resized, _pictures.Ready)
    assert (resized.size, resized.kept) == ((3, 5), False)
