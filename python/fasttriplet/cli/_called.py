"""How this command can be called again."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def called() -> str:
    """Word the start of a command line that runs this command in the shell that ran it.

    That is ``fasttriplet`` where the shell finds it by that name, else the path that was used, such as
    ``.venv/bin/fasttriplet``.
    """
    this = Path(sys.argv[0])
    if this.parent.name == "fasttriplet" and this.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m fasttriplet"
    if this.name == "fasttriplet" and this.exists():
        found = shutil.which("fasttriplet")
        if found is None or not this.samefile(found):
            return shlex.quote(sys.argv[0])
    return "fasttriplet"  # or a program of somebody who calls `main`
