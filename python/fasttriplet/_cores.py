"""How many cores there are for this process."""

from __future__ import annotations

import os
from pathlib import Path


def cores() -> int:
    """Cores that this process may use; two threads of one core count once."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cpus = os.sched_getaffinity(0)
    siblings = (Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") for cpu in cpus)
    try:
        return len({path.read_text() for path in siblings})
    except OSError:
        return len(cpus)
