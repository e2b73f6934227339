"""What is wrong with a folder: all of it in a table, the first few of each kind in a message."""

from __future__ import annotations

import csv
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from fasttriplet._files import Output, naming

Kind = Literal["depth", "empty", "unreadable", "format", "damaged", "large", "size"]

_SHOWN = 10  # of each kind
_HEADINGS: dict[Kind, str] = {
    "depth": "at another depth than the pictures (see identity_depth)",
    "empty": "folders without pictures",
    "unreadable": "files and folders that cannot be read",
    "format": "not pictures, or of a format that is not read (convert them to JPEG or PNG)",
    "damaged": "damaged pictures",
    "large": "of more pixels than are decoded (max_pixels)",
    "size": "of another size than most pictures (size=HxW brings all to one size)",
}


class Problems:
    """Collects what cannot be used. The table is written as it grows, so that it takes no memory."""

    def __init__(self, output: Output) -> None:
        self._output = output
        # Names that are not Unicode are written as the bytes they are.
        self._file = output.unfinished.open("w", encoding="utf-8", errors="surrogateescape", newline="")
        self._table = csv.writer(self._file, lineterminator="\n")
        self._table.writerow(["path", "kind", "problem"])
        self._shown: dict[Kind, list[str]] = {}
        self._counts: dict[Kind, int] = {}

    def add(self, path: Path, kind: Kind, what: str) -> None:
        """Add what is wrong with a file or folder."""
        with naming(self._output):
            self._table.writerow([path, kind, what])
        self._counts[kind] = self._counts.get(kind, 0) + 1
        shown = self._shown.setdefault(kind, [])
        if len(shown) < _SHOWN:
            shown.append(f"{_printable(path)}: {what}")

    def __len__(self) -> int:
        return sum(self._counts.values())

    def finish(self) -> None:
        """Complete the table."""
        with naming(self._output):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # unless it is finished, it is not needed
            self._file.close()

    @property
    def complete(self) -> bool:
        """Whether :meth:`lines` has all of it."""
        return all(count <= _SHOWN for count in self._counts.values())

    def lines(self) -> str:
        """List the first problems of each kind."""
        lines = []
        for kind, heading in _HEADINGS.items():
            if kind in self._counts:
                lines.append(f"  {heading}: {self._counts[kind]:,}")
                lines += [f"    {line}" for line in self._shown[kind]]
                if more := self._counts[kind] - len(self._shown[kind]):
                    lines.append(f"    ... and {more:,} more")
        return "\n".join(lines)


def _printable(path: Path) -> str:
    """Return a path with escapes for what is not Unicode."""
    return str(path).encode(errors="backslashreplace").decode()
