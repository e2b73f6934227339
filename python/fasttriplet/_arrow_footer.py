"""Metadata of an Arrow file, which Polars neither writes nor reads: in the schema that its footer holds.

The file ends with the footer, which is a FlatBuffer, its length and the magic. All offsets in a FlatBuffer
are relative. So a new footer is a few new tables before the old ones, which stay as they are.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import IO

MAGIC = b"ARROW1"
_END = struct.Struct("<i6s")  # the length of the footer, and the magic

# Fields of Arrow's tables, by their numbers (File.fbs and Schema.fbs of the format).
_VERSION, _SCHEMA, _DICTIONARIES, _BATCHES = range(4)
_ENDIANNESS, _FIELDS, _METADATA, _FEATURES = range(4)
_NAME, _VALUE = range(2)


def add(path: Path, key: str, value: str) -> None:
    """Add an entry to the metadata of the schema of a file that has none."""
    with path.open("r+b") as file:
        footer, start = _footer(file)
        file.seek(start)
        new = _with(footer, key.encode(), value.encode())
        file.write(new + _END.pack(len(new), MAGIC))


def read(file: IO[bytes], key: str) -> str | None:
    """Read an entry of the metadata; None if there is none, a ValueError if the file is damaged."""
    try:
        footer, _ = _footer(file)
        schema = _Table.root(footer).table(_SCHEMA)
        for entry in schema.tables(_METADATA):
            if entry.text(_NAME) == key:
                return entry.text(_VALUE)
    except (struct.error, IndexError, UnicodeDecodeError, OverflowError):
        raise ValueError("is a damaged Arrow file: the footer at its end is not one") from None
    return None


def _footer(file: IO[bytes]) -> tuple[bytes, int]:
    """The footer, and where it begins."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - _END.size))
    length, magic = _END.unpack(file.read(_END.size))
    start = end - _END.size - length
    if magic != MAGIC or length <= 0 or start < 0:
        raise ValueError("is a damaged Arrow file: it does not end with a footer")
    file.seek(start)
    return file.read(length), start


class _Table:
    """A table of a FlatBuffer."""

    def __init__(self, buffer: bytes, at: int) -> None:
        self._buffer, self._at = buffer, at
        self._slots = at - self._number("<i", at)
        self._size = self._number("<H", self._slots)

    @classmethod
    def root(cls, buffer: bytes) -> _Table:
        return cls(buffer, struct.unpack_from("<I", buffer)[0])

    def _number(self, form: str, at: int) -> int:
        if at < 0:  # Python would count from the end
            raise IndexError(at)
        number: int = struct.unpack_from(form, self._buffer, at)[0]
        return number

    def place(self, field: int) -> int | None:
        """Where the value of a field is; None if it has its default."""
        slot = 4 + 2 * field
        offset = self._number("<H", self._slots + slot) if slot < self._size else 0
        return self._at + offset if offset else None

    def target(self, field: int) -> int | None:
        """Where a field that is an offset points to."""
        place = self.place(field)
        return None if place is None else place + self._number("<I", place)

    def short(self, field: int) -> int:
        place = self.place(field)
        return 0 if place is None else self._number("<h", place)

    def table(self, field: int) -> _Table:
        target = self.target(field)
        if target is None:
            raise IndexError(field)
        return _Table(self._buffer, target)

    def tables(self, field: int) -> list[_Table]:
        target = self.target(field)
        if target is None:
            return []
        places = range(target + 4, target + 4 + 4 * self._number("<I", target), 4)
        return [_Table(self._buffer, at + self._number("<I", at)) for at in places]

    def text(self, field: int) -> str:
        target = self.target(field)
        if target is None:
            return ""
        length = self._number("<I", target)
        return self._buffer[target + 4 : target + 4 + length].decode()


def _with(footer: bytes, key: bytes, value: bytes) -> bytes:
    """The footer with an entry in the metadata of its schema."""
    root = _Table.root(footer)
    schema = root.table(_SCHEMA)
    # All that follows has a fixed size up to the texts. Tables begin at multiples of 4.
    at_footer, at_schema, at_entries, at_entry, at_key = 20, 56, 76, 92, 104
    at_value = at_key + _text_size(key)
    size = -(-(at_value + _text_size(value)) // 8) * 8  # blocks in the old footer are at multiples of 8
    new = bytearray(size)

    def table(at: int, slots: int, short: int | None, targets: list[int | None]) -> None:
        """Write a table of a number, if it has one, and offsets; and its slots, which say where they are."""
        places = [] if short is None else [4]
        first = 4 if short is None else 8
        places += [0 if target is None else first + 4 * n for n, target in enumerate(targets)]
        length = first + 4 * len(targets)
        struct.pack_into(f"<{2 + len(places)}H", new, slots, 4 + 2 * len(places), length, *places)
        struct.pack_into("<i", new, at, at - slots)
        if short is not None:
            struct.pack_into("<h", new, at + 4, short)
        for n, target in enumerate(targets):
            if target is not None:
                place = at + first + 4 * n
                struct.pack_into("<I", new, place, target - place)

    def old(of: _Table, field: int) -> int | None:
        target = of.target(field)
        return None if target is None else size + target

    struct.pack_into("<I", new, 0, at_footer)
    table(at_footer, 4, root.short(_VERSION), [at_schema, old(root, _DICTIONARIES), old(root, _BATCHES)])
    fields, features = old(schema, _FIELDS), old(schema, _FEATURES)
    table(at_schema, 40, schema.short(_ENDIANNESS), [fields, at_entries, features])
    struct.pack_into("<2I", new, at_entries, 1, at_entry - at_entries - 4)
    table(at_entry, 84, None, [at_key, at_value])
    for at, text in ((at_key, key), (at_value, value)):
        struct.pack_into(f"<I{len(text)}s", new, at, len(text), text)
    return bytes(new) + footer


def _text_size(text: bytes) -> int:
    """Bytes of a text with its length and the 0 at its end, up to a multiple of 4."""
    return 4 + (len(text) + 4) // 4 * 4
