"""The bytes of an index that is kept: believed only if they are right, whoever wrote them."""

from __future__ import annotations

import json
import pickle
import random
import stat
import warnings
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fasttriplet as ft
from fasttriplet import _core
from fasttriplet.dataset import _index_file
from fasttriplet.dataset._index_cache import IndexCache
from fasttriplet.dataset._index_file import COLUMNS, MAGIC, Columns, FileIndex, UnfitError, decode, encode
from tests.dataset.kept_index import is_kept, problem_of
from tests.processes import run_python
from tests.small_rec import identities, kept_beside, write_rec

Head = dict[str, Any]


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    """A file of fewer images than are looked at, so that each row of a kept index is compared."""
    return write_rec(tmp_path / "train.rec", identities(6, 4))


@pytest.mark.parametrize("content", [b"", MAGIC + b"2\n", MAGIC + b"%d\n" % _index_file.FORMAT])
def test_what_is_left_of_an_index_is_replaced(rec: Path, content: bytes) -> None:
    """Nothing is what a power cut may leave."""
    for end in (b"", bytes(1000)):
        kept_beside(rec).write_bytes(content + end if content else b"")
        if content:
            assert "it is damaged: its checksum is wrong. The index is made again" in problem_of(rec)
        else:
            ft.index_rec(rec)
        assert is_kept(rec)


def test_an_index_that_is_too_large_is_of_an_earlier_file(rec: Path) -> None:
    with kept_beside(rec).open("wb") as file:
        file.write(MAGIC)
        file.truncate(1 << 42)
    ft.index_rec(rec)
    assert is_kept(rec)


class Crafted:
    """An index that is changed, with a checksum that is right."""

    def __init__(self, rec: Path) -> None:
        self.file = _core.RecordFile(rec)
        place = IndexCache.of(rec, True)
        assert place is not None
        self.stamp = place.stamp(self.file, rec.with_suffix(".idx"))
        ft.index_rec(rec)
        self.content = kept_beside(rec).read_bytes()
        index = self.read()
        assert index is not None
        self.index = index
        self.start = self.content.index(b"\n") + 1
        self.end = self.content.index(b"\n", self.start)
        self.body = self.content[self.end + 1 : -4]

    def head(self) -> Head:
        head: Head = json.loads(self.content[self.start : self.end])
        return head

    def read(self, content: bytes | None = None) -> FileIndex | None:
        return decode(self.content if content is None else content, self.stamp, self.file)

    def with_head(self, head: Any, body: bytes | None = None) -> bytes:
        words = head if isinstance(head, bytes) else json.dumps(head).encode()
        content = self.content[: self.start] + words + b"\n" + (self.body if body is None else body)
        return content + zlib.crc32(content).to_bytes(4, "little")

    def with_columns(self, change: Callable[[Columns], object]) -> bytes:
        columns = {name: column.copy() for name, column in self.index.columns.items()}
        change(columns)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_index_file, "_sample", lambda *_: self.head()["sample"])
            content = encode(self.stamp, FileIndex(columns, self.index.facts), self.file)
        assert content is not None
        return content

    def is_right(self, index: FileIndex | None) -> bool:
        return index is not None and all(
            np.array_equal(index.columns[name], self.index.columns[name]) for name in COLUMNS
        )


LOW = -(2**63)


def change(name: str, row: int, to: int) -> Callable[[Columns], object]:
    def changed(columns: Columns) -> None:
        columns[name][row] = to

    return changed


def reorder(columns: Columns) -> None:
    for name in COLUMNS:
        columns[name] = columns[name][::-1]


