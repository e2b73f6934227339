"""Embeds images with an MXNet checkpoint."""

from __future__ import annotations

import math
import os
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttriplet._checks import whole_number
from fasttriplet.embedders._base import check_finite, check_images
from fasttriplet.errors import SpecError
from fasttriplet.mxnet._checkpoint import Checkpoint, epochs_beside, first_names, load_checkpoint
from fasttriplet.mxnet._compat import import_mxnet, reason_of
from fasttriplet.mxnet._devices import contexts, name_of
from fasttriplet.mxnet._module_embedder import embed_in_batches
from fasttriplet.mxnet._outputs import find_data, find_embedding
from fasttriplet.mxnet._quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars as pl
    from numpy.typing import NDArray

_SPEC = re.compile(r"(?P<prefix>.+),(?P<epoch>\d+)(?:,output=(?P<output>[^,=]+))?")
_CPU_BATCH, _GPU_BATCH = 64, 128
# Sizes that a message may name as the network's own, the usual ones first.
_USUAL_SIZES = [(112, 112), (112, 96), (96, 96), (128, 128), (160, 160), (224, 224), (299, 299)]
_USUAL_SIZES += [(256, 128), (384, 128), (128, 64), (28, 28), (32, 32), (64, 64)]
_USUAL_SIZES += [(side, side) for side in [*range(8, 129), *range(136, 641, 8)]]


