"""Processes in which the ways of a bench run, each call timed and its memory watched.

The harness and the process talk in lines of JSON: first what to import and which function returns the ways,
then a line for each call.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Way:
    """One way to do the work.

    Attributes
    ----------
    call : callable
        Does it. Only this is timed.
    peer : bool
        It does not use this package, so that another checkout's need not be asked.
    before : callable, optional
        Called before each call.
    facts : callable, optional
        Takes what the last call returned, and gives numbers about it by name.
    """

    call: Callable[[], Any]
    peer: bool = False
    before: Callable[[], object] | None = None
    facts: Callable[[Any], dict[str, Any]] | None = None


Ways = Callable[..., dict[str, Way]]


class Process:
    """A Python that has called one function of a bench and runs the ways that it returned."""

    def __init__(self, ways: Ways, case: dict[str, Any], package: Path, environment: dict[str, str]) -> None:
        module = Path(str(sys.modules[ways.__module__].__file__)).stem
        paths = os.pathsep.join([str(package), str(Path(__file__).parent)])
        self._process = subprocess.Popen(
            [sys.executable, "-c", "import process; process.serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment | {"PYTHONPATH": paths},
        )
        hello = self._ask(module, ways.__name__, case)
        self.ready: float = hello["ready"]
        self.peers: dict[str, bool] = hello["peers"]  # whether each way is one

    def run(self, way: str, small: dict[str, Any] | None, *, anonymous: bool) -> dict[str, Any]:
        """Call a way once, after the way of a small case: seconds, added, held and facts."""
        return self._ask(way, small, anonymous)

    def _ask(self, *question: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(question, default=str), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a process of the bench ended with exit code {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Be the other end of a `Process`: its answers go to stdout, all else that is printed to stderr."""
    began = time.perf_counter()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module, function, case = json.loads(sys.stdin.readline())
    make: Ways = getattr(importlib.import_module(module), function)
    ways = make(**case)
    answer: dict[str, Any] = {"peers": {name: way.peer for name, way in ways.items()}}
    answer["ready"] = time.perf_counter() - began
    print(json.dumps(answer), file=answers, flush=True)
    for line in sys.stdin:
        name, small, anonymous = json.loads(line)
        if small is not None:  # loads what it loads, and starts threads
            make(**case | small)[name].call()
        print(json.dumps(_run(ways[name], anonymous=anonymous)), file=answers, flush=True)


def _run(way: Way, *, anonymous: bool) -> dict[str, Any]:
    if way.before is not None:
        way.before()
    with _peak(anonymous=anonymous) as memory:
        started = time.perf_counter()
        result = way.call()
        seconds = time.perf_counter() - started
    return {"seconds": seconds, **memory, "facts": {} if way.facts is None else way.facts(result)}


@contextmanager
def _peak(*, anonymous: bool) -> Iterator[dict[str, float]]:
    """Megabytes at the peak: of RssAnon, sampled each 2 ms, or of all that is resident.

    Pages of mapped files are resident, but the kernel drops them when it wants to; RssAnon is without them.
    """
    found: dict[str, float] = {}
    before = _status("RssAnon" if anonymous else "VmRSS")
    if not anonymous:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is held now
        yield found
        top = _status("VmHWM")
    else:
        done, samples = threading.Event(), [before]

        def watch() -> None:
            while not done.wait(0.002):
                samples.append(_status("RssAnon"))

        watcher = threading.Thread(target=watch)
        watcher.start()
        yield found
        done.set()
        watcher.join()
        top = max(*samples, _status("RssAnon"))
    found |= {"held": top, "added": top - before}


def _status(name: str) -> float:
    """Megabytes of a line of /proc/self/status."""
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith(f"{name}:"))