@pytest.mark.parametrize(
    "craft",
    [
        *(change("key", row, to) for row, to in [(0, 2), (3, 3), (23, -1), (0, 2**63 - 1), (23, 25)]),
        *(change("label", row, to) for row, to in [(0, 1), (5, -1), (1, 2**62), (2, LOW), (0, 2**24 + 1)]),
        *(change("offset", row, to) for row, to in [(0, 4), (0, 2), (0, -4), (1, 2**62), (2, LOW), (5, 0)]),
        *(change("length", row, to) for row, to in [(0, 0), (3, -1), (4, 1), (5, 2**40), (23, 2**63 - 1)]),
        reorder,
        lambda columns: columns.update(offset=columns["offset"][::-1].copy()),
        lambda columns: columns.update(offset=columns["offset"] + 4),
        lambda columns: columns.update(key=columns["key"] + 1),
        lambda columns: columns.update({name: columns[name][:-1] for name in COLUMNS}),
    ],
)  # fmt: skip
def test_crafted_columns_are_not_believed(rec: Path, craft: Callable[[Columns], object]) -> None:
    crafted = Crafted(rec)
    kept_beside(rec).write_bytes(crafted.with_columns(craft))
    problem_of(rec)
    assert is_kept(rec)


@pytest.mark.parametrize(
    ("differs", "told"),
    [("label", "its label is"), ("length", "its length in bytes is"), ("offset", "no record")],
)
def test_a_wrong_row_that_was_not_compared_makes_the_kept_index_suspect(
    tmp_path: Path, differs: str, told: str
) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(20, 4))
    crafted = Crafted(rec)
    row = min(set(range(80)) - set(np.linspace(0, 79, 32).round()))

    def craft(columns: Columns) -> None:
        if differs == "offset":
            columns["offset"][row] += 4
            columns["length"][row] -= 8
        else:
            columns[differs][row] -= 1

    kept_beside(rec).write_bytes(crafted.with_columns(craft))
    dataset = ft.Dataset(rec)
    advice = (
        rf"was the file changed after it was indexed\? If not, the kept index {kept_beside(rec)} is wrong"
    )
    said = f"{told}.*; {advice}: delete it, and it is made again$"
    for one in (dataset, pickle.loads(pickle.dumps(dataset))):
        with pytest.raises(ft.RecordError, match=said):
            one.read(row)
        with pytest.raises(ft.RecordError, match=said):
            one.decode([row])
    kept_beside(rec).unlink()
    assert len(ft.Dataset(rec).decode([row]).pixels) == 1


def sound() -> Columns:
    """Records of 1, 8 and 100 bytes, the second of which is the last in the file, which is full."""
    return {
        "key": np.array([1, 2, 9]),
        "label": np.array([0, 0, 1]),
        "offset": np.array([0, 36 + 132, 36]),
        "length": np.array([1, 8, 100]),
    }


FULL = 36 + 132 + 40


@pytest.mark.parametrize(
    ("name", "row", "to"),
    [
        *[("key", 1, 1), ("key", 0, 2), ("key", 2, 2)],
        *[("label", 1, 2**24 + 1), ("label", 1, -(2**24) - 1), ("label", 2, 2**62 + 1), ("label", 0, LOW)],
        *[("label", 0, 2**63 - 1), ("label", 0, -(2**63) + 2**39)],
        *[("offset", 0, -36), ("offset", 0, -4), ("offset", 2, 32), ("offset", 2, 38), ("offset", 2, 40)],
        *[("offset", 1, 168 + 4), ("offset", 1, 168 + 2), ("offset", 2, 168), ("offset", 1, 2**62)],
        *[("length", 0, 0), ("length", 0, -5), ("length", 0, 5), ("length", 2, 101), ("length", 1, 9)],
        *[("length", 1, FULL + 1), ("length", 1, 2**63 - 1)],
    ],
)
def test_columns_that_no_file_has(name: str, row: int, to: int) -> None:
    columns = sound()
    _index_file._check_columns(columns, FULL)
    columns[name][row] = to
    with pytest.raises(ValueError, match=r"^$"):
        _index_file._check_columns(columns, FULL)


@pytest.mark.parametrize("records", [0, 1, 10**8])
def test_an_index_has_at_most_32_bytes_for_a_record_and_4_mb(records: int) -> None:
    """Records have 36 bytes at least."""
    for rest in (0, 35):
        assert _index_file.most_bytes(36 * records + rest) == 32 * records + 2**22


