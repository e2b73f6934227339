"""The file ``property``: identities, height and width, which InsightFace's scripts read beside ``train.rec``.

A folder has one such file, and may have several ``.rec``. It stays with the one that it was written for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from fasttriplet._files import Output, naming, remove_unfinished
from fasttriplet.dataset._numbering import stated_identities
from fasttriplet.dataset._packing._layout import identities_of

_READ_BY_INSIGHTFACE = "train.rec"


def property_of(own: Sequence[Path]) -> tuple[Path | None, str | None]:
    """Return the ``property`` that a run may write, or None and why it may not write one.

    It describes the first of the files that the run writes, its `own`.
    """
    out = own[0]
    path = out.with_name("property")
    recs = [rec for rec in out.parent.glob("*.rec") if rec.is_file()]
    recs.sort(key=lambda rec: (rec.name != out.name, rec.name))  # of equals, the first is taken
    if path.exists():
        if set(recs) <= set(own):
            return path, None
        try:
            described = _described(path, recs)
        except OSError as error:
            return None, _not_written(out, f"the one in this folder cannot be read ({error.strerror})")
        if described == out:
            return path, None
        reason = f"the one in this folder describes {described.name if described else 'another .rec'}"
    elif out.name != _READ_BY_INSIGHTFACE and out.with_name(_READ_BY_INSIGHTFACE).exists():
        reason = f"InsightFace's scripts would read it with {_READ_BY_INSIGHTFACE}"
    else:
        return path, None
    return None, _not_written(out, reason)


def _not_written(out: Path, reason: str) -> str:
    return (
        f"`property` was not written, since {reason}; to use {out.name} with InsightFace's scripts, pack it "
        "into a folder of its own"
    )


@contextmanager
def opened_property(own: Sequence[Path], *, overwrite: bool) -> Iterator[tuple[Output | None, str | None]]:
    """Open the ``property`` of a run for its `own` files that is about to end, or say why it is not written.

    Runs for other files of the folder are not held up, so it is open for a moment only.
    """
    out = own[0]
    path, why_not = property_of(own)
    if path is None:
        with suppress(OSError):
            remove_unfinished(out.with_name("property"))
        yield None, why_not
        return
    try:
        output = Output(path, overwrite=overwrite)
    except FileExistsError:
        yield None, _not_written(out, "another run is writing it")
        return
    with closing(output):
        yield output, None


def write_property(output: Output, rec: Path, identities: int, size: tuple[int, int]) -> None:
    """Write the numbers of `rec`, and mark the file as that one's: both get the same time."""
    with naming(output):
        output.unfinished.write_text(f"{identities},{size[0]},{size[1]}\n", encoding="ascii")
        times = rec.stat()
        os.utime(output.unfinished, ns=(times.st_atime_ns, times.st_mtime_ns))


def _described(path: Path, recs: list[Path]) -> Path | None:
    """Find out which ``.rec`` has the number of identities in `path`; of several, the one written with it."""
    if (stated := stated_identities(path)) is None:
        return None
    fitting = [rec for rec in recs if identities_of(rec) in (stated, None)]
    written = path.stat().st_mtime_ns
    return min(fitting, key=lambda rec: abs(rec.stat().st_mtime_ns - written), default=None)
