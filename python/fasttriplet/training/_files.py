"""The files of a training."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fasttriplet._files import remove_unfinished
from fasttriplet.training._state import load_state

_NETWORK = ("-symbol.json", "-0000.params")


@dataclass(frozen=True, slots=True)
class Names:
    """The names under a prefix."""

    prefix: str

    @classmethod
    def of(cls, out: str | os.PathLike[str]) -> Self:
        """The names under `out`.

        Raises
        ------
        FileNotFoundError
            If there is no such folder.
        ValueError
            If it is only a folder.
        """
        prefix = os.fspath(out)
        folder, name = os.path.split(prefix)
        if not name:
            raise ValueError(f"out: {prefix!r} needs the beginning of a name behind the folder, such as face")
        if not Path(folder or ".").is_dir():
            raise FileNotFoundError(f"out: there is no folder {folder}")
        return cls(prefix)

    @property
    def state(self) -> Path:
        """What a training goes on from."""
        return Path(f"{self.prefix}-state.npz")

    @property
    def log(self) -> Path:
        """JSON lines."""
        return Path(f"{self.prefix}-log.jsonl")

    @property
    def best(self) -> str:
        """Prefix of the best network."""
        return f"{self.prefix}-best"

    def _networks(self, prefixes: tuple[str, ...]) -> list[Path]:
        return [Path(f"{prefix}{end}") for prefix in prefixes for end in _NETWORK]

    def refuse_to_replace(self) -> None:
        """Raise a FileExistsError where something lies that somebody trained.

        A training that did not come behind its first batch may be replaced.
        """
        if self.state.exists():
            try:
                behind = load_state(self.state).plain["batch"]
            except ValueError as error:
                raise FileExistsError(f"out: {self.state} exists; give another prefix") from error
            if behind:
                raise FileExistsError(
                    f"out: there is a training at {self.prefix}; go on with it (resume), or give another "
                    "prefix"
                )
            return
        for path in (*self._networks((self.prefix, self.best)), self.log):
            if path.exists() and (path != self.log or path.stat().st_size):
                raise FileExistsError(f"out: {path} exists; give another prefix")

    def refuse_to_replace_best(self) -> None:
        """Raise a FileExistsError where a best network lies that this training did not write."""
        for path in self._networks((self.best,)):
            if path.exists():
                raise FileExistsError(f"{path} exists, and is not of this training: move it away")

    def tidy(self, *, new: bool) -> None:
        """Remove what a killed training was writing, and for a new one what may be replaced."""
        for path in (*self._networks((self.prefix, self.best)), self.state):
            remove_unfinished(path)
            if new:
                path.unlink(missing_ok=True)
