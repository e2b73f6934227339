"""Runs a function in forks of a process that has imported all that it needs, one system call disturbed.

Started by :class:`tests.faults.Faults`, which explains it: requests come as JSON lines, and so do answers.
What to import is what runs without a fault have imported.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import mmap
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any

from fasttriplet.mxnet import import_mxnet

_TRACE = 1 << 20


class Plan(ctypes.Structure):
    """``struct plan`` of shim.c."""

    _fields_ = (
        ("kinds", ctypes.c_int64),
        ("at", ctypes.c_int64),
        ("action", ctypes.c_int64),
        ("error", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("traced", ctypes.c_int64),
        ("folder", ctypes.c_char * 4096),
        ("trace", ctypes.c_char * _TRACE),
    )


def serve(library: str, function: str) -> None:
    """Answer requests until there are no more."""
    shim = ctypes.CDLL(library)
    where, name = function.split(":")
    call = getattr(importlib.import_module(where), name)
    # What a run prints is its own: this process talks through copies.
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    for line in requests:
        answer, modules = _answer(shim, call, json.loads(line))
        _import(modules)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _import(modules: list[str]) -> None:
    """Import what a run has imported, for the next ones."""
    if "mxnet" in modules:
        import_mxnet()  # an import of its own would fail with NumPy 1.24
    for module in modules:
        if module not in sys.modules:
            with suppress(ImportError):  # modules that are not files
                importlib.import_module(module)


def _answer(shim: ctypes.CDLL, call: Any, request: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Run the function in a fork. Returns the answer, and what a run without a fault imported."""
    shared = mmap.mmap(-1, ctypes.sizeof(Plan))
    plan = Plan.from_buffer(shared)
    for name in ("kinds", "at", "action", "error"):
        setattr(plan, name, request[name])
    plan.folder = os.fsencode(request["folder"])
    streams = os.memfd_create("stdout"), os.memfd_create("stderr"), os.memfd_create("modules")
    child = os.fork()
    if child == 0:
        _run(shim, call, plan, streams, request)
    handle = os.pidfd_open(child)
    ended = bool(select.select([handle], [], [], request["timeout"])[0])
    if not ended:
        os.kill(child, signal.SIGABRT)  # faulthandler says where it hangs
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(handle)
    out, errors, modules = (_text(stream) for stream in streams)
    assert plan.traced <= _TRACE, "the trace is too long"
    calls = os.fsdecode(plan.trace).splitlines()
    answer = {"code": code, "hung": not ended, "out": out, "errors": errors, "calls": calls}
    return answer, modules.splitlines()


def _text(stream: int) -> str:
    with os.fdopen(stream, "rb") as file:
        file.seek(0)
        return file.read().decode(errors="replace")


def _run(shim: ctypes.CDLL, call: Any, plan: Plan, streams: tuple[int, ...], request: dict[str, Any]) -> None:
    """Be the run; never returns."""
    code: Any = 99
    try:
        os.dup2(streams[0], 1)
        os.dup2(streams[1], 2)
        os.chdir(request["folder"])
        faulthandler.enable()
        if error := shim.arm(ctypes.byref(plan)):
            raise OSError(error, "no system call can be watched")
        code = call(request["arguments"])
    except SystemExit as ending:
        code = ending.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if not request["action"]:
            os.write(streams[2], "\n".join(sys.modules).encode())
        os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    serve(*sys.argv[1:])
