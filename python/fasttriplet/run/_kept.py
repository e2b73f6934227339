"""What an unfinished run of mining has done: a folder beside its output, and what it is of."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from fasttriplet._files import folder_beside, replacing
from fasttriplet.errors import CollapsedError, NoTripletsError

_KIND, _VERSION = "unfinished mining", 2
_ABOUT = "about.json"


@dataclass(slots=True)
class Kept:
    """A folder of work that can be continued.

    Attributes
    ----------
    folder : Path
    token : str
        A random text in the folder, by which a process on another machine knows that it sees this folder.
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

    def begin(self, about: Mapping[str, Any]) -> None:
        """Say of what the work is, as plain data; a ValueError if there is work of something else."""
        about = json.loads(json.dumps(about))
        if self.of is None:
            self.of = dict(about)
            self.write()
            return
        differ = [name for name in about if self.of.get(name) != about[name]]
        if differ:
            raise ValueError(
                f"{self.folder} cannot be continued: {_difference(self.of, about, differ)}; run it as "
                "before, or overwrite=True starts again"
            )

    def write(self) -> None:
        """Write what the folder is."""
        plain = {"fasttriplet": _KIND, "version": _VERSION, "token": self.token}
        with replacing(self.folder / _ABOUT) as file:
            text = json.dumps(plain | {"overwrite": self.overwrite, "of": self.of})
            file.write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Kept | None:
        """What is in a folder; None if it is not the work of a run of this version."""
        try:
            found = json.loads((folder / _ABOUT).read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None
        if not isinstance(found, dict) or found.get("fasttriplet") != _KIND:
            return None
        token, of = found.get("token"), found.get("of")
        if found.get("version") != _VERSION or not isinstance(token, str):
            return None
        overwrite = found.get("overwrite") is True
        return cls(folder, token, of, overwrite) if isinstance(of, (dict, NoneType)) else None

    def check_shared(self) -> None:
        """Raise an OSError in a process that does not see this folder, but none or another one."""
        found = Kept.read(self.folder)
        if found is None or found.token != self.token:
            raise FileNotFoundError(
                errno.ENOENT,
                "is not the folder that the run writes to; it must be in a folder that all machines share",
                str(self.folder),
            )

    def tell(self, error: BaseException, done: int, what: str) -> None:
        """Note on an error what is kept, in words, if anything is done."""
        if done and self.stays:
            error.add_note(f"{what} are kept in {self.folder}; resume=True continues with the others")


@contextmanager
def work_folder(out: Path | None, *, resume: bool, overwrite: bool) -> Iterator[Kept]:
    """The folder for the work of a run: beside its output, where it stays after an error, or a temporary one.

    Raises
    ------
    FileExistsError
        If there is work, and it is neither to be continued (`resume`) nor to be removed (`overwrite`).
    ValueError
        If it is to be continued and is of another version.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="fasttriplet-") as temporary:
            yield _new(Path(temporary), overwrite=overwrite, stays=False)
        return
    folder = folder_beside(out)
    if os.path.lexists(folder) and _is_foreign(folder):
        raise FileExistsError(
            errno.EEXIST, "is in the way: it is not the folder of an unfinished run", str(folder)
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
        kept = Kept.read(folder)
        if kept is None:
            raise ValueError(
                f"{folder} is not the work of a run of this version; overwrite=True starts again"
            )
    else:
        # Before images are embedded, which takes longest: what is there from now on can be continued.
        kept = _new(folder, overwrite=overwrite, stays=True)
    try:
        yield kept
    except (NoTripletsError, CollapsedError):  # there is no more to find
        shutil.rmtree(folder)
        raise
    except BaseException:
        with suppress(OSError):
            if all(entry.name == _ABOUT for entry in folder.iterdir()):  # nothing is done
                shutil.rmtree(folder)
        raise
    shutil.rmtree(folder)


def _new(folder: Path, *, overwrite: bool, stays: bool) -> Kept:
    kept = Kept(folder, secrets.token_hex(8), overwrite=overwrite, stays=stays)
    kept.write()
    return kept


def _is_foreign(folder: Path) -> bool:
    """Whether no run has made a folder. One that was killed at once has only begun to write what it is of."""
    if folder.is_symlink() or not folder.is_dir():
        return True
    begun = {f".{_ABOUT}.unfinished"}
    return not (folder / _ABOUT).exists() and not {entry.name for entry in folder.iterdir()} <= begun


def may_overwrite(out: Path) -> bool:
    """Whether the run whose work is kept beside its output was allowed to replace that."""
    kept = Kept.read(folder_beside(out))
    return kept is not None and kept.overwrite


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
