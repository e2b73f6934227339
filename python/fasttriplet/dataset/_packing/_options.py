"""The options of :func:`fasttriplet.pack`."""

# Annotations are evaluated at once: as texts, each would be compiled by TypedDict while `--help` waits.
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from fasttriplet._checks import (
    image_size,
    number,
    one_of,
    pixel_limit,
    seed_number,
    thread_count,
    whole_number,
)
from fasttriplet._options import Options
from fasttriplet.dataset._options import MAX_PIXELS, OnError
from fasttriplet.errors import OptionError

Fit = Literal["stretch", "crop", "pad"]
Format = Literal["jpeg", "png", "keep"]

_LONGEST_SIDE = 2**14  # pixels


class PackKeywords(TypedDict, total=False):
    """The fields of :class:`PackOptions` as keyword arguments."""

    size: tuple[int, int] | None
    fit: Fit
    format: Format
    quality: int
    identity_depth: int | None
    split: float | None
    max_pixels: int
    on_error: OnError
    seed: int
    threads: int | None


@dataclass(frozen=True, kw_only=True)
class PackOptions(Options):
    """How :func:`fasttriplet.pack` makes a ``.rec``, explained there."""

    size: tuple[int, int] | None = None
    fit: Fit = "stretch"
    format: Format = "jpeg"
    quality: int = 95
    identity_depth: int | None = None
    split: float | None = None
    max_pixels: int = MAX_PIXELS
    on_error: OnError = "raise"
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        pixel_limit(self.max_pixels)
        if self.size is not None and max(image_size(self.size)) > _LONGEST_SIDE:
            raise OptionError(
                "size", f"must have a height and width up to {_LONGEST_SIDE} pixels, not {self.size}"
            )
        if self.size is not None:
            image_size(self.size, self.max_pixels)
        one_of("fit", self.fit, get_args(Fit))
        if self.fit != "stretch" and self.size is None:
            raise OptionError("fit", f"must not be {self.fit!r} without a size")
        one_of("format", self.format, get_args(Format))
        whole_number("quality", self.quality, 1, 100)
        if self.identity_depth is not None:
            whole_number("identity_depth", self.identity_depth, 1)
        if self.split is not None and not 0 < number("split", self.split, 0, 1) < 1:
            raise OptionError("split", f"must be a number above 0 and below 1, not {self.split!r}")
        one_of("on_error", self.on_error, get_args(OnError))
        seed_number(self.seed)
        thread_count(self.threads)
        super().__post_init__()
