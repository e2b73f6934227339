"""How messages name numbers, names and files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_MOST_NAMES = 5


def plural(noun: str) -> str:
    """The plural of a noun, such as "images", "batches", "processes" or "identities"."""
    if noun[-1] == "y" and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("tch", "sh", "ss", "x")) else f"{noun}s"


def counted(number: int, noun: str) -> str:
    """A number with its noun, such as "1 pair" or "2,000 pairs"."""
    return f"{number:,} {noun if number == 1 else plural(noun)}"


def first_names(names: Sequence[str]) -> str:
    """The first five of some names, such as "a, b, c, d, e and 12 more"."""
    shown = ", ".join(names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES:,} more"


@contextmanager
def prefixing(name: str) -> Iterator[None]:
    """Put a name, such as that of a file, before the text of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


@contextmanager
def advising(advice: str) -> Iterator[None]:
    """Add to a MemoryError of Python or NumPy what to do; those of this package say it themselves."""
    start = "not enough memory"
    try:
        yield
    except MemoryError as error:
        reason = str(error)  # "Unable to allocate 1.5 GiB for an array with shape ..."
        if start in reason:
            raise
        first, _, rest = reason.partition(" ")
        if first == first.capitalize():  # a word, and not a name such as MXNet or PyTorch
            reason = f"{first.lower()} {rest}".rstrip()
        what = f"{start}: {reason}" if reason else start
        raise MemoryError(f"{what}; {advice}") from error


@contextmanager
def naming_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let OSErrors name a file; those of an open one do not."""
    try:
        yield
    except OSError as error:
        error.filename = os.fspath(path)
        raise
