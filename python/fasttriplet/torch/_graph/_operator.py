"""One operator of the graph while it is converted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

import torch
from fasttriplet.torch._graph._assembly import Assembly
from fasttriplet.torch._graph._attributes import Attributes
from torch import fx, nn


class Value(NamedTuple):
    """A tensor of the forward pass."""

    node: fx.Node
    dtype: torch.dtype


class Weight(NamedTuple):
    """An array of the file."""

    name: str
    array: NDArray[Any]


@dataclass
class Operator:
    """An operator that is being converted, and what its builder may do.

    Attributes
    ----------
    op, name : str
    attributes : Attributes
    inputs : sequence of Value or Weight
    owns_weights : bool
        Whether all inputs after the first are weights, and belong to this layer alone or to layers that
        differ from it in their data only. They become parameters of a sub-module. Other weights are
        parameters of the whole module, or computed from those, and the operator is a function of them.
    key : object
        Equal for layers that are one sub-module.
    dtype : torch.dtype
        Type of the result, at first that of the first input.
    """

    op: str
    name: str
    attributes: Attributes
    inputs: Sequence[Value | Weight]
    owns_weights: bool
    key: object
    dtype: torch.dtype
    _assembly: Assembly

    @property
    def data(self) -> fx.Node:
        """The first input."""
        return self.value(0)

    def value(self, number: int) -> fx.Node:
        """One input."""
        given = self._input(number)
        return given.node if isinstance(given, Value) else self._assembly.parameter(given.name)

    def values(self) -> list[fx.Node]:
        """All inputs."""
        return [self.value(number) for number in range(len(self.inputs))]

    def array(self, number: int) -> NDArray[Any]:
        """An input that has to be a weight of the file."""
        given = self._input(number)
        if isinstance(given, Value):
            raise self.attributes.error(f"its input {number} is computed; expected a weight of the file")
        return given.array

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Call a function of PyTorch."""
        return self._assembly.call(self.name, function, *args, **kwargs)

    def layer(
        self,
        make: Callable[[], nn.Module],
        *args: fx.Node | None,
        slots: Mapping[str, int] | None = None,
        dtype: torch.dtype | None = None,
    ) -> fx.Node:
        """Call a sub-module; `slots` tells which inputs its parameters and buffers are."""
        weights: dict[str, str] = {}
        for slot, number in (slots or {}).items():
            self.array(number)
            weights[slot] = self._input(number).name  # type: ignore[union-attr]
        given = args or (self.data,)
        try:
            return self._assembly.layer(self.name, self.key, make, weights, dtype or self.dtype, *given)
        except ValueError as error:
            raise self.attributes.error(str(error)) from None

    def _input(self, number: int) -> Value | Weight:
        if number >= len(self.inputs):
            raise self.attributes.error(f"it has {len(self.inputs)} inputs; expected at least {number + 1}")
        return self.inputs[number]


Result: TypeAlias = fx.Node | Sequence[fx.Node]
Builder = Callable[[Operator], Result]
