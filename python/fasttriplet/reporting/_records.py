"""JSON that other commands printed or wrote: read, and refused where it is something else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fasttriplet._contents import describe_wrong_file, read_file


def read_object(path: Path, expected: str) -> dict[str, Any]:
    """Read a file that holds one JSON object; a ValueError names what was `expected` in its place."""
    try:
        found = json.loads(read_file(path, expected))
    except (ValueError, RecursionError):  # not JSON, not UTF-8, or brackets without end
        raise ValueError(describe_wrong_file(path, expected)) from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is not {expected}")
    return found


def read_lines(path: Path, expected: str) -> list[dict[str, Any]]:
    """Read a file of one JSON object per line. A last line without its end is still being written."""
    found = []
    for number, line in enumerate(read_file(path, expected).splitlines(keepends=True), start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            if not line.endswith(b"\n") and number > 1:
                break
            wrong = f"line {number:,} is not JSON"
            raise ValueError(
                f"{path} is not {expected}: {wrong}" if number > 1 else describe_wrong_file(path, expected)
            ) from None
        if not isinstance(record, dict):
            raise ValueError(
                f"{path} is not {expected}: line {number:,} is {line[:40].decode(errors='replace').strip()}"
            )
        found.append(record)
    if not found:
        raise ValueError(f"{path} is empty, not {expected}")
    return found


@contextmanager
def understanding(path: str, expected: str) -> Iterator[None]:
    """Let JSON that lacks what is read here, or has something else there, be a ValueError that says so."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if (
            isinstance(error, ValueError) and type(error) is not ValueError
        ):  # one of ours: it says what is wrong
            raise
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path} is not {expected}: {what}") from None


def is_number(value: object) -> bool:
    """Whether a value of JSON is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
