"""The demo: draw a dataset, pack it, embed it with an untrained network, mine it, show it."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fasttriplet._core import __version__
from fasttriplet.demo.pictures import draw_identities
from fasttriplet.demo.sheets import contact_sheet, triplet_sheet
from fasttriplet.packing import pack
from fasttriplet.pipeline import mine_rec
from fasttriplet.summary import Summary

Tell = Callable[[str, int, int], object]

_MARK = "demo.json"  # says that a folder is the demo's
_MARGIN = 0.3


@dataclass(frozen=True, slots=True)
class Demo:
    """What :func:`run_demo` made.

    Attributes
    ----------
    rec : Path
        The dataset; its ``.idx`` and ``property`` are beside it.
    model : str
        The spec of what embedded it: ``mxnet:PREFIX,EPOCH``, or ``pixels``.
    no_network : str or None
        Why there is no network, if there is none.
    triplets : Path
        Parquet.
    contact_sheet, triplet_sheet : Path
        PNG.
    summary : Summary
        Of the mining.
    seconds : float
        The demo in all.
    """

    rec: Path
    model: str
    no_network: str | None
    triplets: Path
    contact_sheet: Path
    triplet_sheet: Path
    summary: Summary
    seconds: float


def run_demo(
    out: str | os.PathLike[str] = "demo",
    *,
    identities: int = 60,
    images: int = 20,
    size: int = 112,
    network: bool = True,
    seed: int = 0,
    threads: int | None = None,
    tell: Tell | None = None,
) -> Demo:
    """
    Draw a small dataset and mine it.

    The network has random weights: its triplets show how the parts work together, not how good triplets get.

    Parameters
    ----------
    out : path
        A folder: new, empty, or of an earlier demo, whose files are replaced.
    identities, images : int
        Synthetic identities, and images of each; 2 or more.
    size : int
        Side of the images in pixels.
    network : bool
        Embed with an untrained MXNet network. Without it, or where MXNet cannot be imported, embed with the
        pixels themselves.
    seed : int
        Of the pictures, the network and the mining.
    threads : int, optional
        By default one for each core.
    tell : callable, optional
        Called with a step's name, how much of it is done and how much there is.

    Returns
    -------
    Demo

    Raises
    ------
    FileExistsError
        When `out` is a file, or a folder with files that no demo has made.
    NoTripletsError
        When so few identities leave no semi-hard negative.
    OSError
        When the files cannot be written.
    ValueError
        When a number is out of range.
    """
    for name, value in (("identities", identities), ("images", images)):
        if value < 2:
            msg = f"{name} must be 2 or more, not {value}: two images of one identity and one of another"
            raise ValueError(msg)
    pictures = draw_identities(
        identities, images, size, seed=seed
    )  # before any file: it checks its arguments
    say = tell if tell is not None else _silent
    started = time.perf_counter()
    folder = _own_folder(Path(out))
    settings = {"identities": identities, "images": images, "size": size, "seed": seed}
    (folder / _MARK).write_text(json.dumps({"fasttriplet": __version__, **settings}) + "\n")

    rec = folder / "train.rec"
    with tempfile.TemporaryDirectory(prefix=".pictures-", dir=folder) as drawn:
        for identity, image, pixels in pictures:
            file = Path(drawn) / f"{identity:05d}" / f"{image:05d}.jpg"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(file, quality=95, subsampling=0)
            say("drawing", identity * images + image + 1, identities * images)
        pack(drawn, rec, overwrite=True, progress=lambda done, total: say("packing", done, total))

    no_network = None if network else "it was not asked for"
    model = "pixels"
    if network:
        say("making a network", 0, 1)
        try:
            model = _save_network(folder / "network", size, seed)
        except ImportError as error:
            no_network = str(error)
        say("making a network", 1, 1)

    result = mine_rec(
        rec,
        model=model,
        out=folder / "triplets.parquet",
        images_per_identity=images,
        margin=_MARGIN,
        seed=seed,
        threads=threads,
        progress=lambda now: say("mining", now.images, now.images_in_all),
    )
    contact, triplets = folder / "faces.png", folder / "triplets.png"
    say("drawing sheets", 0, 2)
    contact_sheet(rec, contact)
    say("drawing sheets", 1, 2)
    triplet_sheet([rec], result.triplets.collect(), triplets, margin=_MARGIN, seed=seed)
    say("drawing sheets", 2, 2)
    return Demo(
        rec=rec,
        model=model,
        no_network=no_network,
        triplets=folder / "triplets.parquet",
        contact_sheet=contact,
        triplet_sheet=triplets,
        summary=result.summary,
        seconds=time.perf_counter() - started,
    )


def _own_folder(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file: give the name of a folder"
        raise FileExistsError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / _MARK).exists() and any(folder.iterdir()):
        msg = f"{folder} holds files that are not the demo's: give the name of a new folder"
        raise FileExistsError(msg)
    return folder


def _save_network(prefix: Path, size: int, seed: int) -> str:
    from fasttriplet.mxnet.networks import small_convnet  # noqa: PLC0415  optional
    from fasttriplet.mxnet.untrained import save_untrained  # noqa: PLC0415

    save_untrained(prefix, small_convnet(), (size, size), seed=seed)
    return f"mxnet:{prefix},0"


def _silent(step: str, done: int, total: int) -> None:
    del step, done, total
