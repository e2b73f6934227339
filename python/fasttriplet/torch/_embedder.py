"""Embeds images with PyTorch: a module of the user's, or a network that a spec names."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

import torch
from fasttriplet._checks import output_name
from fasttriplet._cores import cores
from fasttriplet._words import counted
from fasttriplet.embedders._base import check_finite, check_images
from fasttriplet.embedders._batches import GPU_BATCH, at_a_time, images_each, is_shortage, shortage
from fasttriplet.embedders._inputs import OPTIONS, USUAL_SIZES, Color, Inputs, given, three, wrong_size
from fasttriplet.embedders._precision import Precision, precision_named
from fasttriplet.embedders._spec import split_options
from fasttriplet.embedders._threads import deal
from fasttriplet.run._group import Group
from fasttriplet.torch._alike import alike
from fasttriplet.torch._devices import devices_of, numbered
from fasttriplet.torch._lanes import CudaLane, Fetched, Lane
from fasttriplet.torch._models import Model, dtype_of, load_model
from fasttriplet.torch._outputs import chosen_output
from fasttriplet.torch._precision import check_precision, computing_in
from fasttriplet.torch._threads import use_no_lost_threads

if TYPE_CHECKING:
    import polars as pl

# A CPU's cache holds the maps of few images, see docs/decisions.md.
CPU_BATCH = 16


class BatchEmbedder:
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
        self._precision = precision_named(precision)
        for device in devices:
            check_precision(self._precision, device)
        self._name, self.inputs, self._output = name, inputs, output
        self._devices = tuple(devices)
        usual = CPU_BATCH if self._devices[0].type == "cpu" else GPU_BATCH
        least, most = batch_sizes
        self.batch_size = images_each(batch_size, usual, who=name, least=least, most=most)
        self._lanes: list[Lane] = []

    @property
    def description(self) -> str:
        """One line for people."""
        computed = "" if self._precision == "float32" else f" in {self._precision}"
        chosen = "" if self._output is None else f", output {self._output}"
        return (
            f"PyTorch, {self._name}{chosen}; takes {self.inputs}; on {', '.join(self.devices)}{computed}, "
            f"{at_a_time(self.batch_size, self.devices)}"
        )

    @property
    def devices(self) -> list[str]:
        """Where the network runs, such as ``["cpu"]`` or ``["cuda:0", "cuda:1"]``."""
        return list(map(str, self._devices))

    def prepare(self, index: pl.DataFrame) -> None:
        """Do nothing: there is nothing to prepare."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Run the network over images; embeddings are what it returns, not normalised."""
        return self.start_embedding(rows, images).result()

    def start_embedding(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> _Started:
        """Begin to embed images, which may be overwritten afterwards; a GPU works on beside the caller."""
        images = check_images(rows, images)
        size = images.shape[1], images.shape[2]
        if 0 in size or self.inputs.size not in (None, size):
            raise ValueError(wrong_size(self._name, size, self.inputs.size))
        use_no_lost_threads()
        try:
            with self._ready():
                fetched = self._through(images)
        except Exception as error:
            if is_shortage(error):
                raise shortage(self._name, self.devices, self.batch_size, size) from error
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
            on_cpu = self._devices[0].type == "cpu"
            self._lanes += [
                self._lane(device) for device in self._devices * (self._cpu_lanes() if on_cpu else 1)
            ]
        yield

    def _lane(self, device: torch.device) -> Lane:
        kind = CudaLane if device.type == "cuda" else Lane
        return kind(self._place(device), device, self.inputs, self._dtype(), self.batch_size)

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
            except Exception as error:  # a network's code may raise anything
                if is_shortage(error):
                    raise
                failure = error
                continue
            self._formats = (memory_format,)
            break
        else:
            assert failure is not None
            raise self._failed(lane, failure, (batch.shape[1], batch.shape[2])) from failure
        try:
            vectors = chosen_output(found, self._output, self.batch_size)
        except ValueError as error:
            raise ValueError(f"{self._name}: {error}") from None
        return vectors.to(torch.float32, copy=lane.device.type == "cpu")

    def _failed(self, lane: Lane, error: Exception, size: tuple[int, int]) -> Exception:
        """What to raise where the network raised an error for images of this size."""
        reason = f"{type(error).__name__}: {str(error).strip()}"
        fitting = self.inputs.size or self._size_that_fits(lane)
        if fitting not in (None, size):
            return ValueError(f"{wrong_size(self._name, size, fitting)} ({reason})")
        batch = f"{counted(self.batch_size, 'image')} of {size[0]} x {size[1]} (H x W)"
        return RuntimeError(f"{self._name} failed on {batch}: {reason}")

    def _size_that_fits(self, lane: Lane) -> tuple[int, int] | None:
        for size in USUAL_SIZES:
            try:
                lane.network(lane.input(np.zeros((0, *size, 3), np.uint8)))
            except Exception:  # that of another size, or whatever else is wrong
                continue
            return size
        return None


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


class TorchEmbedder(BatchEmbedder):
    """Embeds images with a module of yours, as it is at that moment; it may be in training meanwhile.

    The module is in evaluation mode while it embeds, gradients are off, and each of its parts is in the mode
    that it was in before when the call returns. One thread at a time uses it. On a CPU, PyTorch divides each
    layer among the cores, which is slower than what the network of a spec does: a batch for each core.

    Parameters
    ----------
    module : torch.nn.Module
        Takes (B, 3, H, W) in the type of its parameters and returns (B, D), or several outputs. Of a
        DistributedDataParallel, the module in it is taken.
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
        Images at a time on each device. By default 16 on the CPU and 128 on a GPU.
    devices : str or sequence of str, optional
        ``"cpu"``, ``"mps"``, ``"cuda"`` (all GPUs) or ``"cuda:0,2"``. The module stays where it is: other
        devices get a copy, which takes its weights anew in each call. By default where it is.
    precision : {"float32", "tf32", "bfloat16"}, default "float32"
        ``tf32`` rounds the factors of products on an NVIDIA GPU to 10 bits, and ``bfloat16``, or ``bf16`` for
        short, is PyTorch's autocast. Both are faster.

    Raises
    ------
    OptionError
        If an option is out of its range; a ValueError.
    ValueError
        If there is no such device, or, in ``embed``, the images or what the module returns do not fit.
    RuntimeError
        In ``embed``, if the module fails; caused by its own error.
    MemoryError
        In ``embed``, if a batch does not fit the memory of a device.

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
        output_name(output)
        # A forward pass of the wrapper would wait for other processes, which may not embed.
        self.module = module.module if isinstance(module, DistributedDataParallel) else module
        module = self.module
        self._follows = devices is None  # the module, wherever it is moved
        self._placed: tuple[torch.device, torch.dtype] | None = None
        where = [self._home()] if self._follows else devices_of(devices)
        name = f"module {type(module).__name__}"
        inputs = Inputs(color, three("mean", mean), three("std", std), size)
        super().__init__(name, inputs, where, output=output, batch_size=batch_size, precision=precision)

    def together(self, group: Group) -> AbstractContextManager[None]:
        """What to be in while the processes of a group embed with one network, of which each has a copy."""
        return alike(self.module, group)

    def _home(self) -> torch.device:
        tensors = chain(self.module.parameters(), self.module.buffers())
        device = next((tensor.device for tensor in tensors), torch.device("cpu"))
        return numbered(device)

    def _place(self, device: torch.device) -> Any:
        return self.module if device == self._home() else copy.deepcopy(self.module).to(device)

    def _dtype(self) -> torch.dtype:
        return dtype_of(self.module)

    @contextmanager
    def _ready(self) -> Iterator[None]:
        placed = self._home(), self._dtype()
        if placed != self._placed:
            if self._follows:
                check_precision(self._precision, placed[0])
                self._devices = placed[:1]
            self._placed, self._lanes = placed, []
        if placed[0].type == "meta":
            raise ValueError(
                f"{self._name} is on the device meta, which holds no weights: move it with to_empty() and "
                "load some"
            )
        with torch.no_grad(), super()._ready():
            copies = [lane.network for lane in self._lanes if lane.network is not self.module]
            for other in copies:
                _copy_state(self.module, other)
            with _evaluating([self.module, *copies]):
                yield

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_lanes": []}


class _SpecEmbedder(BatchEmbedder):
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
        return min(cores(), torch.get_num_threads())

    def _gradients_off(self) -> AbstractContextManager[None]:
        return torch.inference_mode()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._text, self._arguments)


def from_spec(text: str, **arguments: Any) -> _SpecEmbedder:
    """Make the embedder of ``torch:TEXT``; `arguments` are those of :func:`fasttriplet.load_embedder`."""
    known = (*OPTIONS, "output", "precision", "weights")
    target, options = split_options("torch", text, known, output=arguments.get("output"))
    devices_of(arguments.get("devices"))  # before a file is read
    use_no_lost_threads()
    model = load_model(f"torch:{text}", target, options)
    inputs = replace(model.inputs, **given(options))
    return _SpecEmbedder(text, model, inputs, arguments, options.get("precision", "float32"))


def _rebuild(text: str, arguments: dict[str, Any]) -> _SpecEmbedder:
    return from_spec(text, **arguments)


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
