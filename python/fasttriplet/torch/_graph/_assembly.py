"""Collects the calls, sub-modules and parameters of a module, with the names that they have in MXNet."""

from __future__ import annotations

import keyword
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

from numpy.typing import NDArray

import torch
from torch import fx, nn

Weights = Mapping[str, NDArray[Any]]
_SELF = "self"


class Assembly:
    """Collects the graph of the forward pass, and the module that holds what it uses.

    Attributes
    ----------
    graph : torch.fx.Graph
    root : torch.nn.Module
    places : dict of str to str
        For each weight that has a place in the module, its name in ``state_dict()``.
    """

    def __init__(self, weights: Weights, reserved: Collection[str]) -> None:
        self.graph = fx.Graph()
        self.root = nn.Module()
        self.places: dict[str, str] = {}
        self._weights = weights
        self._used = {*reserved, _SELF}
        self._numbers: Counter[str] = Counter()
        self._targets: dict[object, str] = {}

    def placeholder(self, name: str) -> fx.Node:
        """Add the input of the module."""
        return self._node("placeholder", self._free_name(name), (), {}, name)

    def call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Add the call of a function; `name` is that of its result in the code."""
        return self._node("call_function", function, args, kwargs, name)

    def parameter(self, name: str, dtype: torch.dtype) -> fx.Node:
        """Add a weight that several nodes use, or that weights are computed from."""
        key = ("parameter", name)
        if key not in self._targets:
            self._check_free(name)
            target = self._targets[key] = self._free_name(name)
            self.root.register_parameter(target, nn.Parameter(torch.tensor(self._weights[name], dtype=dtype)))
            self.places[name] = target
        return self._node("get_attr", self._targets[key], (), {}, self._targets[key])

    def layer(
        self,
        name: str,
        key: object,
        make: Callable[[], nn.Module],
        slots: Mapping[str, str],
        dtype: torch.dtype,
        *args: fx.Node | None,
    ) -> fx.Node:
        """Add the call of a sub-module, which is made unless there is one with this key.

        `slots` names the weights that its parameters and buffers hold. A weight of another shape is a
        ValueError.
        """
        if key not in self._targets:
            for weight in slots.values():
                self._check_free(weight)
            module = make()
            for slot, weight in slots.items():
                _fill(module, slot, weight, self._weights[weight], dtype)
            target = self._targets[key] = self._free_name(name)
            self.root.add_module(target, module)
            self.places |= {weight: f"{target}.{slot}" for slot, weight in slots.items()}
        return self._node("call_module", self._targets[key], args, {}, name)

    def _node(
        self, kind: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str
    ) -> fx.Node:
        # The graph makes the name legal and unique, but for that of the module in its code.
        return self.graph.create_node(kind, target, args, kwargs, f"_{name}" if name == _SELF else name)

    def _check_free(self, weight: str) -> None:
        """Raise a ValueError for running statistics of two sub-modules: only one could update them."""
        if weight in self.places:
            raise ValueError(f"{weight!r} is also used by a layer of another kind, which cannot be converted")

    def _free_name(self, name: str) -> str:
        legal = re.sub(r"\W", "_", name, flags=re.ASCII)
        if not legal.isidentifier() or keyword.iskeyword(legal):
            legal = f"_{legal}"
        free = legal
        while free in self._used:
            self._numbers[legal] += 1  # not from 1 each time: thousands of nodes may have one name
            free = f"{legal}_{self._numbers[legal]}"
        self._used.add(free)
        return free


def _fill(module: nn.Module, slot: str, name: str, array: NDArray[Any], dtype: torch.dtype) -> None:
    expected = tuple(getattr(module, slot).shape)
    if array.shape != expected:
        raise ValueError(f"the weight {name!r} has the shape {array.shape}; expected {expected}")
    tensor = torch.tensor(array, dtype=dtype)  # a copy
    setattr(module, slot, nn.Parameter(tensor) if slot in module._parameters else tensor)
