"""Charts as inline SVG. Their colours are classes, which style.css gives for light, dark and paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from fasttriplet.reporting._html import Markup, element, joined

# The drawing, in units that are about a pixel on a wide screen. On a phone it is scaled to four fifths.
_WIDE, _HIGH = 460, 232
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 40
_MOST_TICKS = 6
_MOST_POINTS = 300  # of a line; more would be less than a pixel each
_LETTER = 7.2  # the width of one

Point = tuple[float, float]


def number(value: float) -> str:
    """A number with at most three digits that count, such as ``0.124``, ``12.4`` or ``12,400``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.0e}"


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`, at most six."""
    if high <= low:
        return [low]
    rough = (high - low) / (_MOST_TICKS - 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + at) * step for at in range(count)]


class _Frame:
    """The axes of a chart, and where its numbers are on the drawing."""

    def __init__(
        self, across: tuple[float, float], up: tuple[float, float], *, log: bool = False, high: int = _HIGH
    ) -> None:
        self.log, self.high = log, high
        self._across = tuple(map(math.log10, across)) if log else across
        self._up = up

    def x(self, value: float) -> float:
        low, high = self._across
        share = ((math.log10(value) if self.log else value) - low) / (high - low or 1)
        return round(_LEFT + min(1.0, max(0.0, share)) * (_WIDE - _LEFT - _RIGHT), 1)

    def y(self, value: float) -> float:
        low, high = self._up
        share = (value - low) / (high - low or 1)
        return round(self.high - _BOTTOM - min(1.0, max(0.0, share)) * (self.high - _TOP - _BOTTOM), 1)

    def axes(self, name: str, show_x: Callable[[float], str], show_y: Callable[[float], str]) -> Markup:
        """Lines and numbers of both axes, and the name of the lower one."""
        low, high = self._across
        if self.log:
            at_x = [10.0**exponent for exponent in range(math.ceil(low - 1e-9), math.floor(high) + 1)]
        else:
            at_x = ticks(low, high)
        floor = self.high - _BOTTOM
        marks = [
            element("text", show_x(value), x=self.x(value), y=floor + 17, class_="tick", text_anchor="middle")
            for value in at_x
        ]
        for value in ticks(*self._up):
            y = self.y(value)
            marks += [
                element("line", x1=_LEFT, x2=_WIDE - _RIGHT, y1=y, y2=y, class_="grid"),
                element("text", show_y(value), x=_LEFT - 8, y=y + 4, class_="tick", text_anchor="end"),
            ]
        marks.append(element("line", x1=_LEFT, x2=_WIDE - _RIGHT, y1=floor, y2=floor, class_="axis"))
        middle = (_LEFT + _WIDE - _RIGHT) / 2
        marks.append(element("text", name, x=middle, y=self.high - 6, class_="name", text_anchor="middle"))
        return joined(*marks)


def _drawing(description: str, *parts: object, high: int = _HIGH, wide: int = _WIDE) -> Markup:
    return element(
        "svg", *parts, viewBox=f"0 0 {wide} {high}", class_="chart", role="img", aria_label=description
    )


def _figure(title: str, drawing: Markup, legend: Sequence[tuple[str, str]] = ()) -> Markup:
    keys = (
        element("span", element("span", class_=f"key {kind}"), name, class_="entry") for kind, name in legend
    )
    caption = element("figcaption", element("span", title, class_="title"), *keys)
    return element("figure", caption, drawing, class_="plot")


def _path(points: Sequence[Point], kind: str) -> Markup:
    return element("path", d="M" + "L".join(f"{x:g} {y:g}" for x, y in points), class_=kind)


def histogram(
    title: str,
    axis: str,
    edges: Sequence[float],
    series: Mapping[str, tuple[str, Sequence[float]]],
    *,
    description: str,
    marks: Mapping[str, float] | None = None,
    show: Callable[[float], str] = number,
) -> Markup:
    """Draw counts between edges: a filled staircase for each of the `series`, (class, counts) by name.

    `marks` are vertical lines with names.
    """
    most = max((max(counts, default=0) for _, counts in series.values()), default=0) or 1
    frame = _Frame((edges[0], edges[-1]), (0, most))
    parts: list[Markup] = [frame.axes(axis, show, number)]
    for kind, counts in series.values():
        points: list[Point] = [(frame.x(edges[0]), frame.y(0))]
        for at, count in enumerate(counts):
            points += [(frame.x(edges[at]), frame.y(count)), (frame.x(edges[at + 1]), frame.y(count))]
        parts.append(_path([*points, (frame.x(edges[-1]), frame.y(0))], f"fill {kind}"))
    parts += [_mark(frame, name, at) for name, at in (marks or {}).items() if edges[0] <= at <= edges[-1]]
    legend = [(kind, name) for name, (kind, _) in series.items()] if len(series) > 1 else []
    return _figure(title, _drawing(description, *parts), legend)


def _mark(frame: _Frame, name: str, at: float) -> Markup:
    x = frame.x(at)
    fits = x + 6 + _LETTER * len(name) < _WIDE
    place = {"x": x + 5, "text_anchor": "start"} if fits else {"x": x - 5, "text_anchor": "end"}
    return joined(
        element("line", x1=x, x2=x, y1=_TOP - 4, y2=frame.high - _BOTTOM, class_="mark"),
        element("text", name, y=_TOP + 6, class_="said", **place),
    )


def lines(
    title: str,
    axis: str,
    series: Mapping[str, tuple[str, Sequence[Point]]],
    *,
    description: str,
    show: Callable[[float], str] = number,
    from_zero: bool = True,
) -> Markup:
    """Draw values over a number: a line for each of the `series`, (class, points) by name."""
    drawn = {name: (kind, _thinned(points)) for name, (kind, points) in series.items()}
    everything = [point for _, points in drawn.values() for point in points]
    low, high = min(y for _, y in everything), max(y for _, y in everything)
    if from_zero:
        low = min(0.0, low)
    if high <= low:
        low, high = low - 0.5 * abs(low), high + (0.5 * abs(high) or 1.0)
    frame = _Frame((min(x for x, _ in everything), max(x for x, _ in everything)), (low, high))
    parts: list[Markup] = [frame.axes(axis, number, show)]
    for kind, points in drawn.values():
        at = [(frame.x(x), frame.y(y)) for x, y in points]
        parts.append(_path(at, f"line {kind}"))
        if len(at) <= 30:
            parts += [element("circle", cx=x, cy=y, r=2.6, class_=f"dot {kind}") for x, y in at]
    legend = [(kind, name) for name, (kind, _) in drawn.items()] if len(drawn) > 1 else []
    return _figure(title, _drawing(description, *parts), legend)


def _thinned(points: Sequence[Point]) -> list[Point]:
    """The means of neighbours, where there are more points than can be seen."""
    together = -(-len(points) // _MOST_POINTS)
    groups = [points[at : at + together] for at in range(0, len(points), max(1, together))]
    return [(sum(x for x, _ in of) / len(of), sum(y for _, y in of) / len(of)) for of in groups]


def roc(title: str, far: Sequence[float], tar: Sequence[float], *, description: str, least: float) -> Markup:
    """Draw the true accept rate over the false accept rate, whose axis is logarithmic from `least` on."""
    floor = math.floor(10 * tar[max(0, sum(one <= least for one in far) - 1)]) / 10
    frame = _Frame((least, 1), (min(floor, 0.9), 1), log=True)
    points: list[Point] = []
    for x, y in zip(far, tar, strict=True):
        # A rate between two points is not reached: the curve is a staircase.
        points += [(frame.x(max(x, least)), points[-1][1] if points else frame.y(y))]
        points += [(frame.x(max(x, least)), frame.y(y))]
    axes = frame.axes("false accept rate (logarithmic)", lambda v: f"{v:g}", lambda v: f"{v:.0%}")
    return _figure(title, _drawing(description, axes, _path(points, "line negative")))


def busy(shares: Sequence[float], description: str) -> Markup:
    """Draw in how much of each part of a run a stage was busy, small enough for a table."""
    wide, high = 128, 22
    step = wide / max(1, len(shares))
    bars = (
        element(
            "rect",
            x=round(at * step, 2),
            y=round(high - high * share, 2),
            width=round(step * 0.86, 2),
            height=round(high * share, 2),
            class_="fill anchor",
        )
        for at, share in enumerate(shares)
        if share > 0.005
    )
    ground = element("line", x1=0, x2=wide, y1=high, y2=high, class_="axis")
    return element(
        "svg", ground, *bars, viewBox=f"0 0 {wide} {high}", class_="spark", role="img", aria_label=description
    )


_REACH = {  # of each band: from where to where on the line, with d_ap at 1 and d_ap + margin at 2
    "semihard": (1.0, 2.0),
    "violating": (0.0, 2.0),
    "hard": (0.0, 1.0),
    "easy": (2.0, 3.0),
    "any": (0.0, 3.0),
}


def rule(band: str, margin: str, description: str) -> Markup:
    """Draw which negatives qualify for a pair: the band on a line of distances from the anchor."""
    left, unit, line = 16, 130, 60
    start, end = _REACH[band]
    wide = 3 * unit + 2 * left

    def x(at: float) -> float:
        return left + unit * at

    parts = [
        element("rect", x=x(start), y=line - 24, width=unit * (end - start), height=48, class_="band", rx=3),
        element("line", x1=x(0), x2=x(3), y1=line, y2=line, class_="axis"),
        element("circle", cx=x(0), cy=line, r=9, class_="dot anchor"),
        element("circle", cx=x(1), cy=line, r=9, class_="dot positive"),
        element("line", x1=x(2), x2=x(2), y1=line - 24, y2=line + 24, class_="mark"),
        element("text", "anchor", x=x(0) - 9, y=line + 46, class_="name"),
        element("text", "positive, at d_ap", x=x(1), y=line + 46, class_="name", text_anchor="middle"),
        element("text", margin, x=x(2), y=line + 46, class_="name", text_anchor="middle"),
        element("text", "farther", x=x(3), y=line + 46, class_="name", text_anchor="end"),
        element(
            "text",
            "negatives that qualify",
            x=x((start + end) / 2),
            y=line - 36,
            class_="said",
            text_anchor="middle",
        ),
    ]
    for at in (0.42, 1.3, 1.62, 2.5):
        kind = "negative" if start < at < end else "faint"
        parts.append(element("circle", cx=x(at), cy=line, r=7, class_=f"dot {kind}"))
    return element(
        "svg", *parts, viewBox=f"0 0 {wide} 116", class_="chart rule", role="img", aria_label=description
    )


def scale(d_ap: float, d_an: float, margin: float | None, longest: float) -> Markup:
    """Draw where the positive and the negative of one triplet are, and the margin."""
    wide, line = 300, 10

    def x(value: float) -> float:
        return round(6 + min(1.0, value / (longest or 1)) * (wide - 12), 1)

    parts = [element("line", x1=6, x2=wide - 6, y1=line, y2=line, class_="axis")]
    if margin is not None and math.isfinite(margin):
        start, end = x(d_ap), x(d_ap + margin)
        parts.insert(0, element("rect", x=start, y=2, width=round(end - start, 1), height=16, class_="band"))
    for value, kind in ((d_ap, "positive"), (d_an, "negative")):
        parts.append(element("circle", cx=x(value), cy=line, r=5, class_=f"dot {kind}"))
    return element("svg", *parts, viewBox=f"0 0 {wide} 20", class_="scale", aria_hidden="true")
