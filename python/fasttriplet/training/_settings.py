"""The settings that decide the outcome of a training."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np

from fasttriplet._checks import batch_of_triplets, number, one_of, seed_number, whole_number
from fasttriplet.dataset._augment import Augment
from fasttriplet.dataset._options import BagOptions, DatasetOptions, OnError, Tail
from fasttriplet.errors import OptionError
from fasttriplet.mining._options import MiningOptions

Loss = Literal["squared", "angular"]


@dataclass(frozen=True, kw_only=True)
class TrainSettings(DatasetOptions, MiningOptions, BagOptions):
    """The settings that decide the outcome of a training; defaults are InsightFace's `triplet` configuration.

    Attributes
    ----------
    rec : tuple of str
        The ``.rec`` file, or several that make one dataset.
    labels : {"shared", "separate"}, optional
        Whether a label is one identity in all files, or in each file alone; see
        :func:`fasttriplet.index_rec`.
    cache : bool or path, default True
        Where the index of each file is kept; see :func:`fasttriplet.index_rec`.
    max_pixels : int, default 89,478,485
        The most pixels of an image that is decoded; see :func:`fasttriplet.decode_images`.
    network : str, optional
        ``"small"`` or ``"mobilefacenet"``. Give either this or `symbol`.
    symbol : str, optional
        Path of an MXNet symbol, ``*-symbol.json``, with the input ``data``, RGB 0 to 255. Its embedding is
        found as for :func:`fasttriplet.load_embedder`.
    pretrained : str, optional
        ``PREFIX,EPOCH`` or ``mxnet:PREFIX,EPOCH``: a checkpoint to take weights from, by name. Weights that
        it lacks are drawn.
    embedding_size : int, default 128
        Numbers of an embedding, for a `network` by name.
    loss : {"squared", "angular"}, default "squared"
        Distance in the loss: squared L2 or the angle of unit embeddings, see
        :func:`fasttriplet.mxnet.triplet_loss`.
    loss_margin : float, optional
        Margin of the loss, on the scale of `loss`. By default the number that is given as `margin`, whatever
        its scale. Squared L2 is twice the cosine distance, so ``metric="cosine", margin=0.15`` mines the
        triplets of squared L2 with 0.3, and with ``loss_margin=0.3`` it trains on them in the same way.
    batch_size : int, default 60
        Images of a batch on each device, a multiple of 3.
    learning_rate, momentum, weight_decay : float, default 0.05, 0.9, 5e-4
        Of the stochastic gradient descent. The gradient is the mean over all triplets of a batch.
    lr_steps : tuple of int, default (100000, 160000, 220000)
        Numbers of batches after which the learning rate is multiplied by `lr_factor`.
    lr_factor : float, default 0.1
    mirror : bool, default True
        Swap left and right in half of the images, at random.
    cutoff : int, default 0
        Side in pixels of a square that is blanked out, at random; 0 for none.
    color_jitter : float, default 0
        How much brightness, contrast and saturation are changed, at random; see
        :class:`fasttriplet.Augment`.
    margin, band, pick, negatives_per_pair, pairs, max_ap, metric, normalize
        Which triplets are mined; see :func:`fasttriplet.mine`. Semi-hard is ``d_ap < d_an < d_ap + margin``,
        by default on squared L2.
    images_per_identity, bag_size, boundary
        See :func:`fasttriplet.triplet_seq` and :func:`fasttriplet.bags`. There is no `tail`: the last bag of
        an epoch is used, and triplets that do not fill a batch go into the next one.
    on_error : {"raise", "skip"}, default "raise"
        Whether an image that cannot be decoded ends the training or is left out.
    seed : int, default 0
        Seed for weights, orders, picks and changes of images.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    tail: ClassVar[Tail] = "keep"  # type: ignore[misc]  # not an option: all batches are full
    rec: tuple[str, ...]
    network: str | None = None
    symbol: str | None = None
    pretrained: str | None = None
    embedding_size: int = 128
    loss: Loss = "squared"
    loss_margin: float | None = None
    batch_size: int = 60
    learning_rate: float = 0.05
    lr_steps: tuple[int, ...] = (100_000, 160_000, 220_000)
    lr_factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    mirror: bool = True
    cutoff: int = 0
    color_jitter: float = 0.0
    on_error: OnError = "raise"
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.rec, (str, os.PathLike)) or not self.rec:
            raise OptionError("rec", f"must be one path or more, in a tuple, not {self.rec!r}")
        self._make_plain()
        if (self.network is None) == (self.symbol is None):
            raise ValueError("give either network or symbol")
        whole_number("embedding_size", self.embedding_size, 1)
        one_of("loss", self.loss, get_args(Loss))
        batch_of_triplets("batch_size", self.batch_size)
        number("margin" if self.loss_margin is None else "loss_margin", self.margin_of_loss, 0)
        number("learning_rate", self.learning_rate, 0)
        number("lr_factor", self.lr_factor, 0, 1)
        number("momentum", self.momentum, 0, 1)
        number("weight_decay", self.weight_decay, 0)
        for step in self.lr_steps:
            whole_number("each of lr_steps", step, 1)
        if list(self.lr_steps) != sorted(set(self.lr_steps)):
            raise OptionError("lr_steps", f"must ascend, not {self.lr_steps!r}")
        one_of("on_error", self.on_error, get_args(OnError))
        seed_number(self.seed)
        number("color_jitter", self.color_jitter, 0, 1)
        self.augment()
        super().__post_init__()

    def _make_plain(self) -> None:
        """Turn paths into texts, lists into tuples and NumPy's numbers into Python's."""
        if not isinstance(self.rec, (tuple, list)) or not all(isinstance(path, _PATH) for path in self.rec):
            raise OptionError("rec", f"must be paths, in a tuple, not {self.rec!r}")
        if not isinstance(self.lr_steps, (tuple, list)):
            raise OptionError("lr_steps", f"must be numbers of batches, in a tuple, not {self.lr_steps!r}")
        for name, kind in (("network", str), ("symbol", _PATH), ("pretrained", str)):
            if not isinstance(value := getattr(self, name), (kind, type(None))):
                raise OptionError(name, f"must be a text, not {value!r}")
        plain = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        plain["rec"] = tuple(map(os.fspath, self.rec))
        plain["lr_steps"] = tuple(map(_plain, self.lr_steps))
        if self.symbol is not None:
            plain["symbol"] = os.fspath(self.symbol)
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The settings that `to_dict` gave."""
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self) | {"rec": list(self.rec), "lr_steps": list(self.lr_steps)}

    @property
    def margin_of_loss(self) -> float:
        """The margin of the loss, on its own scale."""
        return self.margin if self.loss_margin is None else self.loss_margin

    def augment(self) -> Augment:
        """The changes of images."""
        jitter = self.color_jitter
        return Augment(self.mirror, self.cutoff, brightness=jitter, contrast=jitter, saturation=jitter)

    def learning_rate_after(self, batches: int) -> float:
        """The learning rate of the batch that follows this many."""
        passed = sum(batches >= step for step in self.lr_steps)
        return self.learning_rate * self.lr_factor**passed

    def feed(self) -> dict[str, Any]:
        """The options of a :class:`fasttriplet.Feed` on one device."""
        groups = (DatasetOptions, MiningOptions, BagOptions)
        names = [name for group in groups for name in group.names()] + ["batch_size", "on_error", "seed"]
        return {name: getattr(self, name) for name in names} | {"augment": self.augment()}

    def differences(self, other: TrainSettings) -> list[str]:
        """The settings that `other` has otherwise, in words.

        Paths of the dataset and its cache, the limit of pixels, and what is done about images that cannot be
        used do not count.
        """
        before, now = (one.to_dict() | {"labels": one.labels or "shared"} for one in (self, other))
        return [
            f"{name} {value!r} (now {now[name]!r})"
            for name, value in before.items()
            if value != now[name] and name not in ("rec", "cache", "max_pixels", "on_error")
        ]


_PATH = (str, os.PathLike)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
