"""The settings that decide the outcome of a training."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal, Self, get_args

from fasttriplet._checks import batch_of_triplets, number, one_of, seed_number, whole_number
from fasttriplet._options import plain
from fasttriplet.dataset._augment import Augment
from fasttriplet.dataset._ids import integers
from fasttriplet.dataset._options import ExcludeOptions, OnError, RefreshOptions, Tail
from fasttriplet.embedders._precision import Precision, precision_named
from fasttriplet.errors import OptionError
from fasttriplet.mining._options import MiningOptions

Framework = Literal["mxnet", "torch"]
Loss = Literal["squared", "angular"]
Optimizer = Literal["sgd", "adamw"]
LrSchedule = Literal["steps", "linear", "cosine"]


@dataclass(frozen=True, kw_only=True)
class TrainSettings(ExcludeOptions, MiningOptions, RefreshOptions):
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
    exclude, exclude_kinds
        Images that are left out; see :func:`fasttriplet.mine_rec`. A training takes a file or keys, not a
        frame, because its state names them. It can only be resumed without the same images.
    framework : {"mxnet", "torch"}, optional
        What trains the network: MXNet or PyTorch. By default this is decided when a training begins: PyTorch
        where MXNet is not installed, `network` begins with ``torch:`` or torchrun started several processes,
        else MXNet. A training is resumed with the framework that it began with.
    network : str, optional
        ``"small"``, ``"mobilefacenet"`` or, with PyTorch, ``"torch:PACKAGE.MODULE:FACTORY"``, a function that
        returns a ``torch.nn.Module``; it may end in options, ``,name=value``. Give either this or `symbol`.
    symbol : str, optional
        Path of an MXNet symbol, ``*-symbol.json``, with the input ``data``, RGB 0 to 255, which both
        frameworks train. Its embedding is found as for :func:`fasttriplet.load_embedder`.
    pretrained : str, optional
        What to take weights from, by name: ``PREFIX,EPOCH`` or ``mxnet:PREFIX,EPOCH``, a checkpoint of MXNet.
        Weights that it lacks are drawn. With PyTorch also ``torch:PREFIX``, a network that was trained here,
        or a file of weights, ``.safetensors``, ``.pt`` or ``.pth``.
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
    optimizer : {"sgd", "adamw"}, default "sgd"
        Stochastic gradient descent or, with PyTorch, AdamW. The gradient is the mean over all triplets of a
        batch.
    learning_rate, weight_decay : float, default 0.05 and 5e-4
        The optimizer's.
    momentum : float, default 0.9
        That of ``"sgd"``.
    clip_norm : float, optional
        With PyTorch, the largest L2 norm of the gradient of all weights: a larger gradient is scaled down to
        it. By default no gradient is scaled.
    lr_schedule : {"steps", "linear", "cosine"}, default "steps"
        How the learning rate falls: by `lr_factor` after `lr_steps`, or to 0 at `lr_end`, in a straight line
        or along half a period of a cosine.
    lr_steps : tuple of int, default (100000, 160000, 220000)
        Numbers of batches after which ``"steps"`` multiplies the learning rate by `lr_factor`.
    lr_factor : float, default 0.1
    lr_end : int, optional
        Number of batches after which ``"linear"`` and ``"cosine"`` reach 0, and a training can have no more.
        By default the number of batches that the training begins with; a training that is resumed keeps it.
    warmup : int, default 0
        The learning rate of batch n of the first `warmup` batches is n / `warmup` of what `lr_schedule`
        gives.
    precision : {"float32", "tf32", "bfloat16"}, default "float32"
        What PyTorch computes in, and ``"bf16"`` for short; see :class:`fasttriplet.torch.TorchEmbedder`.
        Weights are float32.
    mirror : bool, default True
        Swap left and right in half of the images, at random.
    cutoff : int, default 0
        Side in pixels of a square that is blanked out, at random; 0 for none.
    color_jitter : float, default 0
        How much brightness, contrast and saturation are changed, at random; see
        :class:`fasttriplet.Augment`.
    margin, band, ranks, pick, negatives_per_pair, fallback
    pairs, positives_per_anchor, triplets_per_anchor, max_ap, metric, normalize
        Which triplets are mined; see :func:`fasttriplet.mine`. Semi-hard is ``d_ap < d_an < d_ap + margin``,
        by default on squared L2.
    images_per_identity, bag_size, boundary
        See :func:`fasttriplet.triplet_seq` and :func:`fasttriplet.bags`. There is no `tail`: the last bag of
        an epoch is used, and triplets that do not fill a batch go into the next one.
    neighbors : path or "running", optional
        A Parquet file, an identity graph, by which bags are made of identities that are near each other; see
        :func:`fasttriplet.triplet_seq`. A training takes no frame, because its state names the file. It can
        only be resumed with the same graph. ``"running"``: the training makes the graph itself, of what it
        embeds; see :class:`fasttriplet.Feed`.
    random_share : float, default 0
        With `neighbors`, the share of a bag's images that are of identities in random order.
    refresh_epochs : int, default 1
        With ``neighbors="running"``, how many epochs have the same graph.
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
    framework: Framework | None = None
    network: str | None = None
    symbol: str | None = None
    pretrained: str | None = None
    embedding_size: int = 128
    loss: Loss = "squared"
    loss_margin: float | None = None
    batch_size: int = 60
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float | None = None
    lr_schedule: LrSchedule = "steps"
    lr_steps: tuple[int, ...] = (100_000, 160_000, 220_000)
    lr_factor: float = 0.1
    lr_end: int | None = None
    warmup: int = 0
    precision: Precision = "float32"
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
        self._check_optimizer()
        self._check_learning_rate()
        self._check_framework()
        one_of("on_error", self.on_error, get_args(OnError))
        seed_number(self.seed)
        number("color_jitter", self.color_jitter, 0, 1)
        self.augment()
        super().__post_init__()

    def _check_optimizer(self) -> None:
        one_of("optimizer", self.optimizer, get_args(Optimizer))
        number("momentum", self.momentum, 0, 1)
        number("weight_decay", self.weight_decay, 0)
        if self.clip_norm is not None and number("clip_norm", self.clip_norm, 0) == 0:
            raise OptionError("clip_norm", "must be above 0: with 0, nothing would be learned")

    def _check_learning_rate(self) -> None:
        number("learning_rate", self.learning_rate, 0)
        one_of("lr_schedule", self.lr_schedule, get_args(LrSchedule))
        number("lr_factor", self.lr_factor, 0, 1)
        for step in self.lr_steps:
            whole_number("each of lr_steps", step, 1)
        if list(self.lr_steps) != sorted(set(self.lr_steps)):
            raise OptionError("lr_steps", f"must ascend, not {self.lr_steps!r}")
        whole_number("warmup", self.warmup, 0)
        if self.lr_end is None:
            return
        whole_number("lr_end", self.lr_end, 1)
        if self.lr_schedule == "steps":
            raise OptionError("lr_end", "goes with lr_schedule='linear' or lr_schedule='cosine'")
        if self.warmup > self.lr_end:
            raise OptionError(
                "warmup",
                f"must be at most {self.lr_end:,}, the batch at which the learning rate has fallen to 0, not "
                f"{self.warmup:,}",
            )

    def _check_framework(self) -> None:
        if self.framework is not None:
            one_of("framework", self.framework, get_args(Framework))
        if self.framework != "mxnet":
            return
        for name in ("optimizer", "clip_norm", "precision"):
            if (value := getattr(self, name)) != getattr(type(self), name):
                raise OptionError(name, f"{value!r} is for PyTorch: give framework='torch'")
        if self.network_is_module:
            raise OptionError("network", f"{self.network!r} is for PyTorch: give framework='torch'")

    def _make_plain(self) -> None:
        """Turn paths into texts, and lists into tuples."""
        if not isinstance(self.rec, (tuple, list)) or not all(isinstance(path, _PATH) for path in self.rec):
            raise OptionError("rec", f"must be paths, in a tuple, not {self.rec!r}")
        if not isinstance(self.lr_steps, (tuple, list)):
            raise OptionError("lr_steps", f"must be numbers of batches, in a tuple, not {self.lr_steps!r}")
        for name, kind in (("network", str), ("symbol", _PATH), ("pretrained", str)):
            if not isinstance(value := getattr(self, name), (kind, type(None))):
                raise OptionError(name, f"must be a text, not {value!r}")
        if hasattr(type(self.exclude), "columns"):
            raise OptionError(
                "exclude",
                "must be a Parquet file or keys, not a frame: the state of a training names it; write the "
                "frame to a file",
            )
        if hasattr(type(self.neighbors), "columns"):
            raise OptionError(
                "neighbors",
                "must be a Parquet file, not a frame: the state of a training names it; write the frame to a "
                "file",
            )
        made: dict[str, Any] = {
            "rec": tuple(map(os.fspath, self.rec)),
            "lr_steps": tuple(map(plain, self.lr_steps)),
            "precision": precision_named(self.precision),
        }
        if self.exclude is not None and not isinstance(self.exclude, _PATH):
            keys: Any = self.exclude
            made["exclude"] = tuple(integers("exclude", keys).tolist())
        if self.symbol is not None:
            made["symbol"] = os.fspath(self.symbol)
        for name, value in made.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Self:
        """The settings that `to_dict` gave."""
        return cls(**plain)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self) | {"rec": list(self.rec), "lr_steps": list(self.lr_steps)}

    @property
    def network_is_module(self) -> bool:
        """Whether the network is a module of PyTorch that a function of the user's makes."""
        return self.network is not None and self.network.startswith("torch:")

    @property
    def margin_of_loss(self) -> float:
        """The margin of the loss, on its own scale."""
        return self.margin if self.loss_margin is None else self.loss_margin

    def augment(self) -> Augment:
        """The changes of images."""
        jitter = self.color_jitter
        return Augment(self.mirror, self.cutoff, brightness=jitter, contrast=jitter, saturation=jitter)

    def begun(self, framework: Framework, lr_end: int | None) -> Self:
        """The settings with what is decided when a training begins, where it is not given."""
        falls_to_0 = self.lr_schedule != "steps"
        return replace(
            self,
            framework=self.framework or framework,
            lr_end=(self.lr_end or lr_end) if falls_to_0 else None,
        )

    def learning_rate_after(self, batches: int) -> float:
        """The learning rate of the batch that follows this many; `lr_end` must be known."""
        return self.learning_rate * self._share_after(batches) * min(1.0, (batches + 1) / max(1, self.warmup))

    def _share_after(self, batches: int) -> float:
        """The part of the learning rate that the schedule leaves."""
        if self.lr_schedule == "steps":
            return self.lr_factor ** sum(batches >= step for step in self.lr_steps)
        if self.lr_end is None:
            raise ValueError("lr_end is known when the training begins, or where it is given")
        passed = min(1.0, batches / self.lr_end)
        return 1 - passed if self.lr_schedule == "linear" else (1 + math.cos(math.pi * passed)) / 2

    def feed(self) -> dict[str, Any]:
        """The options of a :class:`fasttriplet.Feed` on one device."""
        groups = (ExcludeOptions, MiningOptions, RefreshOptions)
        names = [name for group in groups for name in group.names()] + ["batch_size", "on_error", "seed"]
        return {name: getattr(self, name) for name in names} | {"augment": self.augment()}

    def differences(self, other: TrainSettings) -> list[str]:
        """The settings that `other` has otherwise, in words.

        Paths of the dataset and its cache, the limit of pixels, and what is done about images that cannot be
        used do not count, and neither does what `other` leaves to be decided. Which images are excluded,
        and which graph makes the bags, is for the feed to compare.
        """
        undecided = [name for name in ("framework", "lr_end") if getattr(other, name) is None]
        elsewhere = ["rec", "cache", "max_pixels", "exclude", "exclude_kinds", "neighbors", "on_error"]
        if self.has_running_graph != other.has_running_graph:
            elsewhere.append("refresh_epochs")  # a running graph has it, and no other
        before, now = (one.to_dict() | {"labels": one.labels or "shared"} for one in (self, other))
        return [
            f"{name} {value!r} (now {now[name]!r})"
            for name, value in before.items()
            if value != now[name] and name not in (*elsewhere, *undecided)
        ]


_PATH = (str, os.PathLike)
