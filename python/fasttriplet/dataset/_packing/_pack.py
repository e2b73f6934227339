"""``pack``: a folder of images, with one folder per identity, into a ``.rec`` in the InsightFace layout."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Unpack

from fasttriplet._files import Output, check_can_be_written, naming, opened, publish, remove_unfinished
from fasttriplet._options import shows
from fasttriplet._words import counted
from fasttriplet.dataset._packing._layout import Layout, changes_beside
from fasttriplet.dataset._packing._options import PackKeywords, PackOptions
from fasttriplet.dataset._packing._pictures import Ready, Unusable, prepare, quietly
from fasttriplet.dataset._packing._problems import Problems
from fasttriplet.dataset._packing._property import opened_property, property_of, write_property
from fasttriplet.dataset._packing._tree import Tree, scan
from fasttriplet.errors import OptionError

_TELL_THE_SIZE = 100  # pictures; more would take memory, as they wait for the size that most have


@dataclass(frozen=True, slots=True)
class PackedFile:
    """One ``.rec`` that :func:`pack` wrote.

    Attributes
    ----------
    path : Path
        The file; its ``.idx``, ``.identities.csv`` and ``.sources.parquet`` are beside it.
    images, identities : int
        How many it holds.
    bytes : int
        Its size.
    """

    path: Path
    images: int
    identities: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Packed:
    """What :func:`pack` wrote.

    Attributes
    ----------
    path : Path
        The ``.rec`` file.
    files : tuple of PackedFile
        That file and, after a split, the one for validation.
    images, identities : int
        How many the files hold together.
    size : (int, int)
        Height and width of the images.
    kept, encoded : int
        How many images were stored unchanged, and how many were encoded; together all images.
    skipped : int
        Files and folders that could not be used and were left out.
    problems : Path or None
        The table of those, if there are any.
    ignored : int
        Hidden and system files and folders.
    bytes : int
        Size of the ``.rec`` files together.
    property : Path or None
        The ``property`` file. None if it describes another ``.rec``; then `notes` says so.
    notes : tuple of str
        What to know about the files in the folder, in sentences.
    seconds : float
        How long packing took.
    """

    path: Path
    files: tuple[PackedFile, ...]
    images: int
    identities: int
    size: tuple[int, int]
    kept: int
    encoded: int
    skipped: int
    problems: Path | None
    ignored: int
    bytes: int
    property: Path | None
    notes: tuple[str, ...]
    seconds: float


@shows(PackOptions)
def pack(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Callable[[int, int], object] | None = None,
    **options: Unpack[PackKeywords],
) -> Packed:
    """Pack a folder of images into a ``.rec`` in the InsightFace identity layout.

    The folder has one folder per identity, ``FOLDER/identity/picture``; `identity_depth` is for deeper trees.
    Identities get the labels 0, 1, 2, ... in the natural order of their names (``p2`` before ``p10``), and
    images are stored in that order, too. The same folder and options give the same bytes. Written beside
    ``OUT.rec``:

    * ``OUT.idx``, the offsets of the records;
    * ``OUT.identities.csv``, the folder of each label;
    * ``OUT.sources.parquet``, the key, the label and the path in `folder` of each image;
    * ``property``, which has ``identities,height,width`` for InsightFace's training scripts. A folder has one
      such file for one ``.rec``, so it is left alone if it describes another one, or would be read with it.

    Pictures may be JPEG, PNG, WebP, AVIF, BMP, TIFF, GIF, JPEG 2000, PPM, PGM or PBM, whatever the ending of
    their name; AVIF needs Pillow 11.3. The first of several frames or pages is taken. A picture of the right
    size and format is stored unchanged, unless it has an EXIF orientation, which readers treat in different
    ways. Every other picture is decoded, turned upright, brought to `size` with a Lanczos filter where
    needed, and encoded. Gray images stay gray, alpha is dropped, and of 16 bits the high byte is kept.

    Hidden and system files (``.DS_Store``, ``Thumbs.db``, ``@eaDir``, ...) are ignored and counted. Links are
    followed. Everything else that is not a picture in its place is a problem, and all problems are found in
    one pass.

    Parameters
    ----------
    folder : path
        The folder of the identities' folders.
    out : path
        The ``.rec`` file.
    overwrite : bool
        Whether files of an earlier run may be replaced.
    progress : callable, optional
        Called with the number of images that are done and the number of all images.
    size : (int, int), optional
        Height and width that all images are brought to. By default they must all have one size already: that
        of most of the first 100.
    fit : {"stretch", "crop", "pad"}, default "stretch"
        How an image of another shape is brought to `size`. ``"stretch"`` changes its proportions, ``"crop"``
        cuts off what is too much on two sides, ``"pad"`` adds black on two sides.
    format : {"jpeg", "png", "keep"}, default "jpeg"
        What images are stored as. ``"png"`` is lossless. With ``"keep"`` JPEG stays JPEG, and all other
        formats become PNG.
    quality : int, default 95
        JPEG quality of the images that are encoded, 1 to 100.
    identity_depth : int, optional
        How many folders name an identity, for instance 2 for ``FOLDER/group/identity/picture``; the name is
        ``group/identity`` then. Pictures may lie at any depth below. By default 1, and pictures must lie in
        the identity's folder itself.
    split : float, optional
        Share of the identities, above 0 and below 1, that go into ``OUT-val.rec`` instead, with tables and an
        ``.idx`` of its own. At least one identity goes into each file, and each file has
        labels from 0. The identities are chosen by `seed` and their names.
    max_pixels : int, default 89,478,485
        The most pixels of a picture, before it is brought to `size`, of any format; see
        :func:`fasttriplet.decode_images`. A larger one is a problem.
    on_error : {"raise", "skip"}, default "raise"
        What to do about files and folders that cannot be used: write nothing, or leave them out and list them
        in ``OUT.problems.csv``. If an error does not show all of them, it writes that list, too.
    seed : int, default 0
        Seed for the choice of `split`.
    threads : int, optional
        By default one per core.

    Returns
    -------
    Packed
        What was written. After an error, no file was written or replaced but the list of problems.

    Raises
    ------
    ValueError
        If the folder has another structure, an image cannot be read, or sizes differ. The message lists the
        files.
    FileExistsError
        If an output file exists and `overwrite` is not set.
    OSError
        If a file cannot be written.

    Warns
    -----
    RecordWarning
        If there are more than 2^24 records: the layout rounds the identities' ranges of keys then.
    """
    chosen = PackOptions.of(pack, options)
    started = time.perf_counter()
    folder, out = Path(folder), Path(out)
    _check_places(folder, out)
    val = out.with_name(f"{out.stem}-val.rec")
    recs = [out] if chosen.split is None else [out, val]
    notes = _of_an_earlier_split(out, val) if chosen.split is None else []
    finals = [path for rec in recs for path in (*Layout.files_of(rec), changes_beside(rec))]
    listed = out.with_suffix(".problems.csv")
    for path in finals:
        check_can_be_written(path, overwrite=overwrite)
    check_can_be_written(listed)
    if (described := property_of(recs)[0]) is not None:  # looked at again at the end
        check_can_be_written(described, overwrite=overwrite)

    with ExitStack() as resources:
        outputs = resources.enter_context(opened(*finals, overwrite=overwrite))
        (table,) = resources.enter_context(opened(listed, overwrite=True))
        resources.enter_context(naming(*outputs, table))
        by_name = {output.path: output for output in outputs}
        parts = {rec: by_name[rec].unfinished.with_name("parts") / rec.name for rec in recs}
        for part in parts.values():
            part.parent.mkdir()
        problems = resources.enter_context(Problems(table))
        layouts = [resources.enter_context(Layout(part, rec)) for rec, part in parts.items()]
        tree = scan(folder, chosen.identity_depth, problems)
        size, kept = _fill(layouts, folder, tree, chosen, problems, progress)
        if not tree.identities and not problems:
            raise ValueError(f"{folder}: is empty; expected one folder for each identity")
        if problems and chosen.on_error == "raise":
            raise ValueError(_refusal(problems, "on_error='skip' leaves out what cannot be used", table))
        for layout, rec in zip(layouts, recs, strict=True):
            if not layout.identities:
                raise ValueError(_refusal(problems, f"no picture is left for {rec.name}", table))
            layout.finish(by_name)
            by_name[changes_beside(rec)].drop()  # of a file of this name that `clean` wrote
        assert size is not None  # there are images
        problems.finish()
        if not problems:
            table.drop()  # and the one of an earlier run
        about, why_not = resources.enter_context(opened_property(recs, overwrite=overwrite))
        if about is not None:
            write_property(about, by_name[out].unfinished, len(layouts[0].identities), size)
        if why_not is not None:
            notes.insert(0, why_not)
        publish(*outputs, table, *filter(None, [about]))
    files = tuple(
        PackedFile(rec, layout.images, len(layout.identities), rec.stat().st_size)
        for rec, layout in zip(recs, layouts, strict=True)
    )
    images = sum(file.images for file in files)
    return Packed(
        path=out,
        files=files,
        images=images,
        identities=sum(file.identities for file in files),
        size=size,
        kept=kept,
        encoded=images - kept,
        skipped=len(problems),
        problems=listed if problems else None,
        ignored=tree.ignored,
        bytes=sum(file.bytes for file in files),
        property=None if about is None else about.path,
        notes=tuple(notes),
        seconds=time.perf_counter() - started,
    )


def _of_an_earlier_split(out: Path, val: Path) -> list[str]:
    """Remove what a killed run was writing, and return what to know about what another one wrote."""
    for path in Layout.files_of(val):
        with suppress(OSError):
            remove_unfinished(path)
    if out.exists() and val.exists():
        return [f"if {val.name} is of an earlier split, {out.name} has its identities, too"]
    return []


def _check_places(folder: Path, out: Path) -> None:
    if out.suffix != ".rec":
        raise OptionError("out", f"must end in .rec, not {str(out)!r}")
    if not folder.is_dir():
        reason = "is a file" if folder.exists() else "does not exist"
        raise ValueError(f"{folder}: {reason}; expected a folder with one folder for each identity")
    if folder.resolve() in out.resolve().parents:
        raise OptionError("out", f"must not lie in {folder}, where it would be taken for an image")


def _fill(  # noqa: PLR0917
    layouts: list[Layout],
    folder: Path,
    tree: Tree,
    options: PackOptions,
    problems: Problems,
    progress: Callable[[int, int], object] | None,
) -> tuple[tuple[int, int] | None, int]:
    """Write the images of all identities; return their size, if there are any, and how many were kept."""
    names = [name for name, _ in tree.identities]
    if options.split is not None and len(names) < 2 and not problems:
        raise ValueError(f"{folder}: split={options.split} needs at least 2 identities, found {len(names):,}")
    validation = _validation(names, options.split or 0, options.seed)
    count = sum(len(pictures) for _, pictures in tree.identities)
    kept = 0
    with quietly(), closing(prepare((path for _, path in _placed(folder, tree)), options)) as ready:
        first = list(islice(ready, _TELL_THE_SIZE))
        sizes = Counter(picture.size for picture in first if isinstance(picture, Ready))
        size = max(sizes, key=sizes.__getitem__, default=None)
        for done, ((name, path), picture) in enumerate(
            zip(_placed(folder, tree), chain(first, ready), strict=True), start=1
        ):
            if isinstance(picture, Unusable):
                problems.add(path, picture.kind, str(picture))
            elif picture.size != (size := size or picture.size):
                problems.add(path, "size", "is {} x {}, most are {} x {}".format(*picture.size, *size))
            elif not problems or options.on_error == "skip":  # else they are only looked at, to name them all
                layouts[name in validation].add(name, picture.content, str(path.relative_to(folder)))
                kept += picture.kept
            if progress is not None:
                progress(done, count)
    if options.on_error == "skip":
        written = {name for layout in layouts for name, _ in layout.identities}
        for name in names:
            if name not in written:
                problems.add(folder / name, "empty", "has no pictures that can be used")
    return size, kept


def _validation(names: list[str], share: float, seed: int) -> frozenset[str]:
    """Choose the identities of the second file; one that is added to the folder changes little."""
    if not share:
        return frozenset()
    key = seed.to_bytes(8, "little")
    order = sorted(names, key=lambda name: hashlib.blake2b(os.fsencode(name), key=key).digest())
    return frozenset(order[: min(max(1, round(share * len(names))), len(names) - 1)])


def _placed(folder: Path, tree: Tree) -> Iterator[tuple[str, Path]]:
    """Yield the identity and the path of each picture."""
    return ((name, folder / name / picture) for name, pictures in tree.identities for picture in pictures)


def _refusal(problems: Problems, note: str, table: Output) -> str:
    """List the problems; the list becomes a file if the message does not show all of it."""
    lines = [f"{counted(len(problems), 'problem')}, nothing was written; {note}:", problems.lines()]
    if not problems.complete:
        with suppress(OSError):  # the message matters more
            problems.finish()
            publish(table)
            lines.append(f"  The complete list is in {table.path}")
    return "\n".join(lines)
