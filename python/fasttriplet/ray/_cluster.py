"""A connection to a Ray cluster, and its tasks."""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from fasttriplet import _core
from fasttriplet._cores import cores
from fasttriplet._extras import how_to_install
from fasttriplet._forks import importing
from fasttriplet._words import counted
from fasttriplet.embedders._base import Embedder
from fasttriplet.embedders._deferred import DeferredEmbedder
from fasttriplet.embedders._load import embedder_of, runs_network
from fasttriplet.errors import OptionError
from fasttriplet.ray._task import Failed, Shared, do
from fasttriplet.run._machines import NOTHING, Needs, once

J = TypeVar("J")
R = TypeVar("R")
T = TypeVar("T")

_OLDEST = (2, 31)  # the oldest that was tried; 2.9 does not start with a present setuptools
_TRIES = 4  # of a task whose process dies
_QUEUED = 2  # tasks for each that runs at a time: the next is there when one ends
_POLL = 0.5  # seconds between two looks for Ctrl-C
_LOOK = 5.0  # seconds between two looks whether the cluster is there, while no task ends
# Seconds that it may be away. Ray ends the process, without a word to Python, after 60.
_PATIENCE = 30.0
_CONNECT = 5.0  # seconds for an answer, of the network alone
_PROCESS = 300 * 10**6  # bytes of a process that has not begun: Python, Polars and Ray

# A process has one connection: that of its user, or one for all runs that it has at a time.
_lock = threading.Lock()
_users: list[Any] = []
_ours: list[Any] = []


@contextmanager
def connected(address: str, *, threads: int | None) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine ("local"), for the block.

    A process that is connected to Ray keeps that connection ("auto"), and it stays.

    Raises
    ------
    ImportError
        If Ray is not installed, or too old.
    ConnectionError
        If there is no cluster at the address.
    RuntimeError
        If it has another version of Ray or Python.
    """
    ray = _import_ray()
    with _lock:
        if ray.is_initialized():
            _check_connection(ray, address)
        else:
            _connect(ray, address)
            _ours.append(ray)
        _users.append(ray)
    name = "Ray" if address == "local" else f"the Ray cluster at {address}"
    cluster = None
    try:
        cluster = Cluster(ray, name, threads)
        yield cluster
    finally:
        with _lock:
            _users.remove(ray)
            if _ours and not _users:
                _ours.clear()
                ray.shutdown()
            elif cluster is not None:  # the connection is used by another run, or is the user's
                cluster.cancel()


def _check_connection(ray: Any, address: str) -> None:
    """Raise an OptionError if a process is connected, but not to the cluster that is asked for."""
    if ray.util.client.ray.is_connected():
        raise OptionError(
            "ray", "cannot use a connection of Ray Client (ray://): run this on a machine of the cluster"
        )
    connected_to = ray.get_runtime_context().gcs_address
    if address not in ("auto", connected_to) and not (address == "local" and _ours):
        raise OptionError(
            "ray", f"must be 'auto' in a process that is connected to Ray already, at {connected_to}"
        )


def _import_ray() -> Any:
    # Ray would do a task again for ever whose machine has no memory left.
    os.environ.setdefault("RAY_task_oom_retries", str(_TRIES - 1))
    try:
        with importing():
            import ray  # noqa: PLC0415  only where it is asked for
    except ImportError as error:
        raise ImportError(f"running on a cluster needs Ray. {how_to_install('ray')}", name="ray") from error
    version = tuple(int(part) for part in ray.__version__.split(".")[:2])
    if version < _OLDEST:
        raise ImportError(
            f"Ray {ray.__version__} is too old: version {_OLDEST[0]}.{_OLDEST[1]} or newer is needed. "
            f"{how_to_install('ray')}",
            name="ray",
        )
    return ray


def _connect(ray: Any, address: str) -> None:
    how: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        how |= {"num_cpus": cores(), "include_dashboard": False}
    elif (known := _known_address() if address == "auto" else address) is not None:
        _check_that_it_answers(address, known)
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    try:
        ray.init(**how)
    except ConnectionError as error:
        raise ConnectionError(f"ray={address!r}: {_sentence(error)}") from error
    except (RuntimeError, ValueError) as error:  # such as other versions, and words that are no address
        raise RuntimeError(f"ray={address!r}: {_sentence(error)}") from error
    finally:
        if before is not None:  # Ray has one of its own, which exits with another code
            signal.signal(signal.SIGTERM, before)


def _known_address() -> str | None:
    """The address that "auto" stands for, from where Ray looks for it; None if that is not known."""
    if address := os.environ.get("RAY_ADDRESS"):
        return address
    try:
        written = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
        return written.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _check_that_it_answers(given: str, address: str) -> None:
    """Raise an error where Ray would try for minutes; the address is what the given one stands for."""
    if address.startswith("ray://"):
        raise OptionError(
            "ray",
            "must be the address of the head itself: run this on a machine of the cluster (ray job submit)",
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise OptionError(
            "ray", f"must be HOST:PORT, such as '10.0.0.1:6379', 'auto' or 'local', not {address!r}"
        )
    if (why := _why_silent(address)) is not None:
        raise ConnectionError(f"ray={given!r}: nothing answers at {address}: {why}")


def _why_silent(address: str) -> str | None:
    """Why no connection to an address can be made; None if it can."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT).close()
    except (OSError, OverflowError, UnicodeError) as error:
        return str(error)
    return None


