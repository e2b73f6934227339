"""Machines that do jobs in any order, some of them twice, in this process: what a cluster may do."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fasttriplet.embedders import Embedder, load_embedder
from fasttriplet.run import _embed_rec, _mine_rec
from fasttriplet.run._machines import NOTHING, Needs


class LostError(Exception):
    """The machines have gone away."""


class Disorderly:
    """Machines of which nobody knows which job they do next.

    Parameters
    ----------
    seed : int
    at_once : int
        How many jobs they hold at a time.
    lives : int
        How many jobs they do before they go away.

    Attributes
    ----------
    done : int
        How many jobs they have done, each counted once.
    needs : Needs
        What was said about the jobs.
    """

    is_here, memory, threads, done, needs = False, None, 1, 0, NOTHING

    def __init__(self, seed: int, at_once: int, lives: int = 10**9) -> None:
        self._at_once, self._lives, self._random = at_once, lives, random.Random(seed)

    def at_once(self, needs: Needs = NOTHING) -> int:  # noqa: ARG002
        return self._at_once

    def run(
        self,
        work: Callable[[Any, Any], Any],
        thing: Any,
        take: Callable[[], Any],
        needs: Needs = NOTHING,
    ) -> Iterator[tuple[Any, Any]]:
        self.needs = needs
        sent = pickle.dumps(thing)
        processes = [pickle.loads(sent) for _ in range(2)]
        held: list[Any] = []
        while True:
            while len(held) < 2 * self._at_once and (job := take()) is not None:
                held.append(job)
            if not held:
                return
            job = held.pop(self._random.randrange(len(held)))
            for _ in range(self._random.choice([1, 1, 2])):  # where a process seemed to have died
                if self._lives == 0:
                    raise LostError
                self._lives -= 1
                process = self._random.choice(processes)
                result = pickle.loads(pickle.dumps(work(process, pickle.loads(pickle.dumps(job)))))
            self.done += 1
            yield job, result

    def embedder(self, model: str | Embedder) -> Embedder:
        return load_embedder(model) if isinstance(model, str) else model


@contextmanager
def in_place_of_ray(machines: Disorderly) -> Iterator[None]:
    """Let runs with ``ray="disorderly"`` take place on these machines."""

    @contextmanager
    def machines_at(ray: str | None, *, threads: int | None) -> Iterator[Disorderly]:  # noqa: ARG001
        assert ray == "disorderly"
        yield machines

    with pytest.MonkeyPatch.context() as patch:
        for module in (_mine_rec, _embed_rec):
            patch.setattr(module, "machines_at", machines_at)
        yield
