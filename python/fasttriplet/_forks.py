"""Polars in forked processes: an error instead of a hang."""

from __future__ import annotations

import os

_used = False  # by this process
_lost = False  # by a fork from a process that had used it


def ensure_polars_threads() -> None:
    """Raise a RuntimeError where a Polars query would wait for ever; call this before each.

    Polars runs queries on threads of its own, and a fork copies no threads. Only uses that were announced by
    this function before the fork are known.
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