def _sentence(error: BaseException) -> str:
    """The text of an error of Ray's as one line."""
    return " ".join(str(error).split())


class Cluster:
    """A Ray cluster as :class:`fasttriplet.run._machines.Machines`.

    Parameters
    ----------
    ray : module
        Connected.
    name : str
        What errors call it.
    threads : int or None
        CPUs of a task; 1 if None.
    """

    is_here = False

    def __init__(self, ray: Any, name: str, threads: int | None) -> None:
        self._ray, self._name, self.threads = ray, name, threads or 1
        self._gpus = 0  # of a task that embeds
        self._flying: dict[Any, Any] = {}  # jobs by the reference of their result
        self._gcs = str(ray.get_runtime_context().gcs_address)
        self._nodes = self._alive()

    def _alive(self) -> list[dict[str, float]]:
        """The resources of each node."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    @property
    def memory(self) -> int | None:
        """What a task may take if one runs on each of a machine's CPUs, on the machine that has least."""
        each = [
            int(node.get("memory", 0.0) * self.threads / node["CPU"]) - _PROCESS
            for node in self._nodes
            if node.get("CPU", 0.0) >= self.threads
        ]
        return max(min(each), _PROCESS) if each else None

    def _wants(self, needs: Needs) -> dict[str, float]:
        """The resources of a task."""
        wants = {"CPU": float(self.threads), "GPU": float(self._gpus if needs.embeds else 0)}
        if needs.memory is not None:
            wants["memory"] = float(needs.memory + _PROCESS)
        return {name: amount for name, amount in wants.items() if amount}

    def at_once(self, needs: Needs = NOTHING) -> int:
        """How many tasks can run at a time, if nothing else does."""
        wants = self._wants(needs)
        return sum(
            int(min(node.get(name, 0.0) // amount for name, amount in wants.items())) for node in self._nodes
        )

    def embedder(self, model: str | Embedder) -> Embedder:
        """A network is loaded by the tasks; what else embeds is loaded here, and sent to them."""
        if isinstance(model, str) and runs_network(model):
            model = DeferredEmbedder(model)
        if not isinstance(model, DeferredEmbedder):
            model = embedder_of(model)
            devices = getattr(model, "devices", "cpu")
            if set(devices if isinstance(devices, (list, tuple)) else [devices]) != {"cpu"}:
                raise OptionError(
                    "model",
                    "must be a spec, such as 'torch:FILE', to run on GPUs of a cluster: it is loaded there",
                )
            return model
        self._gpus = self._gpus_of(model.devices)
        model.devices = "cpu" if self._gpus == 0 and model.devices is None else model.devices
        model.known = once(self, _described, model, None, Needs(embeds=True))
        return model

    def _gpus_of(self, devices: str | None) -> int:
        """How many GPUs a task needs for a network: one, where the cluster has any."""
        if devices is None:
            return int(any(node.get("GPU", 0.0) >= 1 for node in self._nodes))
        if ":" in devices:
            kind = devices.partition(":")[0]
            raise OptionError(
                "devices",
                f"must be 'cpu' or {kind!r} on a cluster, which chooses a GPU for each task, not {devices!r}",
            )
        return int(devices in ("cuda", "gpu"))

    def run(
        self,
        work: Callable[[T, J], R],
        thing: T,
        take: Callable[[], J | None],
        needs: Needs = NOTHING,
    ) -> Iterator[tuple[J, R]]:
        """Do jobs as tasks; see :meth:`fasttriplet.run._machines.Machines.run`."""
        self._check_that_one_fits(needs)
        self._looked = self._well = time.monotonic()
        ray = self._ray
        with self._errors_of_ray():
            shared = Shared.put(ray, thing, self.threads)
        task = ray.remote(do).options(**self._options(needs, work))
        flying = self._flying = {}
        while True:
            while len(flying) < _QUEUED * max(1, self.at_once(needs)) and (job := take()) is not None:
                with self._errors_of_ray():
                    flying[task.remote(_core.__version__, work, shared, job)] = job
            if not flying:
                return
            for reference in self._ended(list(flying), needs):
                job = flying.pop(reference)
                yield job, self._result(reference)
                del reference  # Ray frees the result

    def _options(self, needs: Needs, work: Callable[..., Any]) -> dict[str, Any]:
        wants = self._wants(needs)
        return {
            "num_cpus": wants["CPU"],
            "num_gpus": wants.get("GPU", 0),
            "memory": wants.get("memory"),
            "max_retries": _TRIES - 1,
            "scheduling_strategy": "SPREAD",
            "name": f"fasttriplet {work.__name__.strip('_')}",
        }

    def _ended(self, references: list[Any], needs: Needs) -> list[Any]:
        """Wait until some tasks have ended; an error if the cluster goes away meanwhile."""
        ended: list[Any] = []
        if time.monotonic() - self._looked > 2 * _LOOK:  # nobody has asked meanwhile
            self._well = time.monotonic()
        while not ended:
            with self._errors_of_ray():
                ended, _ = self._ray.wait(references, num_returns=1, timeout=_POLL)
            self._look(needs)
        return ended

    def _look(self, needs: Needs) -> None:
        """Raise an error if the cluster has been away for long; what it has begun may end nevertheless."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        why = self._why_away(needs)
        if why is None:
            self._well = now
        elif now - self._well > _PATIENCE:
            raise ConnectionError(f"{self._name} {why}")

    def _why_away(self, needs: Needs) -> str | None:
        """Say that the cluster does not answer, or cannot do a task; None if it is well."""
        if (why := _why_silent(self._gcs)) is not None:
            return f"no longer answers ({self._gcs}: {why})"
        with self._errors_of_ray():
            nodes = _within(_CONNECT, self._alive)
        if nodes is None:
            return f"no longer answers ({self._gcs}: connected, but silent)"
        self._nodes = nodes
        return None if self.at_once(needs) else f"has no machine left with {_in_words(self._wants(needs))}"

    def _check_that_one_fits(self, needs: Needs) -> None:
        with self._errors_of_ray():
            self._nodes = self._alive()
        if self.at_once(needs):
            return
        wants = self._wants(needs)
        most = {name: max((node.get(name, 0.0) for node in self._nodes), default=0.0) for name in wants}
        raise RuntimeError(
            f"{self._name} has no machine with {_in_words(wants)} for a task; a machine has at most "
            f"{_in_words(most)}"
        )

    def _result(self, reference: Any) -> Any:
        with self._errors_of_ray():
            result = self._ray.get(reference)
        if isinstance(result, Failed):
            result.throw()
        return result

    @contextmanager
    def _errors_of_ray(self) -> Iterator[None]:
        """Say in plain words what Ray raises where it, and not a job, fails."""
        known = self._ray.exceptions
        try:
            yield
        except known.OutOfMemoryError as error:
            raise MemoryError(
                "not enough memory: Ray ended a task because its machine had none left; give each task less "
                f"(memory), or run fewer at a time (threads): {_first_line(error)}"
            ) from error
        except (known.WorkerCrashedError, known.NodeDiedError) as error:
            raise RuntimeError(
                f"a task was tried {_TRIES} times, and each time its process or machine died; the logs of "
                f"Ray say more: {_first_line(error)}"
            ) from error
        except known.ObjectStoreFullError as error:
            raise MemoryError(
                f"not enough memory in the object store of Ray: {_first_line(error)}; lower bag_size, or "
                "start Ray with more (object_store_memory)"
            ) from error
        except known.OutOfDiskError as error:
            raise OSError(errno.ENOSPC, f"no space left for what Ray keeps: {_first_line(error)}") from error
        except known.RayTaskError as error:  # not of the job, which gives its errors as results
            raise RuntimeError(
                f"{self._name} cannot run tasks of this package: {_first_line(error.cause or error)}; all "
                f"machines need fasttriplet {_core.__version__}"
            ) from error
        except known.RayError as error:
            raise ConnectionError(f"{self._name} failed: {_first_line(error)}") from error

    def cancel(self) -> None:
        """End the tasks that are queued or run."""
        for reference in self._flying:
            with suppress(Exception):  # it has ended
                self._ray.cancel(reference, force=True)


def _within(seconds: float, ask: Callable[[], T]) -> T | None:
    """What a function that may wait for long returns; None if it takes longer than this."""
    answer: Future[T] = Future()

    def answered() -> None:
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=answered, name="fasttriplet-ask", daemon=True).start()
    try:
        return answer.result(seconds)
    except TimeoutError:
        return None


def _described(model: DeferredEmbedder, _: None) -> str:
    return model.description


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _in_words(amounts: dict[str, float]) -> str:
    """Such as "4 CPUs, 1 GPU and 2,000 MB"."""
    words = [
        f"{amount / 1e6:,.0f} MB" if name == "memory" else counted(int(amount), name)
        for name, amount in amounts.items()
    ]
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