class MXNetEmbedder:
    """Runs a network with ``mx.mod.Module``, on the CPU or on GPUs.

    Images are fed as RGB float32 0..255 in the layout (B, 3, H, W), as InsightFace does: its networks
    subtract 127.5 and multiply by 0.0078125 themselves. The last batch is padded with black images, whose
    embeddings are dropped.

    Parameters
    ----------
    prefix : path
    epoch : int
        The files ``PREFIX-symbol.json`` and ``PREFIX-0000.params`` (for epoch 0).
    output : str, optional
        Name of the embedding output, for instance ``"fc1"``; found by itself in most networks.
    batch_size : int, optional
        Images per forward pass, over all devices. By default 64 on the CPU and 128 for each GPU.
    devices : str or sequence of str, optional
        ``"cpu"``, ``"gpu"`` (all of them), ``"gpu:0,2"``, or a list such as ``["gpu:0", "gpu:2"]``. By
        default all GPUs, or the CPU where there is none.

    Raises
    ------
    FileNotFoundError
        Naming the file that does not exist.
    ValueError
        If the checkpoint is damaged or incomplete, it is not clear which output is the embedding, or an
        argument is out of its range.
    ImportError
        If MXNet cannot be imported.
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
        self.prefix = os.fspath(prefix)
        self.epoch = epoch
        self._contexts = contexts(devices)
        self.batch_size = _batch_size(batch_size, self._contexts)
        self._checkpoint = load_checkpoint(prefix, epoch)
        try:
            params = self._checkpoint.arg_params
            self._data = find_data(self._checkpoint.symbol, params)
            self.output = find_embedding(
                self._checkpoint.symbol, data=self._data, params=params, wanted=output
            )
        except ValueError as error:
            raise ValueError(f"{self._checkpoint.symbol_path}: {error}") from error
        self._symbol = self._checkpoint.symbol.get_internals()[self.output]
        _check_params(self._checkpoint, self._symbol, self._data)
        self._module: Any = None
        self._image_size: tuple[int, int] | None = None
        self._batch = np.empty(0, dtype=np.float32)

    @property
    def description(self) -> str:
        """One line for people."""
        return (
            f"MXNet network {self.prefix}, epoch {self.epoch}, output {self.output.removesuffix('_output')}, "
            f"on {', '.join(self.devices)}, {self.batch_size} images at a time"
        )

    @property
    def devices(self) -> list[str]:
        """Where the network runs, such as ``["cpu"]`` or ``["gpu:0", "gpu:1"]``."""
        return list(map(name_of, self._contexts))

    def prepare(self, index: pl.DataFrame) -> None:
        """Do nothing: the network is set up when the size of the images is known."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Run the network over images.

        Returns
        -------
        (B, D) float32
            The values of the output, not normalised.

        Raises
        ------
        ValueError
            When the images do not fit the network, the output is not one vector for each image, or an
            embedding is not finite.
        RuntimeError
            When MXNet fails.
        """
        images = check_images(rows, images)
        height, width = images.shape[1:3]
        mx = import_mxnet()
        try:
            if self._image_size != (height, width):
                self._bind(height, width)
            outputs = embed_in_batches(self._module, images, self._batch)
        except mx.base.MXNetError as error:
            self._image_size = None
            where = ", ".join(self.devices)
            raise RuntimeError(
                f"MXNet failed to run {self._checkpoint.symbol_path} on {where}: {reason_of(error)}"
            ) from error
        embeddings = outputs.reshape(len(images), outputs.shape[1])  # (B, D, 1, 1) counts as (B, D)
        check_finite(embeddings, rows, f"{self._checkpoint.params_path}, output {self.output}")
        return embeddings

    def _bind(self, height: int, width: int) -> None:
        self._image_size = None
        shape = (self.batch_size, 3, height, width)
        if 0 in shape or _misfit(self._symbol, self._data, shape, self._checkpoint) is not None:
            raise ValueError(self._why_not(height, width))
        mx = import_mxnet()
        module = mx.mod.Module(
            self._symbol, data_names=(self._data,), label_names=None, context=self._contexts
        )
        with quiet():
            module.bind([(self._data, shape)], for_training=False)
            # Weights that the chosen output does not need, such as those of a classifier, are not used.
            module.set_params(self._checkpoint.arg_params, self._checkpoint.aux_params, allow_extra=True)
        ((_, size),) = module.output_shapes
        if len(size) < 2 or size[0] != self.batch_size or math.prod(size[2:]) != 1:
            count = self.batch_size
            raise ValueError(
                f"{self._checkpoint.symbol_path}: output {self.output} has shape {size} for {count} images, "
                f"an embedding has ({count}, D); choose another output with output=NAME"
            )
        self._module, self._image_size = module, (height, width)
        self._batch = np.empty(shape, dtype=np.float32)

    def _why_not(self, height: int, width: int) -> str:
        """Say what the network wants instead of images of this size."""
        shape = (self.batch_size, 3, height, width)
        start = (
            f"{self._checkpoint.symbol_path}: the network does not take images of {height} x {width} (H x W)"
        )
        for colours in (3, 1):
            for high, wide in _USUAL_SIZES:
                candidate = (self.batch_size, colours, high, wide)
                if _misfit(self._symbol, self._data, candidate, self._checkpoint) is None:
                    gray = "" if colours == 3 else " in gray, and only colour can be fed"
                    return f"{start}; it takes {high} x {wide}{gray}"
        return f"{start}: {_misfit(self._symbol, self._data, shape, self._checkpoint)}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.prefix, self.epoch, self._arguments)


def _rebuild(prefix: str, epoch: int, arguments: dict[str, Any]) -> MXNetEmbedder:
    return MXNetEmbedder(prefix, epoch, **arguments)


def parse_spec(text: str) -> tuple[str, int, str | None]:
    """Take ``PREFIX,EPOCH`` or ``PREFIX,EPOCH,output=NAME`` apart.

    Returns
    -------
    prefix, epoch, output

    Raises
    ------
    SpecError
        If the text has another form; names the epochs that exist.
    """
    match = _SPEC.fullmatch(text)
    if match:
        return match["prefix"], int(match["epoch"]), match["output"]
    msg = f"'mxnet:{text}' is not of the form mxnet:PREFIX,EPOCH or mxnet:PREFIX,EPOCH,output=NAME"
    epochs = epochs_beside(text)
    if epochs:
        msg += f"; epochs found: {', '.join(map(str, epochs))}, so write mxnet:{text},{epochs[-1]}"
    else:
        msg += ", for example mxnet:models/model,0"
    raise SpecError(msg)


def _batch_size(wanted: int | None, contexts: list[Any]) -> int:
    if wanted is None:
        return _CPU_BATCH if contexts[0].device_type == "cpu" else _GPU_BATCH * len(contexts)
    wanted = whole_number("batch_size", wanted, 1)
    return -(-wanted // len(contexts)) * len(contexts)  # each device gets the same number of images


def _check_params(checkpoint: Checkpoint, symbol: Any, data: str) -> None:
    """Check that each weight of the network is in the file, and warn of weights that the network lacks."""
    missing = [n for n in symbol.list_arguments() if n != data and n not in checkpoint.arg_params]
    missing += [n for n in symbol.list_auxiliary_states() if n not in checkpoint.aux_params]
    if missing:
        raise ValueError(
            f"{checkpoint.params_path} lacks {first_names(missing)}, which {checkpoint.symbol_path} needs"
        )
    known = {*checkpoint.symbol.list_arguments(), *checkpoint.symbol.list_auxiliary_states()}
    extra = [n for n in (*checkpoint.arg_params, *checkpoint.aux_params) if n not in known]
    if extra:
        unknown = f"{first_names(extra)}, unknown to {checkpoint.symbol_path}"
        warnings.warn(f"{checkpoint.params_path} holds {unknown}; not used", stacklevel=4)


def _misfit(symbol: Any, data: str, shape: tuple[int, ...], checkpoint: Checkpoint) -> str | None:
    """Say why images of this shape do not fit the weights; None when they do."""
    try:
        arguments, _, auxiliary = symbol.infer_shape_partial(**{data: shape})
    except import_mxnet().base.MXNetError as error:
        return reason_of(error)
    params = checkpoint.arg_params | checkpoint.aux_params
    names = symbol.list_arguments() + symbol.list_auxiliary_states()
    for name, wanted in zip(names, arguments + auxiliary, strict=True):
        if name != data and 0 not in wanted and wanted and params[name].shape != wanted:
            return f"{name} would have to be {wanted} but is {params[name].shape}"
    return None
