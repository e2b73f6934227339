"""What a program that starts several processes of a training, such as torchrun, tells each of them."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this process reports: it trains alone, or is the first of those that were started together."""
    return os.environ.get("RANK", "0") == "0"
