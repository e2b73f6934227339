"""Objects that a spec names as ``PACKAGE.MODULE:NAME``, found as ``python -m`` finds a module."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import accumulate
from typing import Any

from fasttriplet._forks import importing
from fasttriplet.errors import SpecError

_WORD = r"[^\W\d]\w*"
NAME_OF_OBJECT = re.compile(rf"(?P<module>{_WORD}(?:\.{_WORD})*):(?P<name>{_WORD}(?:\.{_WORD})*)")


@contextmanager
def current_folder_first() -> Iterator[None]:
    """Let imports look in the current folder first, as ``python -m`` does.

    The folder stays at the end of ``sys.path``, where it hides nothing: for what the module imports later,
    and for workers that unpickle what it made.
    """
    folder = os.getcwd()  # noqa: PTH109  a string, as all of sys.path
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def find_object(spec: str, text: str) -> Any:
    """Import what ``PACKAGE.MODULE:NAME`` names.

    Parameters
    ----------
    spec : str
        The whole spec; for messages.
    text : str
        The part of it that names the object.

    Returns
    -------
    object

    Raises
    ------
    SpecError
        If there is no such module, or it has no such name.
    ImportError
        If the module raises an error while it is imported; names both, and the line.
    """
    match = NAME_OF_OBJECT.fullmatch(text)
    if match is None:
        raise SpecError(f"{spec!r}: expected PACKAGE.MODULE:NAME, not {text!r}")
    module, name = match["module"], match["name"]
    with current_folder_first():
        _check_that_it_exists(spec, module)
        try:
            with importing():
                found = importlib.import_module(module)
        except (Exception, SystemExit) as error:  # a script may parse the command line
            raise ImportError(
                f"{spec!r}: importing {module} failed{_where(error)}: {type(error).__name__}: {error}",
                name=module,
            ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, [n for n in dir(found) if not n.startswith("_")])
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise SpecError(f"{spec!r}: {_called(found)} has no {part!r}{hint}")
        found = getattr(found, part)
    return found


def make(spec: str, factory: Any) -> Any:
    """Call what a spec names without arguments; a ValueError if it fails."""
    try:
        with current_folder_first():
            return factory()
    except (Exception, SystemExit) as error:
        raise ValueError(
            f"{spec!r}: the call without arguments failed{_where(error)}: {type(error).__name__}: {error}"
        ) from error


def _check_that_it_exists(spec: str, module: str) -> None:
    """Find the module without importing it, so that what it imports itself is not taken for it."""
    for name in accumulate(module.split("."), "{}.{}".format):
        try:
            there = find_spec(name) is not None
        except ModuleNotFoundError as error:
            if error.name != name:
                return  # a package that fails: the import says how
            there = False  # the name before it is a module, not a package
        except Exception:
            return
        if not there:
            raise SpecError(
                f"{spec!r}: there is no module {name!r} in the current folder, {os.getcwd()}, nor among the "  # noqa: PTH109
                "installed packages"
            )


def _where(error: BaseException) -> str:
    """Name the line that raised an error, if it is one of a file that is not this package's."""
    frames = [*traceback.extract_tb(error.__traceback__)]
    frames = [f for f in frames if not f.filename.startswith("<frozen") and f.filename != __file__]
    frames = [f for f in frames if not f.filename.startswith(os.path.dirname(importlib.__file__ or ""))]  # noqa: PTH120
    return f", {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""


def _called(found: Any) -> str:
    return str(getattr(found, "__name__", found))
