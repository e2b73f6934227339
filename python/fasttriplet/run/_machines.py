"""Where the jobs of a run are done: in this process, or on the machines of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any, NamedTuple, Protocol, TypeVar

from fasttriplet.embedders import Embedder
from fasttriplet.embedders._load import embedder_of
from fasttriplet.errors import OptionError

J = TypeVar("J")
R = TypeVar("R")
T = TypeVar("T")


class Needs(NamedTuple):
    """What a job needs besides its threads."""

    embeds: bool = False  # so it needs what the model runs on
    memory: int | None = None  # bytes, if that is known


NOTHING = Needs()


class Machines(Protocol):
    """Do jobs, each in some process. Jobs know nothing of each other, and are done in any order.

    Attributes
    ----------
    is_here : bool
        Whether they are this process alone.
    memory : int or None
        Bytes that each of them may take, if all are to fit; None if that is not known.
    threads : int or None
        What each of them may use; None for one per core.
    """

    @property
    def is_here(self) -> bool: ...
    @property
    def memory(self) -> int | None: ...
    @property
    def threads(self) -> int | None: ...

    def run(
        self,
        work: Callable[[T, J], R],
        thing: T,
        take: Callable[[], J | None],
        needs: Needs = NOTHING,
    ) -> Iterator[tuple[J, R]]:
        """Call ``work(thing, job)`` for each job that `take` gives, and give jobs and results as they come.

        Parameters
        ----------
        work : callable
            A function of a module. It may be called twice for a job, and both times to the end.
        thing : object
            What all jobs need. Where they are done by other processes, it is pickled, and unpickled once in
            each of them.
        take : callable
            Gives the next job; None if there is none, or none before others are done. It is called again
            after each result, and it is over when all jobs are done and it gives None.
        needs : Needs
            Of each job.
        """

    def at_once(self, needs: Needs = NOTHING) -> int:
        """How many jobs with these needs can be done at a time."""

    def embedder(self, model: str | Embedder) -> Embedder:
        """What describes a model here, and embeds where jobs are done."""


class _Here:
    """One process, this one, which does one job after the other."""

    def __init__(self, threads: int | None) -> None:
        self.is_here, self.memory, self.threads = True, None, threads

    def run(
        self,
        work: Callable[[T, J], R],
        thing: T,
        take: Callable[[], J | None],
        needs: Needs = NOTHING,  # noqa: ARG002  a process has what it has
    ) -> Iterator[tuple[J, R]]:
        while (job := take()) is not None:
            yield job, work(thing, job)

    def at_once(self, needs: Needs = NOTHING) -> int:  # noqa: ARG002
        return 1

    def embedder(self, model: str | Embedder) -> Embedder:
        return embedder_of(model)


def once(machines: Machines, work: Callable[[T, J], R], thing: T, job: J, needs: Needs = NOTHING) -> R:
    """Do a single job."""
    left = [(job,)]
    [(_, result)] = machines.run(_one, (work, thing), lambda: left.pop() if left else None, needs)
    return result


def _one(what: tuple[Callable[[T, J], R], T], job: tuple[J]) -> R:
    work, thing = what
    return work(thing, *job)


@contextmanager
def machines_at(ray: str | None, *, threads: int | None) -> Iterator[Machines]:
    """The Ray cluster at an address, for the block, see :mod:`fasttriplet.ray`; or this process."""
    if ray is None:
        yield _Here(threads)
        return
    if not isinstance(ray, str) or not ray:
        raise OptionError("ray", f"must be an address, 'auto' or 'local', not {ray!r}")
    room: Any = import_module("fasttriplet.ray._cluster")  # by its name: its room is above this one
    connecting: AbstractContextManager[Machines] = room.connected(ray, threads=threads)
    with connecting as machines:
        yield machines
