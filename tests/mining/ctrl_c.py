"""Ctrl-C during a call."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def ctrl_c_within_a_second() -> Iterator[None]:
    """Press it after a second; the block, which takes longer, must end in it within another one."""
    pressed = []

    def press() -> None:
        time.sleep(1)
        pressed.append(time.process_time())  # of all threads: other work on the machine does not count
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        yield
    stopped = time.process_time()
    presser.join()
    assert stopped - pressed[0] < len(os.sched_getaffinity(0))