def test_columns_of_a_file_that_is_full() -> None:
    columns = sound()
    with pytest.raises(ValueError, match=r"^$"):
        _index_file._check_columns(columns, FULL - 1)
    for label in (2**24, -(2**24), 2**24 + 2, 2**62, -(2**62)):
        columns["label"][1] = label
        _index_file._check_columns(columns, FULL)


@pytest.mark.parametrize("values", [(0, 255), (-128, 127), (0, 2**16 - 1), (-1, 128), (-(2**15), 2**15 - 1)])
@pytest.mark.parametrize("more", [(0, 0), (0, 1), (-1, 0)])
def test_numbers_are_kept_in_few_bytes(values: tuple[int, int], more: tuple[int, int]) -> None:
    """In as few as hold them."""
    some = np.array([values[0] + more[0], 0, values[1] + more[1]])
    found = _index_file._narrowed(some)
    assert found.tolist() == some.tolist()
    least = 8
    for size in (1, 2, 4):
        for low, high in ((0, 2 ** (8 * size) - 1), (-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1)):
            if low <= some.min() and some.max() <= high:
                least = min(least, size)
    assert found.dtype.itemsize == least


WRONG: list[Any] = [None, -1, 0, 1.5, True, "24", 2**70, 10**30, [], {}, [24], float("nan"), "|u1"]
KINDS: list[Any] = [
    None,
    1,
    ["|u1"],
    {},
    "",
    "\0",
    "O",
    "|O",
    "|S1",
    "|V1",
    "<f8",
    "<u8",
    ">u2",
    "<U9",
    "u1,u1",
]
KINDS += ["M8[ns]", "|b1", "(3,)u1"]


def crafted_heads(good: Head) -> list[Any]:
    """What the JSON may be instead: all of it, each of its values, each of theirs."""

    def but(value: Any, *names: str | int) -> Head:
        head: Head = json.loads(json.dumps(good))
        place: Any = head
        for name in names[:-1]:
            place = place[name]
        place[names[-1]] = value
        return head

    heads: list[Any] = [*WRONG, b"", b"rubbish", b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b"{}"]
    for name in ("rows", "sample", "columns", "facts"):
        heads += [but(value, name) for value in WRONG if good[name] != value]
        heads.append({key: value for key, value in good.items() if key != name})
    for name in COLUMNS:
        heads += [but(first, "columns", name, 1) for first in (None, 2**63, -(2**70), "1", [1], 1e300, 1.0)]
        heads += [but(kind, "columns", name, 0) for kind in KINDS]
    for name, fact in good["facts"].items():
        heads += [but(value, "facts", name) for value in WRONG if (type(value), value) != (type(fact), fact)]
    problems: list[Any] = [[1], [None], [[]], {"a": 1}, "text"]
    heads += [but(lines, "facts", "problems") for lines in problems]
    flags = ({"0": 23}, {"0": 25, "1": -1}, {"00": 24}, {"x": 24}, {"0": 24.0}, {"0": True})
    heads += [but(value, "facts", "flags") for value in flags]
    return [*heads, but(23, "facts", "records")]


def test_crafted_heads_are_not_believed(rec: Path) -> None:
    crafted = Crafted(rec)
    assert crafted.is_right(crafted.read(crafted.with_head(crafted.head())))
    contents = [crafted.with_head(head) for head in crafted_heads(crafted.head())]
    bodies = (b"", crafted.body[:-1], crafted.body + b"\0", crafted.body * 1000)
    contents += [crafted.with_head(crafted.head(), body) for body in bodies]
    believed = []
    for content in contents:
        with suppress(UnfitError):
            index = crafted.read(content)
            # The number of records may be any from that of the images on.
            if index is None or index.facts["records"] <= 24:
                believed.append(content)
    assert believed == []
    assert len(contents) > 200


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Flip, cut, insert, double or overwrite some bytes."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        at, size = chance.randrange(len(changed) + 1), chance.choice([1, 1, 2, 4, 8, 100])
        match chance.randrange(5):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case 1:
                del changed[at : at + size]
            case 2:
                changed[at:at] = chance.randbytes(size)
            case 3:
                changed[at:at] = changed[at : at + size]
            case _:
                changed[at : at + size] = chance.choice([b"\0", b"\xff", b"9", b"-"]) * size
    return bytes(changed)


