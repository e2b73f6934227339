"""Batches of triplets for an MXNet module, mined with the module itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

import numpy as np

from fasttriplet.dataset._augment import Augment
from fasttriplet.errors import OptionError
from fasttriplet.mxnet._compat import import_mxnet
from fasttriplet.mxnet._module_embedder import ModuleEmbedder
from fasttriplet.run._feed import Feed, TripletBatch
from fasttriplet.run._options import FeedKeywords

_mx: Any = import_mxnet()


class TripletIter(_mx.io.DataIter):  # type: ignore[misc]
    """An iterator for ``mx.mod.Module.fit`` and loops like it, over a :class:`fasttriplet.Feed`.

    The module that is trained embeds the bags. An epoch is a pass over the dataset; triplets that do not fill
    a batch go into the next epoch's first one, so all batches are full. If an epoch is left before its end,
    `reset` continues with the next one.

    Each bag is logged to the logger ``fasttriplet``, at level INFO.

    Parameters
    ----------
    rec : path or sequence of paths
        The ``.rec`` file, or several that make one dataset.
    module : mxnet.mod.Module
        Its first output is the embedding, as :func:`fasttriplet.mxnet.triplet_loss` has it. It must be bound
        and have its weights when the first batch is asked for, not before.
    data_shape : (int, int, int), default (3, 112, 112)
        Channels, height and width of the images; the channels are 3.
    batch_size : int, default 60
        Images of a batch over all devices, a multiple of 3 for each device.
    devices : int, default 1
        Devices of the module: each gets ``[anchors | positives | negatives]`` of its own.
    data_name, label_name : str
        Names of the module's inputs; labels are identities.
    first_epoch : int, default 0
        Number of the first epoch, to continue a training.
    augment : Augment, optional
    **options
        See :class:`fasttriplet.Feed`, except for `epochs`, `tail` and `state`, which an iterator does not
        have.

    Raises
    ------
    NoTripletsError
        If the dataset can give no triplet; from `next` and `reset`, after an epoch without any. The message
        says why.
    CollapsedError
        From `next`, if in all bags of an epoch the embeddings of different identities are nearly equal. The
        first such bag is a :class:`fasttriplet.CollapseWarning`.
    ValueError
        If an option is wrong, the images have another size, the module's first output is not an embedding, or
        an embedding is not finite.
    OSError
        If a file cannot be read.
    """

    def __init__(
        self,
        rec: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        module: Any,
        *,
        data_shape: tuple[int, int, int] = (3, 112, 112),
        batch_size: int = 60,
        devices: int = 1,
        data_name: str = "data",
        label_name: str = "softmax_label",
        first_epoch: int = 0,
        augment: Augment | None = None,
        **options: Unpack[FeedKeywords],
    ) -> None:
        if not isinstance(data_shape, (tuple, list)) or len(data_shape) != 3 or data_shape[0] != 3:
            raise OptionError("data_shape", f"must be (3, height, width), not {data_shape!r}")
        if not hasattr(module, "binded"):
            raise ValueError(f"module must be an MXNet module, such as mx.mod.Module, not {module!r:.100}")
        for name in ("epochs", "tail", "state"):
            if name in options:
                raise OptionError(
                    name,
                    "cannot be chosen: the iterator has no end, all batches are full, and first_epoch says "
                    "where it begins",
                )
        super().__init__(batch_size)
        self.provide_data = [_mx.io.DataDesc(data_name, (batch_size, *data_shape))]
        self.provide_label = [_mx.io.DataDesc(label_name, (batch_size,))]
        self._open = partial(
            Feed,
            rec,
            model=ModuleEmbedder(module),
            batch_size=batch_size,
            devices=devices,
            augment=augment,
            epochs=None,
            **options,
        )
        # A script that sets the level alone, as InsightFace's train.py does, leaves the handler to the first
        # call of logging.info. MXNet calls it after 20 batches, and what was logged before is lost.
        log = logging.getLogger("fasttriplet")
        if log.isEnabledFor(logging.INFO) and not log.hasHandlers():
            logging.basicConfig()
        self._epoch = first_epoch
        self._ahead: TripletBatch | None = None  # the first batch of another epoch
        self._feed = self._open(first_epoch=first_epoch)
        height, width = self._feed.image_size
        if (height, width) != tuple(data_shape[1:]):
            self._feed.close()
            raise ValueError(
                f"the images are {height} x {width} (H x W), and data_shape says "
                f"{data_shape[1]} x {data_shape[2]}"
            )

    @property
    def epoch(self) -> int:
        """Number of the current pass, from 0."""
        return self._epoch

    @property
    def feed(self) -> Feed:
        """The feed that makes the batches; its summary says what was done and what was waited for."""
        return self._feed

    def next(self) -> Any:
        """The next batch.

        Returns
        -------
        mxnet.io.DataBatch
            Images (`batch_size`, 3, H, W) float32, RGB 0 to 255, and labels (`batch_size`,).

        Raises
        ------
        StopIteration
            At the end of an epoch; :meth:`reset` begins the next one.
        """
        # MXNet's operators run in the background. On the CPU an inference right after an update may see older
        # running statistics: trainings that did not wait ended in other numbers each time.
        _mx.nd.waitall()
        batch = self._ahead
        if batch is None:
            batch = next(self._feed)
        if self._feed.summary.batches == 1:
            self._epoch = batch.epoch  # later than the first if that did not fill a batch
        if batch.epoch != self._epoch:
            self._ahead = batch
            raise StopIteration
        self._ahead = None
        labels = _mx.nd.array(batch.labels.astype(np.float32))
        return _mx.io.DataBatch([_mx.nd.array(batch.images)], [labels], pad=0)

    def reset(self) -> None:
        """Begin the next epoch; do nothing before the first batch of an epoch."""
        if self._ahead is not None:
            self._epoch = self._ahead.epoch
        elif self._feed.summary.batches:
            self._feed.close()
            self._epoch += 1
            self._feed = self._open(state=self._feed.state_dict(epoch=self._epoch))

    def close(self) -> None:
        """End the threads that read ahead."""
        self._feed.close()
