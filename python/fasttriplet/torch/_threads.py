"""The threads of PyTorch, which a fork does not copy."""

from __future__ import annotations

import os

import torch

_forked = False  # and PyTorch has not been told


def use_no_lost_threads() -> None:
    """Let PyTorch compute with one thread in a forked process, as it does in workers of its data loaders.

    There, OpenMP would wait for those of the parent without end.
    """
    global _forked  # noqa: PLW0603
    if _forked:
        torch.set_num_threads(1)
        _forked = False


def _in_child() -> None:
    global _forked  # noqa: PLW0603
    _forked = True


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(after_in_child=_in_child)
