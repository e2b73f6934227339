"""Where a training ends, and what it does on the way and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fasttriplet._checks import one_of, whole_number
from fasttriplet.errors import OptionError

Export = Literal["mxnet", "onnx"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Where a training ends, what happens after how many batches, and the formats to write at the end."""

    batches: int
    verify_on: tuple[str, ...]
    verify_every: int
    checkpoint_every: int
    log_every: int
    export: Sequence[Export]

    def __post_init__(self) -> None:
        for name in ("batches", "verify_every", "checkpoint_every", "log_every"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 1))
        formats = (self.export,) if isinstance(self.export, str) else self.export
        if not isinstance(formats, (tuple, list)):
            raise OptionError("export", f"must be formats, in a list, not {formats!r}")
        for one in formats:
            one_of("export", one, get_args(Export))
        object.__setattr__(self, "export", tuple(dict.fromkeys(formats)))
