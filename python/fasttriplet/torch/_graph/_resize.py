"""``UpSampling`` and ``Crop``, which detectors have."""

from __future__ import annotations

from collections.abc import Sequence

from torch.nn import functional

import torch
from fasttriplet.torch._graph._operator import Operator
from torch import fx, nn


def up_sampling(op: Operator) -> fx.Node:
    """``UpSampling``: the nearest value, or a transposed convolution with a weight."""
    scale = op.attributes.whole("scale", least=1)
    channels = op.attributes.whole("num_filter", 0, least=0)
    bilinear = op.attributes.choice("sample_type", ("nearest", "bilinear")) == "bilinear"
    summed = op.attributes.choice("multi_input_mode", ("concat", "sum"), "concat") == "sum"
    if bilinear:
        window = 2 * scale - scale % 2
        op.check_shape(1, channels, 1, window, window)
        if channels == 0:
            raise op.attributes.error("num_filter=0 cannot be converted; expected the number of channels")
        # MXNet's own choice of window and padding.
        options = {"stride": scale, "padding": scale // 2, "groups": channels}
        return op.call(functional.conv_transpose2d, op.data, op.value(1), None, **options)
    if len(op.inputs) == 1:
        return op.layer(lambda: nn.Upsample(scale_factor=scale, mode="nearest"))
    return op.layer(lambda: Join(scale, summed=summed), *op.values())


class Join(nn.Module):  # type: ignore[misc, unused-ignore]
    """Enlarge maps of several sizes to `scale` times the size of the first, and join them."""

    def __init__(self, scale: int, *, summed: bool) -> None:
        super().__init__()
        self.scale, self.summed = scale, summed

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Enlarge and join."""
        size = [side * self.scale for side in inputs[0].shape[2:]]
        for maps in inputs:
            if any(side == 0 or large % side for large, side in zip(size, maps.shape[2:], strict=True)):
                raise ValueError(f"maps of {tuple(maps.shape[2:])} cannot be enlarged to {tuple(size)}")
        enlarged = [functional.interpolate(maps, size, mode="nearest") for maps in inputs]
        return torch.stack(enlarged).sum(0) if self.summed else torch.cat(enlarged, 1)

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        return f"{self.scale}, {'sum' if self.summed else 'concat'}"


def crop(op: Operator) -> fx.Node:
    """``Crop`` to the size of a second input, or to a given one."""
    offset, size = (op.attributes.sizes(name, (0, 0), least=0) for name in ("offset", "h_w"))
    center = op.attributes.flag("center_crop", False)
    if len(offset) != 2 or len(size) != 2 or (len(op.inputs) == 1 and 0 in size):
        raise op.attributes.error(
            f"offset={offset} and h_w={size} cannot be converted; expected two sizes each"
        )
    if len(op.inputs) > 2:
        raise op.attributes.error(f"it has {len(op.inputs)} inputs; expected 1 or 2")
    return op.layer(lambda: Crop(offset, size, center=center), *op.values())


class Crop(nn.Module):  # type: ignore[misc, unused-ignore]
    """Cut a window out of the maps."""

    def __init__(self, offset: Sequence[int], size: Sequence[int], *, center: bool) -> None:
        super().__init__()
        self.offset, self.size, self.center = tuple(offset), tuple(size), center

    def forward(self, data: torch.Tensor, like: torch.Tensor | None = None) -> torch.Tensor:
        """Crop."""
        height, width = self.size if like is None else like.shape[2:]
        top, left = self.offset
        if self.center:
            top, left = (data.shape[2] - height) // 2, (data.shape[3] - width) // 2
        if top < 0 or left < 0 or top + height > data.shape[2] or left + width > data.shape[3]:
            window = f"{height} x {width} at {top}, {left}"
            raise ValueError(f"the window {window} does not lie in maps of {tuple(data.shape[2:])}")
        return data[:, :, top : top + height, left : left + width]

    def extra_repr(self) -> str:
        """What ``print`` shows of the layer."""
        return "center" if self.center else f"offset={self.offset}"
