"""Whether defaults are those that a docstring promises."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from typing import Any

_DEFAULTS = re.compile(r"^(\w+(?:, \w+)*) : .*\bdefault (.+)$", re.MULTILINE)


def defaults_differ(thing: Callable[..., Any]) -> tuple[int, list[str]]:
    """How many defaults the docstring says (``a, b, c : int, default 1, 2 and 3``), and which differ."""
    parameters, said = inspect.signature(thing).parameters, inspect.getdoc(thing) or ""
    count, wrong = 0, list[str]()
    for names, text in _DEFAULTS.findall(said):
        values = re.split(", | and ", text) if ", " in names else [text]
        for name, value in zip(names.split(", "), values, strict=True):
            default = parameters[name].default
            count += 1
            if callable(default):
                default, promised = default.__name__, value
            else:
                promised = ast.literal_eval(re.sub(r"(?<=\d),(?=\d{3})", "", value))
            if default != promised:
                wrong.append(f"{name}: {default!r}, not {promised!r}")
    return count, wrong
