"""Triplets of a batch of tensors, as indices."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

import torch
from fasttriplet._checks import seed_number, thread_count
from fasttriplet._options import shows
from fasttriplet.dataset._ids import positions_of
from fasttriplet.dataset._order import epoch_seed
from fasttriplet.mining._mine import mine_rows, warn_if_collapsed
from fasttriplet.mining._options import KeywordsWithoutMetric, Metric, MiningOptions

# What PML's TripletMarginMiner does by default.
_AS_PML: dict[str, Any] = {"margin": 0.2, "band": "violating", "pick": "all", "pairs": "ordered"}

Indices = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _pml() -> Any:
    """pytorch-metric-learning, with its distances and miners; None where its import fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what it imports, which the user did not ask for
            import pytorch_metric_learning.distances  # noqa: PLC0415
            import pytorch_metric_learning.miners  # noqa: PLC0415
    except Exception:  # who uses it meets the error there
        return None
    return pytorch_metric_learning


_PML = _pml()
# A Module, though it has no parameters, without PML, too: MultipleLosses keeps its miners in a ModuleList.
if TYPE_CHECKING:
    from torch.nn import Module as _Base
else:
    _Base = torch.nn.Module if _PML is None else _PML.miners.BaseMiner


# (Where torch is not installed, mypy sees a subclass of Any.)
class TripletMiner(_Base):  # type: ignore[misc, unused-ignore]
    """Mines the triplets of a batch exactly, as a miner of pytorch-metric-learning (PML).

    Where PML is installed, this is a subclass of its ``BaseMiner``, and taken wherever PML takes one:
    ``DistributedMinerWrapper``, trainers, ``CrossBatchMemory``. Elsewhere it is a plain module.

    ``TripletMiner(metric="euclidean")`` returns what PML's ``TripletMarginMiner()`` returns: all triplets
    that violate a margin of 0.2, both orders of a pair, on distances of unit rows. It holds no matrix of
    distances and no cube of candidates: its memory is that of the rows and the triplets. The rows are
    mined on the CPU, in float64 (:func:`fasttriplet.mine`), wherever they come from.

    Parameters
    ----------
    metric : {"sqeuclidean", "euclidean", "cosine"}
        The scale of `margin` and `max_ap`: squared L2, L2, or 1 - cosine. There is no default, because
        the two that one could expect differ: PML measures L2, face recognition (FaceNet, InsightFace and
        :func:`fasttriplet.mine`) squared L2. A margin that is right on one is wrong on the other, and
        nothing would say so. Take that of your loss: ``euclidean`` for PML's ``LpDistance()``,
        ``sqeuclidean`` for ``LpDistance(power=2)``, ``cosine`` for ``CosineSimilarity()``.
    margin : float, default 0.2
        As PML's. (FaceNet's is 0.2 on squared L2, the default of :func:`fasttriplet.mine` 0.3.)
    band, pick, pairs : str, default "violating", "all", "ordered"
        As for :func:`fasttriplet.mine`, which has other defaults; for `band` see below, too.
    negatives_per_pair, max_ap
        As for :func:`fasttriplet.mine`.
    normalize : bool, default True
        Divide each row by its L2 norm. (PML: ``normalize_embeddings``.) ``cosine`` needs it.
    seed : int, default 0
        A random pick is a pure function of `seed`, the number of the call, and the ids of the rows.
    threads : int, optional
        By default one for each core, or the calling thread alone where that takes less than about 1 ms.

    Attributes
    ----------
    num_triplets : int
        How many the last call returned, as PML's miners say.
    calls : int
        How many batches were mined. Random picks differ from call to call by it, and a run with the same
        seed repeats them. To continue a run with the picks that it would have had, save this number and
        set it again; it is not part of ``state_dict()``, so that checkpoints of a model that holds a miner
        stay as they are.

    Raises
    ------
    ValueError
        For options that :func:`fasttriplet.mine` does not know, at once.

    Notes
    -----
    PML's ``type_of_triplets`` and the bands, with ``m = d_an - d_ap`` (PML 2.9.0, ``TripletMarginMiner``):

    ============= ===================== =============== =================== ============================
    PML           keeps                 `band`          keeps               differs at
    ============= ===================== =============== =================== ============================
    ``all``       ``m <= margin``       ``violating``   ``m < margin``      ``m = margin``: PML only
    ``semihard``  ``0 < m <= margin``   ``semihard``    ``0 < m < margin``  ``m = margin``: PML only
    ``hard``      ``m <= 0``            ``hard``        ``m <= 0``          nothing
    ``easy``      ``m > margin``        ``easy``        ``m >= margin``     ``m = margin``: ours only
    ============= ===================== =============== =================== ============================

    PML compares float32 distances, so a triplet within their rounding of an edge (about 1e-6 here, more
    for near duplicates) may be on its other side there. Its ``BatchHardMiner`` is ``band="any",
    pick="hardest", pairs="hardest"``; of equally far positives the first is taken here, of equally near
    negatives one that `seed` decides.

    Examples
    --------
    >>> import torch
    >>> from fasttriplet.torch import TripletMiner
    >>> embeddings = torch.tensor([[1, 0], [0.9, 0.1], [0.8, 0.3]])
    >>> miner = TripletMiner(metric="sqeuclidean", band="semihard")
    >>> miner(embeddings, torch.tensor([5, 5, 7]))
    (tensor([0, 1]), tensor([1, 0]), tensor([2, 2]))
    """

    @shows(MiningOptions, **_AS_PML)
    def __init__(
        self,
        *,
        metric: Metric,
        seed: int = 0,
        threads: int | None = None,
        **options: Unpack[KeywordsWithoutMetric],
    ) -> None:
        checked = MiningOptions.of(TripletMiner, {**_AS_PML, **options, "metric": metric})
        # What PML reads of a miner; its default would be another scale.
        described = {} if _PML is None else {"distance": _pml_distance(checked)}
        super().__init__(**described)
        self.calls = self.num_triplets = 0
        self._options = checked
        self._seed, self._threads = seed_number(seed), thread_count(threads)

    def extra_repr(self) -> str:
        """The options, for ``print(miner)``."""
        options = {"metric": self._options.metric} | asdict(self._options)
        shown = options | {"threads": self._threads, "seed": self._seed}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())

    def forward(
        self,
        embeddings: torch.Tensor,
        labels: torch.Tensor,
        ref_emb: torch.Tensor | None = None,
        ref_labels: torch.Tensor | None = None,
        *,
        ids: torch.Tensor | None = None,
        ref_ids: torch.Tensor | None = None,
    ) -> Indices:
        """Mine one batch.

        Parameters
        ----------
        embeddings : (N, D) Tensor
            Of any floating point type (taken as float32) and device; gradients are not followed.
        labels : (N,) Tensor
            Integers.
        ref_emb : (M, D) Tensor, optional
            Where positives and negatives are looked for, by default among the embeddings themselves.
        ref_labels : (M,) Tensor, optional
            Integers; with `ref_emb`.
        ids : (N,) Tensor, optional
            Unique integers to tell the rows by, such as their positions in the dataset. Random picks
            depend on them instead of on positions.
        ref_ids : (M,) Tensor, optional
            Unique integers; with `ref_emb` and `ids`. A reference with the id of the anchor is the anchor
            itself, and never its positive. Without ids every reference of the label is one, also where
            `ref_emb` is `embeddings` or a copy. (PML leaves the pairs ``(i, i)`` out if ``ref_labels`` is
            the same object as ``labels``, and otherwise keeps them.)

        Returns
        -------
        anchor, positive, negative : (T,) Tensor
            int64, on the device of `embeddings`; `anchor` are rows of `embeddings`, the
            others of `ref_emb` where that is given. Without a triplet all three are empty.

        Raises
        ------
        ValueError
            For shapes, types and values that cannot be mined.
        MemoryError
            If the rows or the triplets do not fit the memory, see :func:`fasttriplet.mine`.

        Warns
        -----
        CollapseWarning
            If the embeddings of different identities (of `ref_emb`, if that is given) are nearly equal.
        """
        rows = _rows("embeddings", embeddings)
        numbers = _integers("labels", labels, "embeddings", rows)
        anchor_ids = None if ids is None else _integers("ids", ids, "embeddings", rows)
        other_ids, references = anchor_ids, None
        other_numbers: NDArray[Any] | None = None
        if (ref_emb is None) != (ref_labels is None):
            raise ValueError("ref_emb and ref_labels belong together: give both or neither")
        if ref_emb is not None and ref_labels is not None:
            if (ids is None) != (ref_ids is None):
                raise ValueError(
                    "ids and ref_ids belong together (a reference with the id of the anchor is the anchor "
                    "itself): give both or neither"
                )
            references = _rows("ref_emb", ref_emb)
            if references.shape[1] != rows.shape[1]:
                raise ValueError(
                    f"ref_emb must have as many columns as embeddings, {rows.shape[1]}, "
                    f"not {references.shape[1]}"
                )
            other_numbers = _integers("ref_labels", ref_labels, "ref_emb", references)
            other_ids = None if ref_ids is None else _integers("ref_ids", ref_ids, "ref_emb", references)
        elif ref_ids is not None:
            raise ValueError("ref_ids are given without ref_emb; ids are those of the embeddings")
        triplets = mine_rows(
            self._options,
            (rows, numbers, anchor_ids),
            (references, other_numbers, None if references is None else other_ids),
            # The seed decides between equally near negatives, too: they are to be the same in every call.
            seed=epoch_seed(self._seed, self.calls if self._options.is_random() else 0),
            threads=self._threads,
        )
        self.calls += 1
        self.num_triplets = len(triplets)
        warn_if_collapsed(triplets.stats, stacklevel=5)  # past Module.__call__
        anchor, positive, negative = triplets
        roles = (anchor, anchor_ids), (positive, other_ids), (negative, other_ids)
        found = (role if of is None else positions_of(of, role) for role, of in roles)
        a, p, n = (torch.from_numpy(positions).to(embeddings.device) for positions in found)
        return a, p, n

    def mine(
        self, embeddings: torch.Tensor, labels: torch.Tensor, ref_emb: torch.Tensor, ref_labels: torch.Tensor
    ) -> Indices:
        """Mine one batch, as PML's ``BaseMiner`` does inside of its call.

        There the tensors of the batch themselves, given as `ref_emb` and `ref_labels`, mean no references.
        """
        alone = ref_emb is embeddings and ref_labels is labels
        found: Indices = self.forward(embeddings, labels, *(() if alone else (ref_emb, ref_labels)))
        return found


