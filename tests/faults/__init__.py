"""Runs in which one system call fails, is cut short, or meets a SIGKILL; README.md explains them."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from tests.processes import compiled

Kind = Literal["create", "write", "name", "sync", "open", "read", "map", "lock", "close", "stat"]
Action = Literal["fail", "fail from there", "short", "kill", "kill after"]

# In the order of shim.c.
_KINDS: tuple[Kind, ...] = ("create", "write", "name", "sync", "open", "read", "map", "lock", "close", "stat")
_ACTIONS: tuple[Action, ...] = ("fail", "fail from there", "short", "kill", "kill after")

CHANGES: tuple[Kind, ...] = ("create", "write", "name", "sync")
"""Kinds of calls that change what is in a folder: between two of these, all kills leave the same."""

ALL: tuple[Kind, ...] = _KINDS

# Forks have none of the threads that imports start, and the order of calls is to be the same each time.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at a call.

    Attributes
    ----------
    at : int
        Number of the call, from 1, among those of the `kinds`.
    action : str
        ``"fail"``: the call is not executed and returns the error. ``"fail from there"``: so do all later
        ones, as on a disk that is full. ``"short"``: half of the bytes are read or written. ``"kill"`` and
        ``"kill after"``: SIGKILL instead of the call, or after it.
    error : int
        `errno` of a call that fails.
    kinds : tuple of str
        Which calls are counted.
    """

    at: int
    action: Action
    error: int = errno.EIO
    kinds: tuple[Kind, ...] = CHANGES

    def __str__(self) -> str:
        error = f" {errno.errorcode[self.error]}" if self.action.startswith("fail") else ""
        return f"{self.action}{error} at call {self.at} of {'/'.join(self.kinds)}"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended.

    Attributes
    ----------
    code : int
        Exit code, or minus the number of a signal.
    hung : bool
        Whether it had to be killed; `errors` says where it was.
    out, errors : str
        What it printed.
    calls : list of str
        The calls that were counted, such as ``write /folder/a.csv``.
    """

    code: int
    hung: bool
    out: str
    errors: str
    calls: list[str]


class Faults:
    """Runs a function in forks of one process, with or without a fault.

    Parameters
    ----------
    library : Path
        What :func:`build` made.
    function : str
        ``"module:function"``: it takes a list of strings and returns an exit code, such as the command line.
    timeout : float
        Seconds after which a run hangs.

    Examples
    --------
    ::

        with Faults(library) as faults:
            calls = faults.run(folder, "index", "--rec", "train.rec").calls
            for at in range(1, len(calls) + 1):
                ended = faults.run(copy_of(folder), "index", "--rec", "train.rec", fault=Fault(at, "kill"))
    """

    def __init__(self, library: Path, function: str = "fasttriplet.cli:main", timeout: float = 60) -> None:
        self._timeout = timeout
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.server", str(library), function],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_HERE.parents[1],
            env=environment(),
        )

    def run(
        self,
        folder: Path,
        *arguments: str | Path,
        fault: Fault | None = None,
        kinds: tuple[Kind, ...] = CHANGES,
    ) -> Ended:
        """Run the function in a folder, and count its calls there: of the kinds of `fault`, or of `kinds`."""
        plan = Fault(0, "fail", kinds=kinds) if fault is None else fault
        request: dict[str, Any] = {
            "kinds": sum(1 << _KINDS.index(kind) for kind in plan.kinds),
            "at": plan.at,
            "action": 0 if fault is None else 1 + _ACTIONS.index(plan.action),
            "error": plan.error,
            "folder": str(folder.resolve()),
            "arguments": [str(argument) for argument in arguments],
            "timeout": self._timeout,
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline()
        assert answer, "the process that runs are forked from has ended"
        return Ended(**json.loads(answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        assert self._server.stdout is not None
        self._server.stdout.close()
        self._server.wait(timeout=60)


def build(folder: Path) -> Path:
    """Compile the shim into a folder; the test is skipped where that is not possible."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("faults are injected on x86-64 Linux only")
    return compiled(_HERE / "shim.c", folder)


def environment() -> dict[str, str]:
    """The environment variables of a run."""
    # With an empty path at its end, which OpenCV adds, libraries are looked for in the folder of the run.
    libraries = os.environ.get("LD_LIBRARY_PATH", "").strip(":")
    return os.environ | dict.fromkeys(_ONE_THREAD, "1") | {"LD_LIBRARY_PATH": libraries}
