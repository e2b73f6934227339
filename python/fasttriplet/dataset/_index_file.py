"""The bytes of an index that is kept. They are checked as if a stranger had written them.

A line with the format, a line of JSON with everything but the columns, the columns, and the CRC-32 of
all of it. Keys, labels and offsets are kept as the differences of neighbours, lengths as they are, each in
the narrowest type that holds them: 6 to 8 bytes per row instead of 32.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet.errors import RecordError

MAGIC = b"fasttriplet index "
# To be raised whenever the columns or the facts change, or how they are found.
FORMAT = 3
COLUMNS = ("key", "label", "offset", "length")

_TYPES = ("|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<i8")
_MOST_HEAD = 4 << 20  # bytes: 20,000 problems, and a few hundred megabytes as the worst JSON
_BEFORE_CONTENT = 32  # bytes of a record, at least: its framing and an IRHeader
_LEAST_RECORD = 36  # bytes: content of one byte is padded
_SAMPLE = 32  # records; reading them takes 0.3 s from a cold hard disk

Columns: TypeAlias = dict[str, NDArray[np.int64]]


class Facts(TypedDict):
    """What is known of a file besides its index."""

    records: int
    layout: Literal["insightface", "flat"]
    identity_records: int
    flags: dict[str, int]
    object_images: int
    idx_used: bool
    keys_are_ids: bool
    problems: list[str]
    label_problems: list[str]
    range_problems: list[str]


@dataclass(frozen=True, slots=True, eq=False)
class FileIndex:
    """The index of a file, and what is known of the file besides."""

    columns: Columns
    facts: Facts


class UnfitError(Exception):
    """The bytes are not those of an index of the file; the message goes on from "it"."""


def most_bytes(rec_size: int) -> int:
    """The most bytes that an index of a ``.rec`` of this size can have."""
    return _MOST_HEAD + len(COLUMNS) * 8 * (rec_size // _LEAST_RECORD)


def encode(stamp: Mapping[str, Any], index: FileIndex, file: _core.RecordFile) -> bytes | None:
    """Return the bytes of an index; None if there is too much to say about the file besides."""
    steps = {name: _narrowed(_steps(name, index.columns[name])) for name in COLUMNS}
    head = {
        "stamp": stamp,
        "rows": int(index.columns["key"].size),
        "columns": {name: [steps[name].dtype.str, int(index.columns[name][0])] for name in COLUMNS},
        "facts": index.facts,
        "sample": _sample(file, index.columns),
    }
    start = MAGIC + b"%d\n%b\n" % (FORMAT, json.dumps(head).encode())
    if len(start) > _MOST_HEAD:
        return None
    content = b"".join([start, *(steps[name].tobytes() for name in COLUMNS)])
    return content + zlib.crc32(content).to_bytes(4, "little")


def decode(content: bytes, stamp: Mapping[str, Any], file: _core.RecordFile) -> FileIndex | None:
    """Read an index from bytes that begin with MAGIC; None if it is one of another file or format.

    Raises
    ------
    UnfitError
        If it is not an index of `file`, which has this stamp.
    OSError
        If the ``.rec`` cannot be read.
    """
    crc = int.from_bytes(content[-4:], "little")
    if len(content) < 4 or zlib.crc32(memoryview(content)[:-4]) != crc:
        raise UnfitError("is damaged: its checksum is wrong")
    try:
        end = content.index(b"\n")
        if content[len(MAGIC) : end] != b"%d" % FORMAT:
            return None
        start, end = end + 1, content.index(b"\n", end + 1, _MOST_HEAD)
        head = json.loads(content[start:end])
        if head["stamp"] != stamp:
            return None
        rows, facts, sample = head["rows"], head["facts"], head["sample"]
        types = [(name, *head["columns"][name]) for name in COLUMNS]
        columns = _columns(memoryview(content)[end + 1 : -4], rows, types, file.size)
        _check_columns(columns, file.size)
        _check_facts(facts, rows)
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError):
        raise UnfitError("does not hold an index of this file") from None
    try:
        if _sample(file, columns) == sample:
            return FileIndex(columns, facts)
    except RecordError:
        pass
    raise UnfitError("does not agree with the records")


def _steps(name: str, column: NDArray[np.int64]) -> NDArray[np.int64]:
    return column if name == "length" else np.diff(column)


def _narrowed(values: NDArray[np.int64]) -> NDArray[Any]:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    fits = (kind for kind in _TYPES if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return values.astype(next(fits))


def _columns(body: memoryview, rows: int, types: list[tuple[str, str, int]], rec_size: int) -> Columns:
    """Read the columns; `rows` and `types` are as the file says."""
    _check(_is_count(rows) and 1 <= rows <= rec_size // _LEAST_RECORD)
    columns: Columns = {}
    at = 0
    for name, kind, first in types:
        _check(kind in _TYPES and type(first) is int)
        differences = name != "length"
        steps = np.frombuffer(body, kind, rows - differences, at)
        at += steps.nbytes
        column = np.empty(rows, np.int64)
        column[0] = first  # an integer beyond 64 bits is an OverflowError
        column[differences:] = steps
        if differences:
            np.cumsum(column, out=column)  # modulo 2^64, as the differences are
        columns[name] = column
    _check(at == len(body))
    return columns


def _check_columns(columns: Columns, rec_size: int) -> None:
    """Check what holds for each index, whatever is in its records."""
    keys, labels, offsets, lengths = (columns[name] for name in COLUMNS)
    _check((keys[1:] > keys[:-1]).all())
    low, high = int(labels.min()), int(labels.max())
    _check(low > -9.2e18 and high < 9.2e18)
    if not -(2**24) <= low <= high <= 2**24:
        _check((labels.astype(np.float32).astype(np.int64) == labels).all())  # as records hold them
    if not (offsets[1:] > offsets[:-1]).all():  # the order of the keys is not that of the file
        order = np.argsort(offsets)
        offsets, lengths = offsets[order], lengths[order]
    _check(offsets[0] >= 0 and offsets[-1] <= rec_size and np.bitwise_or.reduce(offsets) & 3 == 0)
    _check(lengths.min() >= 1 and lengths.max() <= rec_size)
    ends = offsets + lengths
    ends += _BEFORE_CONTENT
    _check(ends[-1] <= rec_size and (ends[:-1] <= offsets[1:]).all())


def _check_facts(facts: Facts, images: int) -> None:
    _check(type(facts) is dict and facts.keys() == Facts.__annotations__.keys())
    flags = facts["flags"]
    _check(type(flags) is dict)
    counts = [facts["records"], facts["identity_records"], facts["object_images"], *flags.values()]
    _check(all(map(_is_count, counts)))
    _check(images + facts["identity_records"] <= facts["records"] and facts["object_images"] <= images)
    _check(all(flag == str(int(flag)) for flag in flags) and sum(flags.values()) == images)
    _check(type(facts["idx_used"]) is bool and type(facts["keys_are_ids"]) is bool)
    _check(facts["layout"] in ("insightface", "flat"))
    for lines in (facts["problems"], facts["label_problems"], facts["range_problems"]):
        _check(type(lines) is list and all(type(line) is str for line in lines))


def _sample(file: _core.RecordFile, columns: Columns) -> int:
    """Return a checksum of a few records and their keys, evenly spread from the first to the last.

    Raises a RecordError if they are not what the columns say.
    """
    keys, labels, offsets, lengths = (columns[name] for name in COLUMNS)
    places = np.unique(np.linspace(0, keys.size - 1, _SAMPLE).round().astype(np.int64))
    checksum = 0
    for place in places.tolist():
        key = int(keys[place])
        flag, label, *ids, content = file.record_at(int(offsets[place]), key)
        first = label if isinstance(label, float) else label[0]
        if first != labels[place] or len(content) != lengths[place]:
            raise RecordError(f"key {key}, offset {offsets[place]}: the index has another label or length")
        checksum = zlib.crc32(content, zlib.crc32(repr([key, flag, float(first), *ids]).encode(), checksum))
    return checksum


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _check(holds: object) -> None:
    if not holds:
        raise ValueError
