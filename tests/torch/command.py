"""The command line in a process that has imported PyTorch and not used it, so that forks of it can."""

from fasttriplet.cli import main as command
from fasttriplet.torch import _backend  # noqa: F401

__all__ = ["command"]
