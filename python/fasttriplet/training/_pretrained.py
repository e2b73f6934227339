"""Weights to begin a training with: whether they fit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet._callers import stacklevel_of_user
from fasttriplet._words import first_names
from fasttriplet.errors import OptionError

Shape = tuple[int, ...]


def epoch_of_checkpoint(pretrained: str, forms: str = "PREFIX,EPOCH") -> tuple[str, int]:
    """Split ``PREFIX,EPOCH`` or ``mxnet:PREFIX,EPOCH``."""
    prefix, _, epoch = pretrained.removeprefix("mxnet:").rpartition(",")
    if not prefix or not epoch.isdecimal():
        raise OptionError("pretrained", f"must be {forms}, not {pretrained!r}")
    return prefix, int(epoch)


def check_pretrained(wanted: Mapping[str, Shape], given: Mapping[str, NDArray[Any]], source: str) -> None:
    """Compare weights that are given with the shapes of those that a network has, by name.

    A ValueError if one is not finite or has another shape, or if none is known. It warns of those that are
    not given.
    """
    for name, values in given.items():
        if not np.isfinite(values).all():
            raise ValueError(f"pretrained: {source} holds NaN or infinity, in {name}")
    for name in sorted(wanted.keys() & given.keys()):
        if wanted[name] != given[name].shape:
            raise ValueError(
                f"pretrained: the weight {name} has the shape {given[name].shape}, and the network wants "
                f"{wanted[name]}"
            )
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if len(missing) == len(wanted):
        raise ValueError(
            f"pretrained: the checkpoint has no weight of this network, such as {missing[0]}; it has "
            f"{extra[0] if extra else 'none at all'} and others"
        )
    if missing:
        message = f"pretrained: {first_names(missing)} are not there; drawn at random"
        warnings.warn(message, stacklevel=stacklevel_of_user())
