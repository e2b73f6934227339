"""The files of a training."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from fasttriplet._files import check_can_be_written, remove_unfinished
from fasttriplet.errors import OptionError
from fasttriplet.training._state import load_state


@dataclass(frozen=True, slots=True)
class Names:
    """The names of all files under a prefix."""

    prefix: str
    endings: tuple[str, ...] = ()  # of the files of a network
    exports: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the same in other formats

    @classmethod
    def of(cls, out: str | os.PathLike[str]) -> Self:
        """The names under `out` of the files that do not depend on the framework."""
        prefix = os.fspath(out)
        if not os.path.basename(prefix):  # noqa: PTH119  a Path would drop the last slash
            raise OptionError(
                "out", f"must have the beginning of a name after the folder, such as face, not {prefix!r}"
            )
        try:
            prefix.encode()
        except UnicodeEncodeError:  # frameworks do not write such files
            raise OptionError("out", f"must be a name in UTF-8, not {prefix!r}") from None
        return cls(prefix)

    @property
    def folder(self) -> Path:
        """The folder of all files, which may be missing."""
        return self.state.parent

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

    def exported(self, prefix: str, kind: str) -> list[Path]:
        """The files of the network with this prefix in another format."""
        return [Path(f"{prefix}{end}") for end in self.exports[kind]]

    def _in_formats(self, kinds: Iterable[str]) -> list[Path]:
        return [
            path for kind in kinds for one in (self.prefix, self.best) for path in self.exported(one, kind)
        ]

    def check(self, *, overwrite: bool) -> None:
        """Raise an OSError if the files of a new training cannot be written.

        A training or a network at the prefix is a FileExistsError, unless `overwrite` is set. A training that
        did not finish its first batch may be replaced.
        """
        if not overwrite and self.state.exists() and self._batches() > 0:
            raise FileExistsError(
                f"there is a training at {self.prefix}: resume=True continues it, overwrite=True replaces it"
            )
        unfinished = self.state.exists()
        for path in (*self._networks(self.prefix, self.best), self.state, self.log):
            empty = path == self.log and path.is_file() and not path.stat().st_size
            check_can_be_written(path, overwrite=overwrite or unfinished or empty)
        for path in self._in_formats(self.exports):  # which no unfinished training has written
            check_can_be_written(path, overwrite=overwrite)

    def _batches(self) -> int:
        try:
            return int(load_state(self.state).plain["batch"])
        except ValueError as error:
            raise FileExistsError(f"{self.state} exists already; overwrite=True replaces it") from error

    def written(self) -> tuple[int, int] | None:
        """What tells whether the state has been written since; None if there is none."""
        try:
            found = self.state.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_ino, found.st_mtime_ns

    def refuse_to_replace_best(self) -> None:
        """Raise a FileExistsError if there is a best network, which this training did not write."""
        self._refuse_to_replace(self._networks(self.best))

    def refuse_to_replace_exports(self, kinds: Iterable[str]) -> None:
        """Raise a FileExistsError if a network is there in a format that this training did not write."""
        self._refuse_to_replace(self._in_formats(kinds))

    @staticmethod
    def _refuse_to_replace(paths: list[Path]) -> None:
        for path in paths:
            if path.exists():
                raise FileExistsError(f"{path} exists, and is not of this training: move it away")

    def tidy(self, *, new: bool) -> None:
        """Remove what a killed training was writing, and for a new one the networks that it replaces."""
        remove_unfinished(self.state)
        for path in (*self._networks(self.prefix, self.best), *self._in_formats(self.exports)):
            remove_unfinished(path)
            if new:
                path.resolve().unlink(missing_ok=True)  # of a link, what it points to
