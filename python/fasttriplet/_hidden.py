"""The hidden folder in which a file is written, ``.NAME.unfinished`` beside its place.

It is locked as long as the process that writes the file lives. So no two runs write the same file, and what a
killed run left is removed by the next one. Network file systems take the lock to other hosts.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path

_LOCK = "lock"


def lock(descriptor: int) -> bool:
    """Lock an open file as long as it is open, or return False where the file system has no locks.

    A file that another process has locked, or this one a second time, is a BlockingIOError.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def hidden_of(target: Path) -> Path:
    """Return the hidden folder for a file."""
    return target.with_name(f".{target.name}.unfinished")


def claim(path: Path, hidden: Path) -> int:
    """Make a hidden folder and lock it; what a killed run left in it is removed. Returns the lock.

    If another run has locked it, that is a FileExistsError about `path`, as the user gave it.
    """
    in_use = FileExistsError(
        errno.EEXIST, f"another run is writing it at this moment; if none is, remove {hidden}", str(path)
    )
    for _ in range(100):  # one is enough, unless other runs end in between
        try:
            hidden.mkdir()
            made = True
        except FileExistsError:
            made = False
        try:
            # In a folder that all may write to, others might have put it there as a trap.
            if not made and (hidden.is_symlink() or hidden.stat().st_uid != os.geteuid()):
                raise in_use
            descriptor = os.open(hidden / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue
        except OSError:
            if made:  # on a full disk a folder may fit, and a file in it may not
                with suppress(OSError):
                    hidden.rmdir()
            raise
        try:
            if not lock(descriptor) and not made:
                raise in_use
            # A run that has just ended may have removed this lock.
            if os.path.samestat((hidden / _LOCK).stat(), os.fstat(descriptor)):
                empty(hidden)
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            os.close(descriptor)
            raise in_use from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise in_use


def empty(hidden: Path) -> None:
    """Remove all from a hidden folder except the lock."""
    for entry in hidden.iterdir():
        if entry.name != _LOCK:
            with suppress(OSError):  # where a folder cannot be closed, it is raised all the same
                shutil.rmtree(entry, ignore_errors=True)


def release(hidden: Path, descriptor: int) -> None:
    """Remove a hidden folder that is empty, and unlock it."""
    with suppress(OSError):  # another run may have made a lock of its own
        (hidden / _LOCK).unlink()
        hidden.rmdir()
    with suppress(OSError):  # it is closed even then
        os.close(descriptor)
