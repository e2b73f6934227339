"""What a program that starts several processes of a training, such as torchrun, tells each of them."""

from __future__ import annotations

import os

from fasttriplet._cores import cores


def is_first_process() -> bool:
    """Whether this process reports: it trains alone, or is the first of those that were started together."""
    return os.environ.get("RANK", "0") == "0"


def threads_each() -> int | None:
    """The cores for each process where several were started on this machine, or None."""
    here = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, cores() // int(here)) if here.isdigit() and int(here) > 0 else None
