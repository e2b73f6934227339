"""The index of images: identities by label, ranges checked, caches kept and replaced."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import re
import shutil
import stat
import struct
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fasttriplet as ft
from fasttriplet import _core
from fasttriplet.dataset import _index_file
from tests.interrupted import no_space
from tests.processes import run_python
from tests.small_rec import identities, kept_beside, write_rec

JPEG = b"\xff\xd8 pretended image"


def write_flat(path: Path, labels: dict[int, Any]) -> None:
    with ft.RecordWriter(path, overwrite=True) as writer:
        for key, label in labels.items():
            writer.write(key, ft.IRHeader(0, label, key, 0), JPEG + b"x" * (key % 5))


def write_identities(
    path: Path,
    labels: dict[int, Any],
    ranges: Sequence[tuple[float, float]],
    *,
    low: int | None = None,
    high: int | None = None,
) -> None:
    """InsightFace's layout, record 0 last in the file."""
    low = max(labels) + 1 if low is None else low
    with ft.RecordWriter(path, overwrite=True) as writer:
        for key, label in labels.items():
            writer.write(key, ft.IRHeader(0, label, key, 0), JPEG)
        for key, ends in enumerate(ranges, start=low):
            writer.write(key, ft.IRHeader(0, np.array(ends, np.float32), key, 0), b"")
        end = low + len(ranges) if high is None else high
        writer.write(0, ft.IRHeader(0, np.array([low, end], np.float32), 0, 0), b"")


def rows(index: pl.DataFrame) -> list[tuple[int, int]]:
    return list(zip(index["key"].to_list(), index["label"].to_list(), strict=True))


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    path = tmp_path / "train.rec"
    write_identities(path, {1: 7.0, 2: 7.0, 3: 9.0, 4: 9.0, 5: 9.0}, [(1, 3), (3, 6)])
    return path


def test_insightface_layout(rec: Path) -> None:
    index = ft.index_rec(rec)
    assert dict(index.schema) == dict.fromkeys(["key", "label", "offset", "length"], pl.Int64)
    assert rows(index) == [(1, 7), (2, 7), (3, 9), (4, 9), (5, 9)]
    assert index["length"].to_list() == [len(JPEG)] * 5
    file = ft.RecordFile(rec)
    assert index["offset"].to_list() == file.offsets(index["key"].to_numpy()).tolist()
    found = ft.inspect_rec(rec)
    assert (found.records, found.images, found.identities, found.identity_records) == (8, 5, 2, 2)
    for wrong, said in (
        ([rec, rec.with_suffix(".idx")], "path must be one .rec file, not 2: inspect each by itself"),
        (None, "path must be the path of a .rec file or several, not None"),
    ):
        with pytest.raises(ft.OptionError, match=f"^{re.escape(said)}$"):
            ft.inspect_rec(wrong)  # type: ignore[arg-type]
    assert (found.layout, found.idx_used, found.problems) == ("insightface", True, ())
    assert (found.bytes, found.image_bytes) == (rec.stat().st_size, 5 * len(JPEG))
    assert found.images_by_flag == {0: 5}
    assert found.images_per_identity.to_list() == [2, 3]
    assert found.index.equals(index)


def test_flat_layout_in_key_order(tmp_path: Path) -> None:
    path = tmp_path / "flat.rec"
    write_flat(path, {4: 1, 0: 0, 9: 1, 2: [0.0, 1.0]})
    assert rows(ft.index_rec(path)) == [(0, 0), (2, 0), (4, 1), (9, 1)]
    found = ft.inspect_rec(path)
    assert (found.layout, found.images_by_flag, found.problems) == ("flat", {0: 3, 2: 1}, ())


def test_image_in_record_0_with_two_labels_is_an_image(tmp_path: Path) -> None:
    path = tmp_path / "flat.rec"
    write_flat(path, {0: [3.0, 1.0], 1: [3.0, 0.0]})
    assert rows(ft.index_rec(path)) == [(0, 3), (1, 3)]


