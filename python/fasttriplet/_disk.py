"""Waits until what was written is on the disk."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

if sys.platform == "darwin":
    import fcntl

    # What says that a file system does not know F_FULLFSYNC, those of networks first of all.
    _UNKNOWN = (errno.ENOTSUP, errno.ENOTTY, errno.EINVAL)


def sync(descriptor: int) -> None:
    """Wait until the content of a file, or the names in a folder, would outlast a power cut."""
    if sys.platform == "darwin":
        # On macOS, fsync hands everything to the disk, which may still keep it in a memory of its own.
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
        else:
            return
    os.fsync(descriptor)


def sync_path(path: Path) -> None:
    """Do so for a file or a folder that is not open."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