@pytest.mark.parametrize("count", [1500, pytest.param(300_000, marks=pytest.mark.slow)])
def test_mutations_give_the_true_index_or_none(rec: Path, count: int) -> None:
    crafted = Crafted(rec)
    found = {"none": 0, "true": 0, "unfit": 0}
    for seed in range(count):
        chance = random.Random(seed)
        content = MAGIC + mutated(crafted.content[len(MAGIC) :], chance)
        if fixed := seed % 2:  # the checksum, so that the rest is looked at
            content = content[:-4] + zlib.crc32(content[:-4]).to_bytes(4, "little")
        try:
            index = crafted.read(content)
        except UnfitError:
            found["unfit"] += 1
            continue
        if index is None:  # of a file with another stamp, or of another format
            assert fixed
            found["none"] += 1
        else:
            assert crafted.is_right(index), seed
            assert fixed or content == crafted.content
            found["true"] += 1
    assert found["unfit"] > count / 2
    assert min(found.values()) > 0


@pytest.mark.heavy
def test_mutated_files_in_a_process_with_little_memory(rec: Path) -> None:
    """From the file to the index, with a limit on memory and on time."""
    code = f"""
import random, resource, sys, warnings
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.dataset.test_index_file import Crafted, Path, ft, kept_beside, mutated
rec = Path({str(rec)!r})
good = ft.index_rec(rec)
kept = kept_beside(rec)
whole = kept.read_bytes()
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)
crafted = Crafted(rec)
many = crafted.with_head(crafted.head() | {{"rows": 10**12}})
deep = crafted.with_head(b'{{"stamp":' + b'[' * 3_000_000)
objects = crafted.with_head(b'[' + b'{{}},' * 1_300_000 + b'0]')
contents = [many, deep, objects, *(mutated(whole, random.Random(seed)) for seed in range(150))]
for content in contents:
    kept.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert ft.index_rec(rec).equals(good)
    assert len(caught) == 1 or content in (b"", whole), caught
    assert all(issubclass(warning.category, ft.RecordWarning) for warning in caught)
print("done")
"""
    assert run_python(code, timeout=60) == "done\n"


# What is written is read again


@pytest.mark.heavy
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 2**63 - 1),
            st.one_of(st.integers(0, 5), st.integers(-(2**24), 2**24), st.just(2**62)),
            st.integers(0, 300),
        ),
        min_size=1,
        max_size=50,
        unique_by=lambda row: row[0],
    ),
    damage=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3),
)
def test_every_index_that_is_kept_is_believed(
    tmp_path: Path, rows: list[tuple[int, int, int]], damage: list[tuple[int, int]]
) -> None:
    """Keys in any order, records without an image, damaged files."""
    path = tmp_path / "train.rec"
    with ft.RecordWriter(path, overwrite=True) as writer:
        for key, label, length in rows:
            labels = [float(label), 1.0] if key % 3 == 0 else float(label)
            # Content with the magic number is stored in several parts.
            writer.write(key, (0, labels, key, 0), (b"abcd\x0a\x23\xd7\xce" * 40)[:length])
    content = bytearray(path.read_bytes())
    for at, byte in damage:
        content[at % len(content)] = byte
    path.write_bytes(content)
    kept_beside(path).unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = ft.index_rec(path)
        except ValueError:  # no image
            return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert is_kept(path)
        assert ft.index_rec(path).equals(expected)
    assert not [warning for warning in caught if "is not used" in str(warning.message)]


def test_permissions_of_an_index_are_those_of_any_file(rec: Path) -> None:
    ft.index_rec(rec)
    kept_beside(rec).chmod(0o600)
    rec.touch()
    ft.index_rec(rec)
    assert stat.S_IMODE(kept_beside(rec).stat().st_mode) == 0o600
    assert is_kept(rec)
