"""The audit of a dataset: embed and look once, find what is wrong, write it down."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fasttriplet._checks import thread_count
from fasttriplet._files import check_can_be_written, opened, publish, remove_unfinished
from fasttriplet._forks import ensure_polars_threads
from fasttriplet._options import shows
from fasttriplet.auditing import _embeddings, _pictures
from fasttriplet.auditing._duplicates import Search, duplicates
from fasttriplet.auditing._examine import Examined, examine
from fasttriplet.auditing._findings import KINDS, Kind, no_findings, numbered, write_table
from fasttriplet.auditing._frames import of_dataset, without_images
from fasttriplet.auditing._options import AuditKeywords, AuditOptions
from fasttriplet.auditing._pictures import Looks, PictureThresholds, bad_pictures, keep_looks, kept_looks
from fasttriplet.auditing._survey import Progress, Survey
from fasttriplet.auditing._thresholds import LabelOptions, Thresholds
from fasttriplet.dataset._dataset import Rec, open_dataset
from fasttriplet.dataset._ids import ids_of, places_among
from fasttriplet.dataset._options import kinds_of
from fasttriplet.embedders import Embedder
from fasttriplet.embedders._load import embedder_of

SUSPECTS, IDENTITIES = "suspects.parquet", "identities.parquet"
_VERSION = 1
_OF_PIXELS = ("duplicate", "bad-picture")


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """What :func:`audit` found.

    Attributes
    ----------
    suspects : DataFrame
        One row per image that a finding is about: ``finding, kind, key, file, label, suggested_label, action,
        score, reason, evidence_keys, evidence_files``. Rows with one number in ``finding`` belong together.
    identities : DataFrame
        One row per identity: ``label, images, spread, nearest_label, nearest_distance, findings``.
    thresholds : dict of str to float, int or None
        Those that decided, by their names as options, and what they were calibrated from. None where a kind
        could not be looked for.
    decided_by : list of (str, str)
        The thresholds of the kinds that were looked for, in words.
    notes : list of str
        What could not be looked for, and why; whether embeddings of an earlier audit were used.
    kinds : tuple of str
        Kinds of findings that were looked for.
    files : list of str
        The ``.rec`` files, as they were given.
    embedder : str
        What computed the embeddings, and where.
    images, undecodable : int
        Images of the dataset, and how many of them could not be decoded; 0 if none was to be.
    seconds : dict of str to float
        How long each step took, and in ``total`` all of them.
    folder : Path
        Where ``suspects.parquet``, ``identities.parquet`` and ``embeddings.npy`` are.
    """

    suspects: pl.DataFrame
    identities: pl.DataFrame
    thresholds: dict[str, float | int | None]
    decided_by: list[tuple[str, str]]
    notes: list[str]
    kinds: tuple[Kind, ...]
    files: list[str]
    embedder: str
    images: int
    undecodable: int
    seconds: dict[str, float]
    folder: Path

    def counts(self) -> dict[Kind, dict[str, int]]:
        """For each kind: its findings, the images that they are about, and what is to happen to these."""
        found = {}
        for kind in self.kinds:
            rows = self.suspects.filter(pl.col("kind") == kind)
            actions = {
                action: int((rows["action"] == action).sum()) for action in ("relabel", "drop", "keep")
            }
            found[kind] = {"findings": rows["finding"].n_unique(), "images": rows.height} | actions
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON: all but the two tables, which are files."""
        return {
            "files": self.files,
            "folder": str(self.folder),
            "embedder": self.embedder,
            "images": self.images,
            "identities": self.identities.height,
            "undecodable": self.undecodable,
            "kinds": self.counts(),
            "thresholds": self.thresholds,
            "notes": self.notes,
            "seconds": self.seconds,
        }


