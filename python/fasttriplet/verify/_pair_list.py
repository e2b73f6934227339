"""Lists of pairs: text files that name two images per line and say whether they show one identity."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fasttriplet._contents import describe_wrong_file, kind_of, read_file
from fasttriplet._words import counted

_KIND = "a list of pairs"
_PLAIN = (
    "PATH PATH 1 (one identity) or PATH PATH 0 (two), separated by tabs, commas or spaces, with quotes "
    "around a path that holds the separator"
)
_LFW = "NAME NUMBER NUMBER (one identity) or NAME NUMBER NAME NUMBER (two), as in LFW's pairs.txt"
_SAME = {"1": True, "true": True, "0": False, "false": False}
_ENDINGS = (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".JPEG")


class ListedPair(NamedTuple):
    """Two images, the number of their line, and whether they show one identity."""

    line: int
    images: tuple[Path, Path]
    same: bool


class PairList(NamedTuple):
    """What a list holds.

    Attributes
    ----------
    pairs : list of ListedPair
        In the order of the list.
    problems : list of (int, str)
        The numbers of lines that are not pairs, and what was expected.
    folds : int or None
        The number of folds that the first line of LFW's list says.
    """

    pairs: list[ListedPair]
    problems: list[tuple[int, str]]
    folds: int | None


def read_list(path: Path, folder: Path) -> PairList:
    """Read a list of pairs whose images are below a folder.

    A line is ``PATH PATH 1`` or ``PATH PATH 0``; or as in the lists of LFW ``NAME N N`` for one identity and
    ``NAME N NAME N`` for two. There, image 7 of NAME is ``NAME/NAME_0007.jpg``, or ``.png``, and the first
    line says how many folds there are and how many pairs of each kind are in one, or only the latter.

    Raises
    ------
    ValueError
        If the file is not text, lists no pair, or does not list as many as its first line says.
    OSError
        If the file cannot be read.
    """
    lines = [
        (number, line)
        for number, line in enumerate(io.StringIO(_text(path), newline=None), start=1)
        if line.strip() and not line.startswith("#")
    ]
    numbers = _numbers(lines[0][1]) if lines else None
    if lines and (numbers is not None or _is_header(lines[0][1])):
        del lines[0]
    if not lines:
        raise ValueError(f"{path} lists no pair; expected a pair per line: {_PLAIN}")
    lfw = numbers is not None or _looks_like_lfw([line for _, line in lines])
    pairs, problems = [], []
    for number, line in lines:
        fields = next(filter(_is_lfw if lfw else _is_plain, _splits(line)), None)
        if fields is None:
            problems.append((number, f"expected {_LFW if lfw else _PLAIN}; got {line.strip()[:100]!r}"))
        elif lfw:
            pairs.append(ListedPair(number, *_of_lfw(folder, fields)))
        else:
            images = folder / fields[0], folder / fields[1]
            pairs.append(ListedPair(number, images, _SAME[fields[2].lower()]))
    if numbers is None:
        return PairList(pairs, problems, None)
    *folds, per_kind = numbers
    expected = 2 * per_kind * (folds[0] if folds else 1)
    if len(lines) != expected:
        raise ValueError(
            f"{path} lists {counted(len(lines), 'pair')}, and its first line says {expected:,}. Complete the "
            "list, or remove the first line"
        )
    return PairList(pairs, problems, folds[0] if folds else None)


def _text(path: Path) -> str:
    data = read_file(path, _KIND)
    if kind_of(data) is not None:
        raise ValueError(describe_wrong_file(path, _KIND))
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError(f"{path} is not text in UTF-8; expected a list of pairs, one per line")
    return text


def _numbers(line: str) -> list[int] | None:
    """The first line of LFW's lists: the folds and the pairs of each kind in one, or the pairs alone."""
    fields = line.split()
    return [int(field) for field in fields] if len(fields) <= 2 and all(map(_is_number, fields)) else None


def _is_header(line: str) -> bool:
    """Whether a line names the columns of a table: there is no path in it, and no number or truth value."""
    columns = [fields for fields in _splits(line, separators="\t,") if len(fields) in (3, 4)]
    return bool(columns) and not any(
        set(field) & set("./\\") or _is_number(field) or field.lower() in _SAME for field in columns[0]
    )


def _looks_like_lfw(lines: Sequence[str]) -> bool:
    for line in lines:
        plain, lfw = (any(map(fits, _splits(line))) for fits in (_is_plain, _is_lfw))
        if plain != lfw:  # "NAME 3 1" could be both
            return lfw
    return False


def _splits(line: str, separators: str = "\t, ") -> Iterator[list[str]]:
    """The fields of a line by each separator that it has."""
    for separator in separators:
        if separator in line.strip():
            reader = csv.reader([line.strip()], delimiter=separator, skipinitialspace=True)
            try:
                fields = [field.strip() for field in next(reader)]
            except csv.Error:  # a field of more than 128 kB
                continue
            yield fields[:-1] if not fields[-1] else fields  # tables may pad the shorter lines


def _is_plain(fields: list[str]) -> bool:
    return len(fields) == 3 and fields[2].lower() in _SAME and all(fields)


def _is_lfw(fields: list[str]) -> bool:
    return len(fields) in (3, 4) and all(map(_is_number, (fields[1], fields[-1]))) and all(fields)


def _is_number(field: str) -> bool:
    return field.isascii() and field.isdecimal() and len(field) < 10


def _of_lfw(folder: Path, fields: list[str]) -> tuple[tuple[Path, Path], bool]:
    name, number, *other, last = fields
    return (_image(folder, name, number), _image(folder, other[0] if other else name, last)), not other


def _image(folder: Path, name: str, number: str) -> Path:
    """Image `number` of a name, with the ending that it has in the folder."""
    stem = f"{name}_{int(number):04d}"
    candidates = [folder / name / f"{stem}{ending}" for ending in _ENDINGS]
    return next(filter(Path.is_file, candidates), candidates[0])
