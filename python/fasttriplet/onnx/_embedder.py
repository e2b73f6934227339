"""Embeds images with an ONNX model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet._checks import image_size, output_name
from fasttriplet._cores import cores
from fasttriplet._words import counted
from fasttriplet.embedders._base import check_finite, check_images, is_embedding
from fasttriplet.embedders._batches import GPU_BATCH, at_a_time, images_each, is_shortage, shortage
from fasttriplet.embedders._inputs import AS_DECODED, OPTIONS, Color, Inputs, given, three, wrong_size
from fasttriplet.embedders._spec import split_options
from fasttriplet.embedders._threads import deal
from fasttriplet.errors import OptionError
from fasttriplet.onnx._graph import Graph, read_graph
from fasttriplet.onnx._runtime import devices_of, is_of_runtime, reason_of, session_on
from fasttriplet.onnx._signature import input_of, output_of

if TYPE_CHECKING:
    import polars as pl

_CPU_BATCH = 8  # the maps of few images stay in its caches


class OnnxEmbedder:
    """Runs an ONNX model with ONNX Runtime, on the CPU or on GPUs with CUDA.

    Name, layout (NCHW or NHWC), type and size of the input, and a batch size that is fixed, are the model's
    own. The same number of images is run at a time, whatever their number: black ones are added to the last
    batch. So an embedding depends neither on the images beside it nor on their number.

    Parameters
    ----------
    path : str or path
        The ``.onnx`` file. Files of external data must be beside it.
    output : str, optional
        Name of the embedding among the outputs. By default the only one of the shape (B, D); (B, D, 1, 1)
        counts as (B, D).
    color : {"rgb", "bgr"}, default "rgb"
        The order of the channels that the model takes.
    mean, std : float or (float, float, float), optional
        The model is fed ``(pixel - mean) / std``, of pixels from 0 to 255. By default 127.5 and 128; nothing
        is changed where the model takes uint8, or where its first operators normalise the pixels, as those of
        MXNet's networks do. Where these expect pixels from 0 to 1, the default is 0 and 255.
    size : (int, int), optional
        Height and width of the images that the model takes. By default what the model says, or any.
    batch_size : int, optional
        Images at a time on each device. By default what the model says, or 8 on the CPU and 128 on a GPU.
    devices : str or sequence of str, optional
        ``"cpu"``, ``"cuda"`` (all GPUs), ``"cuda:0,2"``, or a list such as ``["cuda:0", "cuda:2"]``. By
        default all GPUs, or the CPU where there is none or ONNX Runtime is built without CUDA.

    Raises
    ------
    FileNotFoundError
        If the file, or a file of its external data, does not exist.
    OptionError
        If an option is out of its range, or contradicts the model; a ValueError.
    ValueError
        If the file is not an ONNX model, this ONNX Runtime does not run it, it does not take colour images,
        or its embedding cannot be told from other outputs.
    RuntimeError
        If a GPU cannot be used.
    ImportError
        If ONNX Runtime or the package onnx is not installed.
    """

    needs_images = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        output: str | None = None,
        color: Color | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        size: tuple[int, int] | None = None,
        batch_size: int | None = None,
        devices: str | Sequence[str] | None = None,
    ) -> None:
        output_name(output)
        taken = None if size is None else image_size(size)
        numbers = {
            name: None if values is None else three(name, values)
            for name, values in (("mean", mean), ("std", std))
        }
        fields = {"color": color, **numbers, "size": taken}
        chosen: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
        self._arguments = {"output": output, "batch_size": batch_size, "devices": devices, **chosen}
        self.path = Path(path)
        self.devices = devices_of(devices)
        graph = self._load()
        self._input = input_of(self.path, self._sessions[0])
        self.output = output_of(self.path, self._sessions[0], output)
        self.inputs = self._convention(graph.inputs, chosen)
        self.batch_size = self._images_each(batch_size, alone=graph.couples_images)

    @property
    def description(self) -> str:
        """One line for people."""
        return (
            f"ONNX network {self.path}, output {self.output}, {self.inputs}, on {', '.join(self.devices)}, "
            f"{at_a_time(self.batch_size, self.devices)}"
        )

    @property
    def takes_uint8(self) -> bool:
        """Whether the model takes pixels of uint8, so that there are no mean and std to choose."""
        return self._input.dtype is np.uint8

    def prepare(self, index: pl.DataFrame) -> None:
        """Do nothing: there is nothing to prepare."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Run the model over images; embeddings are the values of the output, not normalised."""
        images = check_images(rows, images)
        size = images.shape[1], images.shape[2]
        if 0 in size or self.inputs.size not in (None, size):
            raise ValueError(wrong_size(str(self.path), size, self.inputs.size))
        if self._process != os.getpid():  # a fork has copied the sessions without their threads
            self._load()
        try:
            embeddings = self._embed(images)
        except Exception as error:
            if is_shortage(error):
                raise shortage(str(self.path), self.devices, self.batch_size, size) from error
            raise
        check_finite(embeddings, rows, f"{self.path}, output {self.output}")
        return embeddings

    def _load(self) -> Graph:
        graph = read_graph(self.path, for_cpu=self.devices == ["cpu"])
        self._sessions = [session_on(self.path, device, graph.content) for device in self.devices]
        self._process = os.getpid()
        return graph

    def _embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        # Without an image one batch is run all the same: its output says what D is.
        starts = range(0, max(1, len(images)), self.batch_size)
        shares: list[tuple[int, Sequence[int]]]
        if self.devices == ["cpu"]:
            lanes, shares = cores(), [(0, [start]) for start in starts]
        else:  # each GPU gets the same images in every run: one of another kind rounds differently
            lanes = len(self.devices)
            shares = [(device, starts[device::lanes]) for device in range(lanes)]
        found: dict[int, NDArray[np.float32]] = {}

        def through(batch: NDArray[Any], share: tuple[int, Sequence[int]]) -> None:
            device, starts = share
            for start in starts:
                chunk = images[start : start + self.batch_size]
                self._input.fill(batch, chunk, self.inputs)
                found[start] = self._run(device, batch)[: len(chunk)]

        deal([self._input.empty(self.batch_size, *images.shape[1:3]) for _ in range(lanes)], through, shares)
        return np.concatenate([found[start] for start in starts])

    def _run(self, device: int, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Run the model over one batch on one device: (B, D)."""
        name = self._input.name
        one = "; if it was exported for one image at a time, give batch_size=1" if len(batch) > 1 else ""
        try:
            (output,) = self._sessions[device].run([self.output], {name: batch})
        except Exception as error:  # of a dozen classes, whose only common base is this
            if is_shortage(error) or not is_of_runtime(error):
                raise
            raise RuntimeError(
                f"ONNX Runtime failed to run {self.path} on {self.devices[device]} with an input of "
                f"{batch.shape}: {reason_of(error)}{'' if self._input.batch else one}"
            ) from error
        if not is_embedding(output.shape, len(batch)):
            raise ValueError(
                f"{self.path}: output {self.output!r} has the shape {output.shape} for "
                f"{counted(len(batch), 'image')}, and an embedding has ({len(batch)}, D){one}"
            )
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinity, and is named later
            embeddings: NDArray[np.float32] = output.reshape(output.shape[:2]).astype(np.float32, copy=False)
        return embeddings

    def _convention(self, expected: Inputs | None, chosen: dict[str, Any]) -> Inputs:
        """What the model takes: as its file says, changed by what was chosen."""
        for name in ("mean", "std"):
            if self.takes_uint8 and name in chosen:
                raise OptionError(name, f"cannot be given: {self.path} takes pixels of uint8 as they are")
        inputs = replace(AS_DECODED if self.takes_uint8 else expected or Inputs(), **chosen)
        fixed = self._input.size
        if fixed is not None and inputs.size not in (None, fixed):
            raise OptionError(
                "size", "cannot be {} x {}: {} takes {} x {}".format(*inputs.size or (), self.path, *fixed)
            )
        return replace(inputs, size=fixed or inputs.size)

    def _images_each(self, wanted: int | None, *, alone: bool) -> int:
        """How many images each device is given at a time; `alone`: not more than one."""
        fixed = self._input.batch
        if alone and fixed not in (None, 1):
            raise ValueError(
                f"{self.path} quantises {fixed} images by their common range, so that embeddings depend on "
                "other images; export it for one image, or any number"
            )
        fixed = 1 if alone else fixed
        usual = _CPU_BATCH if self.devices == ["cpu"] else GPU_BATCH
        return images_each(wanted, usual, who=str(self.path), least=fixed or 1, most=fixed)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.path, self._arguments)


def _rebuild(path: Path, arguments: dict[str, Any]) -> OnnxEmbedder:
    return OnnxEmbedder(path, **arguments)


def from_spec(text: str, *, output: str | None = None, **options: Any) -> OnnxEmbedder:
    """Make the embedder of ``FILE.onnx``, with options such as ``,output=NAME,color=bgr`` after it."""
    path, texts = split_options("onnx", text, ("output", *OPTIONS), output=output)
    return OnnxEmbedder(path, output=texts.get("output"), **given(texts), **options)
