"""Batches of triplets for a training loop of PyTorch, in one process or in several."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple, NoReturn, Self, Unpack

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import IterableDataset, get_worker_info

import torch
from fasttriplet._checks import whole_number
from fasttriplet._options import shows
from fasttriplet.dataset._augment import Augment
from fasttriplet.dataset._dataset import Rec
from fasttriplet.run._feed import Feed, TripletBatch
from fasttriplet.run._options import FeedKeywords, FeedOptions
from fasttriplet.run._summary import Summary
from fasttriplet.torch._embedder import TorchEmbedder
from fasttriplet.torch._group import TorchGroup, processes_of
from fasttriplet.torch._layout import laid_out


class TripletTensors(NamedTuple):
    """A batch of T triplets: the T anchors, then their positives, then their negatives.

    It is in pinned memory if the module is on a CUDA device.

    Attributes
    ----------
    images : (3T, 3, H, W) Tensor
        float32, augmented, and normalised as the module gets it when it embeds.
    labels : (3T,) Tensor
        int64, the identities; shifted if the labels of several files are separate.
    ids : (3T,) Tensor
        int64, keys of the records; of several files, key + file * 2**48.
    """

    images: torch.Tensor
    labels: torch.Tensor
    ids: torch.Tensor


class TripletFeed(IterableDataset):
    """Iterates over batches of triplets, mined with the module that is being trained.

    Each iteration is one pass over the dataset: the first has the number `first_epoch`, and each later one
    the next, also after a loop that was left early. Bag by bag, the images are decoded once, embedded with
    the module as it is at that moment, and mined; see :class:`fasttriplet.Feed`. All batches are full:
    triplets that do not fill one go into the first batch of the next pass. While the module embeds, it is in
    evaluation mode and gradients are off; then each of its parts is in the mode that it was in before.

    Iterate over it directly, or give it to ``DataLoader(feed, batch_size=None)``. It has threads of its own,
    so workers of a data loader are an error. Close it, or use it in a ``with`` block.

    If ``torch.distributed`` is initialised, all processes make a feed with the same arguments and take
    batches from it in step, as DistributedDataParallel wants it. Each decodes and embeds its share of a bag,
    all mine the same triplets, and each gets its part of them. If one fails, is killed or leaves its loop
    early, all end with its message.

    Parameters
    ----------
    rec : path, sequence of paths, or Dataset
        The ``.rec`` file, several that make one dataset, or a :class:`fasttriplet.Dataset`.
    model : torch.nn.Module or TorchEmbedder
        The module that is trained, on its device; it may be wrapped in DistributedDataParallel. Give a
        :class:`TorchEmbedder` of it to choose how images are normalised, or which output is the embedding.
    batch_size : int, default 60
        Images of a batch in this process, a multiple of 3.
    augment : Augment, optional
        Random changes of the images of batches, different in each pass. Images that are embedded for mining
        are not changed. By default there are none.
    first_epoch : int, default 0
        Number of the first pass, which decides its order, picks and augmentation.
    group : ProcessGroup, optional
        The processes that train the module together, by default all.
    labels, cache
        See :func:`fasttriplet.index_rec`.
    max_pixels
        See :func:`fasttriplet.decode_images`.
    margin, band, ranks, pick, negatives_per_pair, fallback
    pairs, positives_per_anchor, triplets_per_anchor, max_ap, metric, normalize
        See :func:`fasttriplet.mine`.
    images_per_identity, bag_size, boundary
        See :func:`fasttriplet.triplet_seq` and :func:`fasttriplet.bags`.
    neighbors, random_share, refresh_epochs, tail, threads, prefetch, memory
        See :class:`fasttriplet.Feed`.
    exclude, exclude_kinds, on_error, seed
        See :func:`fasttriplet.mine_rec`.

    Attributes
    ----------
    embedder : TorchEmbedder
        What embeds the bags.

    Raises
    ------
    ValueError
        If `model` is neither, is sharded over processes, or an option is wrong. While iterating, if the
        parameters differ between processes.
    RuntimeError
        While iterating, in a worker of a data loader.
    NoTripletsError, CollapsedError, PeerError, RecordError, OSError
        As :class:`fasttriplet.Feed`.

    Examples
    --------
    >>> with TripletFeed("train.rec", module, batch_size=120) as feed:  # doctest: +SKIP
    ...     for epoch in range(20):
    ...         for images, labels, ids in feed:
    ...             loss = triplet_loss(module(images.to(device, non_blocking=True)), margin=0.3)
    """

    @shows(FeedOptions)
    def __init__(
        self,
        rec: Rec,
        model: torch.nn.Module | TorchEmbedder,
        *,
        batch_size: int = 60,
        augment: Augment | None = None,
        first_epoch: int = 0,
        group: Any = None,
        **options: Unpack[FeedKeywords],
    ) -> None:
        super().__init__()
        FeedOptions.of(TripletFeed, options)
        self.embedder = _embedder_of(model)
        self._epoch = whole_number("first_epoch", first_epoch, 0)
        self._group = group
        self._make = partial(
            Feed,
            model=self.embedder,
            batch_size=batch_size,
            augment=augment,
            epochs=None,
            layout=partial(_laid_out, self.embedder),
            **options,
        )
        self._feed = self._open(rec, first_epoch=first_epoch)
        self._begun = False  # a pass, which has not come to its end
        self._left = False  # that pass, for good
        self._closed = False  # the feed, so that the next pass needs another one
        self._inside = False  # a with block

    @property
    def summary(self) -> Summary:
        """What was done and waited for since the feed began, or after a pass that was left early."""
        return self._feed.summary

    @property
    def epoch(self) -> int:
        """Number of the pass that is under way, or else of the next one."""
        return self._epoch + self._left

    def state_dict(self) -> dict[str, Any]:
        """What is needed to continue after the batch that was handed out last.

        Save it beside the module and the optimizer, at the same moment. It is the same in all processes that
        have taken as many batches, so one of them can save it for all.

        Returns
        -------
        dict
            Numbers, texts and Tensors, as ``torch.load(..., weights_only=True)`` reads them.
        """
        state = self._feed.state_dict()
        arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
        return state | {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration continue where a feed with the same arguments was.

        It is the rest of the pass that was under way.

        Parameters
        ----------
        state : dict
            What :meth:`state_dict` gave, with as many processes.

        Raises
        ------
        ValueError
            If it is something else, or of another dataset, other arguments or another number of processes.
        """
        if not isinstance(state, Mapping):
            raise ValueError(f"state must be what state_dict() gave, not {state!r:.100}")
        # Tensors may have been loaded to a GPU.
        tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
        state = {**state, **{name: tensor.numpy(force=True) for name, tensor in tensors.items()}}
        feed = self._open(self._feed.dataset, state=state)
        self._feed.close()
        self._feed, self._epoch = feed, state["epoch"]
        self._begun = self._left = self._closed = False

    def __iter__(self) -> Iterator[TripletTensors]:
        if get_worker_info() is not None:
            raise RuntimeError(
                "a TripletFeed is read in the process of the module, by threads of its own: give the "
                "DataLoader num_workers=0"
            )
        return self._pass()

    def _pass(self) -> Generator[TripletTensors, None, None]:
        if self._begun or self._closed:
            self._feed.close()
            state = self._feed.state_dict(epoch=self._epoch + self._begun)
            self._feed = self._open(self._feed.dataset, state=state)
            self._epoch += self._begun
        feed, self._begun, self._left, self._closed = self._feed, True, False, False
        try:
            for batch in feed.one_epoch():
                yield _tensors(batch)
                del batch  # not to be held while waiting for the next one
            if feed is self._feed:  # and no state was loaded meanwhile
                self._epoch, self._begun = self._epoch + 1, False
        except BaseException as error:
            self._left = self._left or feed is self._feed
            if isinstance(error, GeneratorExit) and not self._inside:  # whose end will know the reason
                feed.close()
            raise

    def close(self) -> None:
        """End the iteration and its threads; another iteration begins the next pass."""
        self._feed.close()
        self._closed = True

    def __enter__(self) -> Self:
        self._inside = True
        return self

    def __exit__(self, *error: Any) -> None:
        self._inside, self._closed = False, True
        self._feed.__exit__(*error)

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "a TripletFeed cannot be sent to another process, such as a worker of a DataLoader: it has "
            "threads, and the module of this process. Give the DataLoader num_workers=0"
        )

    def _open(self, rec: Rec, **place: Any) -> Feed:
        processes = processes_of(self._group)
        return self._make(rec, group=TorchGroup(self._group) if processes > 1 else None, **place)


