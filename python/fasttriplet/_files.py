"""Files that appear under their names only when they are complete: the one rule for all that is written.

A file that is there is refused unless it is to be overwritten; one that is read-only is always refused. A
link is followed: the file that it points to is written, and the link stays. A new file has the permissions of
any other new file, and one that is replaced keeps its own. A folder that is missing is made.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from fasttriplet import _hidden
from fasttriplet._checks import truth_value
from fasttriplet._disk import sync, sync_path

_ADVICE = {
    errno.ENOSPC: "free some space there, or write to another disk",
    errno.EDQUOT: "free some space there, or write to another disk",
    errno.EFBIG: "the file system, or a limit of this process (ulimit -f), allows no larger files",
}


def check_can_be_written(path: Path, *, overwrite: bool = True) -> None:
    """Raise an OSError if no file can have this path; to be called before anything is computed for it.

    A file that is there is a FileExistsError, unless `overwrite` is set.
    """
    overwrite = truth_value("overwrite", overwrite)
    target = _target(path)
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        above = next(filter(os.path.lexists, target.parents), Path())
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, f"{above} is not a folder", str(path)) from None
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"no permission to write in {above}", str(path)) from None
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder; give the name of a file in it", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is not a regular file, and only those can be replaced", str(path))
    if not overwrite:
        raise _exists(path)
    if not mode & 0o222 or not os.access(target, os.W_OK):  # root may write to all files
        raise PermissionError(
            errno.EACCES, "is read-only; make it writable (chmod u+w) or give another name", str(path)
        )


def check_new_folder(path: Path) -> None:
    """Raise an OSError if no new folder can have this path."""
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "exists already; give the name of a new folder", str(path))
    check_can_be_written(path)


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "exists already; overwrite=True replaces it", str(path))


def _target(path: Path) -> Path:
    """Return the file that a link points to, whether it exists or not; other paths stay as they are."""
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, "is a link that leads back to itself", str(path))
    return target


def folder_beside(path: Path) -> Path:
    """The folder ``NAME.unfinished`` beside a file, for what a run that can be resumed has done."""
    target = _target(path)
    return target.with_name(f"{target.name}.unfinished")


class Writing(Protocol):
    """What errors about files that are being written are to name."""

    path: Path

    @property
    def unfinished(self) -> Path:
        """The file that is written under another name."""

    def holds(self, path: Path) -> bool:
        """Whether a path is one of those that are written under other names."""

    def written(self) -> int:
        """How many bytes they have; 0 if it cannot be found out."""


class Output:
    """A file that is being written: `unfinished`, in its hidden folder. It gets its name by :func:`publish`.

    Attributes
    ----------
    unfinished : Path
        An empty file to write to. Others may be made beside it, and are removed with it.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        check_can_be_written(path, overwrite=overwrite)
        self.path = path
        self._target = _target(path)
        self._overwrite = overwrite
        self._process = os.getpid()
        self._hidden = _hidden.hidden_of(self._target)
        self._lock: int | None = None
        self._made: list[Path] = []
        self._file: os.stat_result | None = None  # what it is when it is complete
        self._aside = self._dropped = self._stranded = False
        try:
            with naming(self):
                self._made = _make_folder(self._target.parent)
                self._lock = _hidden.claim(path, self._hidden)
                # The name is random, because the locks of some file systems do not reach other hosts.
                # From Python 3.12 on, `mkdtemp` makes a relative path absolute.
                within = self._hidden / Path(tempfile.mkdtemp(dir=self._hidden)).name
                self.unfinished, self._old = within / self._target.name, within / ".old"
                self.unfinished.touch()
        except BaseException:
            with suppress(OSError):  # Ctrl-C may have come before the lock was there
                remove_unfinished(path)
            self.close()
            raise

    def holds(self, path: Path) -> bool:
        """Whether a path is that of the hidden folder, or in it."""
        return self._hidden == path or self._hidden in path.parents

    def written(self) -> int:
        """How many bytes all that is unfinished has; 0 if it cannot be found out."""
        with suppress(OSError):
            return sum(file.stat().st_size for file in self._hidden.rglob("*") if file.is_file())
        return 0

    def drop(self) -> None:
        """Decide that there will be no such file; an earlier one is removed by :func:`publish`."""
        self._dropped = True

    def complete(self) -> None:
        """Wait until the content is on the disk. From here on, all that is left to do is to change names."""
        check_can_be_written(self.path, overwrite=self._overwrite)  # it may have changed meanwhile
        if self._dropped:
            return
        with naming(self), _opened(self.unfinished) as descriptor:
            with suppress(FileNotFoundError):
                os.fchmod(descriptor, stat.S_IMODE(self._target.stat().st_mode))
            sync(descriptor)
            self._file = os.fstat(descriptor)

    def put_aside(self) -> None:
        """Take the old file out of its place, but keep it."""
        self._aside = True
        if self._overwrite:
            with naming(self), suppress(FileNotFoundError):
                self._target.rename(self._old)

    def appear(self) -> None:
        """Give the file its name. An old file that was not put aside is replaced at this moment, and kept."""
        if self._dropped:
            return
        with naming(self):
            if not self._overwrite:
                self._link()
                return
            if not self._aside:
                self._keep()
            self.unfinished.replace(self._target)

    def _keep(self) -> None:
        try:
            os.link(self._target, self._old)
        except FileNotFoundError:
            pass
        except OSError:  # a file system without hard links
            self._target.rename(self._old)

    def _link(self) -> None:
        """Rename, but never over a file that appeared meanwhile."""
        try:
            os.link(self.unfinished, self._target)
        except FileExistsError:
            raise _exists(self.path) from None
        except OSError:  # a file system without hard links
            if os.path.lexists(self._target):
                raise _exists(self.path) from None
            self.unfinished.replace(self._target)

    def withdraw(self) -> None:
        """Undo :meth:`appear`, as far as it was done."""
        with suppress(FileNotFoundError):
            if self._file is None or not os.path.samestat(self._target.stat(), self._file):
                return
            if self._aside or not self._old.exists():
                self._target.unlink()
            else:
                self._old.replace(self._target)

    def put_back(self) -> None:
        """Undo :meth:`put_aside`."""
        if self._old.exists() and not os.path.lexists(self._target):
            self._old.rename(self._target)

    def strand(self) -> str | None:
        """Leave an old file that could not be put back where it is; returns a note about it."""
        if not self._old.exists():
            return None
        self._stranded = True
        return f"the old {self.path} is kept as {self._old} until another run writes there"

    def folders(self) -> list[Path]:
        """The folders that have a new name in them: that of the file, or of a folder that was made for it."""
        return [self._target.parent, *(made.parent for made in self._made)]

    def close(self) -> None:
        """Remove all that is unfinished, and the folders that were made for it."""
        if os.getpid() != self._process:  # a child after a fork has no part in it
            return
        if self._lock is not None:
            if not self._stranded:
                with suppress(OSError):  # the next run removes it; this one has done what it was asked for
                    _hidden.empty(self._hidden)
            _hidden.release(self._hidden, self._lock)
            self._lock = None
        _remove_folders(self._made)  # if they are empty


