"""The section on a verification: the ROC curve, the distances, the threshold and the worst errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fasttriplet._words import counted
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.dataset._options import MAX_PIXELS, DatasetOptions
from fasttriplet.errors import RecordError
from fasttriplet.reporting import _charts as charts
from fasttriplet.reporting._html import Markup, element, facts, joined, sentences, titled
from fasttriplet.reporting._page import Section
from fasttriplet.reporting._pictures import Album, picture
from fasttriplet.verify._bin_file import read_pairs

WHAT = "what `fasttriplet verify --json` printed"
_WEAK = 0.9  # an AUC below which the model tells little apart

Show = Callable[[int], Markup]  # of the picture with an id


def section(
    found: Mapping[str, Any], beside: Path, album: Album | None, most: int, options: DatasetOptions
) -> Section:
    """Draw the section.

    Parameters
    ----------
    found : mapping
        The JSON of a verification.
    beside : Path
        Its folder: files that it names are looked for in the current folder, and then here.
    album : Album, optional
        Of the report's own dataset, which may be the one that was verified.
    most : int
        Pictures at most.
    options : DatasetOptions
        How to read the files that it names.
    """
    results = found["results"]
    each = most // max(1, len(results))
    parts = [_result(result, beside, album, each, options, several=len(results) > 1) for result in results]
    body = joined(facts({"model": str(found["model"])}), *parts)
    return Section("verification", "Verification", *_says(results), body)


def _says(results: list[Mapping[str, Any]]) -> tuple[Markup, list[Markup]]:
    said: list[str] = []
    todo: list[Markup] = []
    for result in results:
        name = ", ".join(Path(path).name for path in _files(result))
        pairs = f"{counted(result['pairs'], 'pair')} of {name}"
        if result["accuracy"] is None:
            said.append(f"{pairs} were compared.")
        else:
            said.append(f"{result['accuracy']:.2%} of {pairs} are judged correctly.")
        if result["threshold"] is not None:
            said.append(f"The best threshold is a distance of {result['threshold']:.2f} (squared L2).")
        if result.get("warning"):
            todo.append(joined("Find out why the model separates nothing. ", result["warning"], "."))
        elif result["auc"] is not None and result["auc"] < _WEAK:
            todo.append(Markup("Train the model longer, or check what it expects of its input: it is weak."))
    if not todo and any(result.get("worst") for result in results):
        todo.append(Markup("Look at the worst errors: where a label is wrong, the model may be right."))
    return sentences(*said), todo


def _files(result: Mapping[str, Any]) -> list[str]:
    return [str(path) for path in result.get("files") or [result["file"]]]


def _result(
    result: Mapping[str, Any],
    beside: Path,
    album: Album | None,
    most: int,
    options: DatasetOptions,
    *,
    several: bool,
) -> Markup:
    accuracy = None
    if result["accuracy"] is not None:
        accuracy = (
            f"{result['accuracy']:.3%} ± {result['accuracy_std']:.3%} ({counted(result['folds'], 'fold')})"
        )
    rows: dict[str, object] = {
        "pairs": f"{result['pairs']:,}: {result['genuine']:,} genuine, {result['impostors']:,} impostor",
        "accuracy": accuracy,
        "best threshold": None if result["threshold"] is None else f"{result['threshold']:.2f} (squared L2)",
        "AUC": None if result["auc"] is None else f"{result['auc']:.6f}",
        **{f"TAR at FAR {far}": f"{tar:.3%}" for far, tar in result["tar"].items()},
        "recall@1": None if result["recall_at_1"] is None else f"{result['recall_at_1']:.3%}",
    }
    drawn = [*_roc(result), *_histogram(result)]
    body = [
        element("h3", ", ".join(_files(result))) if several else None,
        facts(rows),
        element("div", *drawn, class_="charts") if drawn else None,
        _worst(result, beside, album, most, options),
    ]
    return element("div", *(part for part in body if part is not None), class_="result")


def _roc(result: Mapping[str, Any]) -> list[Markup]:
    curve = result.get("roc")
    if not curve:
        return []
    far, tar = ([float(value) for value in curve[name]] for name in ("far", "tar"))
    text = f"ROC curve with an area of {result['auc']:.4f}. " + ", ".join(
        f"{value:.1%} at a FAR of {name}" for name, value in result["tar"].items()
    )
    return [charts.roc("ROC: true accept rate", far, tar, description=text, least=max(far[0], 1e-8))]


def _histogram(result: Mapping[str, Any]) -> list[Markup]:
    counts = result.get("histogram")
    if not counts:
        return []
    width = float(counts["width"])
    # Shares: there may be many more impostors than genuine pairs.
    series = {
        name: (kind, (np.array(counts[name], float) / max(1, sum(counts[name]))).tolist())
        for name, kind in (("genuine", "positive"), ("impostors", "negative"))
    }
    edges = [width * at for at in range(len(counts["genuine"]) + 1)]
    marks = (
        {} if result["threshold"] is None else {f"threshold {result['threshold']:.2f}": result["threshold"]}
    )
    text = "Distances of genuine and impostor pairs; the threshold is between them"
    return [
        charts.histogram(
            "Distances (share of the pairs of a kind)",
            "squared L2",
            edges,
            series,
            marks=marks,
            description=text,
        )
    ]


def _worst(
    result: Mapping[str, Any], beside: Path, album: Album | None, most: int, options: DatasetOptions
) -> Markup | None:
    worst = result.get("worst")
    if not worst or not most:
        return None
    try:
        show = _pictures(result, beside, album, options)
    except (OSError, ValueError, KeyError, IndexError) as error:
        reason = (
            f"{getattr(error, 'filename', None) or ''} {getattr(error, 'strerror', None) or error}".strip()
        )
        return titled("The worst errors", says=f"Their pictures cannot be shown: {reason}.")
    threshold = result["threshold"]
    parts = []
    for kind, title, says in (
        ("genuine", "Genuine pairs that are farthest apart", "Each pair is said to show one person."),
        ("impostors", "Impostor pairs that are nearest", "Each pair is said to show two people."),
    ):
        cards = []
        for pair in worst[kind][: most // 4]:
            distance = float(pair["distance"])
            wrong = threshold is not None and (distance >= threshold) == (kind == "genuine")
            caption = f"{distance:.3f}, judged {'wrongly' if wrong else 'correctly'}"
            pictures = element("div", *(show(int(of)) for of in pair["ids"]), class_="strip two")
            cards.append(element("figure", pictures, element("figcaption", caption), class_="card pair"))
        parts.append(titled(title, element("div", *cards, class_="cards pairs"), says=says))
    return joined(*parts)


def _pictures(result: Mapping[str, Any], beside: Path, album: Album | None, options: DatasetOptions) -> Show:
    """Find the pictures of the pairs; `show` takes the ids that the JSON has."""
    if result.get("dataset") is None:
        images = read_pairs(_found(_files(result)[0], beside))[0]

        def of_pairs(place: int) -> Markup:
            alt = f"image {place % 2 + 1} of pair {place // 2}"
            return picture(images[place], alt, most_pixels=MAX_PIXELS)

        return of_pairs
    if album is None or album.dataset.fingerprint != result["dataset"]:
        paths = [_found(path, beside) for path in _files(result)]
        dataset = Dataset(
            paths if len(paths) > 1 else paths[0], cache=options.cache, max_pixels=options.max_pixels
        )
        if dataset.fingerprint != result["dataset"]:
            raise RecordError(
                f"{', '.join(map(str, paths))} is another dataset now than the one that was verified"
            )
        album = Album(dataset)
    known, shown = album.dataset.ids, album

    def of_rec(image: int) -> Markup:
        at = int(np.searchsorted(known, image))
        if at == len(known) or known[at] != image:
            return element("span", f"id {image} is not in the dataset", class_="broken")
        return shown.show(at)

    return of_rec


def _found(name: str, beside: Path) -> Path:
    path = Path(name)
    return path if path.exists() or not (beside / path).exists() else beside / path
