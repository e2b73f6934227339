"""The grammar of specs: what follows the scheme is a target and options, ``TARGET,name=value,name=value``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection

from fasttriplet.errors import SpecError

_OPTION = re.compile(r"(?P<target>.*),(?P<name>[a-z_]+)=(?P<value>[^,]*)", re.DOTALL)


def split_options(
    scheme: str, text: str, known: Collection[str], *, output: str | None = None
) -> tuple[str, dict[str, str]]:
    """Take the options off the end of a spec; the rest, which may hold commas, is the target.

    Parameters
    ----------
    scheme : str
        Such as ``"mxnet"``; for messages.
    text : str
        The spec after the colon.
    known : collection of str
        Names of options.
    output : str, optional
        The option `output` where it is given beside the spec.

    Returns
    -------
    target : str
    options : dict of str to str

    Raises
    ------
    SpecError
        If an option is unknown, is given twice, or has no value, if two outputs are chosen, or if the target
        is empty.
    """
    target, options = text, dict[str, str]()
    while (match := _OPTION.fullmatch(target)) is not None:
        name, value = match["name"], match["value"]
        if name not in known:
            close = difflib.get_close_matches(name, known)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(sorted(known))}"
            raise SpecError(f"'{scheme}:{text}' has the unknown option {name!r}; {hint}")
        if name in options:
            raise SpecError(f"'{scheme}:{text}' has the option {name!r} twice")
        if not value:
            raise SpecError(f"'{scheme}:{text}': the option {name!r} has no value")
        target, options[name] = match["target"], value
    if output is not None and options.setdefault("output", output) != output:
        raise SpecError(
            f"two outputs are chosen: {options['output']!r} in '{scheme}:{text}' and output={output!r}; "
            "give one"
        )
    if not target:
        raise SpecError(f"'{scheme}:{text}' names no model")
    return target, options
