"""A function that makes the same calls each time, to be disturbed."""

from __future__ import annotations

import os
from pathlib import Path


def write(arguments: list[str]) -> int:
    """Write a file by the rule for all files; Python's own calls, one by one."""
    (name,) = arguments
    descriptor = os.open("unfinished", os.O_CREAT | os.O_WRONLY)
    left = memoryview(b"content" * 100)
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)
    os.close(descriptor)
    Path("unfinished").rename(name)
    print(Path(name).read_bytes().count(b"content"))
    return 0
