"""Polars in forked processes: an error instead of a wait without end."""

from __future__ import annotations

import os

_used = False
_lost = False


def before_polars() -> None:
    """Say that this package is going to use Polars. What else uses it in the parent is not known here.

    Raises
    ------
    RuntimeError
        If that would hang: Polars has threads, and a fork copies no threads.
    """
    global _used  # noqa: PLW0603
    if _lost:
        raise RuntimeError(
            "this process was forked after its parent had used Polars, whose threads are not here: it would "
            "wait for them without end. Make the index and the order before the fork, or start processes by "
            "the method 'spawn' or 'forkserver'"
        )
    _used = True


def _after_fork() -> None:
    global _lost  # noqa: PLW0603
    _lost = _used


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(after_in_child=_after_fork)
