"""The command line in a process that has imported MXNet and not used it, so that forks of it can."""

from fasttriplet.cli import main as command
from fasttriplet.mxnet import import_mxnet

__all__ = ["command"]

import_mxnet()
