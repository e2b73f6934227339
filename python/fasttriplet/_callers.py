"""Where warnings point to: the line of the user's code that led to them."""

from __future__ import annotations

import sys
from pathlib import Path
from traceback import walk_stack

_PACKAGE = str(Path(__file__).parent)


def stacklevel_of_user() -> int:
    """Count the frames from the function that calls this, which is 1, to the first outside of the package."""
    level = 0
    for frame, _ in walk_stack(sys._getframe(1)):
        level += 1
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            break
    return level