@shows(AuditOptions)
def audit(
    rec: Rec,
    *,
    model: str | Embedder,
    out: str | os.PathLike[str],
    overwrite: bool = False,
    kinds: Sequence[Kind] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    **options: Unpack[AuditKeywords],
) -> Audit:
    """Find images with wrong labels, identities that are one or several, duplicates, and bad pictures.

    Each image is decoded and embedded once. Embeddings are kept in `out`, and a later audit of the same
    dataset with the same model takes them from there. Nothing in the dataset is changed.

    Parameters
    ----------
    rec : path, sequence of paths, or Dataset
        The ``.rec`` file, several that make one dataset, or a :class:`fasttriplet.Dataset`.
    model : str or Embedder
        What turns images into embeddings: an embedder, or a spec for :func:`fasttriplet.load_embedder`. The
        better it tells identities apart, the fewer findings are wrong or missing.
    out : path
        A folder for ``suspects.parquet``, ``identities.parquet``, ``embeddings.npy`` with
        ``embeddings.json``, and ``pictures.parquet``. It is made if it is missing.
    overwrite : bool, default False
        Whether the results of an earlier audit may be replaced, and embeddings of another dataset or model.
    kinds : sequence of str, optional
        Kinds of findings to look for: ``"mislabelled"``, ``"outlier"``, ``"same-person"``, ``"two-people"``,
        ``"duplicate"`` and ``"bad-picture"``. By default all. Without the last two nothing is decoded for a
        model that needs no images.
    threads : int, optional
        Threads that decode, compare and search; one per core by default. A network's own threads are not
        counted.
    progress : callable, optional
        Called with a step in words, the number of images done and how many there are.
    labels, cache
        See :func:`fasttriplet.index_rec`. A :class:`fasttriplet.Dataset` is made with options of its own.
    max_pixels : int, default 89,478,485
        The most pixels of an image that is decoded; see :func:`fasttriplet.decode_images`.
    other_above : float, optional
        Mislabelled: the image and the centre of another identity have at least this cosine. This and the
        following thresholds are calibrated from the dataset by default.
    lead : float, optional
        Mislabelled: that cosine exceeds the one with the own identity by this much.
    own_below : float, optional
        Outlier: the image and the centre of its own identity have a smaller cosine.
    same_person_above : float, optional
        Same person: two identities have at least this likeness; 1 is that of two halves of one.
    two_people_below : float, optional
        Two people: two groups of an identity have a smaller likeness.
    smallest_group : int, default 3
        Two people: images that a group must have to count as a person of its own.
    contrast_below : float, optional
        Bad picture: the standard deviation of its gray levels (0 to 255) is smaller, so it is nearly uniform.
    brightness_below : float, optional
        Bad picture: the mean of its gray levels is smaller, so it is dark.
    sharpness_below : float, optional
        Bad picture: the standard deviation of its Laplacian is a smaller multiple of the contrast, so it is
        blurred.
    copies_above : float, default 0.8
        Duplicate: the details of two pictures have at least this correlation. It is not calibrated: it tells
        copies that were encoded again at a JPEG quality of 70 from other photographs of the same scene.

    Returns
    -------
    Audit

    Raises
    ------
    FileExistsError
        If `out` has results or other embeddings and `overwrite` is not set, or another run is writing there.
    RecordError
        If a record is damaged so that its image is not in the index; an image that cannot be decoded is a
        finding.
    OSError
        If a file cannot be read or written.
    ValueError
        For wrong options; if embeddings are not of this dataset; if no image can be decoded or embedded.
    ImportError, MemoryError
        If the model's package is not installed, or the embeddings do not fit the memory.
    """
    chosen = AuditOptions.of(audit, options)
    looked_for = KINDS if kinds is None else kinds_of("kinds", kinds)
    threads = thread_count(threads)
    folder = Path(out)
    for name in (SUSPECTS, IDENTITIES):
        check_can_be_written(folder / name, overwrite=overwrite)
    embedder = embedder_of(model)
    run = _Run(
        folder=folder,
        embedder=embedder,
        options=chosen,
        kinds=looked_for,
        overwrite=overwrite,
        threads=threads,
        progress=progress or (lambda *_: None),
    )
    with opened(folder / SUSPECTS, folder / IDENTITIES, overwrite=overwrite) as outputs:
        found = run.through(rec)
        with run.clock("write"):
            for output, frame in zip(outputs, (found.suspects, found.identities), strict=True):
                write_table(frame, output, run.about(found))
            publish(*outputs)
    return found


