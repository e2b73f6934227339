"""What runs in the processes of a cluster."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from uuid import uuid4

import numpy as np

from fasttriplet import _core
from fasttriplet._cores import use_at_most

J = TypeVar("J")
R = TypeVar("R")

_SAME_FILES = "all machines need the same files under the same paths"
_gpus: dict[str, list[Any]] = {}  # what this process has first been given
_opened: dict[str, Any] = {}  # the thing of the last task, by its name: tasks of a run share one


@dataclass(frozen=True, slots=True)
class Shared:
    """A thing in the object store of a cluster, which each process that needs it unpickles once.

    Its arrays are read where they are: all processes of a machine share the memory.
    """

    name: str
    content: list[Any]  # one reference: in a list, so that Ray does not fetch it for each task
    folder: str  # that relative paths belong to
    threads: int  # that a task may use

    @classmethod
    def put(cls, ray: Any, thing: object, threads: int) -> Shared:
        """Put a thing into the object store."""
        buffers: list[pickle.PickleBuffer] = []
        try:
            pickled = ray.cloudpickle.dumps(thing, protocol=5, buffer_callback=buffers.append)
        except (TypeError, AttributeError, pickle.PicklingError) as error:
            raise ValueError(f"what the tasks need cannot be sent to them: {error}") from error
        views = [buffer.raw() for buffer in buffers]
        arrays = [np.frombuffer(view, np.uint8) if view.nbytes else np.empty(0, np.uint8) for view in views]
        return cls(uuid4().hex, [ray.put((pickled, arrays))], os.getcwd(), threads)  # noqa: PTH109  a string

    def open(self) -> Any:
        """The thing, in a process of the cluster."""
        if self.name not in _opened:
            import ray  # noqa: PLC0415  it runs this

            _opened.clear()
            _enter(self.folder)
            use_at_most(self.threads)
            os.environ.setdefault("POLARS_MAX_THREADS", str(self.threads))  # before it is imported
            pickled, arrays = ray.get(self.content[0])
            _opened[self.name] = pickle.loads(pickled, buffers=arrays)
        return _opened[self.name]


def _enter(folder: str) -> None:
    """Let relative paths, and modules of a user's, be found as where the run was started."""
    try:
        os.chdir(folder)
    except OSError:
        return  # this machine has no such folder: paths that are needed are missed by their names
    if folder not in sys.path:
        sys.path.append(folder)


@dataclass(frozen=True, slots=True)
class Failed:
    """An error of a job, and the machine and the lines where it was raised."""

    error: Exception
    where: str
    trace: str

    def throw(self) -> NoReturn:
        """Raise it."""
        self.error.add_note(f"on the machine {self.where}")
        raise self.error from _ThereError(self.trace)


class _ThereError(Exception):
    """The lines of a traceback in another process."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


def do(version: str, work: Callable[[Any, J], R], shared: Shared, job: J) -> R | Failed:
    """Do a job of a run that was started with a version of this package."""
    try:
        if version != _core.__version__:
            raise RuntimeError(
                f"fasttriplet is {_core.__version__} here, and {version} where the run was started"
            )
        _stay_on_a_gpu()
        return work(_open(shared), job)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        return Failed(_sendable(error), machine(), traceback.format_exc())


def _stay_on_a_gpu() -> None:
    """End a process that has a network on another GPU than its task; Ray does the task in a new one."""
    import ray  # noqa: PLC0415  it runs this

    given = ray.get_gpu_ids()
    if given and _gpus.setdefault("of this process", given) != given:
        os.kill(os.getpid(), signal.SIGKILL)


def _open(shared: Shared) -> Any:
    try:
        return shared.open()
    except OSError as error:
        where = f"on the machine {machine()}"
        if error.errno is None:
            raise type(error)(f"{error} {where}; {_SAME_FILES}") from error
        more = f"; {_SAME_FILES}" if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES) else ""
        raise type(error)(error.errno, f"{error.strerror} {where}{more}", error.filename) from error


def machine() -> str:
    """The name and the address of this machine."""
    import ray  # noqa: PLC0415  it runs this

    return f"{socket.gethostname()} ({ray.util.get_node_ip_address()})"


def _sendable(error: BaseException) -> Exception:
    """An error that can be pickled."""
    if isinstance(error, Exception) and not type(error).__module__.startswith("ray."):
        with suppress(Exception):
            pickle.loads(pickle.dumps(error))
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")