def test_first_label_also_where_the_header_repeats_it(tmp_path: Path) -> None:
    path = tmp_path / "cpp.rec"
    write_flat(path, {1: [6.0, 1.0]})
    raw = bytearray(path.read_bytes())
    raw[12:16] = np.float32(6).tobytes()  # the C++ im2rec fills the header's own label, too
    path.write_bytes(raw)
    assert rows(ft.index_rec(path)) == [(1, 6)]


def test_one_label_under_several_identity_records_is_one_identity(tmp_path: Path) -> None:
    path = tmp_path / "train.rec"
    write_identities(path, {1: 7, 2: 7, 3: 7, 4: 8, 5: 7}, [(1, 3), (3, 4), (4, 5), (5, 6)])
    assert ft.index_rec(path)["label"].n_unique() == 2
    found = ft.inspect_rec(path)
    assert (found.identities, found.identity_records) == (2, 4)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (
            [(1, 4), (4, 6)],
            r"key 6: .* from 1 to 3, but image 3 has label 9 and image 1 has label 7; the labels are",
        ),
        ([(1, 3), (3, 5)], r"key 5: the image with label 9 lies in the range of no identity record"),
        ([(1, 3), (3, 9)], r"key 7: .* from 3 to 8, but the file has 3 images there$"),
        ([(1, 3), (6, 3)], r"key 7: .* from 6 to 2, which is no range"),
        ([(1, 3), (3, float("nan"))], r"key 7: .* which is no range"),
    ],
)
def test_ranges_that_disagree_are_warned_of_and_not_used(
    tmp_path: Path, ranges: list[tuple[float, float]], message: str
) -> None:
    path = tmp_path / "train.rec"
    write_identities(path, {1: 7, 2: 7, 3: 9, 4: 9, 5: 9}, ranges)
    for _ in range(2):  # built, and from the cache
        with pytest.warns(ft.RecordWarning, match=message) as caught:
            assert rows(ft.index_rec(path)) == [(1, 7), (2, 7), (3, 9), (4, 9), (5, 9)]
        assert caught[0].filename == __file__
    assert len(ft.inspect_rec(path).problems) == 1


