"""What a program that starts several processes of a training, such as torchrun, tells each of them."""

from __future__ import annotations

import os

from fasttriplet._cores import cores


def launched() -> int:
    """How many processes were started together; 1 if this one is alone."""
    return _number("WORLD_SIZE", 1) if "RANK" in os.environ else 1


def is_first_process() -> bool:
    """Whether this process reports: it is alone, or the first of those that were started together."""
    return launched() == 1 or os.environ["RANK"] == "0"


def launched_here() -> int:
    """How many of these processes are on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def rank_here() -> int:
    """Number of this process among those on this machine, from 0."""
    return _number("LOCAL_RANK", 0)


def threads_each() -> int | None:
    """The cores for each process where several were started on this machine; None for all of them."""
    here = launched_here()
    return None if here == 1 else max(1, cores() // here)


def _number(name: str, least: int) -> int:
    text = os.environ.get(name, "")
    return max(least, int(text)) if text.isdecimal() else least
