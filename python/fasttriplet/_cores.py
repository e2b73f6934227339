"""How many cores there are for this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_GROUPS = Path("/sys/fs/cgroup")
_OF_PROCESS = Path("/proc/self/cgroup")


_most: int | None = None  # see use_at_most


def use_at_most(count: int) -> None:
    """Let :func:`cores` be no more than this: the others of the machine are for other processes."""
    global _most  # noqa: PLW0603  it is the process that has a share
    _most = count


def cores() -> int:
    """Cores that this process may use, at least 1.

    Two threads of one core count once. A container may have a share of the machine's time instead of cores of
    its own; that share is rounded down, as Rust's standard library does it for the threads of the extension.
    """
    share = _share()
    count = _cores_of_affinity() if _most is None else min(_most, _cores_of_affinity())
    return count if share is None else max(1, min(count, int(share)))


def _cores_of_affinity() -> int:
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cpus = os.sched_getaffinity(0)
    siblings = (Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") for cpu in cpus)
    try:
        return len({path.read_text() for path in siblings})
    except OSError:
        return len(cpus)


def _share(groups: Path = _GROUPS, of_process: Path = _OF_PROCESS) -> float | None:
    """The smallest quota of CPU time, in cores, of the process's control groups; None where there is none."""
    try:
        lines = of_process.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):  # not Linux
        return None
    quotas = [quota for line in lines for quota in _quotas(line, groups)]
    return min(quotas, default=None)


def _quotas(line: str, groups: Path) -> Iterator[float]:
    """The quotas of one control group and of all above it; `line` is "NUMBER:CONTROLLERS:PATH"."""
    _, controllers, path = (*line.split(":", 2), "", "")[:3]
    if controllers and "cpu" not in controllers.split(","):
        return
    root = groups if not controllers else groups / "cpu"
    # A container sees its own group as the root, by a path that only the host has.
    group = PurePosixPath(path.lstrip("/"))
    for part in (group, *group.parents):
        try:
            if controllers:
                quota, period = (
                    (root / part / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
                )
            else:
                quota, period = (root / part / "cpu.max").read_text().split()
            if quota != "max" and int(quota) > 0 and int(period) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError):
            continue
