"""The section on the dataset: how much there is of what, what is wrong with it, and how it looks."""

from __future__ import annotations

import io
import shlex
import warnings
from collections import Counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fasttriplet._words import counted
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.dataset._index import inspect_rec
from fasttriplet.errors import RecordError, RecordWarning
from fasttriplet.reporting import _charts as charts
from fasttriplet.reporting._html import Markup, code, element, facts, joined, sentences, titled
from fasttriplet.reporting._page import Section
from fasttriplet.reporting._pictures import Album

_IN_A_ROW = 6  # pictures of an identity
_MOST_ROWS = 16  # identities
_SAMPLE = 300  # images whose headers are read for their sizes
_MOST_PROBLEMS = 10
_BINS = 30


def section(album: Album, most: int) -> Section:
    """Draw the section, with at most this many pictures."""
    dataset = album.dataset
    labels, counts = np.unique(dataset.labels, return_counts=True)
    sizes, unreadable = _sizes(dataset)
    problems = [*unreadable, *_problems(dataset)]
    single = int((counts == 1).sum())
    rows: dict[str, object] = {
        "files": ", ".join(path.name for path in dataset.paths),
        "images": f"{len(dataset):,}",
        "identities": f"{len(labels):,}",
        "with one image": f"{single:,}",
        "images per identity": _spread(counts),
        "encoded": f"{dataset.lengths.sum() / 1e6:,.1f} MB, {np.median(dataset.lengths) / 1e3:,.1f} kB each",
        "width x height in pixels": sizes,
        "fingerprint": code(dataset.fingerprint),
    }
    body = joined(
        facts(rows),
        _problem_list(problems),
        element("div", *_histograms(dataset, counts), class_="charts"),
        _people(album, labels, counts, most),
    )
    return Section("dataset", "Dataset", *_says(dataset, counts, len(problems)), body)


def _says(dataset: Dataset, counts: NDArray[np.int64], problems: int) -> tuple[Markup, list[Markup]]:
    images, identities = counted(len(dataset), "image"), counted(len(counts), "identity")
    single = int((counts == 1).sum())
    said: list[object] = [f"{images} of {identities}, {_spread(counts)} each."]
    todo: list[Markup] = []
    if len(counts) == 1:
        said.append("A single identity has no negatives.")
        todo.append(Markup("Add other identities, or check the labels."))
    elif single == len(counts):
        said.append("Each identity has one image, so no image has a positive.")
        todo.append(Markup("Check the labels."))
    elif single:
        which = "one image, which can only be a negative"
        said.append(f"{counted(single, 'identity')} of them ({single / len(counts):.0%}) with {which}.")
    if problems:
        said.append(f"{counted(problems, 'problem')} found, below.")
        listing = code(f"fasttriplet index --rec {shlex.quote(str(dataset.paths[0]))}")
        todo.append(sentences("See all problems of a file with", joined(listing, ".")))
    else:
        said.append("No problem was found in the records.")
    return sentences(*said), todo


def _spread(counts: NDArray[np.int64]) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{np.median(counts):,.0f} (median; {low:,} to {high:,})"


def _problems(dataset: Dataset) -> list[str]:
    found: list[str] = []
    for path in dataset.paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RecordWarning)  # given when the dataset was opened
            found += inspect_rec(path, cache=dataset.options.cache).problems
    return found


def _problem_list(problems: list[str]) -> Markup | None:
    if not problems:
        return None
    items = [element("li", problem) for problem in problems[:_MOST_PROBLEMS]]
    if len(problems) > _MOST_PROBLEMS:
        items.append(element("li", f"and {len(problems) - _MOST_PROBLEMS:,} more"))
    return titled("Problems", element("ul", *items))


def _sizes(dataset: Dataset) -> tuple[str, list[str]]:
    """The sizes of a sample of the images, and what is wrong with those that have none."""
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(_SAMPLE, len(dataset))).astype(int))
    sizes: Counter[str] = Counter()
    wrong = []
    for row in rows.tolist():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Pillow, about images of a gigapixel and odd metadata
                with Image.open(io.BytesIO(dataset.read(row)[1])) as opened:
                    sizes[f"{opened.width:,} x {opened.height:,}"] += 1
        except RecordError as error:
            wrong.append(str(error))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            wrong.append(_in_words(dataset, row, error))
    shown = ", ".join(
        f"{size} ({count:,})" if len(sizes) > 1 else size for size, count in sizes.most_common(4)
    )
    more = f" and {len(sizes) - 4:,} other sizes" if len(sizes) > 4 else ""
    of = "" if len(rows) == len(dataset) else f", in a sample of {len(rows):,}"
    return (shown or "unknown") + more + of, wrong


def _in_words(dataset: Dataset, row: int, error: Exception) -> str:
    """What the decoder says about an image that Pillow cannot open; its messages are for programmers."""
    try:
        dataset.decode(np.array([row]), threads=1)
    except RecordError as reason:
        return str(reason)
    return f"{dataset.paths[dataset.files[row]]}, key {dataset.keys[row]}: {error}"


def _histograms(dataset: Dataset, counts: NDArray[np.int64]) -> list[Markup]:
    drawn = []
    for title, axis, values, whole in (
        ("Images per identity", "images", counts, True),
        ("Sizes of the encoded images", "kB", dataset.lengths / 1e3, False),
    ):
        high = max(float(np.quantile(values, 0.995)), float(values.min()) + 1e-9)
        if whole:
            step = max(1, -(-int(high) // _BINS))
            edges = np.arange(0, int(high) + step + 1, step) + 0.5
        else:
            edges = np.linspace(0, high, _BINS + 1)
        found = np.histogram(np.minimum(values, edges[-1] - 1e-9), edges)[0]
        noun = "identities" if whole else "images"
        text = f"{title}: median {charts.number(float(np.median(values)))} {axis}"
        larger = "; the last step counts larger ones, too" if values.max() > edges[-1] else ""
        drawn.append(
            charts.histogram(
                f"{title} (how many {noun})",
                axis + larger,
                edges.tolist(),
                {noun: ("anchor", found.tolist())},
                description=text,
            )
        )
    return drawn


def _people(album: Album, labels: NDArray[np.int64], counts: NDArray[np.int64], most: int) -> Markup | None:
    """Draw a sample of the identities, evenly spread over the labels, as rows of pictures."""
    in_a_row = min(_IN_A_ROW, int(counts.max()), most)
    how_many = min(_MOST_ROWS, len(labels), most // max(1, in_a_row))
    if how_many == 0:
        return None
    chosen = np.unique(np.linspace(0, len(labels) - 1, how_many).round().astype(int))
    order = np.argsort(album.dataset.labels, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)])
    shown = {int(at): order[starts[at] : starts[at] + min(counts[at], in_a_row)] for at in chosen}
    album.look_up(np.concatenate(list(shown.values())))
    rows = []
    for at, of in shown.items():
        more = int(counts[at]) - len(of)
        caption = element(
            "figcaption",
            element("span", album.person(int(labels[at])), class_="title"),
            element("span", f"{counted(int(counts[at]), 'image')}" + (", the first shown" if more else "")),
        )
        pictures = element("div", *(album.show(int(row)) for row in of), class_="strip")
        rows.append(element("figure", caption, pictures, class_="person"))
    says = "Do the pictures of a row show one person, and are they cut out and aligned alike?"
    return titled("A sample of the identities", element("div", *rows, class_="people"), says=says)
