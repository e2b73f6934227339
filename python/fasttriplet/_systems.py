"""The systems that the package can be imported on; docs/systems.md says what it uses of them."""

import sys


def refuse_others() -> None:
    """Raise an ImportError on Windows, before an import of what it does not have."""
    if sys.platform == "win32":
        raise ImportError(
            "fasttriplet does not run on Windows: it locks, replaces and syncs files as Unix does. Use it in "
            "WSL 2, the Windows Subsystem for Linux"
        )
