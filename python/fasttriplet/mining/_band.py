"""Which negatives qualify for a pair: bands by name, or written as an inequality of ``d_ap`` and ``d_an``."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from fasttriplet.errors import OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BANDS = {
    "semihard": "d_ap < d_an < d_ap + margin",
    "violating": "d_an < d_ap + margin",
    "hard": "d_an <= d_ap",
    "easy": "d_an >= d_ap + margin",
    "any": "",
}

MOST_LIMITS = 4  # as in rust/mining/band.rs

_HOW = (
    f"write one of {', '.join(BANDS)}, or limits on d_an that may depend on d_ap and margin, such as "
    "'d_ap + 0.1 < d_an < d_ap + margin and d_an < 0.9'"
)


@dataclass(frozen=True)
class Limit:
    """A limit on ``d_an``: the edge is ``slope * d_ap + offset``, evaluated in float64.

    Attributes
    ----------
    side : {"above", "below"}
        On which side of the edge ``d_an`` is.
    inclusive : bool
        Whether it may be at the edge.
    slope, offset : float
        Of the edge.
    """

    side: Literal["above", "below"]
    inclusive: bool
    slope: float
    offset: float

    def holds(self, d_ap: NDArray[np.float64], d_an: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether these distances keep it."""
        edge = self.slope * d_ap + self.offset
        if self.side == "above":
            return d_an >= edge if self.inclusive else d_an > edge
        return d_an <= edge if self.inclusive else d_an < edge


def limits_of(band: str, margin: float) -> tuple[Limit, ...]:
    """Read a band: the limits that a negative must keep, all of them.

    Raises
    ------
    OptionError
        For what is not a band; the message quotes it and says what one looks like.
    """
    text = BANDS.get(band, band)
    if not text:
        if band in BANDS:
            return ()
        raise OptionError("band", f"must not be empty: {_HOW}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise OptionError("band", f"{band!r} is no band: {_HOW}") from None
    if not any(isinstance(node, ast.Compare) for node in ast.walk(tree)):
        raise OptionError("band", f"{band!r} is no band: {_HOW}")  # a name with a typo
    try:
        limits = tuple(_limits(tree, margin))
    except _NotLinearError as error:
        raise OptionError("band", f"{band!r}: {error}; {_HOW}") from None
    except RecursionError:
        raise OptionError("band", f"of {len(band)} characters is too long: {_HOW}") from None
    if len(limits) > MOST_LIMITS:
        raise OptionError(
            "band", f"{band!r} has {len(limits)} limits on d_an, but {MOST_LIMITS} are the most"
        )
    return limits


class _NotLinearError(Exception):
    """What cannot be read as a limit."""


@dataclass(frozen=True)
class _Form:
    """``d_an * an + d_ap * ap + constant``."""

    an: float = 0.0
    ap: float = 0.0
    constant: float = 0.0

    def combined(self, other: _Form, by: Callable[[float, float], float]) -> _Form:
        return _Form(by(self.an, other.an), by(self.ap, other.ap), by(self.constant, other.constant))

    def times(self, factor: float) -> _Form:
        # A factor of 0 is left out, because an infinite margin times 0 is no number.
        an, ap, constant = (value * factor if value else 0.0 for value in (self.an, self.ap, self.constant))
        return _Form(an, ap, constant)

    def is_number(self) -> bool:
        return self.an == self.ap == 0


def _limits(tree: ast.expr, margin: float) -> Iterator[Limit]:
    if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And):
        for part in tree.values:
            yield from _limits(part, margin)
    elif isinstance(tree, ast.Compare):
        sides = [tree.left, *tree.comparators]
        for left, comparison, right in zip(sides, tree.ops, sides[1:], strict=False):
            yield _limit(left, comparison, right, margin)
    else:
        raise _NotLinearError(f"{ast.unparse(tree)!r} compares nothing")


# For each comparison, on which side `d_an` is where it stands on the left, and whether it may be at the edge.
_COMPARISONS: dict[type[ast.cmpop], tuple[Literal["above", "below"], bool]] = {
    ast.Lt: ("below", False),
    ast.LtE: ("below", True),
    ast.Gt: ("above", False),
    ast.GtE: ("above", True),
}


def _limit(left: ast.expr, comparison: ast.cmpop, right: ast.expr, margin: float) -> Limit:
    if type(comparison) not in _COMPARISONS:
        raise _NotLinearError("only <, <=, > and >= compare distances")
    side, inclusive = _COMPARISONS[type(comparison)]
    difference = _form(left, margin).combined(_form(right, margin), operator.sub)
    if difference.an == 0:
        raise _NotLinearError(
            f"{ast.unparse(left)!r} and {ast.unparse(right)!r} are compared without d_an (max_ap limits d_ap)"
        )
    if difference.an < 0:
        side = "above" if side == "below" else "below"
    slope, offset = -difference.ap / difference.an, -difference.constant / difference.an
    if not math.isfinite(slope) or math.isnan(offset):
        raise _NotLinearError("there is no finite limit")
    return Limit(side, inclusive, slope, offset)


def _form(tree: ast.expr, margin: float) -> _Form:
    match tree:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _number(value)
        case ast.Name(id="d_an"):
            return _Form(an=1.0)
        case ast.Name(id="d_ap"):
            return _Form(ap=1.0)
        case ast.Name(id="margin"):
            return _Form(constant=float(margin))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            return _form(operand, margin).times(-1.0 if isinstance(sign, ast.USub) else 1.0)
        case ast.BinOp(left=left, op=op, right=right):
            return _of_two(tree, _form(left, margin), op, _form(right, margin))
    raise _NotLinearError(f"{ast.unparse(tree)!r} is neither a number nor d_ap, d_an or margin")


def _of_two(tree: ast.expr, left: _Form, op: ast.operator, right: _Form) -> _Form:
    match op:
        case ast.Add():
            return left.combined(right, operator.add)
        case ast.Sub():
            return left.combined(right, operator.sub)
        case ast.Mult() if left.is_number():
            return right.times(left.constant)
        case ast.Mult() if right.is_number():
            return left.times(right.constant)
        case ast.Div() if right.is_number() and right.constant != 0:
            return left.times(1 / right.constant)
    raise _NotLinearError(f"{ast.unparse(tree)!r} is not linear in the distances")


def _number(value: Any) -> _Form:
    try:
        return _Form(constant=float(value))
    except OverflowError:
        raise _NotLinearError(f"{value} is too large") from None
