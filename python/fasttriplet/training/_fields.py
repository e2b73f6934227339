"""What each field of a state must be: states are input, like any other file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fasttriplet._checks import number, whole_number
from fasttriplet.errors import OptionError
from fasttriplet.run._options import ResourceOptions
from fasttriplet.training._schedule import Schedule
from fasttriplet.training._settings import TrainSettings

Check: TypeAlias = Callable[[str, Any], object]

_MOST = 2**53  # batches, and lines of a log


def check_fields(plain: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise a ValueError that names the field if one is missing, unknown, or not what a training writes.

    Whether the network and its arrays fit each other is for the backend to say, and whether the feed and its
    triplets fit the dataset, for the feed.
    """
    _object("state", plain, _STATE)
    if plain["verified"] > plain["batch"]:
        raise ValueError(f"state.verified must be at most batch, {plain['batch']}, not {plain['verified']}")
    best = plain["best"]
    if best is not None and best["batch"] > plain["batch"]:
        raise ValueError(f"state.best.batch must be at most batch, {plain['batch']}, not {best['batch']}")
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise ValueError(f"the array {name} holds NaN or infinity")
    triplets = arrays.get("triplets")
    if triplets is None or triplets.dtype != np.int64 or triplets.ndim != 2 or triplets.shape[1] != 3:
        found = "nothing" if triplets is None else f"{triplets.dtype} {triplets.shape}"
        raise ValueError(f"the array triplets must be int64 (T, 3), not {found}")


def _object(name: str, value: Any, checks: Mapping[str, Check]) -> None:
    """Check a JSON object with exactly these fields."""
    if not isinstance(value, dict):
        raise OptionError(name, f"must be an object with {', '.join(checks)}, not {value!r:.100}")
    if missing := checks.keys() - value.keys():
        raise OptionError(name, f"lacks {', '.join(sorted(missing))}")
    if unknown := value.keys() - checks.keys():
        raise OptionError(name, f"has unknown fields: {', '.join(map(repr, sorted(unknown)))}")
    for field, check in checks.items():
        check(f"{name}.{field}", value[field])


def _whole(least: int, most: int = _MOST) -> Check:
    return lambda name, value: whole_number(name, value, least, most)


def _share(name: str, value: Any) -> None:
    number(name, value, 0, 1)


def _anything(name: str, value: Any) -> None:
    """Leave the check to others."""


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise OptionError(name, f"must be a text, not {value!r:.100}")


def _path(name: str, value: Any) -> None:
    """Check an absolute path."""
    _text(name, value)
    try:
        possible = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        possible = False
    if not possible or not os.path.isabs(value):  # noqa: PTH117
        raise OptionError(name, f"must be an absolute path, not {value!r:.100}")


def _list(of: Check, least: int = 0, most: int | None = None) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, list) or len(value) < least or (most is not None and len(value) > most):
            count = f" of {most}" if most is not None else " that is not empty" if least else ""
            raise OptionError(name, f"must be a list{count}, not {value!r:.100}")
        for position, one in enumerate(value):
            of(f"{name}[{position}]", one)

    return check


def _none_or(check: Check) -> Check:
    return lambda name, value: None if value is None else check(name, value)


def _digest(name: str, value: Any) -> None:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{64}", value):
        raise OptionError(name, f"must be a SHA-256 in hexadecimal digits, not {value!r:.100}")


def _best(name: str, value: Any) -> None:
    _object(name, value, {"batch": _whole(0), "accuracy": _share, "auc": _share})


@contextmanager
def _inside(name: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if isinstance(error, OptionError) and error.argument.isidentifier():
            raise OptionError(f"{name}.{error.argument}", error.reason) from None
        raise ValueError(f"{name}: {error}") from None


def _settings(name: str, value: Any) -> None:
    _object(name, value, dict.fromkeys(_SETTINGS, _anything))
    with _inside(name):
        settings = TrainSettings.from_dict(value)
        if settings.framework is None or (settings.lr_end is None and settings.lr_schedule != "steps"):
            undecided = "framework" if settings.framework is None else "lr_end"
            raise OptionError(undecided, "must be known once a training has begun, not None")
        for position, path in enumerate(settings.rec):
            _path(f"rec[{position}]", path)
        if not isinstance(settings.cache, bool):
            _path("cache", settings.cache)
        for field in ("exclude", "neighbors"):
            running = field == "neighbors" and settings.has_running_graph
            if isinstance(path := getattr(settings, field), str) and not running:
                _path(field, path)


def _options(name: str, value: Any) -> None:
    _object(name, value, _OPTIONS)
    with _inside(name):
        Schedule(**{field: value[field] for field in _SCHEDULE})
        ResourceOptions(**{field: value[field] for field in ResourceOptions.names()})


def _devices(name: str, value: Any) -> None:
    if not isinstance(value, str):
        _list(_text, 1)(name, value)


def _feed(name: str, value: Any) -> None:
    if not isinstance(value, dict) or not isinstance(value.get("arguments"), dict):
        raise OptionError(name, f"must be an object with arguments, not {value!r:.100}")
    whole_number(f"{name}.arguments.devices", value["arguments"].get("devices"), 1)
    whole_number(f"{name}.arguments.processes", value["arguments"].get("processes", 1), 1)


_SETTINGS = tuple(field.name for field in fields(TrainSettings))
_SCHEDULE = ("batches", "verify_on", "verify_every", "checkpoint_every", "log_every", "export")
_OPTIONS: dict[str, Check] = {
    **dict.fromkeys((*_SCHEDULE, *ResourceOptions.names()), _anything),
    "verify_on": _list(_path),
    "tensorboard": _none_or(_path),
    "devices": _none_or(_devices),
}
_STATE: dict[str, Check] = {
    "batch": _whole(0),
    "verified": _whole(-1),
    "best": _none_or(_best),
    "verify_on": _list(_digest),
    "log": _whole(0),
    "sums": _list(lambda name, value: number(name, value, 0), 4, 4),
    "settings": _settings,
    "options": _options,
    "network": _anything,
    "feed": _feed,
}
