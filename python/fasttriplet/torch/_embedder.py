"""Embeds images with PyTorch: a module of the user's, or a network that a spec names."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

import torch
from fasttriplet._checks import one_of, whole_number
from fasttriplet._words import counted
from fasttriplet.embedders._base import check_finite, check_images
from fasttriplet.embedders._inputs import OPTIONS, Color, Inputs, given, three
from fasttriplet.embedders._spec import split_options
from fasttriplet.embedders._threads import deal
from fasttriplet.errors import OptionError
from fasttriplet.torch._devices import devices_of
from fasttriplet.torch._lanes import CudaLane, Fetched, Lane
from fasttriplet.torch._models import Model, dtype_of, load_model
from fasttriplet.torch._outputs import chosen_output
from fasttriplet.torch._precision import Precision, computing_in

if TYPE_CHECKING:
    import polars as pl

# A CPU's cache holds the maps of few images. A MobileFaceNet of 112 x 112 took 8.9 ms of a core per image in
# batches of 16, and 13.5 ms in batches of 64 (Xeon 2.80 GHz, 1.25 MB of L2 cache for each core).
_CPU_BATCH, _GPU_BATCH = 16, 128
# Sizes that a message may name as the network's own, the usual ones first.
_USUAL_SIZES = [(112, 112), (112, 96), (96, 96), (128, 128), (160, 160), (224, 224), (256, 128), (384, 128)]
_USUAL_SIZES += [(128, 64), (28, 28), (32, 32), (64, 64), (299, 299)]


class _Embedder:
    """Batches of images, dealt out to one network on each device.

    All batches have the same size: the last is filled with black images. So an embedding is the same, bit for
    bit, whichever images are embedded with it (the kernels of a CPU depend on the size of a batch).
    """

    needs_images = True
    # Orders of values in memory to try, the fastest first. A network that uses `view` may fail with it.
    _formats: tuple[torch.memory_format, ...] = (torch.contiguous_format,)

    def __init__(
        self,
        name: str,
        inputs: Inputs,
        devices: Sequence[torch.device],
        *,
        output: str | None,
        batch_size: int | None,
        precision: Precision,
        batch_sizes: tuple[int, int | None] = (1, None),
    ) -> None:
        one_of("precision", precision, get_args(Precision))
        self._name, self.inputs, self._output, self._precision = name, inputs, output, precision
        self._devices = tuple(devices)
        self.batch_size = _batch_size(name, batch_size, batch_sizes, self._devices[0])
        self._lanes: list[Lane] = []

    @property
    def description(self) -> str:
        """One line for people."""
        computed = "" if self._precision == "float32" else f" in {self._precision}"
        chosen = "" if self._output is None else f", output {self._output}"
        return (
            f"PyTorch, {self._name}{chosen}; takes {self.inputs}; on {', '.join(self.devices)}{computed}, "
            f"{counted(self.batch_size, 'image')} at a time"
        )

    @property
    def devices(self) -> list[str]:
        """Where the network runs, such as ``["cpu"]`` or ``["cuda:0", "cuda:1"]``."""
        return list(map(str, self._devices))

    def prepare(self, index: pl.DataFrame) -> None:
        """Do nothing: there is nothing to prepare."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Run the network over images; embeddings are what it returns, not normalised."""
        return self.start(rows, images).result()

    def start(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> _Started:
        """Begin to embed images, which may be overwritten afterwards; a GPU works on beside the caller."""
        images = check_images(rows, images)
        height, width = images.shape[1:3]
        if 0 in (height, width) or self.inputs.size not in (None, (height, width)):
            wanted = "" if self.inputs.size is None else "; it takes {} x {}".format(*self.inputs.size)
            raise ValueError(f"{self._refused(height, width)}{wanted}")
        with self._ready():
            try:
                fetched = self._through(images)
            except torch.cuda.OutOfMemoryError as error:
                raise self._out_of_memory(height, width) from error
            except RuntimeError as error:
                if "can't allocate memory" in str(error):  # what PyTorch says on the CPU
                    raise self._out_of_memory(height, width) from error
                raise
        return _Started(rows, fetched, self._name)

    # What kinds of networks differ in

    def _place(self, device: torch.device) -> Any:
        """The network on a device."""
        raise NotImplementedError

    def _dtype(self) -> torch.dtype:
        """The type of its input."""
        raise NotImplementedError

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """Have the networks in their places, not in training, in the block."""
        if not self._lanes:
            cpu = self._devices[0].type == "cpu"
            for device in self._devices * (self._cpu_lanes() if cpu else 1):
                lane = CudaLane if device.type == "cuda" else Lane
                arguments = (device, self.inputs, self._dtype(), self.batch_size)
                self._lanes.append(lane(self._place(device), *arguments))
        yield

    def _cpu_lanes(self) -> int:
        """How many batches to run at the same time on the CPU."""
        return 1

    def _gradients_off(self) -> AbstractContextManager[None]:
        """What a thread has to be in while it runs the network."""
        # Not inference_mode: a tensor that a module keeps could not be used in its training.
        return torch.no_grad()

    # One call

    def _through(self, images: NDArray[np.uint8]) -> list[Fetched]:
        """Deal the batches out; what each device gives comes from it as (batches, B, D)."""
        size, lanes = self.batch_size, self._lanes
        starts = range(0, max(1, len(images)), size)  # one batch of nothing tells D
        batches = [images[start : start + size] for start in starts]
        if self._devices[0].type == "cpu":
            return [Fetched(self._on_cores(batches))]
        found: list[torch.Tensor] = []
        for number, batch in enumerate(batches):
            turn, place = divmod(number, len(lanes))
            vectors = self._run(lanes[place], batch)
            if place == len(found):
                of_lane = len(batches[place :: len(lanes)])
                found.append(vectors.new_empty((of_lane, *vectors.shape), dtype=torch.float32))
            found[place][turn] = vectors  # at once: a compiled network may use its output's memory again
        return [lane.fetch(whole) for lane, whole in zip(lanes, found, strict=False)]

    def _on_cores(self, batches: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
        """Run each batch in one thread, several at the same time."""
        lanes, threads = self._lanes, torch.get_num_threads()
        if len(self._formats) > 1 and len(lanes) > 1:  # which of them the network takes is found out once
            self._run(lanes[0], batches[0])
        try:
            return torch.stack(deal(lanes, self._run, batches, partial(torch.set_num_threads, 1)))
        finally:
            torch.set_num_threads(threads)  # for threads that others start later

    def _run(self, lane: Lane, batch: NDArray[np.uint8]) -> torch.Tensor:
        failure: Exception | None = None
        for memory_format in self._formats:
            lane.lay_out(memory_format)
            try:
                with self._gradients_off(), computing_in(self._precision, lane.device):
                    found = lane.network(lane.input(batch))
            except torch.cuda.OutOfMemoryError:
                raise
            except Exception as error:  # a network's code may raise anything
                failure = error
                continue
            self._formats = (memory_format,)
            break
        else:
            assert failure is not None
            raise self._failed(lane, failure, *batch.shape[1:3]) from failure
        try:
            vectors = chosen_output(found, self._output, self.batch_size)
        except ValueError as error:
            raise ValueError(f"{self._name}: {error}") from None
        return vectors.to(torch.float32, copy=lane.device.type == "cpu")

    # Errors

    def _refused(self, height: int, width: int) -> str:
        return f"{self._name}: the network does not take images of {height} x {width} (H x W)"

    def _failed(self, lane: Lane, error: Exception, height: int, width: int) -> Exception:
        """What to raise where the network raised an error for images of this size."""
        if "can't allocate memory" in str(error):
            return self._out_of_memory(height, width)
        reason = f"{type(error).__name__}: {str(error).strip()}"
        fitting = self.inputs.size or self._size_that_fits(lane)
        if fitting not in (None, (height, width)):
            return ValueError(
                f"{self._refused(height, width)}; it takes {fitting[0]} x {fitting[1]} ({reason})"
            )
        batch = counted(self.batch_size, "image")
        return RuntimeError(f"{self._name} failed on {batch} of {height} x {width} (H x W): {reason}")

    def _size_that_fits(self, lane: Lane) -> tuple[int, int] | None:
        for size in _USUAL_SIZES:
            try:
                lane.network(lane.input(np.zeros((0, *size, 3), np.uint8)))
            except Exception:  # that of another size, or whatever else is wrong
                continue
            return size
        return None

    def _out_of_memory(self, height: int, width: int) -> MemoryError:
        batch, where = counted(self.batch_size, "image"), ", ".join(self.devices)
        what = f"{batch} of {height} x {width} at a time"
        return MemoryError(f"{self._name}: no memory on {where} for {what}: lower batch_size")


class _Started:
    """Embeddings that GPUs may still compute."""

    def __init__(self, rows: pl.DataFrame, fetched: Sequence[Fetched], source: str) -> None:
        self._rows, self._fetched, self._source = rows, fetched, source

    def done(self) -> bool:
        """Whether all are here."""
        return all(values.done() for values in self._fetched)

    def result(self) -> NDArray[np.float32]:
        """Wait for them: (B, D)."""
        found = [values.result() for values in self._fetched]
        _, size, dimensions = found[0].shape
        embeddings = np.empty((sum(map(len, found)), size, dimensions), dtype=np.float32)
        for place, values in enumerate(found):
            embeddings[place :: len(found)] = values
        embeddings = embeddings.reshape(-1, dimensions)[: self._rows.height]
        check_finite(embeddings, self._rows, self._source)
        return embeddings


class TorchEmbedder(_Embedder):
    """Embeds images with a module of yours, as it is at that moment; it may be in training meanwhile.

    The module is in evaluation mode while it embeds, gradients are off, and each of its parts is in the mode
    that it was in before when the call returns. One thread at a time uses it. On a CPU, PyTorch divides each
    layer among the cores, which is slower than what the network of a spec does: a batch for each core.

    Parameters
    ----------
    module : torch.nn.Module
        Takes (B, 3, H, W) in the type of its parameters and returns (B, D), or several outputs.
    color : {"rgb", "bgr"}, default "rgb"
        The order of the channels.
    mean, std : float or (float, float, float), default 127.5 and 128
        For each channel in the order of `color`, in units of pixels: the module gets
        ``(pixel - mean) / std``, computed in float32. ``mean=0, std=1`` gives it 0 to 255.
    size : (int, int), optional
        Height and width of the images that the module takes. By default any.
    output : str, optional
        Where the module returns several tensors: the name of one in a dict or a named tuple, or its number,
        as in ``"0"``.
    batch_size : int, optional
        Images per forward pass. By default 16 on the CPU and 128 on a GPU.
    devices : str or sequence of str, optional
        ``"cpu"``, ``"mps"``, ``"cuda"`` (all GPUs) or ``"cuda:0,2"``. The module stays where it is: other
        devices get a copy, which takes its weights anew in each call. By default where it is.
    precision : {"float32", "tf32", "bfloat16"}, default "float32"
        ``tf32`` rounds the factors of products on a GPU to 10 bits, and ``bfloat16`` is PyTorch's autocast.
        Both are faster.

    Raises
    ------
    OptionError
        If an option is out of its range; a ValueError.
    ValueError
        If there is no such device, or, in :meth:`embed`, the images or what the module returns do not fit.
    RuntimeError
        In :meth:`embed`, if the module fails; caused by its own error.
    MemoryError
        In :meth:`embed`, if a batch does not fit the memory of a device.

    Examples
    --------
    >>> import torch
    >>> import fasttriplet as ft
    >>> from fasttriplet.torch import TorchEmbedder
    >>> module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(64))
    >>> TorchEmbedder(module, batch_size=32).description  # doctest: +ELLIPSIS
    'PyTorch, module Sequential; takes RGB, (pixel - 127.5) / 128, any size; on cpu, 32 images at a time'
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        color: Color = "rgb",
        mean: float | Sequence[float] = 127.5,
        std: float | Sequence[float] = 128.0,
        size: tuple[int, int] | None = None,
        output: str | None = None,
        batch_size: int | None = None,
        devices: str | Sequence[str] | None = None,
        precision: Precision = "float32",
    ) -> None:
        if not isinstance(module, torch.nn.Module):
            raise ValueError(f"module must be a torch.nn.Module, not {module!r}")
        self.module = module
        self._follows = devices is None  # the module, wherever it is moved
        self._placed: tuple[torch.device, torch.dtype] | None = None
        where = [self._home()] if self._follows else devices_of(devices)
        name = f"module {type(module).__name__}"
        inputs = Inputs(color, three("mean", mean), three("std", std), size)
        super().__init__(name, inputs, where, output=output, batch_size=batch_size, precision=precision)

    def _home(self) -> torch.device:
        tensors = chain(self.module.parameters(), self.module.buffers())
        device = next((tensor.device for tensor in tensors), torch.device("cpu"))
        return torch.device("cuda", 0) if device.type == "cuda" and device.index is None else device

    def _place(self, device: torch.device) -> Any:
        return self.module if device == self._home() else copy.deepcopy(self.module).to(device)

    def _dtype(self) -> torch.dtype:
        return dtype_of(self.module)

    @contextmanager
    def _ready(self) -> Iterator[None]:
        placed = self._home(), self._dtype()
        if placed != self._placed:
            self._placed, self._lanes = placed, []
            self._devices = placed[:1] if self._follows else self._devices
        with torch.no_grad(), super()._ready():
            copies = [lane.network for lane in self._lanes if lane.network is not self.module]
            for other in copies:
                _copy_state(self.module, other)
            with _evaluating([self.module, *copies]):
                yield

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lanes": []}


class _SpecEmbedder(_Embedder):
    """Embeds with a network that nobody trains."""

    _formats = (torch.channels_last, torch.contiguous_format)

    def __init__(
        self, text: str, model: Model, inputs: Inputs, arguments: dict[str, Any], precision: Any
    ) -> None:
        self._text, self._arguments, self._model = text, arguments, model
        super().__init__(
            model.name,
            inputs,
            devices_of(arguments.get("devices")),
            output=model.output,
            batch_size=arguments.get("batch_size"),
            precision=precision,
            batch_sizes=model.batch_sizes,
        )

    def _place(self, device: torch.device) -> Any:
        return self._model.on(device)

    def _dtype(self) -> torch.dtype:
        return self._model.dtype

    def _cpu_lanes(self) -> int:
        return torch.get_num_threads()

    def _gradients_off(self) -> AbstractContextManager[None]:
        return torch.inference_mode()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._text, self._arguments)


def from_spec(text: str, **arguments: Any) -> _SpecEmbedder:
    """Make the embedder of ``torch:TEXT``; `arguments` are those of :func:`fasttriplet.load_embedder`."""
    known = (*OPTIONS, "output", "precision", "weights")
    target, options = split_options("torch", text, known, output=arguments.get("output"))
    devices_of(arguments.get("devices"))  # before a file is read
    model = load_model(f"torch:{text}", target, options)
    inputs = replace(model.inputs, **given(options))
    return _SpecEmbedder(text, model, inputs, arguments, options.get("precision", "float32"))


def _rebuild(text: str, arguments: dict[str, Any]) -> _SpecEmbedder:
    return from_spec(text, **arguments)


def _batch_size(name: str, wanted: int | None, allowed: tuple[int, int | None], device: torch.device) -> int:
    least, most = allowed
    if wanted is None:
        usual = _CPU_BATCH if device.type == "cpu" else _GPU_BATCH
        return max(least, usual if most is None else min(usual, most))
    wanted = whole_number("batch_size", wanted, 1)
    if wanted < least or (most is not None and wanted > most):
        limits = f"{least}" if least == most else f"from {least} to {most}" if most else f"at least {least}"
        raise OptionError("batch_size", f"must be {limits} for {name}, not {wanted}")
    return wanted


def _copy_state(source: torch.nn.Module, target: torch.nn.Module) -> None:
    pairs = zip(
        chain(target.parameters(), target.buffers()),
        chain(source.parameters(), source.buffers()),
        strict=True,
    )
    for there, here in pairs:
        there.copy_(here, non_blocking=True)


@contextmanager
def _evaluating(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Have modules in evaluation mode in the block, and give each of their parts its mode back."""
    modes = [(part, part.training) for module in modules for part in module.modules()]
    trained = [module for module in modules if module.training]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for module in trained:
            module.train()  # which may do more than to set what follows
        for part, mode in modes:
            part.training = mode
