"""The demo: draw a dataset, pack it, train a network with its triplets, mine it with that, show it."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fasttriplet._checks import whole_number
from fasttriplet._core import __version__
from fasttriplet._files import naming, opened, publish, remove_unfinished, scratch
from fasttriplet.dataset._dataset import Dataset
from fasttriplet.dataset._options import DatasetOptions
from fasttriplet.dataset._packing._pack import pack
from fasttriplet.demo._pictures import draw_identities
from fasttriplet.demo._sheets import contact_sheet, triplet_sheet
from fasttriplet.errors import CollapsedError, NoTripletsError, OptionError
from fasttriplet.mining._options import MiningOptions
from fasttriplet.reporting._report import Sources, write_report
from fasttriplet.run._mine_rec import mine_rec
from fasttriplet.run._summary import Summary
from fasttriplet.verify._bin_file import write_pairs
from fasttriplet.verify._draw import draw_pairs
from fasttriplet.verify._run import verify_pairs

Progress = Callable[[str, int, int], object]

_MARK = "demo.json"  # says that a folder is the demo's
# From its datasets:
_DERIVED = ("unseen.bin", "triplets.parquet", "faces.png", "triplets.png", "report.html")
_MARGIN = 0.3
_UNSEEN = 20  # identities that the network is verified on, and not trained
_PAIRS = 1000  # of them, of each kind
_BAG_SIZE = 300  # small, so that they are mined often
_BATCHES = 400  # about a minute on two cores


@dataclass(frozen=True, slots=True)
class Demo:
    """What :func:`run_demo` made.

    Attributes
    ----------
    rec : Path
        The dataset; its ``.idx`` and ``property`` are beside it.
    pairs : Path
        Pairs of identities that are not in it, for ``fasttriplet verify``.
    model : str
        The spec of what embedded it for mining: ``mxnet:PREFIX,EPOCH``, or ``pixels``.
    no_network : str or None
        Why there is no network, if there is none.
    verifications : list of dict
        How well the network told the pairs apart, before the training and after it: records of its log.
    triplets : Path
        Parquet.
    contact_sheet, triplet_sheet : Path
        PNG.
    report : Path
        The page of :func:`fasttriplet.report` on all of this.
    summary : Summary
        Of the mining.
    seconds : float
        The demo in all.
    """

    rec: Path
    pairs: Path
    model: str
    no_network: str | None
    verifications: list[dict[str, Any]]
    triplets: Path
    contact_sheet: Path
    triplet_sheet: Path
    report: Path
    summary: Summary
    seconds: float


def run_demo(
    out: str | os.PathLike[str] = "demo",
    *,
    overwrite: bool = False,
    identities: int = 60,
    images: int = 20,
    size: int = 112,
    network: bool = True,
    batches: int = _BATCHES,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Demo:
    """
    Draw a small dataset, train a network on it, verify that on other identities, and mine with it.

    Parameters
    ----------
    out : path
        A folder: new, empty, or of an earlier demo.
    overwrite : bool, default False
        Whether the files of an earlier demo may be replaced.
    identities, images : int
        Synthetic identities to train on, and images of each; 2 or more.
    size : int
        Side of the images in pixels.
    network : bool
        Train an MXNet network. Without it, or where MXNet cannot be imported, embed with the pixels
        themselves.
    batches : int
        Of the training.
    seed : int
        Of the pictures, the network and the mining.
    threads : int, optional
        By default one for each core.
    progress : callable, optional
        Called with a step's name, how much of it is done and how much there is, 0 if that is unknown.

    Returns
    -------
    Demo

    Raises
    ------
    FileExistsError
        When `out` is a file, a folder with files that no demo has made, or that of an earlier demo and
        `overwrite` is not set, or when another demo is being made there.
    NoTripletsError
        When so few identities leave no semi-hard negative.
    OSError
        When the files cannot be written.
    ValueError
        When a number is out of range.
    """
    for name, value in (("identities", identities), ("images", images)):
        if value < 2:
            raise OptionError(
                name, f"must be 2 or more, not {value}: two images of one identity and one of another"
            )
    # Before any file: it checks its arguments.
    pictures = draw_identities(identities, images, size, seed=seed)
    whole_number("batches", batches, 1)
    progress = progress or _silent
    started = time.perf_counter()
    settings = {"identities": identities, "images": images, "size": size, "seed": seed, "batches": batches}
    with _own_folder(Path(out), settings, overwrite=overwrite) as folder:
        rec, unseen, pairs = folder / "train.rec", folder / "unseen.rec", folder / "unseen.bin"
        in_all = (identities + _UNSEEN) * images
        others = draw_identities(identities + _UNSEEN, images, size, seed=seed, first=identities)
        _pack(rec, pictures, 0, in_all, progress)
        _pack(unseen, others, identities * images, in_all, progress)
        _write_pairs(unseen, pairs, seed)

        no_network = None if network else "it was not asked for"
        model = "pixels"
        verifications: list[dict[str, Any]] = []
        if network:
            try:
                model, verifications = _train(
                    rec, pairs, folder / "network", batches, seed, threads, progress
                )
            except ImportError as error:
                no_network = str(error)

        result = mine_rec(
            rec,
            model=model,
            out=folder / "triplets.parquet",
            overwrite=True,
            images_per_identity=images,
            margin=_MARGIN,
            seed=seed,
            threads=threads,
            progress=lambda now: progress("mining", now.images, now.images_in_all),
        )
        contact, triplets = folder / "faces.png", folder / "triplets.png"
        progress("drawing sheets", 0, 2)
        contact_sheet(rec, contact, overwrite=True)
        progress("drawing sheets", 1, 2)
        triplet_sheet([rec], result.triplets.collect(), triplets, margin=_MARGIN, seed=seed, overwrite=True)
        progress("drawing sheets", 2, 2)
        progress("writing the page", 0, 0)
        sources = Sources(
            rec=rec,
            triplets=folder / "triplets.parquet",
            run=result.summary,
            log=None if no_network else folder / "network-log.jsonl",
            how=asdict(MiningOptions(margin=_MARGIN)) | {"seed": seed, "model": model},
        )
        page = write_report(
            folder / "report.html",
            sources,
            overwrite=True,
            options=DatasetOptions(),
        )
        return Demo(
            rec=rec,
            pairs=pairs,
            model=model,
            no_network=no_network,
            verifications=verifications,
            triplets=folder / "triplets.parquet",
            contact_sheet=contact,
            triplet_sheet=triplets,
            report=page,
            summary=result.summary,
            seconds=time.perf_counter() - started,
        )


@contextmanager
def _own_folder(folder: Path, settings: Mapping[str, int], *, overwrite: bool) -> Iterator[Path]:
    """Make the folder, mark it as a demo's, and keep other demos out of it."""
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: give the name of a folder")
    mark = folder / _MARK
    remove_unfinished(mark)  # of a demo that was killed at once
    if not mark.exists() and folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} holds files that are not the demo's: give the name of a new folder")
    if mark.exists() and not overwrite:
        raise FileExistsError(f"{folder} holds an earlier demo; overwrite=True replaces it")
    with opened(mark, overwrite=overwrite) as (output,):
        with naming(output):
            output.unfinished.write_text(json.dumps({"fasttriplet": __version__, **settings}) + "\n")
        publish(output)
        for name in _DERIVED:  # they would not fit the new dataset if the demo did not come to its end
            (folder / name).unlink(missing_ok=True)
        yield folder