def publish(first: Output, *others: Output) -> None:
    """Give files that belong together their names: all of them or, after an error, none.

    At no moment is `first` there with `others` of another version: old ones are put aside before it is
    replaced, and new ones follow it. So after a kill or a power cut it is either the old one or the new one,
    and at worst some of `others` are missing. Where the disk fails and old files cannot be put back, notes on
    the error say where they are.
    """
    outputs = (first, *others)
    for output in outputs:
        output.complete()
    try:
        for output in others:
            output.put_aside()
        _sync_folders(others)
        for stage in ((first,), others):
            for output in stage:
                output.appear()
            _sync_folders(stage)
    except BaseException as error:
        _undo(outputs, error)
        raise


def _undo(outputs: Sequence[Output], error: BaseException) -> None:
    """Put the old files back, in the opposite order: what holds after a kill holds here, too."""
    try:
        for output in reversed(outputs):
            output.withdraw()
        for output in outputs:
            output.put_back()
    except OSError as reason:
        error.add_note(f"then the old files could not be put back: {reason}")
        for note in filter(None, [output.strand() for output in outputs]):
            error.add_note(note)
    with suppress(OSError):
        _sync_folders(outputs)


def _sync_folders(outputs: Sequence[Output]) -> None:
    """Wait until the names are on the disk."""
    folders = {folder: output for output in outputs for folder in output.folders()}
    for folder, output in folders.items():
        with naming(output):
            try:
                sync_path(folder)
            except OSError as error:
                error.filename = None  # of the folder; it is the new name in it that may be lost
                raise


