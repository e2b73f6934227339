"""Decoded images to the batches that networks take, with random changes for training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fasttriplet import _core
from fasttriplet._checks import number, seed_number, truth_value, whole_number
from fasttriplet._words import counted
from fasttriplet.dataset._ids import Integers, integers
from fasttriplet.errors import OptionError

_MOST_CUTOFF = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Augment:
    """Random changes of training images, as InsightFace makes them.

    Colours change first, then the square is cut. Values are not clipped to 0..255, so the order of the three
    changes of colours makes no difference.

    Attributes
    ----------
    mirror : bool, default False
        Swap left and right in half of the images, at random (`rand_mirror`).
    cutoff : int, default 0
        Side in pixels of a square around a random centre that is filled with 127.5, which is 0 after the
        networks' ``(x - 127.5) / 128``; the part of it that lies outside of the image is lost. An odd side
        counts as the even one below it, as in the original.
    brightness, contrast, saturation : float, default 0
        Each is multiplied by a factor that is uniform in ``1 - x .. 1 + x``: all channels; their difference
        to the image's mean grey; their difference to the pixel's grey (0.299 R + 0.587 G + 0.114 B). The
        original's `color_jittering` stands for 0.125 of each.

    Raises
    ------
    ValueError
        If `cutoff` is negative, or one of the factors is not between 0 and 1.

    Notes
    -----
    What happens to an image depends on the seed and the image's id alone, and each change on random numbers
    of its own: with `cutoff` the same images are mirrored as without.
    """

    mirror: bool = False
    cutoff: int = 0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        factors = ("brightness", "contrast", "saturation")
        checked: dict[str, float] = {name: number(name, getattr(self, name), 0, 1) for name in factors}
        checked["mirror"] = truth_value("mirror", self.mirror)
        checked["cutoff"] = whole_number("cutoff", self.cutoff, 0, _MOST_CUTOFF)
        for name, value in checked.items():  # numbers of Python, as the state of a feed holds them
            object.__setattr__(self, name, value)


def assemble(
    pixels: NDArray[np.uint8],
    rows: Integers | None = None,
    *,
    augment: Augment | None = None,
    ids: Integers | None = None,
    seed: int = 0,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Lay decoded images out as a batch that networks take.

    Parameters
    ----------
    pixels : (N, H, W, 3) uint8
        Decoded images, C-contiguous.
    rows : (B,) int, optional
        Which of them, in the order of the batch; an image may occur several times. By default all.
    augment : Augment, optional
        How they are changed. By default they are not.
    ids : (B,) int, optional
        A number for each image of the batch, such as its key; together with the seed it decides how the image
        is changed. By default its row.
    seed : int, default 0
        Seed of the changes. Take another one for each epoch: ``epoch_seed(seed, epoch)``.
    out : (B, 3, H, W) float32, optional
        Where to write the batch: C-contiguous, or (B, H, W, 3) C-contiguous and transposed, which PyTorch
        calls channels last. By default a new array, C-contiguous.

    Returns
    -------
    (B, 3, H, W) float32
        RGB, 0 to 255; `out` if that is given.

    Raises
    ------
    ValueError
        If an array has another shape or dtype, a row has no image or an image no id, or
        `augment` or `seed` is none.
    """
    if augment is not None and not isinstance(augment, Augment):
        raise OptionError("augment", f"must be an Augment, not {augment!r}")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[3:] != (3,):
        raise ValueError(f"pixels must be (N, H, W, 3) uint8, not {_shown(pixels)}")
    if not pixels.flags.c_contiguous:
        raise ValueError("pixels must be C-contiguous; np.ascontiguousarray makes it so")
    chosen = np.arange(len(pixels)) if rows is None else integers("rows", rows)
    shape = (len(chosen), 3, *pixels.shape[1:3])
    if out is None:
        out = np.empty(shape, dtype=np.float32)
    elif not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != shape:
        raise ValueError(f"out must be {shape} float32, not {_shown(out)}")
    pixelwise = out.transpose(0, 2, 3, 1)
    channels_last = not out.flags.c_contiguous and pixelwise.flags.c_contiguous
    written = pixelwise if channels_last else out
    if not written.flags.carray:
        raise ValueError(
            "out must be C-contiguous, or (B, H, W, 3) C-contiguous and transposed; aligned and writeable"
        )
    if np.may_share_memory(out, pixels) or np.may_share_memory(out, chosen):
        raise ValueError("out must not share memory with what it is made of")
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(pixels):
        raise ValueError(f"rows must be below {len(pixels)}, the number of images, and not negative")
    numbers = chosen if ids is None else integers("ids", ids)
    if len(numbers) != len(chosen):
        raise ValueError(f"there are {counted(len(chosen), 'image')} but {counted(len(numbers), 'id')}")
    seed = seed_number(seed)
    if out.size == 0:
        return out
    if augment is None or augment == Augment():
        _core.assemble(pixels, chosen, written, channels_last=channels_last)
    else:
        colours = augment.brightness, augment.contrast, augment.saturation
        changes = augment.mirror, augment.cutoff, *colours
        _core.assemble(pixels, chosen, written, channels_last=channels_last, augment=(changes, seed, numbers))
    return out


def _shown(value: object) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
