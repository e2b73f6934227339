"""What a file is, or holds, that should be something else."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

_KINDS = {
    b"version https://git-lfs": "a Git LFS pointer (fetch the data with `git lfs pull`)",
    b"\x0a\x23\xd7\xce": "a .rec file; give it as --rec",
    b"\r\n\x23\xd7\xce": "a .rec file that was copied in text mode (copy it again in binary mode)",
    b"\xff\xd8\xff": "a single JPEG",
    b"\x89PNG": "a single PNG",
    b"PK\x03\x04": "a zip archive (an .npz, or a PyTorch file)",
    b"\x1f\x8b": "compressed with gzip (unpack it first)",
    b"BZh": "compressed with bzip2 (unpack it first)",
    b"\xfd7zXZ": "compressed with xz (unpack it first)",
    b"\x93NUMPY": "a .npy file",
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), "a Python pickle"),
    **dict.fromkeys((b"<!DOCTYPE", b"<!doctype", b"<html"), "a web page (download the file itself)"),
}
_LONGEST = max(map(len, _KINDS))
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def not_a_file(mode: int) -> str | None:
    """Name what this `st_mode` is of, such as "a folder"; None if it is of a regular file."""
    if stat.S_ISREG(mode):
        return None
    return "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"


def check_regular(path: Path, expected: str) -> None:
    """Raise an OSError that says so if a path is not that of a file: a pipe, for which Python would wait."""
    if (found := not_a_file(mode := path.stat().st_mode)) is not None:
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, f"is {found}; expected {expected}", str(path))


def read_file(path: Path, expected: str) -> bytes:
    """Read a whole file; see :func:`check_regular`."""
    check_regular(path, expected)
    try:
        return path.read_bytes()
    except OSError as error:  # that of a call after the opening one names no file
        raise OSError(error.errno, error.strerror, str(path)) from None


def why_unreadable(error: OSError) -> str:
    """Say why one file of many cannot be read. An error that says what the process lacks is raised again."""
    if error.errno in _SHORTAGES:
        raise error
    return f"cannot be read: {error.strerror or error}"


def kind_of(start: bytes) -> str | None:
    """Name the kind of a file with these first bytes; None if it is not a kind that is often mistaken."""
    return next((kind for magic, kind in _KINDS.items() if start.startswith(magic)), None)


def describe_wrong_file(path: Path, expected: str, magic: bytes | None = None) -> str:
    """Say that a file is not what was `expected`, such as ``"a .npy file"``, and what it is if that is known.

    A file that starts with `magic`, as such files do, is damaged and not of another kind.
    """
    with path.open("rb") as file:
        start = file.read(_LONGEST)
    if not start:
        return f"{path} is empty, not {expected}"
    kind = None if magic is not None and start.startswith(magic) else kind_of(start)
    return f"{path} is not {expected}" if kind is None else f"{path} is {kind}, not {expected}"