def _pack(
    rec: Path,
    pictures: Iterable[tuple[int, int, NDArray[np.uint8]]],
    before: int,
    in_all: int,
    progress: Progress,
) -> None:
    """Draw pictures, of which `before` were drawn already, and pack them."""
    with scratch(rec.with_name("pictures")) as drawn:
        for count, (identity, image, pixels) in enumerate(pictures, start=before + 1):
            file = drawn / f"{identity:05d}" / f"{image:05d}.jpg"
            file.parent.mkdir(exist_ok=True)
            encoded = io.BytesIO()  # of a file on a full disk, Pillow would write a part and say nothing
            Image.fromarray(pixels).save(encoded, "JPEG", quality=95, subsampling=0)
            file.write_bytes(encoded.getvalue())
            progress("drawing", count, in_all)
        pack(drawn, rec, overwrite=True, progress=partial(progress, "packing"))


def _write_pairs(rec: Path, pairs: Path, seed: int) -> None:
    dataset = Dataset(rec)
    drawn = draw_pairs(dataset.index, _PAIRS, seed)
    rows = np.stack(drawn[:2], axis=1).ravel()
    write_pairs(pairs, [dataset.read(row)[1] for row in rows], drawn.same, overwrite=True)


def _train(  # noqa: PLR0917
    rec: Path, pairs: Path, prefix: Path, batches: int, seed: int, threads: int | None, progress: Progress
) -> tuple[str, list[dict[str, Any]]]:
    progress("loading MXNet", 0, 0)
    from fasttriplet.training import TrainSettings, train_rec  # noqa: PLC0415  optional

    model = f"mxnet:{prefix},0"
    verifications = []

    def record(line: Mapping[str, Any]) -> None:
        match line["kind"]:
            case "verifying":
                progress("verifying", line["images"], line["of"])
            case "verification":
                verifications.append(dict(line))
            case "embedded" | "step":
                progress("training", line["batch"], batches)

    settings = TrainSettings(
        rec=(str(rec),),
        framework="mxnet",
        network="small",
        margin=_MARGIN,
        bag_size=_BAG_SIZE,
        lr_steps=(max(1, batches * 2 // 3),),
        seed=seed,
    )
    try:
        train_rec(
            settings,
            prefix,
            overwrite=True,
            batches=batches,
            verify_on=[pairs],
            verify_every=batches,
            checkpoint_every=batches,
            log_every=min(batches, 5),
            threads=threads,
            progress=record,
        )
    except CollapsedError:
        raise
    except NoTripletsError:  # nothing is left to learn from these characters; the network was saved
        found = verify_pairs(pairs, model, progress=partial(progress, "verifying"))
        verifications.append(found.to_dict())
    return model, verifications


def _silent(step: str, done: int, total: int) -> None:
    del step, done, total
