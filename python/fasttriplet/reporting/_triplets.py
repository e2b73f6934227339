"""The section on triplets: by which rule they were mined, how far apart they are, and how they look."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._words import counted
from fasttriplet.dataset._ids import places_among
from fasttriplet.mining._band import BANDS
from fasttriplet.mining._options import Metric, scale_of
from fasttriplet.reporting import _charts as charts
from fasttriplet.reporting._html import Markup, code, element, facts, joined, sentences, table, titled
from fasttriplet.reporting._mined import ROLES, Mined
from fasttriplet.reporting._page import Section
from fasttriplet.reporting._pictures import Album

_BINS = 40
_TRIPLETS = 6  # of each list
_FEWEST = 9  # pictures: one triplet in each of three lists
_HUBS = 12
_CONFUSED, _EXAMPLES = 5, 3  # pairs of identities, and pictures of each of the two
_WITHOUT = 3  # pairs without a negative, of each of two reasons
_REST = _HUBS + 2 * _CONFUSED * _EXAMPLES + 2 * 3 * _WITHOUT  # pictures beside those of the lists
_OFTEN = 5  # times as often as the mean: a negative that is worth a look
_MUCH = 0.01  # of the triplets: a pair of identities that is
_NOT_BY_CHANCE = 10  # triplets
_RULES = {  # in words
    "semihard": "farther than the positive, by less than the margin",
    "violating": "nearer than the margin asks for, whether beyond the positive or not",
    "hard": "as near as the positive, or nearer",
    "easy": "beyond the margin",
    "any": "all images of other identities",
}


def section(mined: Mined, run: Mapping[str, Any] | None, album: Album | None, most: int) -> Section:
    """Draw the section, with at most this many pictures; `run` is the summary of the run, if it is known."""
    if mined.count == 0:
        todo = [Markup("Mine with a larger margin, or larger bags.")]
        body = joined(_rule(mined.how), _without(run, None))
        return Section("triplets", "Triplets", Markup("The table has no triplets."), todo, body)
    d_ap, d_an = mined.distances()
    hubs, confused = mined.hubs(_HUBS), mined.confused(_CONFUSED)
    # The lists of triplets come first; the rest is tables where there is no room for all its pictures.
    seen = album if most >= _REST + _FEWEST else None
    room = most - _REST if seen else most
    body = joined(
        facts(_facts(mined, d_ap, d_an)),
        _rule(mined.how),
        element("div", *_histograms(mined.how, d_ap, d_an), class_="charts"),
        _lists(mined, album, room),
        _hubs(mined, hubs, seen),
        _confused(mined, confused, seen),
        _without(run, seen),
    )
    return Section("triplets", "Triplets", *_says(mined, d_ap, d_an, hubs, confused, album), body)


def _says(  # noqa: PLR0917
    mined: Mined,
    d_ap: NDArray[np.float64],
    d_an: NDArray[np.float64],
    hubs: pl.DataFrame,
    confused: pl.DataFrame,
    album: Album | None,
) -> tuple[Markup, list[Markup]]:
    gap, margin = d_an - d_ap, _margin(mined.how)
    nearer = float((gap <= 0).mean())
    said: list[object] = [f"{counted(mined.count, 'triplet')}."]
    if nearer:
        said.append(f"In {nearer:.0%} of them the negative is as near as the positive, or nearer.")
    else:
        of = "" if margin is None else f" of the margin of {margin:g}"
        said.append(
            f"All negatives are farther than the positive, at the median by {np.median(gap):.3g}{of}."
        )
    todo: list[Markup] = []
    negatives = mined.rows.select(pl.struct("negative_file", "negative_key").n_unique()).collect().item()
    times = hubs["triplets"][0] / (mined.count / negatives)
    if times >= _OFTEN and hubs["triplets"][0] >= _NOT_BY_CHANCE:
        where = f"key {hubs['negative_key'][0]}"
        if album is not None:
            where = album.key(int(mined.rows_of(album, hubs.head(1), "negative")[0]))
        said.append(f"One image ({where}) is a negative {times:.0f} times as often as the mean.")
        todo.append(Markup("Look at the negatives that occur most often, which may be blurred or badly cut."))
    pair = confused.row(0, named=True)
    if pair["triplets"] >= max(_NOT_BY_CHANCE, _MUCH * mined.count):
        names = " and ".join(_person(album, pair[side]) for side in ("low", "high"))
        said.append(f"Most confused are {names}.")
        todo.append(Markup("See whether these two identities are one person."))
    audit = code("fasttriplet audit")
    todo.append(sentences("Look at the largest d_ap, where wrong labels end.", audit, "finds them."))
    return sentences(*said), todo


def _person(album: Album | None, label: int) -> str:
    return f"identity {label}" if album is None else album.person(label)


def _margin(how: Mapping[str, Any]) -> float | None:
    margin = how.get("margin")
    return float(margin) if isinstance(margin, (int, float)) and math.isfinite(margin) else None


def _scale(how: Mapping[str, Any]) -> str:
    metric: Any = how.get("metric")
    return scale_of(metric) if metric in get_args(Metric) else "distance"


def _facts(mined: Mined, d_ap: NDArray[np.float64], d_an: NDArray[np.float64]) -> dict[str, object]:
    how = mined.how
    used = mined.rows.select(
        people=pl.col("anchor_label").n_unique(),
        anchors=pl.struct("anchor_file", "anchor_key").n_unique(),
    ).collect()
    middle = "median {:.3f}; 90% from {:.3f} to {:.3f}"
    return {
        "triplets": f"{mined.count:,}",
        "anchors": f"{used['anchors'][0]:,} images of {counted(used['people'][0], 'identity')}",
        f"d_ap ({_scale(how)})": middle.format(*np.quantile(d_ap, (0.5, 0.05, 0.95))),
        f"d_an ({_scale(how)})": middle.format(*np.quantile(d_an, (0.5, 0.05, 0.95))),
        "ranks": _ranks(how.get("ranks")),
        "pick": _said(how, "pick"),
        "fallback": _said(how, "fallback"),
        "pairs": _said(how, "pairs"),
        "positives per anchor": _said(how, "positives_per_anchor"),
        "triplets per anchor": _said(how, "triplets_per_anchor"),
        "seed": _said(how, "seed"),
        "model": _said(how, "model"),
    }


def _said(how: Mapping[str, Any], name: str) -> str | None:
    return str(how[name]) if how.get(name) is not None else None


def _ranks(ranks: list[int | None] | None) -> str | None:
    """Those of the first and the last negative that could be chosen."""
    if ranks is None:
        return None
    first, end = ranks
    return f"{first} to {'the last' if end is None else end - 1}"


def _rule(how: Mapping[str, Any]) -> Markup:
    """A picture of the band."""
    band = how.get("band")
    if not isinstance(band, str):
        says = "The table does not say by which rule it was mined; tables in Parquet do."
        return titled("The rule", says=says)
    scale = f"Distances are {_scale(how)} between the embeddings of two images."
    if band not in BANDS:  # limits of one's own
        return titled("The rule", says=sentences(element("strong", f"{band}."), scale))
    margin = _margin(how)
    at = "d_ap + margin" if margin is None else f"d_ap + {margin:g}"
    rule = ": ".join(filter(None, (BANDS[band], _RULES[band])))
    drawn = element(
        "div", charts.rule(band, at, f"Negatives on a line of distances. {band}: {rule}"), class_="rule-box"
    )
    return titled("The rule", drawn, says=sentences(element("strong", f"{band}:"), f"{rule}.", scale))


def _histograms(how: Mapping[str, Any], d_ap: NDArray[np.float64], d_an: NDArray[np.float64]) -> list[Markup]:
    scale, margin, gap = _scale(how), _margin(how), d_an - d_ap
    edges = np.linspace(0, max(float(d_ap.max()), float(d_an.max())) or 1.0, _BINS + 1)
    both = {
        "d_ap": ("positive", np.histogram(d_ap, edges)[0].tolist()),
        "d_an": ("negative", np.histogram(d_an, edges)[0].tolist()),
    }
    text = f"d_ap has the median {np.median(d_ap):.3g}, d_an {np.median(d_an):.3g} ({scale})"
    drawn = [charts.histogram("Distances (how many triplets)", scale, edges.tolist(), both, description=text)]
    low, high = min(0.0, float(gap.min())), max(0.0, float(gap.max()))
    if how.get("band") == "semihard":
        high = max(high, margin or 0.0)
    edges = np.linspace(low, high if high > low else low + 1.0, _BINS + 1)
    counts = np.histogram(gap, edges)[0].tolist()
    text = (
        f"d_an - d_ap has the median {np.median(gap):.3g}, from {gap.min():.3g} to {gap.max():.3g} ({scale})"
    )
    marks = {} if margin is None else {f"margin {margin:g}": margin}
    drawn.append(
        charts.histogram(
            "Margin used: d_an - d_ap (how many triplets)",
            scale,
            edges.tolist(),
            {"triplets": ("anchor", counts)},
            description=text,
            marks=marks,
        )
    )
    return drawn


def _lists(mined: Mined, album: Album | None, most: int) -> Markup:
    many = _TRIPLETS if album is None else min(_TRIPLETS, most // _FEWEST)
    if many == 0:
        return Markup("")
    lists = (
        ("A sample", "Drawn at random, with anchors of different identities.", mined.sample(many)),
        (
            "The hardest",
            "The nearest negatives, compared with the positive; one of each two identities.",
            mined.hardest(many),
        ),
        (
            "The largest d_ap",
            "Anchors and positives that are farthest apart, one pair of each identity. If they are two "
            "people, a label is wrong.",
            mined.far_positives(many),
        ),
    )
    longest = max(
        float(distance) for *_, some in lists for name in ("d_ap", "d_an") for distance in some[name]
    )
    return joined(
        *(titled(title, _triplets(mined, some, album, longest), says=says) for title, says, some in lists)
    )


def _triplets(mined: Mined, some: pl.DataFrame, album: Album | None, longest: float) -> Markup:
    margin = _margin(mined.how)
    cards = []
    if album is None:
        for one in some.iter_rows(named=True):
            says = [
                f"identity {one['anchor_label']} and identity {one['negative_label']}",
                f"d_ap {one['d_ap']:.3f}, d_an {one['d_an']:.3f}",
                f"keys {one['anchor_key']}, {one['positive_key']}, {one['negative_key']}",
            ]
            drawn = charts.scale(one["d_ap"], one["d_an"], margin, longest)
            caption = element("figcaption", *(element("span", line) for line in says))
            cards.append(element("figure", drawn, caption, class_="card"))
        return element("div", *cards, class_="cards")
    places = np.stack([mined.rows_of(album, some, role) for role in ROLES], axis=1)
    album.look_up(np.unique(places))
    for three, d_ap, d_an in zip(places.tolist(), some["d_ap"], some["d_an"], strict=True):
        cards.append(_card(album, three, d_ap, d_an, margin, longest))
    return element("div", *cards, class_="cards")


def _card(  # noqa: PLR0917
    album: Album, three: list[int], d_ap: float, d_an: float, margin: float | None, longest: float
) -> Markup:
    """Show anchor, positive and negative, and how far apart they are."""
    labels = album.dataset.labels[three]
    roles = (element("span", role, class_=f"role {role}") for role in ROLES)
    caption = element(
        "figcaption",
        element("span", f"{album.person(int(labels[0]))} and {album.person(int(labels[2]))}"),
        element("span", f"d_ap {d_ap:.3f}, d_an {d_an:.3f}"),
    )
    return element(
        "figure",
        element(
            "div", *(album.show(at, role) for at, role in zip(three, ROLES, strict=True)), class_="three"
        ),
        element("div", *roles, class_="roles", aria_hidden="true"),
        charts.scale(d_ap, d_an, margin, longest),
        caption,
        class_="card",
    )


def _hubs(mined: Mined, hubs: pl.DataFrame, album: Album | None) -> Markup:
    says = (
        "The images that are the negative most often. One that is near to many people is usually blurred, "
        "badly cut, or not a face."
    )
    if album is None:
        rows: list[list[object]] = [
            [
                f"key {one['negative_key']}",
                one["negative_label"],
                f"{one['triplets']:,}",
                f"{one['identities']:,}",
            ]
            for one in hubs.iter_rows(named=True)
        ]
        headings = ["negative", "identity", "triplets", "with anchors of identities"]
        return titled("Negatives that occur most often", table("Hubs", headings, rows), says=says)
    places = mined.rows_of(album, hubs, "negative")
    album.look_up(places)
    cards = []
    for place, one in zip(places.tolist(), hubs.iter_rows(named=True), strict=True):
        caption = (
            f"{one['triplets']:,} triplets, {one['triplets'] / mined.count:.1%}",
            f"anchors of {counted(one['identities'], 'identity')}",
            album.person(one["negative_label"]),
        )
        cards.append(
            element(
                "figure",
                album.show(place),
                element("figcaption", *(element("span", words) for words in caption)),
                class_="hub",
            )
        )
    return titled("Negatives that occur most often", element("div", *cards, class_="hubs"), says=says)


def _confused(mined: Mined, confused: pl.DataFrame, album: Album | None) -> Markup:
    says = "Pairs of identities with most triplets between them. Some may be one person under two labels."
    title = "Identities most often confused"
    if album is None:
        rows: list[list[object]] = [
            [f"{one['low']} and {one['high']}", f"{one['triplets']:,}", f"{one['d_an']:.3f}"]
            for one in confused.iter_rows(named=True)
        ]
        return titled(title, table("Identities", ["identities", "triplets", "mean d_an"], rows), says=says)
    cards = []
    for one in confused.iter_rows(named=True):
        some = mined.examples(one["low"], one["high"], _EXAMPLES)
        sides = []
        for label in (one["low"], one["high"]):
            keys = [
                (row[f"{role}_file"], row[f"{role}_key"])
                for row in some.iter_rows(named=True)
                for role in ("anchor", "negative")
                if row[f"{role}_label"] == label
            ]
            files, of = zip(*dict.fromkeys(keys), strict=True)
            places = album.rows(np.array(of, np.int64), np.array(files, np.uint32))
            album.look_up(places)
            pictures = element("div", *(album.show(int(place)) for place in places), class_="strip")
            sides.append(element("div", element("span", album.person(label)), pictures, class_="side"))
        caption = element("figcaption", f"{counted(one['triplets'], 'triplet')}, mean d_an {one['d_an']:.3f}")
        cards.append(element("figure", element("div", *sides, class_="sides"), caption, class_="card"))
    return titled(title, element("div", *cards, class_="cards wide-cards"), says=says)


def _without(run: Mapping[str, Any] | None, album: Album | None) -> Markup:
    """Pairs without a negative, and why."""
    title = "Pairs without a negative"
    if run is None:
        printed = code("fasttriplet mine --json")
        return titled(
            title, says=sentences("A table holds pairs with one. Give what", printed, "printed as --run.")
        )
    pairs, without = int(run["pairs"]), int(run["pairs_without_negative"])
    said = [f"{without:,} of {counted(pairs, 'pair')} ({without / max(1, pairs):.1%})."]
    if run["pairs_over_max_ap"]:
        said.append(f"{run['pairs_over_max_ap']:,} more were skipped, as their d_ap is above max_ap.")
    if run["bags_without_triplets"]:
        bags = counted(run["bags_without_triplets"], "bag")
        said.append(f"{bags} gave no triplet, the first in {run['why_no_triplets']}.")
    why = run.get("without_negative")
    if not why:
        return titled(title, says=" ".join(said))
    where = f"Of {counted(why['pairs'], 'such pair')} of bag {why['bag']},"
    shares = {name: why[name] / max(1, why["pairs"]) for name in ("separated", "nearer", "few")}
    if why["separated"]:
        said.append(
            f"{where} {shares['separated']:.0%} have no negative near enough: they are learned already."
        )
        where = "Of the same pairs,"
    if why["nearer"]:
        said.append(
            f"{where} {shares['nearer']:.0%} have nearer negatives alone, which the band leaves out: band "
            "violating takes them."
        )
        where = "Of the same pairs,"
    if why["few"]:
        said.append(f"{where} {shares['few']:.0%} have so few that qualify that the ranks leave them out.")
    parts = []
    if album is not None:
        for name, heading in (("separated", "Learned already"), ("nearer", "Nearer negatives alone")):
            if examples := why["examples"][name][:_WITHOUT]:
                parts.append(element("h4", f"{heading}, with the nearest negative"))
                parts.append(_examples(examples, album))
    return titled(title, *parts, says=" ".join(said))


def _examples(examples: list[dict[str, Any]], album: Album) -> Markup:
    longest = max(max(float(one["d_ap"]), float(one["d_an"])) for one in examples)
    cards = []
    for one in examples:
        places = places_among(album.dataset.ids, np.array(one["ids"], np.int64)).tolist()
        if min(places) < 0:
            raise IndexError(f"the images {one['ids']} are not in the dataset")
        cards.append(_card(album, places, float(one["d_ap"]), float(one["d_an"]), None, longest))
    return element("div", *cards, class_="cards")
