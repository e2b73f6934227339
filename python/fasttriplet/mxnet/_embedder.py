"""Embeds images with an MXNet checkpoint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet.checkpoint._checkpoint import embedding_of, epochs_beside, split_epoch
from fasttriplet.embedders._base import check_finite, check_images
from fasttriplet.embedders._batches import GPU_BATCH, at_a_time, images_each, is_shortage, shortage
from fasttriplet.embedders._inputs import USUAL_SIZES, wrong_size
from fasttriplet.embedders._spec import split_options
from fasttriplet.errors import SpecError
from fasttriplet.mxnet._checkpoint import load_checkpoint, load_symbol
from fasttriplet.mxnet._compat import import_mxnet, reason_of
from fasttriplet.mxnet._devices import contexts, name_of
from fasttriplet.mxnet._module_embedder import embed_in_batches
from fasttriplet.mxnet._quiet import quiet

if TYPE_CHECKING:
    import polars as pl

_CPU_BATCH = 64
# To try one costs little: MXNet infers shapes without computing anything.
_SIZES = [*USUAL_SIZES, *((side, side) for side in [*range(8, 129), *range(136, 641, 8)])]


class MXNetEmbedder:
    """Runs a network with ``mx.mod.Module``, on the CPU or on GPUs.

    Its arguments and errors are those of :func:`fasttriplet.load_embedder`. Images are fed as RGB float32
    0..255 in the layout (B, 3, H, W), as InsightFace does: its networks subtract 127.5 and multiply by
    0.0078125 themselves.
    """

    needs_images = True

    def __init__(
        self,
        prefix: str | os.PathLike[str],
        epoch: int,
        *,
        output: str | None = None,
        batch_size: int | None = None,
        devices: str | Sequence[str] | None = None,
    ) -> None:
        self._arguments = {"output": output, "batch_size": batch_size, "devices": devices}
        self.prefix, self.epoch = os.fspath(prefix), epoch
        self._contexts = contexts(devices)
        usual = _CPU_BATCH if self.devices == ["cpu"] else GPU_BATCH
        self.batch_size = images_each(batch_size, usual, who=f"MXNet network {self.prefix}")
        self._checkpoint = load_checkpoint(prefix, epoch)
        found = embedding_of(self._checkpoint, output)
        self._data, self.output = found.data, found.output
        self._symbol = load_symbol(found.symbol, self._checkpoint.symbol_path)
        self._module: Any = None
        self._image_size: tuple[int, int] | None = None
        self._batch = np.empty(0, dtype=np.float32)

    @property
    def description(self) -> str:
        """One line for people."""
        return (
            f"MXNet network {self.prefix}, epoch {self.epoch}, output {self.output.removesuffix('_output')}, "
            f"on {', '.join(self.devices)}, {at_a_time(self.batch_size, self.devices)}"
        )

    @property
    def devices(self) -> list[str]:
        """Where the network runs, such as ``["cpu"]`` or ``["gpu:0", "gpu:1"]``."""
        return list(map(name_of, self._contexts))

    def prepare(self, index: pl.DataFrame) -> None:
        """Do nothing: the network is set up when the size of the images is known."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Run the network over images; embeddings are the values of the output, not normalised."""
        images = check_images(rows, images)
        height, width = images.shape[1:3]
        mx = import_mxnet()
        try:
            if self._image_size != (height, width):
                self._bind(height, width)
            embeddings = embed_in_batches(
                self._module,
                images,
                self._batch,
                who=str(self._checkpoint.symbol_path),
                advice="Choose another output with output=NAME",
            )
        except Exception as error:
            self._image_size = None
            if is_shortage(error):
                who = str(self._checkpoint.symbol_path)
                raise shortage(who, self.devices, self.batch_size, (height, width)) from error
            if not isinstance(error, mx.base.MXNetError):
                raise
            where = ", ".join(self.devices)
            raise RuntimeError(
                f"MXNet failed to run {self._checkpoint.symbol_path} on {where}: {reason_of(error)}"
            ) from error
        check_finite(embeddings, rows, f"{self._checkpoint.params_path}, output {self.output}")
        return embeddings

    def _bind(self, height: int, width: int) -> None:
        self._image_size = None
        shape = (self.batch_size * len(self._contexts), 3, height, width)
        if 0 in shape or self._misfit(shape) is not None:
            raise ValueError(self._why_not(shape))
        mx = import_mxnet()
        module = mx.mod.Module(
            self._symbol, data_names=(self._data,), label_names=None, context=self._contexts
        )
        with quiet():
            module.bind([(self._data, shape)], for_training=False)
            # Weights that the chosen output does not need, such as those of a classifier, are not used.
            module.set_params(self._checkpoint.arg_params, self._checkpoint.aux_params, allow_extra=True)
        self._module, self._image_size = module, (height, width)
        self._batch = np.empty(shape, dtype=np.float32)

    def _misfit(self, shape: tuple[int, ...]) -> str | None:
        """Say why images of this shape do not fit the weights; None when they do."""
        try:
            arguments, _, auxiliary = self._symbol.infer_shape_partial(**{self._data: shape})
        except import_mxnet().base.MXNetError as error:
            return reason_of(error)
        params = self._checkpoint.arg_params | self._checkpoint.aux_params
        names = self._symbol.list_arguments() + self._symbol.list_auxiliary_states()
        for name, wanted in zip(names, arguments + auxiliary, strict=True):
            if name != self._data and 0 not in wanted and wanted and params[name].shape != wanted:
                return f"{name} would have to be {wanted} but is {params[name].shape}"
        return None

    def _why_not(self, shape: tuple[int, int, int, int]) -> str:
        """Say what the network wants instead of images of this shape."""
        count, _, *size = shape
        who = str(self._checkpoint.symbol_path)
        for colours in (3, 1):
            for fitting in _SIZES:
                if self._misfit((count, colours, *fitting)) is None:
                    gray = "" if colours == 3 else " in gray, and only colour can be fed"
                    return f"{wrong_size(who, tuple(size), fitting)}{gray}"
        return f"{wrong_size(who, tuple(size))}: {self._misfit(shape)}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.prefix, self.epoch, self._arguments)


def _rebuild(prefix: str, epoch: int, arguments: dict[str, Any]) -> MXNetEmbedder:
    return MXNetEmbedder(prefix, epoch, **arguments)


def from_spec(text: str, *, output: str | None = None, **options: Any) -> MXNetEmbedder:
    """Make the embedder of ``PREFIX,EPOCH`` or ``PREFIX,EPOCH,output=NAME``; a SpecError if it is neither."""
    target, chosen = split_options("mxnet", text, ("output",), output=output)
    found = split_epoch(target)
    if found is None:
        hint = ", for example mxnet:models/model,0"
        if epochs := epochs_beside(target):
            hint = f"; epochs found: {', '.join(map(str, epochs))}, so write mxnet:{target},{epochs[-1]}"
        form = "mxnet:PREFIX,EPOCH or mxnet:PREFIX,EPOCH,output=NAME"
        raise SpecError(f"'mxnet:{text}' is not of the form {form}{hint}")
    return MXNetEmbedder(*found, output=chosen.get("output"), **options)
