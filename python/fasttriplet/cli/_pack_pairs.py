"""``fasttriplet pack-pairs``: a ``.bin`` file of verification pairs, from a ``.rec`` or from a list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click

from fasttriplet._words import counted, prefixing
from fasttriplet.cli import _options as options
from fasttriplet.cli import _types as types
from fasttriplet.cli._progress import display

_SHOWN = 10  # problems of a list


@click.command(name="pack-pairs")
@click.argument("out", metavar="OUT.bin", type=types.PATH, callback=options.ends_in(".bin"))
@options.rec(required=False)
@options.pairs_per_kind
@options.seed
@click.option(
    "--list",
    "listing",
    type=types.PATH,
    help="A text file with one pair per line: PATH PATH 1 for one identity, PATH PATH 0 for two, separated "
    "by tabs, commas or spaces. It may also be one of LFW's own lists, such as pairs.txt.",
)
@options.option(
    "folder",
    "Folder that the paths of --list start from, for LFW's lists the one with a folder per name. By default "
    "the folder of the list.",
    kind=types.PATH,
)
@options.threads
@options.overwrite
def pack_pairs(
    *,
    out: Path,
    rec: tuple[Path, ...],
    pairs_per_kind: int,
    seed: int,
    listing: Path | None,
    folder: Path | None,
    threads: int | None,
    overwrite: bool,
    **of_dataset: Any,
) -> None:
    """Pack pairs of images into OUT.bin.

    The file is for `fasttriplet verify` and InsightFace's tools. Give either --rec, to draw pairs from it, or
    --list. The encoded images are stored as they are. They must be JPEGs or PNGs of one size.
    """
    if bool(rec) == (listing is not None):
        raise click.UsageError("give either --rec or --list")
    if folder is not None and listing is None:
        raise click.UsageError("--folder goes with --list")
    if listing is not None:
        options.refuse_what_goes_with_rec()
    from rich.filesize import decimal  # noqa: PLC0415  rich takes 0.05 s: not for --help

    from fasttriplet._files import check_can_be_written  # noqa: PLC0415  not for --help
    from fasttriplet.verify._bin_file import write_pairs  # noqa: PLC0415

    check_can_be_written(out, overwrite=overwrite)  # before anything is read
    with display() as shown:
        shown.update("reading pairs")
        if listing is not None:
            packed, name = _listed(listing, listing.parent if folder is None else folder), str(listing)
        else:
            packed, name = _drawn(rec, of_dataset, pairs_per_kind, seed, threads), _named(rec)
        shown.update("decoding pairs")
        height, width = _size(packed, name, threads, of_dataset["max_pixels"])
    write_pairs(out, packed.images, packed.same, overwrite=overwrite)
    pairs, genuine = len(packed.same), sum(packed.same)
    click.echo(
        f"{out}: {counted(pairs, 'pair')}, {genuine:,} genuine and {pairs - genuine:,} impostor, "
        f"{height} x {width}, {decimal(out.stat().st_size)}"
    )
    for note in _notes(packed):
        click.echo(note, err=True)


class _Packed(NamedTuple):
    """What goes into the file.

    Attributes
    ----------
    images : list of bytes
        Encoded images; 2i and 2i + 1 are pair i, if there are no problems.
    origins : list of (int, str)
        Where each image is from: in the order of the source, and in words.
    same : list of bool
        Whether the images of a pair show one identity.
    problems : list of (int, str)
        Lines that are not pairs, and images that are missing, in the same form.
    folds : int or None
        Folds that the pairs were listed for.
    """

    images: list[bytes]
    origins: list[tuple[int, str]]
    same: list[bool]
    problems: list[tuple[int, str]]
    folds: int | None


def _drawn(
    rec: tuple[Path, ...], of_dataset: dict[str, Any], pairs_per_kind: int, seed: int, threads: int | None
) -> _Packed:
    from fasttriplet.dataset._dataset import Dataset  # noqa: PLC0415
    from fasttriplet.verify._draw import draw_pairs  # noqa: PLC0415

    dataset = Dataset(options.one_or_several(rec), threads=threads, **of_dataset)
    with prefixing(_named(rec)):
        drawn = draw_pairs(dataset.index, pairs_per_kind, seed)
    rows = [row for pair in zip(drawn.first.tolist(), drawn.second.tolist(), strict=True) for row in pair]
    read = {row: dataset.read(row)[1] for row in sorted(set(rows))}
    origins = [(row, f"{dataset.paths[dataset.files[row]]}, key {dataset.keys[row]}") for row in rows]
    return _Packed([read[row] for row in rows], origins, drawn.same.tolist(), [], None)


def _listed(listing: Path, folder: Path) -> _Packed:
    from fasttriplet._contents import read_file  # noqa: PLC0415
    from fasttriplet.verify._pair_list import read_list  # noqa: PLC0415

    found = read_list(listing, folder)
    packed = _Packed(
        [], [], [], [(line, f"line {line}: {what}") for line, what in found.problems], found.folds
    )
    read: dict[Path, bytes] = {}
    for pair in found.pairs:
        packed.same.append(pair.same)
        for path in pair.images:
            origin = f"line {pair.line}: {path}"
            if path not in read:
                try:
                    read[path], reason = read_file(path, "an image"), "the file is empty"
                except OSError as error:
                    read[path], reason = b"", error.strerror or str(error)
                if not read[path]:  # named once, however often it is listed
                    packed.problems.append((pair.line, f"{origin}: {reason}"))
            if read[path]:
                packed.images.append(read[path])
                packed.origins.append((pair.line, origin))
    if found.pairs and not packed.images:
        raise ValueError(
            f"{listing}: none of its {counted(len(read), 'image')} can be read; the first is "
            f"{found.pairs[0].images[0]}. Give the folder that the paths start from as --folder"
        )
    return packed


def _size(packed: _Packed, name: str, threads: int | None, max_pixels: int) -> tuple[int, int]:
    """Decode all images once; their height and width, or an error that says all that is wrong."""
    from fasttriplet.verify._examine import look_at  # noqa: PLC0415

    # An image of several pairs is one object, and is decoded once.
    first = {id(image): position for position, image in reversed([*enumerate(packed.images)])}
    positions = sorted(first.values())
    images = [packed.images[position] for position in positions]
    size, failed = look_at(images, threads=threads, max_pixels=max_pixels)
    places = [(packed.origins[positions[at]], reason) for at, reason in failed]
    found = packed.problems + [(place, f"{origin}: {reason}") for (place, origin), reason in places]
    problems = [problem for _, problem in sorted(found)]
    if len(problems) == 1:
        raise ValueError(f"{name}: {problems[0]}")
    if problems:
        lines = [f"{name}: {len(problems):,} problems", *problems[:_SHOWN]]
        if (more := len(problems) - _SHOWN) > 0:
            lines.append(f"and {more:,} more")
        raise ValueError("\n  ".join(lines))
    assert size is not None  # there are pairs
    return size


def _named(paths: tuple[Path, ...]) -> str:
    return ", ".join(map(str, paths))


def _notes(packed: _Packed) -> Iterator[str]:
    """What to know before the file is verified on."""
    import numpy as np  # noqa: PLC0415  not for --help

    from fasttriplet.verify._protocol import FOLDS, why_no_accuracy  # noqa: PLC0415

    pairs = len(packed.same)
    if pairs == 1:
        yield "One pair cannot be verified on: at least 2 are needed, and better many."
        return
    folds = min(pairs, max(packed.folds or FOLDS, 2))
    if folds != FOLDS:
        yield f"To verify on these pairs, give `fasttriplet verify` --folds {folds}."
    if (why := why_no_accuracy(np.array(packed.same), folds)) is not None:
        yield f"The accuracy on these pairs will be undefined: {why}."
