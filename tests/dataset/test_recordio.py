"""Reading and writing records, against MXNet itself in both directions."""

from __future__ import annotations

import csv
import gc
import hashlib
import multiprocessing
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fasttriplet as ft
from tests.interrupted import names

MAGIC = struct.pack("<I", 0xCED7230A)

# Words that are the magic or nearly so, in front of any bytes.
payloads = st.lists(
    st.one_of(st.just(MAGIC), st.binary(max_size=9), st.sampled_from([MAGIC[:2], MAGIC[2:], b"\0\0\0\x20"])),
    max_size=12,
).map(b"".join)
float32s = st.floats(width=32, allow_nan=False)
labels = st.one_of(float32s, st.lists(float32s, max_size=4), st.integers(-(2**24), 2**24))
ids = st.integers(0, 2**64 - 1)
records = st.dictionaries(
    st.integers(-(2**40), 2**63 - 1), st.tuples(labels, ids, st.sampled_from([0, 0, 7]), payloads), max_size=8
)
Records = dict[int, tuple[Any, int, int, bytes]]


def write(path: Path, content: Records, *, overwrite: bool = False) -> None:
    with ft.RecordWriter(path, overwrite=overwrite) as writer:
        for key, (label, record_id, id2, payload) in content.items():
            writer.write(key, ft.IRHeader(0, label, record_id, id2), payload)


