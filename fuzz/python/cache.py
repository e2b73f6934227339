"""A changed file where the index of a ``.rec`` is kept: the index is the right one all the same."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import warnings
import zlib
from functools import cache
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

import fasttriplet as ft


def check(data: bytes) -> None:
    """`data` is a list of changes, of 4 bytes each, to the right file."""
    rec, kept, right, expected = _files()
    content = bytearray(right)
    for change in range(0, len(data) - 3, 4):
        kind, high, low, byte = data[change : change + 4]
        at = (high << 8 | low) % (len(content) + 1)
        if kind % 4 == 0:
            content[at : at + 1] = bytes([byte])
        elif kind % 4 == 1:
            content[at:at] = bytes([byte])
        elif kind % 4 == 2:
            del content[at : at + byte]
        else:
            content[at:at] = right[at : at + byte]
    # With a right checksum at its end, only its meaning can be wrong.
    kept.write_bytes(content[:-4] + zlib.crc32(content[:-4]).to_bytes(4, "little"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        index = ft.index_rec(rec)
    assert_frame_equal(index, expected)


@cache
def _files() -> tuple[Path, Path, bytes, pl.DataFrame]:
    """The ``.rec``, the file that keeps its index, its right content, and the index."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    rec = folder / "a.rec"
    with ft.RecordWriter(rec) as writer:
        for key in range(1, 9):
            writer.write(key, ft.IRHeader(0, float(key // 3), key, 0), b"picture" * key)
    before = set(rec.parent.iterdir())
    expected = ft.index_rec(rec)
    (kept,) = set(rec.parent.iterdir()) - before
    return rec, kept, kept.read_bytes(), expected
