"""Event files for TensorBoard: what scalars need of the format.

A record is its length (8 bytes), the masked CRC-32C of that, the content, and the masked CRC-32C of the
content, all of them little-endian. The content is a protocol buffer, ``Event`` of TensorFlow's
``event.proto``.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from fasttriplet._words import naming_file


def _name(prefix: str) -> str:
    """The part of the names of event files that tells those of one training, by the place of its files."""
    return blake2b(os.fsencode(os.path.realpath(prefix)), digest_size=6).hexdigest()


def has_events_of(prefix: str, folder: str) -> bool:
    """Whether a training with this prefix has written event files to a folder."""
    return any(Path(folder).glob(f"events.out.tfevents.*.{_name(prefix)}"))


class Events:
    """A new event file in a folder.

    Until :meth:`begin` it is empty. It is there before the state that names the folder, because
    :func:`has_events_of` looks for it.
    """

    def __init__(self, folder: str | os.PathLike[str], prefix: str) -> None:
        # TensorBoard reads the files of a folder in the order of their names.
        now = time.time_ns()
        self._path = Path(folder, f"events.out.tfevents.{now:019}.{socket.gethostname()}.{_name(prefix)}")
        self._file = self._path.open("xb", buffering=0)

    def begin(self, first: int) -> None:
        """Let TensorBoard leave out what earlier files hold from the step `first` on: it is written again."""
        self._write(_text(3, b"brain.Event:2"))
        self._write(_whole(2, first) + _text(7, _whole(1, 1)))  # session_log: START

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write numbers, by their tags."""
        values = (
            _text(1, _text(1, tag.encode()) + b"\x15" + struct.pack("<f", number))
            for tag, number in scalars.items()
        )
        self._write(_whole(2, step) + _text(5, b"".join(values)))

    def _write(self, event: bytes) -> None:
        event = b"\x09" + struct.pack("<d", time.time()) + event
        length = struct.pack("<Q", len(event))
        record = length + _masked_crc(length) + event + _masked_crc(event)
        with naming_file(self._path):
            while record:
                record = record[self._file.write(record) :]

    def close(self, *, keep: bool) -> None:
        """Close the file. If it is empty, it is removed, unless it is to be kept."""
        with naming_file(self._path):
            if not keep and os.fstat(self._file.fileno()).st_size == 0:
                self._path.unlink(missing_ok=True)
            self._file.close()


def _whole(field: int, number: int) -> bytes:
    return _varint(field << 3) + _varint(number)


def _text(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (byte & 1) * 0x82F63B78
    return byte


_CRCS = tuple(map(_crc_of, range(256)))


def _masked_crc(content: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in content:  # a few hundred
        crc = _CRCS[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
