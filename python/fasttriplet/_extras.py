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
        not installed, the command for the checkout. For MXNet on Apple silicon, for which it has no package,
        what to use instead of it; on a Python that is too new for it, which Pythons it needs.
    """
    if extra == "mxnet" and sys.platform == "darwin" and os.uname().machine == "arm64":
        return (
            "There is no package of it for Apple silicon: to run its checkpoints with PyTorch, give "
            "torch:mxnet:PREFIX,EPOCH as the model"
        )
    if extra == "mxnet" and sys.version_info >= (3, 13):
        this = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return (
            "Install it with Python 3.11 or 3.12: MXNet 1.9.1 needs NumPy 1, which has no wheels for Python "
            f"{this}"
        )
    from importlib.metadata import PackageNotFoundError, requires  # noqa: PLC0415  20 ms, for errors only

    try:
        lines = requires("fasttriplet") or []
    except PackageNotFoundError:
        return f"Install it, in the checkout of fasttriplet: {_pip(f'.[{extra}]')}"
    parts = (line.partition(";") for line in lines)
    # Other conditions stand before it: python_full_version < '3.13' and extra == 'mxnet'.
    wanted = [
        what.strip() for what, _, marker in parts if marker.replace('"', "'").endswith(f"extra == '{extra}'")
    ]
    return f"Install it: {_pip(*wanted)}"


def _pip(*what: str) -> str:
    return shlex.join([sys.executable or "python", "-m", "pip", "install", *what])
