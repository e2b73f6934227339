"""The images of a batch as a tensor: what the layout of a feed is for PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

import torch
from fasttriplet.dataset._augment import assemble
from fasttriplet.embedders._inputs import Inputs


def laid_out(
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    *,
    inputs: Inputs,
    device: torch.device,
    **options: Any,
) -> torch.Tensor:
    """Lay images out as a network on a device takes them, in memory that a GPU reads fastest.

    It is called as :func:`fasttriplet.assemble` is, in a thread beside that of the training.
    """
    shape = len(rows), 3, *pixels.shape[1:3]
    tensor = torch.empty(shape, dtype=torch.float32, device="cpu", pin_memory=device.type == "cuda")
    # Computed by NumPy: in a thread of its own, PyTorch would start as many more as there are cores.
    images: NDArray[np.float32] = tensor.numpy()
    assemble(pixels, rows, out=images, **options)
    if inputs.color == "bgr":
        images[:, [0, 2]] = images[:, [2, 0]]
    if not inputs.as_decoded:
        images -= np.array(inputs.mean, np.float32)[:, None, None]
        images /= np.array(inputs.std, np.float32)[:, None, None]
    return tensor
