"""``fasttriplet embed``: the embeddings of a dataset as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from fasttriplet._words import counted
from fasttriplet.cli import _options as options
from fasttriplet.cli import _show as show
from fasttriplet.cli import _types as types
from fasttriplet.cli._progress import display

if TYPE_CHECKING:
    from fasttriplet.run._embed_rec import Embedded


@click.command()
@options.rec(required=True)
@options.model(required=True)
@click.option(
    "--out",
    required=True,
    type=types.PATH,
    callback=options.ends_in(".npy"),
    metavar="FILE.npy",
    help="File for the embeddings. FILE.npy.json beside it says what they are of.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue what a stopped run has done, if there is anything. The result is bit-identical to that "
    "of a run without a stop.",
)
@options.overwrite
@options.option(
    "dtype",
    "Numbers of the file. float16 takes half the space.",
    "float32",
    Literal["float32", "float16"],
)
@options.on_error
@options.threads
@options.ray
@options.as_json
def embed(
    *,
    rec: tuple[Path, ...],
    model: str,
    devices: str | None,
    batch_size: int | None,
    out: Path,
    resume: bool,
    overwrite: bool,
    ray: str | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Embed all images of .rec files into a .npy file.

    It has one row per image in the order of the keys, those of the first --rec first, and --model npy:FILE of
    any command takes it. With --on-error skip, images that cannot be used have rows of NaN. A run that was
    stopped, by whatever it was, is continued by the same command with --resume.
    """
    from fasttriplet.run._embed_rec import check_embed_rec, embed_rec  # noqa: PLC0415  not for --help

    check_embed_rec(model, out, overwrite=overwrite, resume=resume)  # before a model is loaded
    with display() as shown:
        embedder = options.load_model(shown, model, devices, batch_size, ray=ray)
        if ray is None:
            shown.update("indexing")
        done = embed_rec(
            options.one_or_several(rec),
            model=embedder,
            out=out,
            resume=resume,
            overwrite=overwrite,
            ray=ray,
            progress=shown.update,
            **how,
        )
    if as_json:
        show.as_json(done.to_dict())
    else:
        _print(done)


def _print(done: Embedded) -> None:
    rates = {stage: done.images_per_second(stage) for stage in ("decode", "embed")}
    facts = {
        "dataset": f"{counted(done.images, 'image')} in {', '.join(done.files)}",
        "embeddings": done.embedder,
        "file": f"{done.images:,} x {done.size:,} {done.dtype}, {done.bytes:,} bytes",
        "time": f"{done.seconds['total']:,.1f} s",
    }
    facts |= {stage: f"{rate:,.0f} images/s" for stage, rate in rates.items() if rate}
    if done.resumed_after:
        facts["resumed"] = f"after {counted(done.resumed_after, 'image')}"
    show.facts(facts)
    show.skipped(done.files, done.skipped)
    click.echo(f"Embeddings are in {done.out}; what they are of is in {done.out}.json")