def _pml_distance(options: MiningOptions) -> Any:
    """PML's distance on the scale of the options."""
    if options.metric == "cosine":
        return _PML.distances.CosineSimilarity()
    power = 2 if options.metric == "sqeuclidean" else 1
    return _PML.distances.LpDistance(normalize_embeddings=options.normalize, power=power)


def _tensor(name: str, values: object) -> torch.Tensor:
    if not isinstance(values, torch.Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, not {type(values).__name__}")
    return values.detach().cpu()


def _rows(name: str, values: torch.Tensor) -> NDArray[np.float32]:
    rows = _tensor(name, values)
    if rows.ndim != 2:
        raise ValueError(f"{name} must be 2-D (one row per image), not of the shape {tuple(rows.shape)}")
    if not rows.is_floating_point():
        raise ValueError(f"{name} must be floating point, not {rows.dtype}")
    array: NDArray[np.float32] = rows.float().numpy(force=True)
    return array


def _integers(name: str, values: torch.Tensor, owner: str, rows: NDArray[np.float32]) -> NDArray[Any]:
    numbers = _tensor(name, values)
    if numbers.shape != (len(rows),):
        raise ValueError(
            f"{name} must have the shape ({len(rows)},), one for each row of {owner}, "
            f"not {tuple(numbers.shape)}"
        )
    if numbers.is_floating_point() or numbers.is_complex():
        raise ValueError(f"{name} must be integers, not {numbers.dtype}")
    array: NDArray[Any] = numbers.numpy(force=True)
    return array
