"""The embedding among what a module returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fasttriplet._words import counted


def chosen_output(found: Any, wanted: str | None, images: int) -> torch.Tensor:
    """Take the embedding, (images, D), of what a module returned; (images, D, 1, 1) counts as (images, D).

    Parameters
    ----------
    found : object
        A tensor, or a tuple, list or dict of tensors.
    wanted : str, optional
        Name or number of an output. Not needed where there is one.
    images : int

    Raises
    ------
    ValueError
        If it does not exist, there are several, or it is not a vector for each image; lists the outputs.
    """
    outputs = _by_name(found)
    if wanted is None and len(outputs) == 1:
        name, tensor = next(iter(outputs.items()))
    elif wanted is None:
        raise ValueError(f"the network has several outputs; choose one with output=NAME: {_listed(outputs)}")
    elif wanted in outputs:
        name, tensor = wanted, outputs[wanted]
    else:
        raise ValueError(f"the network has no output {wanted!r}; it has {_listed(outputs)}")
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        raise ValueError(f"output {name} is {_shown(tensor)}; expected floating point numbers")
    vectors = tensor.flatten(1) if tensor.ndim > 2 and set(tensor.shape[2:]) == {1} else tensor
    if vectors.ndim != 2 or len(vectors) != images or vectors.shape[1] == 0:
        several = f". Choose another output with output=NAME: {_listed(outputs)}" if len(outputs) > 1 else ""
        raise ValueError(
            f"output {name} has the shape {tuple(tensor.shape)} for {counted(images, 'image')}, and an "
            f"embedding has ({images}, D){several}"
        )
    return vectors


def _by_name(found: Any) -> dict[str, Any]:
    if isinstance(found, Mapping):
        return {str(name): value for name, value in found.items()}
    if isinstance(found, Sequence) and not isinstance(found, str):
        names = getattr(found, "_fields", range(len(found)))  # of a named tuple
        return {str(name): value for name, value in zip(names, found, strict=True)}
    return {"0": found}


def _listed(outputs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {_shown(value)}" for name, value in outputs.items()) or "none"


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"a {type(value).__name__}"
