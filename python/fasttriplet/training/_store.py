"""The files of a training, except its log: what is written when, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fasttriplet.training._backend import Backend
from fasttriplet.training._files import Names
from fasttriplet.training._schedule import Export
from fasttriplet.training._state import State, save_state


@dataclass(frozen=True)
class Store:
    """Writes the state, and the networks that follow from it."""

    names: Names
    backend: Backend
    formats: Sequence[Export]  # in which the networks are written at the end, besides their own

    @property
    def state(self) -> Path:
        """The file of the state."""
        return self.names.state

    @property
    def last(self) -> str:
        """The spec of the network."""
        return self.backend.spec(self.names.prefix)

    @property
    def best(self) -> str:
        """The spec of the best network."""
        return self.backend.spec(self.names.best)

    def tidy(self, *, new: bool) -> None:
        """Remove what a killed training was writing, and for a new one the networks that it replaces."""
        self.names.tidy(new=new)

    def commit(self, state: State) -> None:
        """Write the state, from which all other files follow."""
        save_state(self.names.state, state)

    def publish(self, *, best: bool) -> None:
        """Write the network as it is now, and first as the best one if it is."""
        if best:
            self.backend.save(self.names.best)
        self.backend.save(self.names.prefix)

    def export(self, *, best: bool, begins: Callable[[Path], object]) -> tuple[str, ...]:
        """Write the saved network, and the best one if there is one, in the other formats.

        `begins` is called with the first file of each. Returns all files.
        """
        written: list[str] = []
        for prefix in (self.names.prefix, *([self.names.best] if best else [])):
            for one in self.formats:
                files = self.names.exported(prefix, one)
                begins(files[0])
                self.backend.export(prefix, one)
                written += map(str, files)
        return tuple(written)


class NoStore(Store):
    """That of a process that leaves the files to another one."""

    def tidy(self, *, new: bool) -> None:
        """Do nothing."""

    def commit(self, state: State) -> None:
        """Do nothing."""

    def publish(self, *, best: bool) -> None:
        """Do nothing."""