@dataclass(kw_only=True)
class _Run:
    """The steps of an audit."""

    folder: Path
    embedder: Embedder
    options: AuditOptions
    kinds: tuple[Kind, ...]
    overwrite: bool
    threads: int | None
    progress: Progress
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def clock(self, step: str) -> Iterator[None]:
        """Count the time of the block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            self.seconds[step] = ended - started
            self.seconds["total"] = ended - self.started

    def through(self, rec: Rec) -> Audit:
        """Take all steps but the last, which writes the results."""
        ensure_polars_threads()
        options, kinds = self.options, self.kinds
        with self.clock("index"):
            self.dataset = dataset = open_dataset(rec, options, threads=self.threads)
            self.embedder.prepare(dataset.index)
        embeddings, looks = self._see()
        bad, pictures, leave_out = no_findings(), None, np.zeros(len(dataset), bool)
        if looks is not None:
            leave_out = ~looks.decoded
            if "bad-picture" in kinds:
                pictures = PictureThresholds.of(looks, options)
                bad = bad_pictures(dataset, looks, pictures)
                leave_out = leave_out | self._among(bad)
        with self.clock("examine"):
            examined = self._examine(embeddings, leave_out)
        suspects = examined.suspects
        copies = no_findings()
        if looks is not None and "duplicate" in kinds:
            with self.clock("duplicates"):
                copies = self._copies(looks, ~leave_out, examined)
            dropped = copies.filter(pl.col("action") == "drop")
            suspects = without_images(suspects, dropped["file"].to_numpy(), dropped["key"].to_numpy())
        suspects = numbered([suspects.filter(pl.col("kind").is_in(kinds)), copies, bad])
        if any(kind not in _OF_PIXELS for kind in kinds):
            self.notes += examined.notes
        return Audit(
            suspects=suspects,
            identities=of_dataset(examined.identities, suspects, dataset.labels),
            thresholds=self._thresholds(examined.thresholds, pictures),
            decided_by=self._in_words(examined.thresholds, pictures),
            notes=self.notes,
            kinds=kinds,
            files=[str(path) for path in dataset.paths],
            embedder=self.embedder.description,
            images=len(dataset),
            undecodable=0 if looks is None else int((~looks.decoded).sum()),
            seconds=self.seconds,
            folder=self.folder,
        )

    def about(self, found: Audit) -> dict[str, Any]:
        """What the files say about their origin."""
        return {
            "kind": "suspects",
            "version": _VERSION,
            "dataset": self.dataset.fingerprint,
            "files": found.files,
            "model": found.embedder,
            "kinds": found.kinds,
            "options": {name: value for name, value in asdict(self.options).items() if name != "cache"},
            "thresholds": found.thresholds,
            "decided_by": found.decided_by,
        }

    def _see(self) -> tuple[NDArray[np.float32], Looks | None]:
        """Embed all images, and look at them, unless that was done before."""
        folder, dataset, embedder = self.folder, self.dataset, self.embedder
        wanted = embedder.needs_images or any(kind in self.kinds for kind in _OF_PIXELS)
        looks = kept_looks(folder, dataset) if wanted else None
        looking = wanted and looks is None
        for name in (_embeddings.NAME, _embeddings.ABOUT, _pictures.NAME):  # which may be used as they are
            remove_unfinished(folder / name)
        with self.clock("embed"):
            survey = Survey(dataset, embedder, looking=looking, threads=self.threads)
            kept = _embeddings.KeptEmbeddings(folder, dataset, survey)
            path = folder / _embeddings.NAME
            if kept.vectors is not None:
                self.notes.append(f"{path} is of this dataset and model, and was used again")
                if looking:
                    looks = Survey(dataset, None, looking=True, threads=self.threads).run(None, self.progress)
                vectors = kept.vectors
            else:
                if kept.why_not is not None:
                    if not self.overwrite:
                        reason = f"{kept.why_not}; overwrite=True replaces it, or give another folder"
                        raise FileExistsError(errno.EEXIST, reason, str(path))
                    self.notes.append(f"{path} was computed again: {kept.why_not}")
                vectors, seen = _embeddings.embed(
                    folder, dataset, embedder, survey, overwrite=self.overwrite, progress=self.progress
                )
                looks = seen or looks
            if looking and looks is not None:
                keep_looks(folder, dataset, looks)
        return vectors, looks

    def _among(self, found: pl.DataFrame) -> NDArray[np.bool_]:
        """Whether each image of the dataset is in these rows."""
        marked = np.zeros(len(self.dataset), bool)
        marked[self._positions(found["key"], found["file"])] = True
        return marked

    def _positions(self, keys: pl.Series, files: pl.Series) -> NDArray[np.int64]:
        return places_among(self.dataset.ids, ids_of(keys.to_numpy(), files.to_numpy()))

    def _examine(self, embeddings: NDArray[np.float32], leave_out: NDArray[np.bool_]) -> Examined:
        dataset = self.dataset
        options = LabelOptions(**{name: getattr(self.options, name) for name in LabelOptions.names()})
        return examine(
            embeddings,
            dataset.labels,
            dataset.keys,
            dataset.files,
            options,
            leave_out=leave_out,
            threads=self.threads,
            progress=self.progress,
        )

    def _copies(self, looks: Looks, usable: NDArray[np.bool_], examined: Examined) -> pl.DataFrame:
        """Find duplicates; an image that looks mislabelled may be a copy of the images beside it."""
        wrong = examined.suspects.filter(pl.col("kind") == "mislabelled")
        wrong = wrong.explode("evidence_keys", "evidence_files").drop_nulls("evidence_keys")
        one = self._positions(wrong["key"], wrong["file"])
        other = self._positions(wrong["evidence_keys"], wrong["evidence_files"])
        search = Search(
            dataset=self.dataset,
            looks=looks,
            above=self.options.copies_above,
            threads=self.threads,
            progress=self.progress,
        )
        return duplicates(self.dataset, search.copies(usable, (one, other)), examined.own)

    def _thresholds(
        self, labels: Thresholds, pictures: PictureThresholds | None
    ) -> dict[str, float | int | None]:
        found: dict[str, float | int | None] = asdict(labels)
        if pictures is not None:
            found |= asdict(pictures)
        if "duplicate" in self.kinds:
            found["copies_above"] = self.options.copies_above
        return found

    def _in_words(self, labels: Thresholds, pictures: PictureThresholds | None) -> list[tuple[str, str]]:
        lines = str(labels).splitlines()
        lines.append(f"duplicate: correlation of details at least {self.options.copies_above:.2f}")
        found, kind = [], ""
        for name, _, text in (line.partition(": ") for line in lines):
            kind = kind if name.startswith(" ") else name.replace(" ", "-")
            if kind in self.kinds:
                found.append((name, text))
        of_pictures = [] if pictures is None else str(pictures).splitlines()
        return found + [(name, text) for name, _, text in (line.partition(": ") for line in of_pictures)]
