"""What decides the outcome of a training."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, fields
from typing import Any, Self, get_args

import numpy as np

from fasttriplet._checks import one_of, seed_number, whole_number
from fasttriplet.dataset._augment import Augment
from fasttriplet.dataset._options import Boundary, OnError
from fasttriplet.mining._options import Band, Pairs, Pick
from fasttriplet.mxnet._loss import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What decides the outcome of a training; the defaults are InsightFace's `triplet` configuration.

    Attributes
    ----------
    rec : tuple of str
        The ``.rec`` file, or several that are shards of one dataset.
    network : str, optional
        ``"small"`` or ``"mobilefacenet"``. Either this or `symbol`.
    symbol : str, optional
        Path of an MXNet symbol, ``*-symbol.json``, with the input ``data``, RGB 0 to 255. Its embedding is
        found as for :func:`fasttriplet.load_embedder`.
    pretrained : str, optional
        ``PREFIX,EPOCH``: a checkpoint to take weights from, by name. The others are drawn.
    embedding_size : int, default 128
        Of a named network.
    loss : {"squared", "angular"}, default "squared"
        Distance in the loss, see :func:`fasttriplet.mxnet.triplet_loss`. Mining is on squared L2 always, as
        in InsightFace.
    margin : float, default 0.3
        Of the loss and of mining.
    batch_size : int, default 60
        Images of a batch on each device, a multiple of 3.
    learning_rate, momentum, weight_decay : float, default 0.05, 0.9, 5e-4
        Of the stochastic gradient descent. The gradient is the mean over all triplets of a batch.
    lr_steps : tuple of int, default (100000, 160000, 220000)
        Behind so many batches the learning rate is multiplied by `lr_factor`.
    lr_factor : float, default 0.1
    mirror : bool, default True
    cutoff : int, default 0
    color_jitter : float, default 0
        Random changes of the images of batches, see :class:`fasttriplet.Augment`; the last one of brightness,
        contrast and saturation each.
    images_per_identity, bag_size, boundary
        See :func:`fasttriplet.triplet_seq` and :func:`fasttriplet.bags`.
    band, pick, negatives_per_pair, pairs, max_ap
        See :func:`fasttriplet.mine`.
    on_error : {"raise", "skip"}, default "raise"
        Whether an image that cannot be decoded ends the training or is left out.
    seed : int, default 0
        Of weights, orders, picks and changes of images.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    rec: tuple[str, ...]
    network: str | None = None
    symbol: str | None = None
    pretrained: str | None = None
    embedding_size: int = 128
    loss: Kind = "squared"
    margin: float = 0.3
    batch_size: int = 60
    learning_rate: float = 0.05
    lr_steps: tuple[int, ...] = (100_000, 160_000, 220_000)
    lr_factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    mirror: bool = True
    cutoff: int = 0
    color_jitter: float = 0.0
    images_per_identity: int = 5
    bag_size: int = 7200
    boundary: Boundary = "keep"
    band: Band = "semihard"
    pick: Pick = "random"
    negatives_per_pair: int = 1
    pairs: Pairs = "unordered"
    max_ap: float | None = None
    on_error: OnError = "raise"
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.rec, (str, os.PathLike)) or not self.rec:
            raise ValueError(f"rec must be one path or more, in a tuple, not {self.rec!r}")
        self._make_plain()
        if (self.network is None) == (self.symbol is None):
            raise ValueError("give either network or symbol")
        whole_number("embedding_size", self.embedding_size, 1)
        one_of("loss", self.loss, get_args(Kind))
        if whole_number("batch_size", self.batch_size, 3) % 3:
            raise ValueError(
                "batch_size must be a multiple of 3 (anchors, positives and negatives), not "
                f"{self.batch_size}"
            )
        for name, least, most in (
            ("margin", 0.0, math.inf),
            ("learning_rate", 0.0, math.inf),
            ("lr_factor", 0.0, 1.0),
            ("momentum", 0.0, 1.0),
            ("weight_decay", 0.0, math.inf),
        ):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not least <= value <= most:
                limits = f">= {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
                raise ValueError(f"{name} must be a number {limits}, not {value!r}")
        for step in self.lr_steps:
            whole_number("each of lr_steps", step, 1)
        if list(self.lr_steps) != sorted(set(self.lr_steps)):
            raise ValueError(f"lr_steps must ascend, not {self.lr_steps!r}")
        seed_number(self.seed)
        self.augment()

    def _make_plain(self) -> None:
        """Paths to texts and NumPy's numbers to Python's, as JSON has them."""
        plain = {
            field.name: value.item() if isinstance(value, np.generic) else value
            for field in fields(self)
            for value in [getattr(self, field.name)]
        }
        plain["rec"] = tuple(map(os.fspath, self.rec))
        plain["lr_steps"] = tuple(
            step.item() if isinstance(step, np.generic) else step for step in self.lr_steps
        )
        if self.symbol is not None:
            plain["symbol"] = os.fspath(self.symbol)
        for name, value in plain.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The settings that `to_dict` gave."""
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {name: value for name, value in plain.items() if name in known}
        values |= {name: tuple(values[name]) for name in ("rec", "lr_steps") if name in values}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self) | {"rec": list(self.rec), "lr_steps": list(self.lr_steps)}

    def augment(self) -> Augment:
        """The changes of images."""
        jitter = self.color_jitter
        return Augment(self.mirror, self.cutoff, brightness=jitter, contrast=jitter, saturation=jitter)

    def learning_rate_behind(self, batches: int) -> float:
        """The learning rate of the batch that follows so many."""
        passed = sum(batches >= step for step in self.lr_steps)
        return self.learning_rate * self.lr_factor**passed

    def feed(self) -> dict[str, Any]:
        """The options of a :class:`fasttriplet.Feed` on one device."""
        names = (
            "batch_size images_per_identity bag_size boundary margin band pick negatives_per_pair pairs "
            "max_ap on_error seed"
        )
        return {name: getattr(self, name) for name in names.split()} | {"augment": self.augment()}

    def differences(self, other: TrainSettings) -> list[str]:
        """What is set otherwise, in words; but for where files are, and what is done about damaged images."""
        before, now = self.to_dict(), other.to_dict()
        return [
            f"{name} {value!r} (now {now[name]!r})"
            for name, value in before.items()
            if value != now[name] and name not in ("rec", "on_error")
        ]
