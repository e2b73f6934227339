"""Files that appear under their names only when they are complete."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def check_can_be_written(path: Path) -> None:
    """Raise an OSError if no file can have this path; to be called before anything is computed for it."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of a file in it")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is no regular file, and only those can be replaced")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Make an empty file beside `path` to write to, which is renamed to `path` at the end.

    After an exception it is removed, and `path` is untouched. After a power cut, `path` is either the old
    file or the complete new one. Errors name `path`.
    """
    with replacing_all(path) as (unfinished,):
        yield unfinished


@contextmanager
def replacing_all(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Do the same for files that belong together: all are on the disk before the first is renamed."""
    finals: dict[Path, Path] = {}
    try:
        for path in paths:
            check_can_be_written(path)
            unfinished = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
            finals[unfinished] = path  # first, as Ctrl-C may come when the file has just been made
            try:
                with _naming_final(finals):
                    unfinished.touch(exist_ok=False)
            except FileExistsError:  # not ours
                del finals[unfinished]
                raise
        with _naming_final(finals):
            yield tuple(finals)
        for unfinished, path in finals.items():
            with _naming_final({unfinished: path}):
                _sync(unfinished)
        for unfinished, path in finals.items():
            with _naming_final({unfinished: path}):
                _rename(unfinished, path)
    finally:
        for unfinished in finals:
            with suppress(OSError):  # an error above says more, such as that its name is too long
                unfinished.unlink(missing_ok=True)


def publish(complete: Path, path: Path) -> None:
    """Rename a file to `path` in a way that leaves the old file or the new one after a power cut."""
    _sync(complete)
    _rename(complete, path)


def remove_unfinished(path: Path) -> None:
    """Remove what :func:`replacing` was writing for `path` in a process that was killed."""
    if not path.parent.is_dir():
        return
    ours = re.compile(rf"\.{re.escape(path.name)}\.[0-9]+-[0-9a-f]+\.tmp")
    for entry in path.parent.iterdir():
        if ours.fullmatch(entry.name):
            entry.unlink(missing_ok=True)


def _rename(old: Path, new: Path) -> None:
    old.replace(new)
    _sync(new.parent)


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _naming_final(finals: dict[Path, Path]) -> Iterator[None]:
    """Let errors about an unfinished file, and errors that name no file, name the final one."""
    try:
        yield
    except OSError as error:
        named = error.filename
        if error.errno is None:  # not from the operating system: it has words of its own
            raise
        if named is None:  # a write
            final = ", ".join(map(str, finals.values()))
        elif isinstance(named, (str, bytes, os.PathLike)) and Path(os.fsdecode(named)) in finals:
            final = str(finals[Path(os.fsdecode(named))])
        else:
            raise
        raise OSError(error.errno, error.strerror, final) from error
