"""Which negatives qualify for a pair, and which of them are picked: the options of mining."""

# Annotations are evaluated at once: as texts, each would be compiled by TypedDict while `--help` waits.
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from fasttriplet._checks import number, one_of, whole_number
from fasttriplet._options import Options
from fasttriplet.errors import OptionError

Band = Literal["semihard", "violating", "hard", "any"]
Pick = Literal["random", "hardest", "all"]
Pairs = Literal["unordered", "ordered", "hardest", "easiest"]
Metric = Literal["sqeuclidean", "euclidean", "cosine"]

_SCALES = {"sqeuclidean": "squared L2", "euclidean": "L2", "cosine": "1 - cosine"}


class KeywordsWithoutMetric(TypedDict, total=False):
    """All fields of :class:`MiningOptions` but the metric, for calls that have no default of it."""

    margin: float
    band: Band
    pick: Pick
    negatives_per_pair: int
    pairs: Pairs
    max_ap: float | None
    normalize: bool


class MiningKeywords(KeywordsWithoutMetric, total=False):
    """The fields of :class:`MiningOptions` as keyword arguments."""

    metric: Metric


@dataclass(frozen=True, kw_only=True)
class MiningOptions(Options):
    """What :func:`fasttriplet.mine` looks for; its documentation explains each option."""

    margin: float = 0.3
    band: Band = "semihard"
    pick: Pick = "random"
    negatives_per_pair: int = 1
    pairs: Pairs = "unordered"
    max_ap: float | None = None
    metric: Metric = "sqeuclidean"
    normalize: bool = True

    def __post_init__(self) -> None:
        one_of("band", self.band, get_args(Band))
        one_of("pick", self.pick, get_args(Pick))
        one_of("pairs", self.pairs, get_args(Pairs))
        one_of("metric", self.metric, get_args(Metric))
        one_of("normalize", self.normalize, (False, True))
        if self.metric == "cosine" and not self.normalize:
            raise OptionError("metric", "'cosine' compares directions: it needs normalize=True")
        whole_number("negatives_per_pair", self.negatives_per_pair, 1)
        number("margin", self.margin, 0, allow_infinity=True)
        if self.max_ap is not None:
            number("max_ap", self.max_ap, 0, allow_infinity=True)
        super().__post_init__()


def scale_of(metric: Metric) -> str:
    """A metric in words, such as ``"squared L2"``: the scale of distances, of `margin` and of `max_ap`."""
    return _SCALES[metric]
