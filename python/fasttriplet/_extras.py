"""What to install for an optional part."""

from __future__ import annotations

import os
import shlex
import sys


def how_to_install(extra: str) -> str:
    """Word the command that installs what an extra of this package consists of.

    It names the requirements themselves, so it works wherever this package came from (``fasttriplet[extra]``
    would need an index that has it), and this Python, whichever environment is active.

    Parameters
    ----------
    extra : str
        One of the package's extras, such as ``"mxnet"``.

    Returns
    -------
    str
        ``"Install it: /path/to/python -m pip install mxnet==1.9.1 'numpy<2'"``; in a source tree that was
        not installed, the command for the checkout. On Apple silicon, for which MXNet has no package, what
        to use instead of it.
    """
    if extra == "mxnet" and sys.platform == "darwin" and os.uname().machine == "arm64":
        return (
            "There is no package of it for Apple silicon: to run its checkpoints with PyTorch, give "
            "torch:mxnet:PREFIX,EPOCH as the model"
        )
    from importlib.metadata import PackageNotFoundError, requires  # noqa: PLC0415  20 ms, for errors only

    try:
        lines = requires("fasttriplet") or []
    except PackageNotFoundError:
        return f"Install it, in the checkout of fasttriplet: {_pip(f'.[{extra}]')}"
    parts = (line.partition(";") for line in lines)
    wanted = [
        what.strip() for what, _, marker in parts if marker.replace('"', "'").strip() == f"extra == '{extra}'"
    ]
    return f"Install it: {_pip(*wanted)}"


def _pip(*what: str) -> str:
    return shlex.join([sys.executable or "python", "-m", "pip", "install", *what])
