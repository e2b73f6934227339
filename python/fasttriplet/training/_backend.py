"""What a training needs of a framework; everything else in this folder knows none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fasttriplet._forks import importing
from fasttriplet._launcher import launched
from fasttriplet.dataset._augment import assemble
from fasttriplet.embedders import Embedder
from fasttriplet.run._feed import TripletBatch
from fasttriplet.run._group import Group
from fasttriplet.training._settings import Framework, TrainSettings


class Backend(Protocol):
    """A network in training: its module and optimizer on their devices.

    Making one finds the devices that the user named: an ImportError if the framework is not installed, a
    ValueError if there is no such device. The size of the images is known later, so the network is made by
    :meth:`begin` or :meth:`load`, and the other methods follow one of them. These two raise a MemoryError if
    a batch does not fit the devices, and a ValueError if the network does not take such images or an array is
    missing or does not fit it.

    Attributes
    ----------
    endings : tuple of str
        What :meth:`save` appends to a prefix to name its files. It belongs to the class, as files are looked
        for before there is an object.
    exports : mapping of str to tuple of str
        The other formats that :meth:`export` can write, each with what it appends to a prefix. It belongs to
        the class, too.
    devices : tuple of str
        Such as ``("gpu:0", "gpu:1")``. Each trains on ``settings.batch_size`` images of a batch.
    embedder : Embedder
        Embeds with the network as it is at that moment. It is prepared before there is a network.
    sums : list of float
        Four sums over the triplets since the list was set to zeros: of the loss, of whether it is above 0, of
        the L2 norm of embeddings, and of 1.
    group : Group, optional
        The processes that train the network together, of which this is one; None if it trains alone. Each
        step leaves the same numbers in all of them, and `sums` count the triplets of all. So the first one
        can verify and write the network at any moment between two steps.
    """

    endings: tuple[str, ...]
    exports: ClassVar[Mapping[str, tuple[str, ...]]]
    devices: tuple[str, ...]
    embedder: Embedder
    sums: list[float]
    group: Group | None = None

    def __init__(self, settings: TrainSettings, devices: str | Sequence[str] | None) -> None: ...

    def begin(self, image_size: tuple[int, int]) -> None:
        """Make the network of the settings for images of this height and width, and draw or read weights."""

    def load(self, network: Any, arrays: Mapping[str, NDArray[Any]], image_size: tuple[int, int]) -> None:
        """Make the network that another backend described, with its numbers and as many devices.

        Both come from a file and may be anything. What is missing, unknown or does not fit is a ValueError.
        """

    @property
    def network(self) -> Any:
        """The network without its weights, as JSON can hold it."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All numbers that the training continues with, by name: weights, momenta, running statistics."""

    def layout(self, pixels: NDArray[np.uint8], rows: NDArray[np.int64], **options: Any) -> Any:
        """Lay out the images of a batch for :meth:`step`; see the `layout` of a :class:`fasttriplet.Feed`.

        It is called in a thread beside that of the other methods, after :meth:`begin` or :meth:`load`.
        """
        return assemble(pixels, rows, **options)

    def step(self, batch: TripletBatch, learning_rate: float, seed: int) -> None:
        """Train on one batch, a slice for each device, and add to `sums`; return when all of it is done.

        Layers that draw random numbers take them from `seed`, 0 to 2**64 - 1, which differs between the
        processes of a group.
        """

    def save(self, prefix: str) -> None:
        """Write the network for inference; each file appears when it is complete.

        After :meth:`load` the files have the same bytes as before.
        """

    def check_export(self, kind: str) -> None:
        """Raise an ImportError if a package that :meth:`export` needs for this format is missing.

        It is called before a training begins.
        """

    def export(self, prefix: str, kind: str) -> None:
        """Write the network that was saved at a prefix in another format, beside it.

        Each file appears when it is complete, and replaces an earlier one.
        """

    def spec(self, prefix: str) -> str:
        """The spec of what was saved there, for :func:`fasttriplet.load_embedder`."""


def usual_framework(settings: TrainSettings) -> Framework:
    """The framework of a training for which none is named."""
    needs_torch = settings.network_is_module or launched() > 1
    return "torch" if needs_torch or find_spec("mxnet") is None else "mxnet"


def backend_of(framework: Framework) -> type[Backend]:
    """The class `TrainingBackend` of ``fasttriplet.FRAMEWORK._backend``."""
    with importing():
        backend: type[Backend] = import_module(f"fasttriplet.{framework}._backend").TrainingBackend
    return backend