@contextmanager
def replacing(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Make an empty file to write to, which gets the name `path` at the end.

    After an exception it is removed, and `path` is untouched. After a power cut, `path` is either the old
    file or the complete new one. Errors name `path`.
    """
    with opened(path, overwrite=overwrite) as (output,):
        with naming(output):
            yield output.unfinished
        publish(output)


class _Placed:
    """A file that is written under a random name."""

    def __init__(self, path: Path) -> None:
        self.path, self.unfinished = path, path.with_name(f".{path.name}.{secrets.token_hex(8)}")

    def holds(self, path: Path) -> bool:
        return path == self.unfinished

    def written(self) -> int:
        with suppress(OSError):
            return self.unfinished.stat().st_size
        return 0


@contextmanager
def placing(path: Path) -> Iterator[Path]:
    """Give a path to write to; what is there at the end gets the name `path`, also in the place of a file.

    It is for the files of a folder that processes on several machines work on. Two may write the same file at
    once, as the content is the same whoever writes it. A process that is killed leaves its file behind.
    """
    placed = _Placed(path)
    try:
        with naming(placed):
            yield placed.unfinished
            sync_path(placed.unfinished)
            placed.unfinished.replace(path)
            sync_path(path.parent)
    except BaseException:
        with suppress(OSError):
            placed.unfinished.unlink()
        raise


@contextmanager
def filling(path: Path) -> Iterator[Path]:
    """Make a folder to be filled, which gets the name `path` at the end. After an exception it is removed."""
    check_new_folder(path)
    with opened(path, overwrite=False) as (output,), naming(output):
        folder = output.unfinished
        folder.unlink()
        folder.mkdir()
        yield folder
        for entry in (*folder.rglob("*"), folder):
            sync_path(entry)
        folder.rename(path)
        _sync_folders([output])


@contextmanager
def opened(*paths: Path, overwrite: bool) -> Iterator[tuple[Output, ...]]:
    """Open files that belong together. What was not published when the block ends is removed."""
    outputs: list[Output] = []
    try:
        for path in paths:
            check_can_be_written(path, overwrite=overwrite)
        for path in paths:
            outputs.append(Output(path, overwrite=overwrite))  # noqa: PERF401  one by one, to be closed
        yield tuple(outputs)
    finally:
        for output in reversed(outputs):  # the first has made the folder
            output.close()


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Make a folder for files that are needed only in this block, beside `path`, which is not made."""
    with opened(path, overwrite=True) as (output,):
        output.unfinished.unlink()
        with naming(output):
            yield output.unfinished.parent


def remove_unfinished(path: Path) -> None:
    """Remove what was being written for `path` in a process that was killed."""
    hidden = _hidden.hidden_of(_target(path))
    if hidden.is_dir():
        with suppress(FileExistsError):  # it is being written
            _hidden.release(hidden, _hidden.claim(path, hidden))


@contextmanager
def making(folder: Path) -> Iterator[None]:
    """Make a folder if it is missing, with its parents. After an exception they are removed if empty."""
    made = _make_folder(folder)
    try:
        yield
    except BaseException:
        _remove_folders(made)
        raise


@contextmanager
def naming(*outputs: Writing) -> Iterator[None]:
    """Let errors about what is unfinished, and errors that name no file, name the file itself.

    Libraries in Rust raise errors of many kinds, with the number of the system's error in their text.
    """
    try:
        yield
    except Exception as error:
        number: int | None = getattr(error, "errno", None)
        named = getattr(error, "filename", None)
        if number is None:
            number = _number_in(error, outputs)
            if number is None:  # not from the operating system: it has words of its own
                raise
        elif not isinstance(error, OSError):
            raise
        about: Sequence[Writing] = outputs  # a write
        if isinstance(named, (str, bytes, os.PathLike)):
            about = [output for output in outputs if output.holds(Path(os.fsdecode(named)))]
            if not about:
                raise
        reason = getattr(error, "strerror", None) or os.strerror(number)
        if (advice := _ADVICE.get(number)) and advice not in reason:
            written = sum(output.written() for output in about)
            reason += f" after {written:,} bytes; {advice}" if written else f"; {advice}"
        raise OSError(number, reason, ", ".join(str(output.path) for output in about)) from error


def _number_in(error: Exception, outputs: Sequence[Writing]) -> int | None:
    found = re.search(r"\(os error ([0-9]+)\)", str(error))
    if found is not None:
        return int(found[1])
    if "failed to fill whole buffer" in str(error):  # the words of Rust where a read ends too early
        return errno.EIO
    if "transport error" in str(error):  # Polars' words where it cannot write the end of a parquet file
        for output in outputs:
            try:
                with tempfile.TemporaryFile(dir=output.unfinished.parent) as file:
                    file.write(bytes(1 << 20))
            except OSError as reason:
                return reason.errno
    return None


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder with its parents. Returns those that were missing, the deepest first."""
    missing = []
    above = folder
    while not above.exists() and above != above.parent:
        missing.append(above)
        above = above.parent
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_folders(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # something is in it
            folder.rmdir()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
