"""``fasttriplet pack-pairs``: a ``.bin`` file of verification pairs, from a ``.rec`` or from a list."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from fasttriplet.cli import _options as options

_AT_ONCE = 1024  # images decoded at a time, to see whether they can be


@click.command(name="pack-pairs")
@click.argument("out", metavar="OUT.bin", type=options.OUTPUT, callback=options.ends_in(".bin"))
@options.rec(required=False)
@options.pairs_per_kind
@options.seed
@click.option(
    "--list",
    "listing",
    type=click.Path(path_type=Path),
    help="A text file with one pair per line: PATH PATH 1 for one identity, PATH PATH 0 for two. Tabs "
    "separate the fields or, where a line has none, spaces.",
)
@options.option(
    "folder",
    "Folder that the paths of --list start from. By default the folder of the list.",
    kind=options.FOLDER,
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
) -> None:
    """Pack pairs of images into OUT.bin.

    The file is for `fasttriplet verify` and InsightFace's tools. Give either --rec, to draw pairs from it, or
    --list. The encoded images are stored as they are. They must
    be JPEGs or PNGs of one size.
    """
    if bool(rec) == (listing is not None):
        raise click.UsageError("give either --rec or --list")
    if folder is not None and listing is None:
        raise click.UsageError("--folder goes with --list")
    from fasttriplet._files import check_can_be_written  # noqa: PLC0415  not for --help
    from fasttriplet.verify._bin_file import write_pairs  # noqa: PLC0415

    check_can_be_written(out, overwrite=overwrite)  # before anything is read
    if listing is not None:
        images, same, name = _listed(listing, listing.parent if folder is None else folder)
    else:
        images, same, name = _drawn(rec, pairs_per_kind, seed, threads)
    height, width = _size(images, name, threads)
    write_pairs(out, images, same, overwrite=overwrite)
    click.echo(
        f"{out}: {len(same):,} pairs, {sum(same):,} genuine and {len(same) - sum(same):,} impostor, "
        f"{height} x {width}, {out.stat().st_size / 1e6:,.1f} MB"
    )


Pairs = tuple[list[bytes], list[bool], Callable[[int], str]]


def _drawn(rec: tuple[Path, ...], pairs_per_kind: int, seed: int, threads: int | None) -> Pairs:
    from fasttriplet.dataset._dataset import Dataset  # noqa: PLC0415
    from fasttriplet.verify._draw import draw_pairs  # noqa: PLC0415

    dataset = Dataset(options.one_or_several(rec), threads=threads)
    drawn = draw_pairs(dataset.index, pairs_per_kind, seed)
    rows = [row for pair in zip(drawn.first.tolist(), drawn.second.tolist(), strict=True) for row in pair]
    read = {row: dataset.read(row)[1] for row in sorted(set(rows))}

    def name(position: int) -> str:
        row = rows[position]
        return f"{dataset.paths[dataset.files[row]]}, key {dataset.keys[row]}"

    return [read[row] for row in rows], drawn.same.tolist(), name


def _listed(listing: Path, folder: Path) -> Pairs:
    images: list[bytes] = []
    same: list[bool] = []
    origins: list[str] = []
    read: dict[str, bytes] = {}
    try:
        lines = listing.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(
            f"{listing} is no text file in UTF-8; expected a pair a line: PATH PATH 0 or 1"
        ) from None
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split("\t")] if "\t" in line else line.split()
        if len(fields) != 3 or fields[2] not in ("0", "1"):
            raise ValueError(
                f"{listing}, line {number}: expected PATH PATH 1 (one identity) or PATH PATH 0 (two), "
                f"separated by tabs or spaces (by tabs if a path has spaces), got {line[:100]!r}"
            )
        for name in fields[:2]:
            if name not in read:
                try:
                    read[name] = (folder / name).read_bytes()
                except OSError as error:
                    reason = error.strerror or error
                    raise ValueError(f"{listing}, line {number}: {folder / name}: {reason}") from error
            images.append(read[name])
            origins.append(f"{listing}, line {number}: {folder / name}")
        same.append(fields[2] == "1")
    if not same:
        raise ValueError(f"{listing} lists no pair; expected a pair a line: PATH PATH 0 or 1")
    return images, same, origins.__getitem__


def _size(images: list[bytes], name: Callable[[int], str], threads: int | None) -> tuple[int, int]:
    """Decode all images once; their height and width, or an error that says where a bad one is from."""
    from fasttriplet.dataset._images import decode_images  # noqa: PLC0415
    from fasttriplet.errors import RecordError  # noqa: PLC0415

    positions = sorted({id(images[position]): position for position in reversed(range(len(images)))}.values())
    size: tuple[int, int] | None = None
    for start in range(0, len(positions), _AT_ONCE):
        part = positions[start : start + _AT_ONCE]
        try:
            shape = decode_images([images[position] for position in part], size=size, threads=threads).shape
        except RecordError as error:
            if error.position is None:
                raise
            raise ValueError(f"{name(part[error.position])}: {error.reason}") from error
        size = shape[1], shape[2]
    assert size is not None  # there are pairs
    return size
