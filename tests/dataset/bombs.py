"""Small images that claim much: a few kilobytes for many megapixels, built from nothing."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

# Components, the first and the last coefficient, and the bits that are missing before and after the scan.
Scan = tuple[tuple[int, ...], int, int, int, int]

BASELINE, PROGRESSIVE, ARITHMETIC, ARITHMETIC_PROGRESSIVE = 0xC0, 0xC2, 0xC9, 0xCA

_A_RUN = 2**15 - 1  # blocks that one code of a progressive scan can leave empty
_ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def flat_jpeg(
    height: int, width: int, frame: int = BASELINE, *, scans: Iterable[Scan] | None = None
) -> bytes:
    """A gray JPEG of the fewest bytes that are possible: 2 bits per block, or hardly any if arithmetic."""
    progressive = frame in (PROGRESSIVE, ARITHMETIC_PROGRESSIVE)
    if scans is None:
        scans = [((1,), 0, 0, 0, 0), ((1,), 1, 63, 0, 0)] if progressive else [((1,), 0, 63, 0, 0)]
    blocks = -(-height // 8) * -(-width // 8)
    one_code = bytes([1] + [0] * 15)  # it is the bit 0
    rest = 0xE0 if progressive else 0  # a run of 2^14 empty blocks and more, or the end of a block
    parts = [
        b"\xff\xd8",
        _segment(0xDB, b"\0" + b"\1" * 64),
        _segment(frame, struct.pack(">BHHBBBB", 8, height, width, 1, 1, 0x11, 0)),
        _segment(0xC4, b"\0" + one_code + b"\0"),
        _segment(0xC4, b"\x10" + one_code + bytes([rest])),
    ]
    for members, first, last, before, after in scans:
        selectors = b"".join(bytes([member, 0]) for member in members)
        limits = bytes([first, last, before << 4 | after])
        parts.append(_segment(0xDA, bytes([len(members)]) + selectors + limits))
        if frame in (ARITHMETIC, ARITHMETIC_PROGRESSIVE):
            parts.append(bytes(2 if first else -(-blocks // 2**10)))
        elif first == 0:
            parts.append(bytes(-(-blocks // (8 if progressive else 4))))
        else:
            parts.append(_runs(blocks))
    return b"".join(parts) + b"\xff\xd9"


def many_scans(count: int) -> list[Scan]:
    """Scans of a gray image in which each coefficient comes bit by bit."""
    scans: list[Scan] = [((1,), 0, 0, 0, 0)]
    for at in range(1, 64):
        scans.append(((1,), at, at, 0, 13))
        scans += [((1,), at, at, bits, bits - 1) for bits in range(13, 0, -1)]
    return scans[:count]


def flat_png(
    height: int, width: int, *chunks: bytes, depth: int = 1, color: int = 0, interlaced: bool = False
) -> bytes:
    """A black PNG, with more `chunks` before its pixels."""
    bits = depth * {0: 1, 2: 3, 4: 2, 6: 4}[color]
    raw = 0
    for y, x, down, across in _ADAM7 if interlaced else [(0, 0, 1, 1)]:
        rows, columns = -((y - height) // down), -((x - width) // across)
        raw += rows * (1 + -(-columns * bits // 8)) if rows > 0 and columns > 0 else 0
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zeros(raw)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(length: int) -> bytes:
    """Zeros, compressed 1,000 to one: the same block again and again, so that 800 MB take no time."""
    blocks, rest = divmod(length, 2**20)
    block, end = zlib.compressobj(9, wbits=-15), zlib.compressobj(9, wbits=-15)
    packed = blocks * (block.compress(bytes(2**20)) + block.flush(zlib.Z_FULL_FLUSH))
    packed += end.compress(bytes(rest)) + end.flush()
    return b"\x78\xda" + packed + struct.pack(">HH", length % 65521, 1)  # Adler-32 of zeros


def _segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def _runs(blocks: int) -> bytes:
    """A scan of empty blocks, 15 bits for a run of them."""
    bits = []
    while blocks > 0:  # the last run may reach beyond the end
        run = min(max(blocks, 2**14), _A_RUN)
        bits.append(f"0{run - 2**14:014b}")
        blocks -= run
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
