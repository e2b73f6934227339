"""What a model takes and gives: its input, and which of its outputs is the embedding."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet.embedders._inputs import Inputs

_PIXELS: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_FLOATS = {name for name, kind in _PIXELS.items() if kind is not np.uint8}


@dataclass(frozen=True)
class Input:
    """The input of a model: images as it takes them."""

    name: str
    dtype: Any
    channels_last: bool
    batch: int | None  # None: any
    size: tuple[int, int] | None

    def empty(self, count: int, height: int, width: int) -> NDArray[Any]:
        """An array for a batch."""
        shape = (height, width, 3) if self.channels_last else (3, height, width)
        return np.empty((count, *shape), dtype=self.dtype)

    def fill(self, batch: NDArray[Any], images: NDArray[np.uint8], inputs: Inputs) -> None:
        """Write RGB images into a batch as the model takes them, and black after them."""
        found = images if inputs.color == "rgb" else images[..., ::-1]
        shape = (3,) if self.channels_last else (3, 1, 1)
        if not self.channels_last:
            found = found.transpose(0, 3, 1, 2)
        mean, std = (np.array(each, np.float32).reshape(shape) for each in (inputs.mean, inputs.std))
        for part, pixels in ((batch[: len(found)], found), (batch[len(found) :], np.zeros((), np.uint8))):
            if self.dtype is np.uint8:
                part[...] = pixels
            else:
                np.subtract(pixels, mean, out=part, dtype=np.float32, casting="unsafe")
                np.divide(part, std, out=part, casting="unsafe")


def input_of(path: Path, session: Any) -> Input:
    """Read what the model takes; a ValueError if that is not one batch of colour images."""
    needed = session.get_inputs()  # without those that have a default
    if len(needed) != 1:
        names = ", ".join(f"{each.name!r} {_shown(each)}" for each in needed)
        raise ValueError(
            f"{path} must have one input without a default, the images; it has {names or 'none'}"
        )
    (found,) = needed
    where = f"{path}: input {found.name!r} is {_shown(found)}"
    shape = [side if isinstance(side, int) and side > 0 else None for side in found.shape]
    if found.type not in _PIXELS:
        raise ValueError(f"{where}; expected float32, float16, float64 or uint8")
    if len(shape) != 4:
        raise ValueError(f"{where}; expected images, (B, 3, H, W) or (B, H, W, 3)")
    last = shape[3] == 3
    if last == (shape[1] == 3):
        if 1 in (shape[1], shape[3]) and not last:
            raise ValueError(f"{where}: gray images, and only colour can be fed")
        raise ValueError(
            f"{where}, which does not say where the 3 channels are; export it with their number fixed, as "
            "(B, 3, H, W) or (B, H, W, 3)"
        )
    height, width = shape[1:3] if last else shape[2:]
    size = (height, width) if height and width else None
    return Input(found.name, _PIXELS[found.type], last, shape[0], size)


def output_of(path: Path, session: Any, wanted: str | None) -> str:
    """Choose the embedding: by its name, or because it alone can be one."""
    outputs: dict[str, Any] = {each.name: each for each in session.get_outputs()}
    listed = ", ".join(f"{each.name!r} {_shown(each)}" for each in outputs.values())
    if wanted is not None and wanted not in outputs:
        close = difflib.get_close_matches(wanted, outputs, n=1)
        hint = f"did you mean {close[0]!r}? It has " if close else "it has "
        raise ValueError(f"{path} has no output {wanted!r}; {hint}{listed}")
    if wanted is not None:
        if not _may_be_embedding(outputs[wanted]):
            raise ValueError(f"{path}: output {wanted!r} is not an embedding, (B, D); the model has {listed}")
        return wanted
    possible = [name for name, each in outputs.items() if _may_be_embedding(each)]
    fitting = [name for name in possible if outputs[name].shape] or possible  # some do not say their shape
    if not fitting:
        raise ValueError(f"{path} has no output that is an embedding, (B, D); it has {listed}")
    if len(fitting) > 1:
        raise ValueError(
            f"cannot tell which output of {path} is the embedding; choose one with output=NAME. "
            f"It has {listed}"
        )
    return fitting[0]


def _may_be_embedding(output: Any) -> bool:
    """Whether it consists of floats and has, or may have, the shape of an embedding."""
    shape = [side if isinstance(side, int) and side > 0 else None for side in output.shape]
    fits = len(shape) >= 2 and all(side in (1, None) for side in shape[2:])
    return output.type in _FLOATS and (fits or not shape)


def _shown(value: Any) -> str:
    """Type and shape of an input or output."""
    kind = np.dtype(_PIXELS[value.type]).name if value.type in _PIXELS else value.type
    return f"{kind} ({', '.join('?' if side is None else str(side) for side in value.shape)})"
