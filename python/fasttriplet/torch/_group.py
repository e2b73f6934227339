"""The processes of ``torch.distributed`` as the group of a feed."""

from __future__ import annotations

import io
import sys
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray

import torch
from fasttriplet.errors import OptionError, PeerError
from fasttriplet.run._group import CLOSED, failed

# Seconds between two looks at what is waited for. A bag takes seconds, and a look at the store a message.
_POLL, _POLL_STORE = 0.002, 0.1
# Processes may wait for each other as long as a verification or a checkpoint of one of them takes.
_TIMEOUT = timedelta(days=30)
_PATIENCE = 1800  # seconds for another process to make its feed; PyTorch's limit for collectives

_made: dict[tuple[int, ...], int] = defaultdict(int)  # how many groups of the same processes


def processes_of(group: Any = None) -> int:
    """How many processes a process group has, by default the default one; 1 where there is none."""
    if not dist.is_available() or not dist.is_initialized():
        return 1
    if group is not None and dist.get_rank(group) < 0:
        raise OptionError("group", "does not contain this process")
    return dist.get_world_size(group)


class TorchGroup:
    """The processes of a process group, connected by gloo on the CPU, apart from what the training does.

    All processes of the group have to make one, in the same order. A process that leaves writes why into the
    store that all share. One that waits for it looks there, so nobody has to take part in a gather to end it.

    Parameters
    ----------
    group : ProcessGroup, optional
        By default the default one.

    Raises
    ------
    PeerError
        If another process makes none for half an hour.
    """

    def __init__(self, group: Any = None) -> None:
        ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
        self.rank, self.size = ranks.index(dist.get_rank()), len(ranks)
        self._peers = _Peers(ranks, self.rank)
        # Also where a script ends without having closed its feed.
        self._finalize = weakref.finalize(self, _leave_at_the_end, self._peers)

    def gather(self, arrays: Sequence[NDArray[Any]]) -> list[list[NDArray[Any]]]:
        """Give every process what each of them gives; Ctrl-C works while it waits."""
        peers, own = self._peers, _packed(arrays)
        sizes = [int(size) for (size,) in peers.all_gather(np.array([len(own)]))]
        padded = np.zeros(max(sizes), np.uint8)
        padded[: len(own)] = own
        found = peers.all_gather(padded)
        peers.gathers += 1
        return [_unpacked(one[:size]) for one, size in zip(found, sizes, strict=True)]

    def check(self) -> None:
        """Raise a PeerError that says why, if another process has left."""
        self._peers.check()

    def leave(self, reason: str | None) -> None:
        """End the part of this process, and tell those that will wait for it why."""
        if self._finalize.detach() is not None:
            self._peers.leave(reason)


class _Peers:
    """The connection to the other processes, and the store with the reasons of those that left."""

    def __init__(self, ranks: Sequence[int], rank: int) -> None:
        self._rank, self._size = rank, len(ranks)
        self._name = f"process {ranks[rank]}"
        self._other = f"process {ranks[1 - rank]}" if len(ranks) == 2 else "another process"
        self.gathers = 0  # that this process has taken part in
        _made[(*ranks,)] += 1
        prefix = f"fasttriplet/{','.join(map(str, ranks))}/{_made[(*ranks,)]}"
        self._store: Any = dist.PrefixStore(prefix, dist.distributed_c10d._get_default_store())
        try:
            self._wait_for_all()  # where Ctrl-C works, which it does not while gloo connects
        except BaseException as error:
            self._write(f"{self._name} {failed(error)}")
            raise
        # Not a new_group, whose names are equal only in processes that have made the same groups before.
        self._gloo: Any = dist.ProcessGroupGloo(self._store, rank, self._size, _TIMEOUT)
        self._work: Any = None

    def _wait_for_all(self) -> None:
        until = time.monotonic() + _PATIENCE
        here = self._store.add("here", 1)
        while here < self._size:
            if time.monotonic() > until:
                raise PeerError(f"{here} of {self._size} processes have made their feeds in half an hour")
            self.check()
            if self._store is None:
                raise PeerError("another process ended while this one made its feed")
            time.sleep(_POLL_STORE)
            here = self._store.add("here", 0)
        self.check()

    def all_gather(self, own: NDArray[Any]) -> list[NDArray[Any]]:
        """Give all processes what each of them gives, arrays of one shape."""
        found = [np.empty_like(own) for _ in range(self._size)]
        try:
            to = [torch.from_numpy(array) for array in found]  # whatever PyTorch's default device is
            work = self._work = self._gloo.allgather([to], [torch.from_numpy(own)])
            looked = time.monotonic()
            while not work.is_completed():
                if time.monotonic() - looked > _POLL_STORE:
                    self.check()
                    looked = time.monotonic()
                time.sleep(_POLL)
            work.wait()
        except PeerError:
            raise
        except RuntimeError as error:  # a connection was closed; why may be written a moment later
            until = time.monotonic() + 1
            while self._store is not None and time.monotonic() < until:
                self.check()
                time.sleep(_POLL_STORE)
            ended = f"{self._other} ended without a message; was it killed?"
            self._write(ended)  # for those that have no connection to it
            raise PeerError(ended) from error
        return found

    def leave(self, reason: str | None) -> None:
        """Close the connection, so that those that wait for this process need not wait longer."""
        if reason is not None:
            self._write(f"{self._name} {reason}")
        if self._work is not None and not self._work.is_completed():
            # Gloo's destructor waits for the other processes. Python does not wait for a daemon when it ends.
            threading.Thread(target=_outlive, args=(self._work, self._gloo), daemon=True).start()
        self._work = self._gloo = None

    def _write(self, text: str) -> None:
        if self._store is not None:
            with suppress(RuntimeError):  # the process that has the store may be gone
                self._store.set(f"note {self._rank}", f"{self.gathers} {text}")
                self._store.add("notes", 1)

    def check(self) -> None:
        """Raise a PeerError if a process has left that this one waits for."""
        for note in self._notes():
            gathers, _, text = note.partition(" ")
            if int(gathers) <= self.gathers:  # else this process is late, and may still finish its gather
                raise PeerError(text)

    def _notes(self) -> list[str]:
        try:
            if self._store is None or not self._store.add("notes", 0):
                return []
            names = [f"note {rank}" for rank in range(self._size)]
            return [self._store.get(name).decode() for name in names if self._store.check([name])]
        except RuntimeError:
            self._store = None  # its process is gone, and PyTorch warns each time it is asked
            return []


def _packed(arrays: Sequence[NDArray[Any]]) -> NDArray[np.uint8]:
    packed = io.BytesIO()
    for array in arrays:
        np.save(packed, array, allow_pickle=False)
    return np.frombuffer(packed.getbuffer(), np.uint8)


def _unpacked(values: NDArray[np.uint8]) -> list[NDArray[Any]]:
    packed, arrays = io.BytesIO(values.tobytes()), []
    while packed.tell() < len(values):
        arrays.append(np.load(packed, allow_pickle=False))
    return arrays


def _outlive(work: Any, _: Any) -> None:
    """Hold a connection of gloo until what it waits for has ended."""
    while not work.is_completed():
        time.sleep(_POLL_STORE)


def _leave_at_the_end(peers: _Peers) -> None:
    """Leave where nobody closed the feed: it was forgotten, or Python ends."""
    error = getattr(sys, "last_value", None)  # what ended the script
    peers.leave(CLOSED if error is None else failed(error))
