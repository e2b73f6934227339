"""Keeps a log line of MXNet off the user's terminal."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fasttriplet._forks import unforked

# MXNet's C++ side logs this each time a network is bound, and has no switch for it.
_CHATTER = re.compile(rb"^\[[\d:]+\] [^\n]*MXNET_SUBGRAPH_BACKEND=NONE is detected[^\n]*\n", re.MULTILINE)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what is written to stderr inside the block, and write all but that line afterwards.

    The block should take well under a second: output of other threads waits, too, and so do forks, whose
    children would write where nobody reads.
    """
    file = None
    with suppress(OSError):  # where there is no place for it, nothing is held back
        file = tempfile.TemporaryFile()  # noqa: SIM115  closed below
    if file is None:
        yield
        return
    with unforked(), file as held:
        sys.stderr.flush()
        try:
            stderr = os.dup(2)
        except OSError:  # the process has no stderr
            yield
            return
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            held.seek(0)
            for line in _CHATTER.sub(b"", held.read()).splitlines(keepends=True):
                os.write(stderr, line)
            os.close(stderr)
