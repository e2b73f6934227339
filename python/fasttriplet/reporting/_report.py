"""From what is given to the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, Unpack

from fasttriplet._checks import whole_number
from fasttriplet._files import check_can_be_written, replacing
from fasttriplet._options import shows
from fasttriplet.dataset._dataset import Rec, open_dataset
from fasttriplet.dataset._options import DatasetKeywords, DatasetOptions
from fasttriplet.errors import OptionError
from fasttriplet.reporting import (
    _audit,
    _dataset,
    _mined,
    _records,
    _run,
    _training,
    _triplets,
    _verification,
)
from fasttriplet.reporting._html import Markup, code, sentences
from fasttriplet.reporting._page import Section, document
from fasttriplet.reporting._pictures import Album
from fasttriplet.run._summary import Summary

PICTURES = 400  # of at most 8 KiB each, they keep the page below 5 MB
_ENDINGS = (".html", ".htm")
# How the pictures are shared out among the sections that are there.
_SHARES = {"dataset": 3, "triplets": 4, "verification": 1, "audit": 5}

PathLike: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """What a page shows, see :func:`report`; `how` has the options of mining, for tables that keep none."""

    rec: Rec | None = None
    triplets: PathLike | None = None
    run: PathLike | Summary | None = None
    audit: PathLike | None = None
    log: PathLike | None = None
    verify: PathLike | None = None
    how: Mapping[str, Any] | None = None

    @property
    def files(self) -> list[PathLike]:
        """Those beside the dataset, by their names."""
        run = None if isinstance(self.run, Summary) else self.run
        return [one for one in (self.triplets, self.audit, self.log, self.verify, run) if one is not None]


@shows(DatasetOptions)
def report(
    out: PathLike,
    *,
    rec: Rec | None = None,
    triplets: PathLike | None = None,
    run: PathLike | Summary | None = None,
    audit: PathLike | None = None,
    log: PathLike | None = None,
    verify: PathLike | None = None,
    pictures: int = PICTURES,
    overwrite: bool = False,
    **options: Unpack[DatasetKeywords],
) -> Path:
    """Write one HTML page that shows a dataset and what was done with it.

    The page needs no server and no network: pictures, charts and style are in it, and it loads nothing. Each
    part begins with what it says, and what to do. Give any of the parts; with `rec` their images are shown.

    Parameters
    ----------
    out : path
        The page, whose name ends in ``.html``. It appears when it is complete.
    rec : path, sequence of paths, or Dataset, optional
        The ``.rec`` file, several that make one dataset, or a :class:`fasttriplet.Dataset`.
    triplets : path, optional
        The table that :func:`fasttriplet.mine_rec` wrote, in any of its formats. A ``.parquet`` file also
        says how it was mined.
    run : path or Summary, optional
        The summary of that run, or a file with what ``fasttriplet mine --json`` printed.
    audit : path, optional
        The folder of an audit, or its table of suspects. In the page findings can be unticked, and it saves
        the decisions as a file.
    log : path, optional
        The log of a training, ``PREFIX-log.jsonl``.
    verify : path, optional
        A file with what ``fasttriplet verify --json`` printed. The files that it names are read for their
        pictures, if they are there.
    pictures : int, default 400
        The most pictures in the page; 0 for none. Each has at most 8 KiB: small JPEG and PNG images as they
        are in the records, others as thumbnails.
    overwrite : bool, default False
        Whether a page that is there may be replaced.
    labels, cache
        See :func:`fasttriplet.index_rec`. A :class:`fasttriplet.Dataset` is made with options of its own.
    max_pixels : int, default 89,478,485
        The most pixels of an image; see :func:`fasttriplet.decode_images`. A larger one is shown as an error.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    FileExistsError
        If `out` is there and `overwrite` is not set.
    RecordError
        If a ``.rec`` file is not one. An image that cannot be decoded is no error; the page says why.
    OSError
        If a file cannot be read or written.
    ValueError
        If nothing is given, or a file is damaged, of another kind or of another dataset; names the file.
    """
    return write_report(
        out,
        Sources(rec=rec, triplets=triplets, run=run, audit=audit, log=log, verify=verify),
        pictures=pictures,
        overwrite=overwrite,
        options=DatasetOptions.of(report, options),
    )


def check_out(out: Path, *, overwrite: bool) -> None:
    """Raise an error if no page can have this name."""
    if out.suffix.lower() not in _ENDINGS:
        raise OptionError("out", f"must end in .html, not {str(out)!r}")
    check_can_be_written(out, overwrite=overwrite)


def write_report(
    out: PathLike,
    given: Sources,
    *,
    pictures: int = PICTURES,
    overwrite: bool = False,
    options: DatasetOptions,
) -> Path:
    """Do what :func:`report` does."""
    path, verify = Path(out), given.verify
    check_out(path, overwrite=overwrite)
    pictures = whole_number("pictures", pictures, 0)
    if given.rec is None and given.run is None and not given.files:
        raise OptionError("rec", "must be given, or another part: triplets, run, audit, log or verify")
    # All files are read before anything long is done.
    mined = None if given.triplets is None else _mined.read(Path(given.triplets), given.how)
    audited = None if given.audit is None else _audit.read(Path(given.audit))
    records = None if given.log is None else _records.read_lines(Path(given.log), _training.WHAT)
    found = None if verify is None else _records.read_object(Path(verify), _verification.WHAT)
    summary = _summary(given.run)
    album = None if given.rec is None else Album(open_dataset(given.rec, options, threads=None))
    if album is not None:
        for table in (mined, audited):
            if table is not None:
                table.check(album)
    parts = {"dataset": album, "triplets": mined, "verification": found, "audit": audited}
    present = sum(_SHARES[name] for name, part in parts.items() if part is not None)
    most = {name: pictures * share // max(1, present) for name, share in _SHARES.items()}
    seen = album if pictures else None
    sections: list[Section] = []

    def add(source: object, what: str, make: Callable[[], Section]) -> None:
        with _records.understanding(str(source), what):
            sections.append(make())

    if album is not None:
        sections.append(_dataset.section(album, most["dataset"]))
    if mined is not None:
        add(given.run, _run.WHAT, lambda: _triplets.section(mined, summary, seen, most["triplets"]))
    if summary is not None:
        add(given.run, _run.WHAT, lambda: _run.section(summary))
    if records is not None:
        add(given.log, _training.WHAT, lambda: _training.section(records))
    if found is not None:
        beside = Path(verify or "").parent
        add(
            verify,
            _verification.WHAT,
            lambda: _verification.section(found, beside, seen, most["verification"], options),
        )
    if audited is not None:
        sections.append(_audit.section(audited, seen, most["audit"]))
    sources = [*(album.dataset.paths if album else ()), *given.files]
    page = document(
        _title(album, sources), _lead(album, mined, audited), sections, [str(one) for one in sources]
    )
    with replacing(path, overwrite=overwrite) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return path


def _summary(run: PathLike | Summary | None) -> dict[str, Any] | None:
    if run is None:
        return None
    return run.to_dict() if isinstance(run, Summary) else _records.read_object(Path(run), _run.WHAT)


def _title(album: Album | None, sources: list[Any]) -> str:
    if album is None:
        return Path(sources[0]).name if sources else "A run"
    names = [path.name for path in album.dataset.paths]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def _lead(album: Album | None, mined: object, audited: object) -> Markup:
    said: list[object] = ["Each part begins with what it says, and what to do."]
    if album is None and (mined is not None or audited is not None):
        said.append(sentences("Give the dataset as", code("--rec"), "to see the images."))
    return sentences(*said)
