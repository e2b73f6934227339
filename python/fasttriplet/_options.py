"""Options: flat keyword arguments in public calls, one checked object inside the package.

A group of options is a frozen dataclass, a subclass of :class:`Options`, that checks itself when it is made.
Beside it is a ``TypedDict`` of the same names. A public function takes ``**options: Unpack[that]``, so that
mypy and editors know each option, and :meth:`Options.of` makes the object. All other code takes that.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Self, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Options:
    """A group of options; subclasses are frozen dataclasses, and may join several groups.

    An OptionError, which is a ValueError, says which value is unknown or out of its range.
    """

    def __post_init__(self) -> None:
        """Check the values; each group checks its own and calls ``super().__post_init__()``.

        At the end, values of NumPy become Python's: JSON and ``torch.load(..., weights_only=True)`` know no
        others.
        """
        for field in fields(self):  # type: ignore[arg-type]
            object.__setattr__(self, field.name, plain(getattr(self, field.name)))

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the options, in the order of the groups that the class joins."""
        return tuple(_parameters(cls))

    @classmethod
    def of(cls, call: Callable[..., Any], options: Mapping[str, Any]) -> Self:
        """Make the object of the keyword arguments that `call` was given; a TypeError for an unknown name."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        for name in sorted(options.keys() - known):
            import difflib  # noqa: PLC0415  2 ms that `--help` does not wait for

            names = list(inspect.signature(call).parameters)
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(names)}"
            raise TypeError(f"{call.__name__}() has no option {name!r}; {hint}")
        return cls(**options)


def plain(value: Any) -> Any:
    """Return a number, truth value or text of NumPy as Python's; anything else as it is."""
    numpy = sys.modules.get("numpy")  # `--help` does without
    return value.item() if numpy is not None and isinstance(value, numpy.generic) else value


def shows(group: type[Options], **defaults: Any) -> Callable[[F], F]:
    """Let ``help()`` and editors show the options of a group instead of ``**options``."""

    def mark(function: F) -> F:
        signature = inspect.signature(function)
        shown = dict(signature.parameters)
        shown.popitem()  # **options
        for name, parameter in _parameters(group).items():
            shown.setdefault(name, parameter.replace(default=defaults.get(name, parameter.default)))
        function.__signature__ = signature.replace(parameters=[*shown.values()])  # type: ignore[attr-defined]
        return function

    return mark


def _parameters(group: type[Options]) -> dict[str, inspect.Parameter]:
    """Each option as a keyword-only parameter. Dataclasses list the fields of the last base first."""
    order = [name for kind in group.__mro__ for name in inspect.get_annotations(kind)]
    return {
        field.name: inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=field.type,
        )
        for field in sorted(fields(group), key=lambda field: order.index(field.name))  # type: ignore[arg-type]
    }