def test_record_0_that_announces_other_counts(tmp_path: Path) -> None:
    path = tmp_path / "train.rec"
    labels, ranges = {1: 7, 2: 7, 3: 9, 4: 9, 5: 9}, [(1, 3), (3, 6)]
    write_identities(path, labels, ranges, high=9)
    with pytest.warns(
        ft.RecordWarning, match="announces identity records with keys from 6 to 8, 2 are there"
    ):
        assert ft.index_rec(path).height == 5
    write_identities(path, labels, ranges, high=7)
    problems = "\n".join(ft.inspect_rec(path).problems)
    assert "key 7, offset 300: the record is empty and was left out" in problems
    assert "key 3: the image with label 9 lies in the range of no identity record" in problems


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=12),
    below=st.integers(0, 30),
)
@settings(deadline=None, max_examples=80)
def test_rounding_to_float32_is_no_disagreement(sizes: list[int], below: int) -> None:
    # As in Glint360K: the writer rounds every key above 2^24 to a float32, so that ranges run into
    # their neighbours and record 0 is off by one.
    start = 2**24 - below
    ends = [int(end) for end in start + np.cumsum([0, *sizes])]
    labels = {key: label for label, (a, b) in enumerate(itertools.pairwise(ends)) for key in range(a, b)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.rec"
        write_identities(path, labels, list(itertools.pairwise(ends)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert rows(ft.index_rec(path, cache=False)) == sorted(labels.items())
        found = ft.inspect_rec(path, cache=False)
        assert (found.identity_records, found.layout) == (len(sizes), "insightface")


def test_a_real_disagreement_above_2_to_the_24_is_found(tmp_path: Path) -> None:
    path = tmp_path / "train.rec"
    start = 2**24 + 10
    labels = {start + i: i // 10 for i in range(20)}
    write_identities(path, labels, [(start, start + 14), (start + 14, start + 20)])
    with pytest.warns(ft.RecordWarning, match=f"but image {start + 10} has label 1 and image"):
        ft.index_rec(path)


@settings(deadline=None, max_examples=40)
@given(
    labels=st.dictionaries(st.integers(0, 2**40), st.integers(1 - 2**24, 2**24 - 1), min_size=1, max_size=30)
)
def test_any_flat_file(labels: dict[int, int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flat.rec"
        write_flat(path, labels)
        with_idx = ft.index_rec(path, cache=False)
        assert rows(with_idx) == sorted(labels.items())
        assert with_idx["length"].to_list() == [len(JPEG) + key % 5 for key in sorted(labels)]
        path.with_suffix(".idx").unlink()
        assert ft.index_rec(path, cache=False, threads=1).equals(with_idx)
        assert not ft.inspect_rec(path, cache=False).idx_used


@pytest.mark.parametrize("label", [0.5, float("inf"), [1.5, 2.0]])
def test_labels_that_are_no_integers_name_the_record(tmp_path: Path, label: Any) -> None:
    path = tmp_path / "flat.rec"
    write_flat(path, {1: 3, 2: label})
    with pytest.raises(
        ft.RecordError, match=r"flat\.rec, key 2, offset \d+: label .*; expected an integer"
    ) as caught:
        ft.index_rec(path)
    assert caught.value.key == 2


def test_a_few_labels_that_are_no_integers_are_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "flat.rec"
    write_flat(path, {1: 3, 2: 0.5, 3: 4})
    with pytest.warns(ft.RecordWarning, match=r"key 2, offset \d+: label 0.5; expected an integer"):
        assert rows(ft.index_rec(path)) == [(1, 3), (3, 4)]
    assert len(ft.inspect_rec(path).problems) == 1


def test_of_two_problems_the_second_is_mentioned(tmp_path: Path) -> None:
    path = tmp_path / "flat.rec"
    write_flat(path, {1: 3, 2: 0.5, 3: 4, 4: 0.5, 5: 4, 6: 4})
    with pytest.warns(ft.RecordWarning, match=r"left out\); `fasttriplet index` lists all problems$"):
        ft.index_rec(path)
    assert len(ft.inspect_rec(path).problems) == 2


def test_empty_records_are_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "flat.rec"
    with ft.RecordWriter(path, overwrite=True) as writer:
        writer.write(1, (0, 5.0, 1, 0), b"")
        writer.write(2, (0, 5.0, 2, 0), JPEG)
    with pytest.warns(ft.RecordWarning, match=r"key 1, offset 0: the record is empty and was left out$"):
        assert rows(ft.index_rec(path)) == [(2, 5)]
    with ft.RecordWriter(path, overwrite=True) as writer:
        writer.write(1, (0, 5.0, 1, 0), b"")
    with pytest.raises(
        ft.RecordError, match=r"flat\.rec: holds no image: all of its records are empty \(1\)"
    ):
        ft.index_rec(path)


def test_a_broken_idx_is_named_and_replaced(rec: Path) -> None:
    good = ft.index_rec(rec, cache=False)
    idx = rec.with_suffix(".idx")
    lines = idx.read_text().splitlines()
    cases = {
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "Git LFS pointer.* rebuilt from",
        "": r"train\.idx: the file is empty; the index was rebuilt",
        "\n".join(lines[1:]): r"names 7 of the 8 records in the \.rec \(not the one at offset 0\)",
        "\n".join(lines[::2]): r"names 4 of the 8 records in the \.rec",
        "\n".join([*lines, "77\t0"]): "keys 1 and 77 point to the same record, at offset 0",
        "\n".join(
            [lines[0].replace("1\t", "2\t"), *lines[1:]]
        ): "key 2 points to two records, at offsets 0 and",
        "\n".join([*lines, *(line.replace("\t", "1\t") for line in lines)]): "first of 8 such pairs",
        "\n".join(
            [lines[0], "2\t18446744073709551615", *lines[2:]]
        ): "line 2: offset 18446744073709551615 lies beyond",
        "\n".join([lines[0], "2\t8", *lines[2:]]): "key 2 points to offset 8: no record starts here",
    }
    for text, message in cases.items():
        idx.write_text(text)
        with pytest.warns(ft.RecordWarning, match=message):
            assert ft.index_rec(rec).equals(good)
        found = ft.inspect_rec(rec)
        assert not found.idx_used
        assert "rebuilt from the .rec" in "\n".join(found.problems)


@settings(deadline=None, max_examples=150)
@given(
    drawn=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 5) | st.sampled_from([2, 4, 36, 2**20, 2**64 - 1])),
        max_size=14,
    ),
    whole=st.booleans(),
)
def test_whatever_an_idx_says_one_record_is_one_image(drawn: list[tuple[int, int]], whole: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flat.rec"
        write_flat(path, {key: key // 2 for key in range(1, 7)})
        good = ft.index_rec(path, cache=False)
        offsets = good["offset"].to_list()
        idx = path.with_suffix(".idx")
        lines = [f"{key}\t{offsets[at] if at < 6 else at}" for key, at in drawn]
        idx.write_text("\n".join((idx.read_text().splitlines() if whole else []) + lines))
        found = ft.inspect_rec(path, cache=False)
        assert found.index["offset"].sort().to_list() == offsets
        assert found.index["key"].n_unique() == 6
        if not found.idx_used:
            assert found.index.equals(good)
            assert "rebuilt from the .rec" in "\n".join(found.problems)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ft.RecordWarning)
            file = ft.RecordFile(path)
            assert sorted(file.offsets(file.keys).tolist()) == offsets


def test_a_byte_order_mark_in_an_idx(rec: Path) -> None:
    good = ft.index_rec(rec, cache=False)
    idx = rec.with_suffix(".idx")
    text = idx.read_text()
    idx.write_text(text, encoding="utf-8-sig")
    found = ft.inspect_rec(rec)
    assert (found.idx_used, found.problems) == (True, ())
    assert found.index.equals(good)
    idx.write_text(text, encoding="utf-16")  # as PowerShell writes it
    with pytest.warns(ft.RecordWarning, match=r"text in UTF-16; save it as UTF-8; the index was rebuilt"):
        assert ft.index_rec(rec).equals(good)


def test_records_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "text.rec"
    path.write_bytes(b"".join(struct.pack("<II", 0xCED7230A, 12) + b"a sentence.." for _ in range(40)))
    with pytest.raises(ft.RecordError) as caught:
        ft.index_rec(path)
    assert str(caught.value) == (
        f"{path}: holds no image: 40 of its 40 records cannot be read; offset 0: the record has 12 bytes, "
        "too few for the 24 bytes of an IRHeader; was it written without recordio.pack?"
    )


def test_of_each_kind_of_problem_one_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "flat.rec"
    write_flat(path, {key: 0.5 if key % 3 == 0 else 2**24 for key in range(60)})
    idx = path.with_suffix(".idx")
    idx.write_text("a\nb\nc\n" + idx.read_text())
    problems = ft.inspect_rec(path).problems
    assert "labels reach 16,777,216 and more" in problems[0]
    assert problems[1].endswith('found "a" (the first of 3 broken lines)')
    assert problems[2].endswith("(the first of 20 images without a usable label, which are left out)")
    assert len(problems) == 3 + 2 + 19
    with pytest.warns(ft.RecordWarning) as caught:
        ft.index_rec(path)
    warned = [str(warning.message) for warning in caught]
    assert warned == [problems[1] + "; `fasttriplet index` lists all problems", problems[0]]


def test_damage_costs_one_record(rec: Path) -> None:
    offset = ft.index_rec(rec)["offset"][3]
    with rec.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"????")
    with pytest.warns(ft.RecordWarning):
        assert ft.index_rec(rec)["key"].to_list() == [1, 2, 3, 5]
    assert f"no readable record from offset {offset} to offset" in "\n".join(ft.inspect_rec(rec).problems)


def test_headers_are_read_by_as_many_threads_as_are_asked_for(
    rec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Any] = []
    scan = _core.scan

    def noted(*arguments: Any) -> Any:
        used.append(arguments[1:])
        return scan(*arguments)

    monkeypatch.setattr(_core, "scan", noted)
    idx = rec.with_suffix(".idx")
    for cache in (False, True):
        calls: tuple[Any, ...] = (ft.index_rec, ft.inspect_rec, ft.Dataset)
        for number, call in enumerate(calls):
            kept_beside(rec).unlink(missing_ok=True)
            how: dict[str, Any] = {"cache": cache, "threads": 2 + number}
            call(rec, **how)
            assert kept_beside(rec).exists() == cache
    assert used == [(idx, 2), (idx, 3), (idx, 4)] * 2
    with pytest.raises(ft.OptionError, match="threads must be a whole number >= 1, not 0"):
        ft.inspect_rec(rec, threads=0)


def test_several_files_are_one_dataset(tmp_path: Path) -> None:
    paths = [tmp_path / "a.rec", tmp_path / "b.rec"]
    write_flat(paths[0], {1: 5, 2: 6})
    write_flat(paths[1], {1: 6, 2: 7})
    index = ft.index_rec(paths)
    assert index["file"].dtype == pl.UInt32
    assert index.select("file", "key", "label").rows() == [(0, 1, 5), (0, 2, 6), (1, 1, 6), (1, 2, 7)]
    assert ft.index_rec(paths[:1]).columns == ["key", "label", "offset", "length", "file"]
    with pytest.raises(ValueError, match=r"^path must be .* not an empty list"):
        ft.index_rec([])
    with pytest.raises(ValueError, match=r"is given twice \(also as .*its own positive"):
        ft.index_rec([paths[0], tmp_path / "." / "b.rec", str(tmp_path / ".." / tmp_path.name / "a.rec")])


def test_what_cannot_be_indexed(tmp_path: Path, real_data: Path) -> None:
    with pytest.raises(ft.RecordError, match="Git LFS pointer"):
        ft.index_rec(real_data / "bad" / "dali_train.rec")
    with pytest.raises(FileNotFoundError, match=r"no\.rec"):
        ft.index_rec(tmp_path / "no.rec")
    with pytest.raises(ValueError, match="threads must be a whole number >= 1, not 0"):
        ft.index_rec(tmp_path / "no.rec", threads=0)


def test_real_datasets(real_data: Path) -> None:
    index = ft.index_rec(real_data / "lfw112-a" / "train.rec", cache=False)
    np.testing.assert_array_equal(
        index["label"].to_numpy(), np.load(real_data / "lfw112-a" / "lab_a.npy").ravel()
    )
    found = ft.inspect_rec(real_data / "lfw112-a" / "train.rec", cache=False)
    assert (found.images, found.identities, found.identity_records) == (2375, 109, 109)
    assert (found.layout, found.images_by_flag, found.problems) == ("insightface", {2: 2375}, ())
    flat = ft.inspect_rec(real_data / "adaface8" / "train.rec", cache=False)
    assert (flat.layout, flat.images, flat.identities, flat.problems) == ("flat", 8, 2, ())


# Without the .idx, the holes are searched for records, which takes a while.
@pytest.mark.parametrize("with_idx", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_offsets_above_4_gib(tmp_path: Path, with_idx: bool) -> None:
    # Ten records of nearly 2^29 bytes, which are holes but for their headers, and a small one.
    path, long = tmp_path / "long.rec", 2**29 - 4
    with path.open("wb") as raw:
        for key in range(10):
            start = raw.tell()
            raw.write(struct.pack("<IIIfQQ", 0xCED7230A, long, 0, key // 2, key, 0))
            raw.seek(start + 8 + long)
        offset = raw.tell()
        raw.write(struct.pack("<IIIfQQ", 0xCED7230A, 24 + 4, 0, 5, 10, 0) + b"tail")
    if with_idx:
        path.with_suffix(".idx").write_text("".join(f"{key}\t{key * (long + 8)}\n" for key in range(11)))
    found = ft.inspect_rec(path, cache=False)
    assert (found.problems, found.idx_used) == ((), with_idx)
    assert found.index["offset"].to_list() == [key * (long + 8) for key in range(11)]
    assert found.index["offset"][-1] == offset > 2**32
    assert found.index["length"][-2:].to_list() == [long - 24, 4]
    if with_idx:
        file = ft.RecordFile(path)
        assert file.problems == ()
        assert file.read(10)[1] == b"tail"


# The cache.


def built_again(rec: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether `index_rec` reads the file, and does not take the cache."""
    built: list[int] = []
    scan = _core.scan

    def counted(*args: Any) -> Any:
        built.append(1)
        return scan(*args)

    with monkeypatch.context() as patch:
        patch.setattr(_core, "scan", counted)
        ft.index_rec(rec)
    return bool(built)


def test_the_cache_is_used_and_notices_changes(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idx = rec.with_suffix(".idx")
    first = ft.index_rec(rec)
    assert kept_beside(rec).exists()
    assert not built_again(rec, monkeypatch)
    assert ft.index_rec(rec).equals(first)
    for changed in (rec, idx):
        before = changed.stat()
        os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        assert built_again(rec, monkeypatch)
        assert not built_again(rec, monkeypatch)
    idx.unlink()
    assert built_again(rec, monkeypatch)
    write_flat(rec, {1: 3, 2: 4})
    assert rows(ft.index_rec(rec)) == [(1, 3), (2, 4)]
    monkeypatch.setattr(_index_file, "FORMAT", 10**6)
    assert built_again(rec, monkeypatch)


def test_without_a_cache_none_is_written(rec: Path) -> None:
    ft.index_rec(rec, cache=False)
    assert not kept_beside(rec).exists()


def test_a_moved_dataset_keeps_its_cache(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for part in (rec, rec.with_suffix(".idx")):
        part.rename(data / part.name)
    ft.index_rec(data / "train.rec")
    shutil.copytree(data, tmp_path / "copied")
    data.rename(tmp_path / "moved")
    assert not built_again(tmp_path / "moved" / "train.rec", monkeypatch)
    assert built_again(tmp_path / "copied" / "train.rec", monkeypatch)  # other files, as far as one can tell


def _index_in_child(rec: Path, queue: Any) -> None:
    with tempfile.TemporaryDirectory() as elsewhere:  # imports all: nobody may not read root's own Python
        write_flat(Path(elsewhere) / "train.rec", {1: 5})
        ft.index_rec(Path(elsewhere) / "train.rec")
    os.setgid(65534)
    os.setuid(65534)
    queue.put(ft.index_rec(rec).height)


def test_a_full_disk_leaves_the_cache_out(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(20, 5))
    code = f"""
import resource, signal
import fasttriplet as ft
import polars
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
print(ft.index_rec({str(rec)!r}).height)
"""
    assert run_python(code) == "100\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.idx", "train.rec"]


def test_a_read_only_folder_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rec = Path(folder) / "train.rec"
        write_flat(rec, {1: 5, 2: 6})
        Path(folder).chmod(0o555)
        if os.geteuid() == 0:
            context = multiprocessing.get_context("spawn")
            queue = context.Queue()
            child = context.Process(target=_index_in_child, args=(rec, queue))
            child.start()
            assert queue.get(timeout=60) == 2
            child.join()
        else:
            assert ft.index_rec(rec).height == 2
        assert not kept_beside(rec).exists()
        Path(folder).chmod(0o755)
        monkeypatch.setattr(Path, "replace", no_space)
        assert ft.index_rec(rec).height == 2
        assert sorted(path.name for path in Path(folder).iterdir()) == ["train.idx", "train.rec"]


def test_the_cache_is_readable_to_whom_the_umask_allows(rec: Path) -> None:
    before = os.umask(0o022)
    try:
        ft.index_rec(rec)
    finally:
        os.umask(before)
    assert stat.S_IMODE(kept_beside(rec).stat().st_mode) == 0o644


def _index_often(rec: Path, queue: Any) -> None:
    for _ in range(20):
        heights = {ft.index_rec(rec).height}
        kept_beside(rec).unlink(missing_ok=True)
        queue.put(heights)


def test_processes_at_once(rec: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    children = [context.Process(target=_index_often, args=(rec, queue)) for _ in range(2)]
    for child in children:
        child.start()
    assert all(queue.get(timeout=60) == {5} for _ in range(40))
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert not [path for path in rec.parent.iterdir() if path.suffix == ".tmp"]
