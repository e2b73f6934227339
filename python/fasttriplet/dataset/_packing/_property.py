"""The file ``property``: identities, height and width, which InsightFace's scripts read beside ``train.rec``.

A folder has one such file, and may have several ``.rec``. It stays with the one that it was written for.
"""

from __future__ import annotations

import os
from pathlib import Path

from fasttriplet.dataset._numbering import stated_identities
from fasttriplet.dataset._packing._layout import identities_of

_READ_BY_INSIGHTFACE = "train.rec"


def property_of(out: Path) -> tuple[Path | None, str | None]:
    """Return the ``property`` that a run for `out` may write, or None and why it may not write one."""
    path = out.with_name("property")
    recs = [rec for rec in out.parent.glob("*.rec") if rec.is_file()]
    recs.sort(key=lambda rec: (rec.name != out.name, rec.name))  # of equals, the first is taken
    if path.exists():
        described = _described(path, recs)
        if recs in ([], [out]) or described == out:
            return path, None
        reason = f"the one in this folder describes {described.name if described else 'another .rec'}"
    elif out.name != _READ_BY_INSIGHTFACE and out.with_name(_READ_BY_INSIGHTFACE).exists():
        reason = f"InsightFace's scripts would read it with {_READ_BY_INSIGHTFACE}"
    else:
        return path, None
    return None, (
        f"`property` was not written, since {reason}; to use {out.name} with InsightFace's scripts, pack it "
        "into a folder of its own"
    )


def write_property(path: Path, rec: Path, identities: int, size: tuple[int, int]) -> None:
    """Write the numbers of `rec`, and mark the file as that one's: both get the same time."""
    path.write_text(f"{identities},{size[0]},{size[1]}\n", encoding="ascii")
    times = rec.stat()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _described(path: Path, recs: list[Path]) -> Path | None:
    """Find out which ``.rec`` has the number of identities in `path`; of several, the one written with it."""
    if (stated := stated_identities(path)) is None:
        return None
    fitting = [rec for rec in recs if identities_of(rec) in (stated, None)]
    written = path.stat().st_mtime_ns
    return min(fitting, key=lambda rec: abs(rec.stat().st_mtime_ns - written), default=None)
