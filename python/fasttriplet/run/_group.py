"""Processes that train together: what a feed needs of them, whatever connects them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fasttriplet.errors import OptionError, PeerError


class Group(Protocol):
    """Processes that train together. Any object with these four members connects the feeds of all of them.

    Each process makes one for each feed. The feed calls it in the thread that iterates.

    Attributes
    ----------
    rank : int
        Number of this process, from 0.
    size : int
        How many processes there are.
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def gather(self, arrays: Sequence[NDArray[Any]]) -> list[list[NDArray[Any]]]:
        """Give every process what each of them gives; all of them have to call it.

        Parameters
        ----------
        arrays : sequence of array
            Of any shapes, which may differ between processes.

        Returns
        -------
        list of list of array
            What each process gave, by rank.

        Raises
        ------
        PeerError
            If another process has left and will not call it.
        """

    def leave(self, reason: str | None) -> None:
        """End the part of this process. All but the first call do nothing.

        Parameters
        ----------
        reason : str, optional
            What the errors of processes that wait for this one say after its name, such as ``"failed:
            ValueError: ..."``. None if they wait for nothing more.
        """


class Alone:
    """A group of one process."""

    rank, size = 0, 1

    def gather(self, arrays: Sequence[NDArray[Any]]) -> list[list[NDArray[Any]]]:
        """Give back the arrays."""
        return [[*arrays]]

    def leave(self, reason: str | None) -> None:
        """Do nothing."""


@contextmanager
def telling(group: Group) -> Iterator[None]:
    """Let an error of the block end the other processes, too, with its message."""
    try:
        yield
    except PeerError:
        group.leave(None)  # they know
        raise
    except GeneratorExit:
        group.leave(CLOSED)
        raise
    except BaseException as error:
        group.leave(failed(error))
        raise


def check_agreement(group: Group, arguments: Mapping[str, Any]) -> None:
    """Raise a ValueError if another process of the group gives another argument."""
    text = json.dumps(arguments, default=str).encode()
    texts = group.gather([np.frombuffer(text, np.uint8)])
    first, *others = (json.loads(one.tobytes()) for (one,) in texts)
    for rank, other in enumerate(others, 1):
        for name, value in first.items():
            if other[name] != value:
                values = "" if name in ("dataset", "state") else f": {value!r:.100} and {other[name]!r:.100}"
                raise OptionError(name, f"must be the same in processes 0 and {rank} of the group{values}")


CLOSED = "closed its feed before the end"


def failed(error: BaseException) -> str:
    """What to say of a process that ends with this error."""
    text = str(error)
    return f"failed: {type(error).__name__}{text and f': {text}'}"