def _laid_out(
    embedder: TorchEmbedder, pixels: NDArray[np.uint8], rows: NDArray[np.int64], **options: Any
) -> torch.Tensor:
    device = torch.device(embedder.devices[0])  # at this moment: the module may be moved
    return laid_out(pixels, rows, inputs=embedder.inputs, device=device, **options)


def _tensors(batch: TripletBatch) -> TripletTensors:
    images: Any = batch.images  # what the layout made
    labels, ids = torch.from_numpy(batch.labels), torch.from_numpy(batch.ids)
    if images.is_pinned():
        labels, ids = labels.pin_memory(), ids.pin_memory()
    return TripletTensors(images, labels, ids)


def _embedder_of(model: object) -> TorchEmbedder:
    if isinstance(model, TorchEmbedder):
        embedder = model
    elif isinstance(model, torch.nn.Module):
        embedder = TorchEmbedder(model)
    else:
        raise ValueError(f"model must be a torch.nn.Module or a TorchEmbedder, not {model!r:.100}")
    parts = embedder.module.modules()
    sharded = any(hasattr(value, "device_mesh") for value in embedder.module.parameters())
    if sharded or any(type(part).__name__ == "FullyShardedDataParallel" for part in parts):
        raise ValueError(
            "model is sharded over processes, and each of them embeds other images: train it in "
            "DistributedDataParallel"
        )
    return embedder
