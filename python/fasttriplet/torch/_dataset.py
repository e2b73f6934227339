"""The images of ``.rec`` files as a dataset of PyTorch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal, Unpack, get_args
from warnings import warn

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import get_worker_info

import torch
from fasttriplet import _core
from fasttriplet._callers import stacklevel_of_user
from fasttriplet._checks import one_of, seed_number, thread_count, truth_value, whole_number
from fasttriplet._options import shows
from fasttriplet._words import counted
from fasttriplet.dataset._dataset import Dataset, Rec, open_dataset
from fasttriplet.dataset._exclude import included_images
from fasttriplet.dataset._names import class_names
from fasttriplet.dataset._options import ExcludeKeywords, ExcludeOptions, OnError
from fasttriplet.dataset._order import epoch_seed
from fasttriplet.dataset._planes import Failed, decode_each, decode_planes, mirrored_at_random
from fasttriplet.errors import OptionError, RecordWarning
from fasttriplet.torch._shared import shared_memory
from fasttriplet.torch._whole_batch import WholeBatch

ImageKind = Literal["float32", "uint8", "pil"]

# What torchvision's ToTensor and Normalize(0.5, 0.5) make of each byte, by the same operations.
_TABLE = torch.arange(256, dtype=torch.uint8, device="cpu").float().div(255).sub(0.5).div(0.5)
_NUMBERS = _TABLE.tolist()


class RecordDataset(torch.utils.data.Dataset):
    """The images and labels of ``.rec`` files, for a DataLoader of PyTorch.

    ``dataset[i]`` is ``(image, label)``. By default the image is what InsightFace's `arcface_torch` trains
    on: (3, H, W) float32, RGB, from -1 to 1, equal to the last bit to torchvision's ``ToTensor`` and
    ``Normalize(0.5, 0.5)``. The label is an int64 tensor without dimensions. A DataLoader gets each batch by
    one call, which reads and decodes in parallel, and its default collation takes the batch as it is.

    The dataset can be pickled. Workers that are forked or spawned give the same images. They share one copy
    of the index, and each that is spawned opens the files when it first reads.

    Parameters
    ----------
    rec : path, sequence of paths, or Dataset
        The ``.rec`` file, or several that make one dataset.
    transform : callable, optional
        Gets an image and returns what takes its place: a transform of torchvision (v2), for example. Images
        may then have different sizes; without it, all images of a batch must have one.
    image : {"float32", "uint8", "pil"}, optional
        What an image, or what `transform` gets, is: (3, H, W) float32 from -1 to 1, (3, H, W) uint8, or a PIL
        image. By default float32, and uint8 for a transform.
    mirror : bool, default False
        Swap left and right in half of the images, at random, before `transform`. By default PyTorch's random
        numbers decide anew each time, as in torchvision's ``RandomHorizontalFlip``; see :meth:`set_epoch`.
    exclude, exclude_kinds
        Images to leave out; see :func:`fasttriplet.mine_rec`.
    renumber : bool, default False
        Number the labels of the images that are left from 0, without gaps, in their order.
    on_error : {"raise", "skip"}, default "raise"
        What a batch does about an image that cannot be decoded or read (see
        :meth:`fasttriplet.Dataset.decode`): raise, or leave it out with a RecordWarning, so that the batch is
        smaller.
    seed : int, default 0
        Seed for `mirror`, after :meth:`set_epoch`.
    threads : int, optional
        By default one per core, and in a worker of a DataLoader one, because there are several workers.
    labels, cache, max_pixels
        See :class:`fasttriplet.Dataset`.

    Attributes
    ----------
    targets : (M,) int64 Tensor
        The label of each image.
    classes : list of str
        A name for each label from 0 to the largest: the folder that :func:`fasttriplet.pack` packed, where
        its ``.identities.csv`` is beside the file, or else the label before it was renumbered. Made when it
        is asked for.
    class_to_idx : dict of str to int
        The label of each name.
    rows : (M,) int64
        The position of each image in `dataset`, such as ``dataset.keys[rows]``.
    dataset : Dataset
        All images, with their keys, labels and files.
    transform, image, mirror, seed
        As they were given. You may set another `transform` later.

    Raises
    ------
    OptionError
        If an option is out of its range, a key to exclude is not in the index, or no image is left; a
        ValueError.
    RecordError, OSError, RuntimeError, ValueError
        As :class:`fasttriplet.Dataset`.

    Examples
    --------
    >>> dataset = RecordDataset("train.rec", mirror=True)  # doctest: +SKIP
    >>> loader = torch.utils.data.DataLoader(dataset, 128, shuffle=True, drop_last=True)  # doctest: +SKIP
    """

    @shows(ExcludeOptions)
    def __init__(
        self,
        rec: Rec,
        *,
        transform: Callable[[Any], Any] | None = None,
        image: ImageKind | None = None,
        mirror: bool = False,
        renumber: bool = False,
        on_error: OnError = "raise",
        seed: int = 0,
        threads: int | None = None,
        **options: Unpack[ExcludeKeywords],
    ) -> None:
        chosen = ExcludeOptions.of(RecordDataset, options)
        if transform is not None and not callable(transform):
            raise OptionError("transform", f"must be a callable that takes an image, not {transform!r}")
        if image is not None:
            one_of("image", image, get_args(ImageKind))
        one_of("on_error", on_error, get_args(OnError))
        self.transform, self.image, self.mirror = transform, image, truth_value("mirror", mirror)
        self.on_error, self.seed, self.threads = on_error, seed_number(seed), thread_count(threads)
        self._opened: Dataset | None = open_dataset(rec, chosen, threads=self.threads)
        included = included_images(self._opened, chosen.exclude, chosen.exclude_kinds)
        rows = None if included.digest is None else included.rows
        targets = self._opened.labels if rows is None else self._opened.labels[rows]
        self._rows = None if rows is None else torch.from_numpy(rows)
        self._numbers: torch.Tensor | None = None  # the labels before they were renumbered
        if truth_value("renumber", renumber):
            numbers, targets = np.unique(targets, return_inverse=True)
            self._numbers = torch.from_numpy(numbers)
        self.targets = torch.from_numpy(np.array(targets, np.int64))  # PyTorch has no read-only tensors
        self._state: dict[str, Any] | None = None  # of `_opened`, once it was pickled
        self._epoch = torch.full((), -1, device="cpu")
        self._share_epoch()

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def dataset(self) -> Dataset:
        """All images, with their keys, labels and files."""
        if self._opened is None:
            assert self._state is not None
            columns = {name: column.numpy() for name, column in self._state["columns"].items()}
            opened = Dataset.__new__(Dataset)
            opened.__setstate__(self._state | {"columns": columns})
            self._opened = opened
        return self._opened

    @property
    def rows(self) -> NDArray[np.int64]:
        """The position of each image in `dataset`."""
        rows: NDArray[np.int64] = np.arange(len(self)) if self._rows is None else self._rows.numpy()
        return rows

    @property
    def classes(self) -> list[str]:
        """A name for each label from 0 to the largest."""
        if self._numbers is not None:
            return class_names(self.dataset, self._numbers.tolist())
        if int(self.targets.min()) < 0:
            raise ValueError(
                f"label {int(self.targets.min())} is negative, and classes are numbered from 0; "
                "renumber=True numbers the labels anew"
            )
        return class_names(self.dataset, range(int(self.targets.max()) + 1))

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each name."""
        return {name: label for label, name in enumerate(self.classes)}

    def set_epoch(self, epoch: int) -> None:
        """Make `mirror` a function of `seed`, the epoch and the image, also in workers that run already.

        From then on the images that are mirrored are the same for any number of workers, and after a restart
        in the middle of an epoch: those that :func:`fasttriplet.assemble` mirrors with
        ``epoch_seed(seed, epoch)``. Call it before each epoch.

        Parameters
        ----------
        epoch : int
            At least 0.
        """
        self._epoch.fill_(whole_number("epoch", epoch, 0, 2**63 - 1))

    def __getitem__(self, index: int) -> tuple[Any, torch.Tensor]:
        images, labels = self._read([self._position(index)], "raise", shared=False)
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """The images and labels of a batch."""
        if type(self).__getitem__ is not RecordDataset.__getitem__:  # a subclass makes something else of it
            return [self[index] for index in indices]
        if not len(indices):
            return []
        positions = [self._position(index) for index in indices]
        return WholeBatch(*self._read(positions, self.on_error, shared=get_worker_info() is not None))

    def _position(self, index: int) -> int:
        try:
            return range(len(self))[operator.index(index)]
        except IndexError:
            raise IndexError(f"index {index} is out of range: the dataset has {len(self):,} images") from None
        except TypeError:
            kind = type(index).__name__
            raise TypeError(
                f"an index of the dataset must be an int, not {kind}; for a part of it, see "
                "torch.utils.data.Subset"
            ) from None

    def _read(self, positions: list[int], on_error: OnError, *, shared: bool) -> tuple[Any, torch.Tensor]:
        """Images, as a tensor if they are one, and their labels; without those that are skipped."""
        at = np.array(positions)
        rows = at if self._rows is None else self._rows.numpy()[at]
        threads = 1 if self.threads is None and get_worker_info() is not None else self.threads
        how: dict[str, Any] = {"threads": threads, "on_error": on_error}
        kind = self.image or ("float32" if self.transform is None else "uint8")
        mirrored = self._mirrored(rows)
        images: Any
        if kind == "pil" or self.transform is not None:
            pictures, failed = decode_each(self.dataset, rows, **how)
            good = _without(len(rows), failed)
            flips = [False] * len(good) if mirrored is None else mirrored[good].tolist()
            images = [_converted(picture, kind, flip) for picture, flip in zip(pictures, flips, strict=True)]
            if self.transform is not None:
                images = [self.transform(image) for image in images]
        else:
            # If no image can be read, the second call says why.
            size = self.dataset.image_size(rows, **how) or self.dataset.image_size(rows) or (0, 0)
            out = _empty((len(rows), 3, *size), getattr(torch, kind), shared=shared)
            kept, failed = decode_planes(
                self.dataset, rows, out.numpy(), table=_NUMBERS, mirrored=mirrored, **how
            )
            images, good = out[:kept], _without(len(rows), failed)
        if not good.size:
            raise failed[0][1]
        for _, error in failed:
            warn(f"left out of a batch: {error}", RecordWarning, stacklevel=stacklevel_of_user())
        return images, self.targets[torch.from_numpy(at[good])]

    def _mirrored(self, rows: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        if not self.mirror:
            return None
        epoch = int(self._epoch)
        if epoch < 0:
            chosen: NDArray[np.bool_] = (torch.rand(len(rows), device="cpu") < 0.5).numpy()
            return chosen
        return mirrored_at_random(self.dataset, rows, epoch_seed(self.seed, epoch))

    def __getstate__(self) -> dict[str, Any]:
        if self._state is None:
            state = self.dataset.__getstate__()
            # As tensors, which workers that are spawned share: arrays would be copied for each.
            columns = {name: torch.from_numpy(column.copy()) for name, column in state["columns"].items()}
            self._state = state | {"columns": columns}
        return self.__dict__ | {"_opened": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._share_epoch()

    def _share_epoch(self) -> None:
        """Let workers see the epoch that is set, also those that persist; a copy has one of its own."""
        if self.mirror and not self._epoch.is_shared():
            self._epoch.share_memory_()

    def __repr__(self) -> str:
        state = self._state or {}
        paths = state["paths"] if self._opened is None else self._opened.paths
        return f"RecordDataset({', '.join(map(str, paths))!r}, {counted(len(self), 'image')})"


def _converted(picture: NDArray[np.uint8], kind: ImageKind, flip: bool) -> Any:
    if flip:
        picture = picture[:, ::-1]
    if kind == "pil":
        return Image.fromarray(picture)
    planes = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    return planes if kind == "uint8" else _TABLE[planes.long()]


def _empty(shape: tuple[int, ...], dtype: torch.dtype, *, shared: bool) -> torch.Tensor:
    """A new tensor, in memory that a worker shares with the process of its DataLoader if it is `shared`."""
    size = torch.Size(shape).numel() * dtype.itemsize
    what = f"a batch, {counted(shape[0], 'image')} of {shape[2]} x {shape[3]} (H x W)"
    _core.probe_memory(size, what)
    if not shared:
        return torch.empty(shape, dtype=dtype, device="cpu")
    return torch.empty(0, dtype=dtype, device="cpu").set_(shared_memory(size, what), 0, shape)


def _without(count: int, failed: Failed) -> NDArray[np.int64]:
    return np.delete(np.arange(count), [position for position, _ in failed])
