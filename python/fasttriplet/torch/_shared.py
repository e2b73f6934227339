"""Memory that a worker shares with the process of its DataLoader, taken before anything is written there."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any

import torch
from fasttriplet._words import counted

# Bytes that Linux maps at once where pages are there already and are read (its fault_around_bytes).
_MAPPED = 2**16


def shared_memory(size: int, what: str) -> torch.UntypedStorage:
    """Take `size` bytes for `what`, as PyTorch's own collation does; `share_memory_` would copy.

    PyTorch takes pages when they are written, each by a fault, and where none is left the process gets a
    SIGBUS. Here one call takes them all, and can fail, and a few reads map them. A batch of 128 images of
    112 x 112 in float32 (19 MB) is filled in 10.9 ms instead of 12.8 ms (2 cores of a virtual machine).

    Raises
    ------
    OSError
        If there is not as much shared memory.
    """
    storage: Any = torch.UntypedStorage._new_shared(size, device="cpu")
    if size and torch.multiprocessing.get_sharing_strategy() == "file_descriptor":
        _take_pages(storage._share_fd_cpu_()[0], size, what)
        torch.empty(0, dtype=torch.uint8, device="cpu").set_(storage).numpy()[::_MAPPED].max()
    return storage  # type: ignore[no-any-return]


def _take_pages(descriptor: int, size: int, what: str) -> None:
    if sys.platform == "darwin":  # where such memory has a name, and no descriptor
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            return  # they are taken one by one, as ever
        reason = (
            f"no shared memory is left for {what}, {counted(size, 'byte')}: give the container more of it "
            "(docker run --shm-size=8g), or use fewer workers, smaller batches, a smaller prefetch_factor or "
            "image='uint8'"
        )
        raise OSError(errno.ENOSPC, reason, "/dev/shm") from None
