"""The files of a training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fasttriplet._files import remove_unfinished
from fasttriplet.training._state import load_state


@dataclass(frozen=True, slots=True)
class Names:
    """The names of all files under a prefix."""

    prefix: str
    endings: tuple[str, ...] = ()  # of the files of a network

    @classmethod
    def of(cls, out: str | os.PathLike[str], endings: tuple[str, ...] = ()) -> Self:
        """The names under `out`, in a folder that exists."""
        prefix = os.fspath(out)
        folder, name = os.path.split(prefix)
        if not name:
            raise ValueError(f"out: {prefix!r} needs the beginning of a name after the folder, such as face")
        if not Path(folder or ".").is_dir():
            raise FileNotFoundError(f"out: there is no folder {folder}")
        return cls(prefix, endings)

    @property
    def state(self) -> Path:
        """The file from which the training is resumed."""
        return Path(f"{self.prefix}-state.npz")

    @property
    def log(self) -> Path:
        """JSON lines."""
        return Path(f"{self.prefix}-log.jsonl")

    @property
    def best(self) -> str:
        """Prefix of the best network."""
        return f"{self.prefix}-best"

    def _networks(self, *prefixes: str) -> list[Path]:
        return [Path(f"{prefix}{end}") for prefix in prefixes for end in self.endings]

    def refuse_to_replace(self) -> None:
        """Raise a FileExistsError if there is a training or a network at the prefix.

        A training that did not finish its first batch may be replaced.
        """
        if self.state.exists():
            try:
                batches = load_state(self.state).plain["batch"]
            except ValueError as error:
                raise FileExistsError(f"out: {self.state} exists; give another prefix") from error
            if batches:
                raise FileExistsError(
                    f"out: there is a training at {self.prefix}; resume it, or give another prefix"
                )
            return
        for path in (*self._networks(self.prefix, self.best), self.log):
            if path.exists() and (path != self.log or path.stat().st_size):
                raise FileExistsError(f"out: {path} exists; give another prefix")

    def refuse_to_replace_best(self) -> None:
        """Raise a FileExistsError if there is a best network, which this training did not write."""
        for path in self._networks(self.best):
            if path.exists():
                raise FileExistsError(f"{path} exists, and is not of this training: move it away")

    def tidy(self, *, new: bool) -> None:
        """Remove what a killed training was writing, and for a new one what may be replaced."""
        for path in (*self._networks(self.prefix, self.best), self.state):
            remove_unfinished(path)
            if new:
                path.unlink(missing_ok=True)