def write_simple(path: Path, count: int = 5) -> None:
    write(path, {key: (float(key // 2), key, 0, bytes([key]) * (20 + key)) for key in range(1, count + 1)})


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    path = tmp_path / "a.rec"
    write_simple(path)
    return path


def assert_header(header: ft.IRHeader, label: Any, record_id: int, id2: int) -> None:
    assert (header.id, header.id2) == (record_id, id2)
    if isinstance(label, list):
        assert header.flag == len(label)
        np.testing.assert_array_equal(np.atleast_1d(header.label), np.array(label or [0], np.float32))
    else:
        assert header.flag == 0
        assert header.label == np.float32(label)


@settings(deadline=None, max_examples=60)
@given(records)
def test_round_trip(content: Records) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.rec"
        write(path, content)
        if not content:
            assert path.stat().st_size == 0
            return
        file = ft.RecordFile(path)
        assert file.keys.tolist() == list(content)
        assert len(file) == len(content)
        assert file.problems == ()
        for key, (label, record_id, id2, payload) in content.items():
            header, read = file.read(key)
            assert read == payload
            assert_header(header, label, record_id, id2)


@pytest.mark.mxnet
@pytest.mark.filterwarnings("ignore:tostring")
@settings(deadline=None, max_examples=60)
@given(content=records)
@example(content={1: ([], 1, 0, b""), 2: (3.0, 2, 0, MAGIC * 3), 3: ([1.0, MAGIC[0]], 0, 0, MAGIC)})
def test_same_bytes_as_mxnet(mx: Any, content: Records) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, theirs = Path(folder) / "a.rec", Path(folder) / "mx.rec"
        write(path, content)
        writer = mx.recordio.MXIndexedRecordIO(str(theirs.with_suffix(".idx")), str(theirs), "w")
        for key, (label, record_id, id2, payload) in content.items():
            writer.write_idx(key, mx.recordio.pack(mx.recordio.IRHeader(0, label, record_id, id2), payload))
        writer.close()
        assert path.read_bytes() == theirs.read_bytes()
        assert path.with_suffix(".idx").read_bytes() == theirs.with_suffix(".idx").read_bytes()

        reader = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "r")
        ours = ft.RecordFile(theirs) if content else None
        for key in content:
            header, payload = mx.recordio.unpack(reader.read_idx(key))
            assert ours is not None
            our_header, our_payload = ours.read(key)
            assert our_payload == payload
            assert our_header[0::2] == header[0::2]
            assert our_header.id2 == header.id2
            np.testing.assert_array_equal(our_header.label, header.label)
        reader.close()


@pytest.mark.mxnet
def test_reads_as_mxnet_does(mx: Any, real_data: Path) -> None:
    for name in ("lfw112-a/train", "adaface8/train", "multipart/mp"):
        path = real_data / f"{name}.rec"
        theirs = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "r")
        ours = ft.RecordFile(path)
        assert ours.keys.tolist() == theirs.keys
        for key in theirs.keys:
            header, content = mx.recordio.unpack(theirs.read_idx(key))
            our_header, our_content = ours.read(key)
            assert our_content == content
            assert our_header.flag == header.flag
            assert our_header[2:] == header[2:]
            np.testing.assert_array_equal(our_header.label, header.label)
        theirs.close()


def test_multipart_records(real_data: Path) -> None:
    file = ft.RecordFile(real_data / "multipart" / "mp.rec")
    with (real_data / "multipart" / "expected.tsv").open() as table:
        for row in csv.DictReader(table, delimiter="\t"):
            header, content = file.read(int(row["key"]))
            assert header.label == float(row["label"])
            assert len(content) == int(row["payload_len"])
            assert hashlib.sha256(content).hexdigest() == row["payload_sha256"]


def test_real_files_without_their_idx(real_data: Path, tmp_path: Path) -> None:
    for name in ("lfw112-a/train", "adaface8/train", "multipart/mp"):
        path = real_data / f"{name}.rec"
        bare = tmp_path / "bare.rec"
        bare.unlink(missing_ok=True)
        bare.symlink_to(path)
        ours, without = ft.RecordFile(path), ft.RecordFile(bare)
        np.testing.assert_array_equal(ours.keys, without.keys)
        np.testing.assert_array_equal(ours.offsets(ours.keys), without.offsets(ours.keys))
        assert without.problems == ()


def test_what_is_no_rec_is_named(real_data: Path) -> None:
    for name in ("train.rec", "dali_train.rec"):
        with pytest.raises(ft.RecordError, match=r"Git LFS pointer, .* run `git lfs pull`"):
            ft.RecordFile(real_data / "bad" / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty; expected records"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 7\n",
            "real file of 7 bytes; run `git lfs",
        ),
        (b"just a text\n", "this is a text file"),
        (b"0\t0\n5\t5500\n", "looks like an .idx file .* give the .rec file itself"),
        (b"\xff\xd8\xff\xe0" + bytes(100), "single JPEG image; `fasttriplet pack` makes a .rec of a folder"),
        (
            MAGIC.replace(b"\n", b"\r\n") + bytes(100),
            r"each LF \(0a\) of one into CR LF .* in binary mode \(with git: `\*\.rec binary` in \.gitattr",
        ),
        (bytes(100), "starts with zeros only; was its download or copy cut off"),
        (bytes(range(1, 50)), "starts with the bytes 01 02 03 04; expected 0a 23 d7 ce"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.rec"
    path.write_bytes(content)
    with pytest.raises(ft.RecordError, match=message) as caught:
        ft.RecordFile(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_folders(tmp_path: Path, rec: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.rec"):
        ft.RecordFile(tmp_path / "no.rec")
    with pytest.raises(IsADirectoryError, match=r"is a folder; expected a \.rec file"):
        ft.RecordFile(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such \.idx file.*no\.idx"):
        ft.RecordFile(rec, tmp_path / "no.idx")


def test_unknown_keys_say_what_keys_there_are(rec: Path) -> None:
    file = ft.RecordFile(rec)
    for key in (9, -1, 2**70):
        assert key not in file
        with pytest.raises(KeyError, match=rf"no record with key {key}; it has 5 keys, from 1 to 5"):
            file.read(key)
    with pytest.raises(KeyError, match="no record with key 7;"):
        file.offsets([1, 7, 8])
    with pytest.raises(ValueError, match="keys must be a list of integers"):
        file.offsets(np.ones((2, 2), np.int64))
    with pytest.raises(TypeError):
        file.read("1")  # type: ignore[arg-type]
    assert "1" not in file
    assert np.int32(3) in file
    assert file.offsets([]).size == 0


def test_damaged_records_name_file_key_and_offset(rec: Path) -> None:
    file = ft.RecordFile(rec)
    offset = int(file.offsets([3])[0])
    with rec.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\0\0\0\0")
    with pytest.raises(
        ft.RecordError, match=rf"a\.rec, key 3, offset {offset}: .* expected the bytes 0a 23"
    ) as caught:
        file.read(3)
    assert (caught.value.key, caught.value.offset) == (3, offset)
    again = ft.RecordFile(rec)
    with pytest.warns(ft.RecordWarning, match=r"key 3 points to offset .* \(and more: see `problems`\)"):
        assert again.keys.tolist() == [1, 2, 4, 5]
    assert any("no readable record from" in problem for problem in again.problems)
    assert any("rebuilt from the .rec" in problem for problem in again.problems)


@pytest.mark.parametrize("use", [lambda file: file.keys, len, lambda file: file.problems])
def test_a_problem_is_told_once_and_to_the_caller(rec: Path, use: Callable[[ft.RecordFile], Any]) -> None:
    rec.with_suffix(".idx").write_text("")
    file = ft.RecordFile(rec)
    with pytest.warns(ft.RecordWarning, match=r"a\.idx: the file is empty; [^()]*$") as warned:
        use(file)
    assert [warning.filename for warning in warned] == [__file__]
    use(file)
    assert file.keys is file.keys
    assert not file.keys.flags.writeable
    assert len(file.problems) == 1


def test_a_file_pickles_with_the_idx_that_was_given(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rec.with_name("part.idx").write_text(rec.with_suffix(".idx").read_text().splitlines()[1])
    monkeypatch.chdir(rec.parent)
    file = ft.RecordFile("a.rec", "part.idx")
    assert file.path == Path("a.rec")
    pickled = pickle.dumps(file)
    monkeypatch.chdir("/")
    again = pickle.loads(pickled)
    assert again.keys.tolist() == [2]
    assert (again.path, repr(again)) == (rec, f"RecordFile('{rec}')")


def test_broken_idx_lines(rec: Path) -> None:
    idx = rec.with_suffix(".idx")
    good = idx.read_text()
    other = rec.with_name("other.idx")
    other.write_text(good.replace(good.splitlines()[1], "2\t18446744073709551615"))
    file = ft.RecordFile(rec, other)
    with pytest.warns(ft.RecordWarning, match="line 2: offset 18446744073709551615"):
        assert file.keys.tolist() == [1, 2, 3, 4, 5]
    assert file.read(2)[1] == bytes([2]) * 22
    assert "line 2: offset 18446744073709551615 lies beyond the end of the .rec" in file.problems[0]
    assert ft.RecordFile(rec).problems == ()


def test_a_given_idx_may_name_some_of_the_records(rec: Path) -> None:
    part = rec.with_name("part.idx")
    part.write_text("".join(line + "\n" for line in rec.with_suffix(".idx").read_text().splitlines()[1::2]))
    file = ft.RecordFile(rec, part)
    assert file.keys.tolist() == [2, 4]
    assert file.problems == ()
    assert file.read(4) == ft.RecordFile(rec).read(4)
    part.rename(rec.with_suffix(".idx"))  # beside the file it must name all
    with pytest.warns(ft.RecordWarning, match="names 2 of the 5 records in the .rec"):
        assert ft.RecordFile(rec).keys.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("beside", [True, False])
def test_a_key_has_one_record_and_a_record_one_key(rec: Path, beside: bool) -> None:
    good = ft.RecordFile(rec)
    offsets = good.offsets(good.keys)
    lines = rec.with_suffix(".idx").read_text().splitlines()
    idx = rec.with_suffix(".idx") if beside else rec.with_name("other.idx")
    cases = [
        ([*lines, "77\t0"], r"keys 1 and 77 point to the same record, at offset 0; the index was rebuilt"),
        (
            [*lines[:4], f"1\t{offsets[4]}"],
            rf"key 1 points to two records, at offsets 0 and {offsets[4]}; the",
        ),
        ([*lines, *lines[1:3]], r"lines that repeat another count once \(2 of them\)"),
    ]
    for text, message in cases:
        idx.write_text("\n".join(text))
        file = ft.RecordFile(rec, None if beside else idx)
        with pytest.warns(ft.RecordWarning, match=message):
            np.testing.assert_array_equal(file.keys, good.keys)
        np.testing.assert_array_equal(file.offsets(file.keys), offsets)


def test_a_byte_order_mark_in_an_idx(rec: Path) -> None:
    idx = rec.with_suffix(".idx")
    idx.write_text(idx.read_text(), encoding="utf-8-sig")
    file = ft.RecordFile(rec)
    assert file.keys.tolist() == [1, 2, 3, 4, 5]
    assert file.problems == ()


def test_a_copy_in_text_mode(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    contents = {key: (0.0, key, 0, rng.bytes(400) + b"\r\n" * (key % 3 == 0)) for key in range(1, 40)}
    path = tmp_path / "a.rec"
    write(path, contents)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"\n", b"\r\n"))
    with pytest.raises(ft.RecordError, match="not a RecordIO file: a copy in text mode has turned each LF"):
        ft.RecordFile(path)
    path.write_bytes(whole.replace(b"\r\n", b"\n"))
    with pytest.warns(ft.RecordWarning, match=r"turned each CR LF \(0d 0a\) into LF .* again in binary mode"):
        assert len(ft.RecordFile(path)) < 39
    path.write_bytes(whole[:100] + whole[101:])  # other damage, in a file with CR LF
    with pytest.warns(ft.RecordWarning):
        problems = ft.RecordFile(path).problems
    assert not any("text mode" in problem for problem in problems)


def test_keys_of_any_width(tmp_path: Path) -> None:
    path = tmp_path / "wide.rec"
    keys = [-(2**63), 2**63 - 1, 0]
    with ft.RecordWriter(path) as writer:
        for key in keys:
            writer.write(key, ft.IRHeader(0, 1.0, 5, 0), b"x")
    file = ft.RecordFile(path)
    assert file.keys.tolist() == keys
    for key in keys:
        assert key in file
        assert file.read(key)[1] == b"x"
    for key in (2**63, -(2**63) - 1):
        assert key not in file
        with pytest.raises(
            KeyError, match=rf"no record with key {key}; it has 3 keys, from -9223372036854775"
        ):
            file.read(key)
        with ft.RecordWriter(tmp_path / "b.rec") as writer:
            expected = f"key: expected an integer in {-(2**63)}..{2**63 - 1}, got {key}"
            with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
                writer.write(key, ft.IRHeader(0, 1.0, 0, 0), b"x")
            writer.write(0, ft.IRHeader(0, 1.0, 2**64 - 1, 2**64 - 1), b"x")
        (tmp_path / "b.rec").unlink()
        (tmp_path / "b.idx").unlink()
    assert file.offsets(np.array([0], np.uint64)).tolist() == file.offsets([0]).tolist()
    assert file.offsets(np.array([], np.uint64)).shape == (0,)
    with pytest.raises(ValueError, match=r"^keys must be below 2\*\*63, not 18446744073709551615$"):
        file.offsets(np.array([0, 2**64 - 1], dtype=np.uint64))
    with pytest.raises(ValueError, match="keys must be a list of integers"):
        file.decode(5)  # type: ignore[call-overload]


def test_pickles_by_absolute_path(rec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(rec.parent)
    file = ft.RecordFile("a.rec")
    file.read(1)
    pickled = pickle.dumps(file)
    assert len(pickled) < 500
    monkeypatch.chdir("/")
    assert pickle.loads(pickled).read(4) == file.read(4)


def test_threads_share_a_handle(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    write_simple(path, 200)
    file = ft.RecordFile(path)
    wrong: list[int] = []

    def read() -> None:
        wrong.extend(key for key in range(1, 201) if file.read(key)[1] != bytes([key]) * (20 + key))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _read_in_child(file: ft.RecordFile, keys: list[int], queue: Any) -> None:
    queue.put(all(file.read(key)[1] == bytes([key]) * (20 + key) for key in keys))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("loaded", [False, True])
def test_children_after_a_fork_read_the_same_handle(tmp_path: Path, loaded: bool) -> None:
    path = tmp_path / "a.rec"
    write_simple(path, 200)
    file = ft.RecordFile(path)
    if loaded:
        file.read(1)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [
        context.Process(target=_read_in_child, args=(file, list(range(start, 201, 4)), queue))
        for start in range(1, 5)
    ]
    for child in children:
        child.start()
    assert [queue.get(timeout=30) for _ in children] == [True] * 4
    for child in children:
        child.join()


@pytest.mark.parametrize(
    ("header", "key", "message"),
    [
        ((0, 1e39, 0, 0), 1, "key 1: label 1e[+]39 does not fit a float32"),
        ((0, None, 0, 0), 1, "key 1: label must be a number, or several, not None"),
        ((0, "7", 0, 0), 1, "key 1: label must be a number, or several, not '7'"),
        ((0, 1.0, -1, 0), 1, "key 1: id: expected an integer in 0"),
        ((0, 1.0, 0, 2**64), 1, "key 1: id2: expected an integer in 0"),
        ((0, 1.0, 0, 0), 2**63, "key: expected an integer in"),
    ],
)
def test_fields_that_do_not_fit(tmp_path: Path, header: Any, key: int, message: str) -> None:
    with ft.RecordWriter(tmp_path / "a.rec") as writer, pytest.raises(ValueError, match=message):
        writer.write(key, header, b"")


def test_writer_takes_any_bytes_and_headers(tmp_path: Path) -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    with ft.RecordWriter(str(tmp_path / "a.rec")) as writer:
        assert writer.path == tmp_path / "a.rec"
        writer.write(1, (9, float(np.float64(2)), 1, 0), bytearray(b"ab"))
        writer.write(2, ft.IRHeader(9, np.array([[1, 2], [3, 4]]), 2, 0), memoryview(b"cd"))
        writer.write(np.int64(3), ft.IRHeader(0, np.array(5.0), 3, 0), pixels)
        for wrong, found in (("text", "str"), (np.zeros(3), "ndarray of 8 bytes each"), (None, "NoneType")):
            with pytest.raises(TypeError, match=f"^key 4: payload must be bytes, .*, not {found}$"):
                writer.write(4, (0, 1.0, 4, 0), wrong)  # type: ignore[arg-type]
        for header in (5.0, (0, 1.0)):
            with pytest.raises(
                TypeError, match=r"^key 4: header must be an IRHeader \(flag, label, id, id2\)"
            ):
                writer.write(4, header, b"")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="key 3 was written before"):
            writer.write(3, (0, 1.0, 3, 0), b"")
    file = ft.RecordFile(tmp_path / "a.rec")
    assert file.read(1) == (ft.IRHeader(0, 2.0, 1, 0), b"ab")
    assert file.read(2)[0].label.tolist() == [1, 2, 3, 4]  # type: ignore[union-attr]
    assert file.read(3)[0].flag == 1
    assert file.read(3)[1] == pixels.tobytes()


def test_an_error_leaves_what_was_there(rec: Path) -> None:
    before = rec.read_bytes()
    with pytest.raises(RuntimeError), ft.RecordWriter(rec, overwrite=True) as writer:
        writer.write(1, (0, 1.0, 1, 0), bytes(3 << 20))
        raise RuntimeError
    assert rec.read_bytes() == before
    assert names(rec.parent) == ["a.idx", "a.rec"]
    with pytest.raises(ValueError, match="is closed"):
        writer.write(2, (0, 1.0, 2, 0), b"")
    writer.close()


def test_an_open_file_survives_its_replacement(rec: Path) -> None:
    file = ft.RecordFile(rec)
    before = file.read(1)
    write(rec, {1: (5.0, 1, 0, b"new")}, overwrite=True)
    assert file.read(1) == before
    assert ft.RecordFile(rec).read(1)[1] == b"new"


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import resource, signal, sys
        import fasttriplet as ft
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
        try:
            with ft.RecordWriter(sys.argv[1]) as writer:
                for key in range(10):
                    try:
                        writer.write(key, (0, 1.0, key, 0), bytes(1 << 20))
                    except OSError as error:
                        print(error)
        except ValueError as error:
            print(error)
    """)
    path = tmp_path / "full.rec"
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert re.search(rf"File too large after [\d,]+ bytes; .* allows no larger files: '{path}'", done.stdout)
    assert f"{path}: the RecordWriter is closed" in done.stdout
    assert names(tmp_path) == []


@pytest.fixture
def killed_writer(tmp_path: Path) -> Iterator[Path]:
    script = textwrap.dedent("""
        import sys, time
        import fasttriplet as ft
        with ft.RecordWriter(sys.argv[1]) as writer:
            for key in range(20):
                writer.write(key, (0, 1.0, key, 0), bytes(1 << 20))
            print("written", flush=True)
            time.sleep(60)
    """)
    path = tmp_path / "killed.rec"
    process = subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    yield path


def test_a_killed_writer_leaves_nothing_under_the_final_names(killed_writer: Path) -> None:
    left = names(killed_writer.parent)
    assert left == [".killed.idx.unfinished", ".killed.rec.unfinished"]
    write_simple(killed_writer)
    assert len(ft.RecordFile(killed_writer)) == 5
    assert names(killed_writer.parent) == ["killed.idx", "killed.rec"]


def test_a_writer_replaces_nothing_unasked(rec: Path) -> None:
    before = rec.read_bytes()
    for there, gone in ((rec, rec.with_suffix(".idx")), (rec.with_suffix(".idx"), rec)):
        content = gone.read_bytes()
        gone.unlink()
        with pytest.raises(FileExistsError, match="exists already; overwrite=True replaces it") as error:
            ft.RecordWriter(rec)
        assert error.value.filename == str(there)
        gone.write_bytes(content)
    writer = ft.RecordWriter(rec, overwrite=True)
    with pytest.raises(FileExistsError, match="another run is writing it at this moment"):
        ft.RecordWriter(rec, overwrite=True)
    del writer  # forgotten
    gc.collect()
    assert rec.read_bytes() == before
    assert names(rec.parent) == ["a.idx", "a.rec"]
    with pytest.raises(ValueError, match=r"cannot end in \.idx"):
        ft.RecordWriter(rec.with_suffix(".idx"))


def test_ctrl_c_ends_a_rebuild(tmp_path: Path) -> None:
    # 40 GiB of holes: going through them takes much longer than the second that it may take to stop.
    path = tmp_path / "holes.rec"
    write_simple(path)
    os.truncate(path, 40 << 30)
    file = ft.RecordFile(path)
    begin = time.process_time()
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        len(file)
    assert time.process_time() - begin < 1.5


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.rec")
    for path in (tmp_path / "pipe.rec", Path("/dev/null")):
        with pytest.raises(OSError, match=r"is a pipe or a device; expected a \.rec"):
            ft.RecordFile(path)
