"""Small images that claim much, built from nothing: a few kilobytes for many megapixels, or for hours."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Literal

_MOST_IN_A_RUN = 2**15 - 1  # blocks that one code of a progressive scan can declare empty

Scan = tuple[tuple[int, ...], int, int, int, int]  # components, first and last coefficient, bits before, after


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _start(frame: int, height: int, width: int, components: int, sampling: int) -> bytes:
    table = b"".join(bytes([number, sampling, 0]) for number in range(1, components + 1))
    return b"".join([
        b"\xff\xd8",
        _segment(0xDB, bytes([0]) + bytes([1] * 64)),
        _segment(frame, struct.pack(">BHHB", 8, height, width, components) + table),
    ])


def _tables(dc: int, ac: int) -> bytes:
    """Huffman tables of one code each, a single 0."""
    one_code = bytes([1] + [0] * 15)
    return _segment(0xC4, b"\x00" + one_code + bytes([dc])) + _segment(0xC4, b"\x10" + one_code + bytes([ac]))


def _scan(members: Iterable[int], first: int, last: int, before: int, after: int) -> bytes:
    of = list(members)
    selectors = b"".join(bytes([member, 0]) for member in of)
    return _segment(0xDA, bytes([len(of)]) + selectors + bytes([first, last, before << 4 | after]))


def blocks_of(height: int, width: int) -> int:
    """Blocks of 8 x 8 pixels of one component that has the image's size."""
    return -(-height // 8) * -(-width // 8)


def flat_jpeg(
    height: int, width: int, coding: Literal["baseline", "arithmetic"] = "baseline", components: int = 1
) -> bytes:
    """A grey JPEG of the fewest bytes that a decoder takes: 2 bits per block, or with arithmetic coding
    hardly any."""
    blocks = blocks_of(height, width) * components
    start = _start({"baseline": 0xC0, "arithmetic": 0xC9}[coding], height, width, components, 0x11)
    scan = _scan(range(1, components + 1), 0, 63, 0, 0)
    if coding == "arithmetic":
        return start + scan + bytes(-(-blocks // 2**10)) + b"\xff\xd9"
    return start + _tables(0, 0) + scan + bytes(-(-2 * blocks // 8)) + b"\xff\xd9"


def progressive_jpeg(height: int, width: int, scans: Iterable[Scan], components: int = 1, arithmetic: bool = False) -> bytes:
    """A grey progressive JPEG with these scans, which declare all blocks empty in the fewest bytes."""
    blocks = blocks_of(height, width)
    parts = [_start(0xCA if arithmetic else 0xC2, height, width, components, 0x11), _tables(0, 0xE0)]  # 0xE0: a run of empty blocks
    for members, first, last, before, after in scans:
        parts.append(_scan(members, first, last, before, after))
        if arithmetic:
            parts.append(bytes(2 if first else -(-blocks // 2**10)))
        elif first == 0:  # one bit per block
            parts.append(bytes(-(-blocks * len(members) // 8)))
        else:
            bits, left = [], blocks
            while left >= 2**14:
                run = min(left, _MOST_IN_A_RUN)
                bits.append(f"0{run - 2**14:014b}")
                left -= run
            if left:  # a run that ends with the scan, or after it
                bits.append(f"0{0:014b}")
            text = "".join(bits)
            text += "1" * (-len(text) % 8)
            data = int(text, 2).to_bytes(len(text) // 8, "big")
            parts.append(data.replace(b"\xff", b"\xff\0"))
    return b"".join(parts) + b"\xff\xd9"


def all_scans(components: int = 1) -> list[Scan]:
    """As many scans as the coefficients of an image allow: each bit of each coefficient in a scan of its own."""
    every = tuple(range(1, components + 1))
    scans: list[Scan] = [(every, 0, 0, 0, 13)]
    scans += [(every, 0, 0, bits, bits - 1) for bits in range(13, 0, -1)]
    for member in every:
        for at in range(1, 64):
            scans.append(((member,), at, at, 0, 13))
            scans += [((member,), at, at, bits, bits - 1) for bits in range(13, 0, -1)]
    return scans


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(length: int) -> bytes:
    """Zeros, compressed as Deflate can at best: 1,032 to one."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(bytes(min(2**20, length - at))) for at in range(0, length, 2**20)]
    return b"".join([*parts, packer.flush()])


def flat_png(height: int, width: int, depth: int = 1, color: int = 0, interlaced: bool = False, *extra: bytes, surplus: int = 0) -> bytes:
    """A black PNG; `extra` are chunks before its pixels, `surplus` bytes more than it has pixels for."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    raw = 0
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    for y, x, dy, dx in passes if interlaced else [(0, 0, 1, 1)]:
        rows, columns = max(0, -(-(height - y) // dy)), max(0, -(-(width - x) // dx))
        raw += rows * (1 + -(-columns * bits // 8)) if columns else 0
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zeros(raw + surplus)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
