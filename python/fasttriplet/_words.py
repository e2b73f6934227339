"""How messages name numbers and files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def plural(noun: str) -> str:
    """The plural of a noun, such as "images", "batches", "epochs" or "identities"."""
    if noun[-1] == "y" and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("tch", "sh", "x")) else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as "1 pair" or "2,000 pairs"."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


@contextmanager
def prefixing(name: str) -> Iterator[None]:
    """Put a name, such as that of a file, before the text of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Add to a MemoryError of Python or NumPy what to do; those that start as the extension's say it."""
    start = "not enough memory"
    try:
        yield
    except MemoryError as error:
        reason = str(error)  # "Unable to allocate 1.5 GiB for an array with shape ..."
        if reason.startswith(start):
            raise
        what = f"{start}: {reason[0].lower()}{reason[1:]}" if reason else start
        raise MemoryError(f"{what}; {advice}") from error


@contextmanager
def naming_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let OSErrors name a file; those of an open one do not."""
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)
        raise
