"""What an unfinished run of mining has done: a folder beside its output, and what it is of."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from fasttriplet._files import folder_beside, replacing
from fasttriplet.embedders._vectors import why_of_another_model
from fasttriplet.errors import NoTripletsError
from fasttriplet.run._probe import Probe

_KIND, _VERSION = "unfinished mining", 2
_ABOUT, _PROBE = "about.json", "embedding of an image"
_TOKEN = re.compile("[0-9a-f]{16}")
_TRIES, _PAUSE = 10, 0.1  # to remove a folder, and seconds between two of them


@dataclass(slots=True)
class WorkFolder:
    """A folder of work that can be continued.

    Attributes
    ----------
    folder : Path
    token : str
        The name of the folder in it that has the work. It is random: a process that still works for an
        earlier run, or on a machine that has another folder of this name, finds no such place.
    of : dict or None
        Of what the work is; None before :meth:`begin` has said it.
    overwrite : bool
        Whether the run may replace its output.
    stays : bool
        Whether the folder stays after an error.
    """

    folder: Path
    token: str
    of: dict[str, Any] | None = None
    overwrite: bool = False
    stays: bool = True
    _done: str | None = None

    @property
    def place(self) -> Path:
        """The folder for files of the work."""
        return self.folder.absolute() / self.token

    def begin(self, about: Mapping[str, Any], probe: Probe | None = None) -> None:
        """Say of what the work is, as plain data; a ValueError if there is work of something else.

        An embedding of the probe is kept, too: the model of a run that continues must give the same.
        """
        about = json.loads(json.dumps(about))
        vector = None if probe is None else probe.vector.tolist()
        if self.of is None:
            self.of = {**about, _PROBE: vector}
            self.write()
            return
        differ = [name for name in about if self.of.get(name) != about[name]]
        why = _difference(self.of, about, differ) if differ else None
        known = self.of.get(_PROBE)
        if why is None and probe is not None and known is not None:
            why = why_of_another_model(
                about["triplets"]["model"], np.asarray(known, np.float32), probe.vector
            )
        if why is not None:
            raise ValueError(
                f"{self.folder} cannot be continued: {why}; run it as before, or overwrite=True starts again"
            )

    def write(self) -> None:
        """Write what the folder is."""
        plain = {"fasttriplet": _KIND, "version": _VERSION, "token": self.token}
        with replacing(self.folder / _ABOUT) as file:
            text = json.dumps(plain | {"overwrite": self.overwrite, "of": self.of})
            file.write_text(text, encoding="utf-8")
        self.place.mkdir(exist_ok=True)

    @classmethod
    def read(cls, folder: Path) -> WorkFolder | None:
        """What is in a folder; None if it is not the work of a run of this version."""
        try:
            found = json.loads((folder / _ABOUT).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("fasttriplet") != _KIND:
            return None
        token, of = found.get("token"), found.get("of")
        if found.get("version") != _VERSION or not (isinstance(token, str) and _TOKEN.fullmatch(token)):
            return None
        overwrite = found.get("overwrite") is True
        return cls(folder, token, of, overwrite) if isinstance(of, (dict, NoneType)) else None

    def check_shared(self) -> None:
        """Raise an OSError in a process that does not see the folder of the work."""
        if not self.place.is_dir():
            raise FileNotFoundError(
                errno.ENOENT,
                "is not the folder that the run writes to; it must be in a folder that all machines share",
                str(self.folder),
            )

    def note(self, done: str | None) -> None:
        """Note what is done, in words; None for nothing."""
        self._done = done

    def tell(self, error: BaseException) -> None:
        """Say in a note on an error what is kept."""
        if self._done is not None and self.stays:
            error.add_note(f"kept in {self.folder}: {self._done}; resume=True continues")


@contextmanager
def work_folder(out: Path | None, *, resume: bool, overwrite: bool) -> Iterator[WorkFolder]:
    """The folder for the work of a run: beside its output, where it stays after an error, or a temporary one.

    Raises
    ------
    FileExistsError
        If there is work, and it is neither to be continued (`resume`) nor to be removed (`overwrite`).
    ValueError
        If it is to be continued and is of another version.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="fasttriplet-", ignore_cleanup_errors=True) as temporary:
            yield _new(Path(temporary), overwrite=overwrite, stays=False)
        return
    folder = folder_beside(out)
    if os.path.lexists(folder) and _is_foreign(folder):
        raise FileExistsError(
            errno.EEXIST,
            "is in the way: it is not the folder of an unfinished run; move it away",
            str(folder),
        )
    if (folder / _ABOUT).exists() and not resume:
        if not overwrite:
            raise FileExistsError(
                errno.EEXIST,
                "has the work of a run that did not end; resume=True continues it, overwrite=True starts "
                "again",
                str(folder),
            )
        shutil.rmtree(folder)
    if (folder / _ABOUT).exists():
        found = WorkFolder.read(folder)
        if found is None:
            raise ValueError(
                f"{folder} is not the work of a run of this version; overwrite=True starts again"
            )
        work = found
        work.place.mkdir(exist_ok=True)  # the run may have been killed before it had made it
        for begun in work.place.glob(".*"):  # by a process that was killed
            begun.unlink(missing_ok=True)
    else:
        # Before images are embedded, which takes longest: what is there from now on can be continued.
        work = _new(folder, overwrite=overwrite, stays=True)
    try:
        yield work
    except NoTripletsError:  # there is no more to find
        _remove(folder)
        raise
    except BaseException as error:
        with suppress(OSError):
            if not any(work.place.iterdir()):  # nothing is done
                _remove(folder)
        if folder.exists():
            work.tell(error)
        raise
    _remove(folder)


def _remove(folder: Path) -> None:
    """Remove work that is no longer needed. A task that ends late may write a last file meanwhile."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_PAUSE)


def _new(folder: Path, *, overwrite: bool, stays: bool) -> WorkFolder:
    work = WorkFolder(folder, secrets.token_hex(8), overwrite=overwrite, stays=stays)
    work.write()
    return work


def _is_foreign(folder: Path) -> bool:
    """Whether no run has made a folder. One that was killed at once has only begun to write what it is of."""
    if folder.is_symlink() or not folder.is_dir():
        return True
    begun = {f".{_ABOUT}.unfinished"}
    return not (folder / _ABOUT).exists() and not {entry.name for entry in folder.iterdir()} <= begun


def may_overwrite(out: Path) -> bool:
    """Whether the run whose work is kept beside its output was allowed to replace that.

    Raises
    ------
    FileExistsError
        If the output is there, and no work of a run.
    """
    folder = folder_beside(out)
    if out.is_file() and not os.path.lexists(folder):
        raise FileExistsError(
            errno.EEXIST,
            "exists already, and no unfinished run is beside it, so there is nothing to continue; "
            "overwrite=True mines again",
            str(out),
        )
    work = WorkFolder.read(folder)
    return work is not None and work.overwrite


def _difference(before: Mapping[str, Any], now: Mapping[str, Any], names: list[str]) -> str:
    """Say in words in what the work of a folder differs from that of this run."""
    if "triplets" in names:
        old, new = before.get("triplets") or {}, now["triplets"]
        for name in new:
            if old.get(name) != new[name] and name != "options":
                return f"it is of the {name} {old.get(name)!r}, not {new[name]!r}"
        for name, value in new["options"].items():
            known = (old.get("options") or {}).get(name)
            if known != value:
                return f"it was begun with {name} {known!r}, not {value!r}"
    if "embeddings" in names:
        return "the embeddings are others"
    return "its blocks have other sizes, as memory was another"
