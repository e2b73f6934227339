"""Which negatives qualify for a pair, and which of them are picked: the options of mining."""

# Annotations are evaluated at once: as texts, each would be compiled by TypedDict while `--help` waits.
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

from fasttriplet._checks import number, one_of, truth_value, whole_number
from fasttriplet._options import Options
from fasttriplet.errors import OptionError
from fasttriplet.mining._band import Limit, limits_of

Pick = Literal["random", "hardest", "distance", "all"]
Pairs = Literal["unordered", "ordered", "hardest", "easiest"]
Metric = Literal["sqeuclidean", "euclidean", "cosine"]
Fallback = Literal["farthest"]

_SCALES = {"sqeuclidean": "squared L2", "euclidean": "L2", "cosine": "1 - cosine"}


class KeywordsWithoutMetric(TypedDict, total=False):
    """All fields of :class:`MiningOptions` but the metric, for calls that have no default of it."""

    margin: float
    band: str
    ranks: tuple[int, int | None] | None
    pick: Pick
    negatives_per_pair: int
    fallback: Fallback | None
    pairs: Pairs
    positives_per_anchor: int | None
    triplets_per_anchor: int | None
    max_ap: float | None
    normalize: bool


class MiningKeywords(KeywordsWithoutMetric, total=False):
    """The fields of :class:`MiningOptions` as keyword arguments."""

    metric: Metric


@dataclass(frozen=True, kw_only=True)
class MiningOptions(Options):
    """What :func:`fasttriplet.mine` looks for; its documentation explains each option."""

    margin: float = 0.3
    band: str = "semihard"
    ranks: tuple[int, int | None] | None = None
    pick: Pick = "random"
    negatives_per_pair: int = 1
    fallback: Fallback | None = None
    pairs: Pairs = "unordered"
    positives_per_anchor: int | None = None
    triplets_per_anchor: int | None = None
    max_ap: float | None = None
    metric: Metric = "sqeuclidean"
    normalize: bool = True

    def __post_init__(self) -> None:
        one_of("pick", self.pick, get_args(Pick))
        one_of("fallback", self.fallback, (None, *get_args(Fallback)))
        one_of("pairs", self.pairs, get_args(Pairs))
        one_of("metric", self.metric, get_args(Metric))
        truth_value("normalize", self.normalize)
        if self.metric == "cosine" and not self.normalize:
            raise OptionError("metric", "'cosine' compares directions: it needs normalize=True")
        whole_number("negatives_per_pair", self.negatives_per_pair, 1)
        for name in ("positives_per_anchor", "triplets_per_anchor"):
            if getattr(self, name) is not None:
                whole_number(name, getattr(self, name), 1)
        if self.ranks is not None:
            object.__setattr__(self, "ranks", _ranks(self.ranks))
        number("margin", self.margin, 0, allow_infinity=True)
        self.limits()
        if self.max_ap is not None:
            number("max_ap", self.max_ap, 0, allow_infinity=True)
        super().__post_init__()

    def is_random(self) -> bool:
        """Whether another seed gives other triplets; with others it decides ties of distances alone."""
        limited = self.triplets_per_anchor is not None or (
            self.positives_per_anchor is not None and self.pairs in ("unordered", "ordered")
        )
        return self.pick in ("random", "distance") or limited

    def limits(self) -> tuple[Limit, ...]:
        """The band: the limits that `d_an` of a qualifying negative keeps."""
        if not isinstance(self.band, str):
            raise OptionError("band", f"must be a text such as 'semihard', not {self.band!r}")
        return limits_of(self.band, self.margin)


def _ranks(ranks: tuple[int, int | None]) -> tuple[int, int | None]:
    """Check ranks, which JSON gives as a list."""
    if not isinstance(ranks, (tuple, list)) or len(ranks) != 2:
        raise OptionError("ranks", f"must be (first, end), end perhaps None, not {ranks!r}")
    first = whole_number("ranks", ranks[0], 0)
    if ranks[1] is None:
        return first, None
    end = whole_number("ranks", ranks[1], 0)
    if end <= first:
        raise OptionError("ranks", f"must end above the first of them, {first}, not at {end}")
    return first, end


def scale_of(metric: Metric) -> str:
    """A metric in words, such as ``"squared L2"``: the scale of distances, of `margin` and of `max_ap`."""
    return _SCALES[metric]
