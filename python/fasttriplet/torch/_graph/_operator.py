"""What the builder of an operator works with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from numpy.typing import NDArray

import torch
from fasttriplet._words import counted
from fasttriplet.torch._graph._assembly import Assembly
from fasttriplet.torch._graph._attributes import Attributes
from fasttriplet.torch._graph._network import OPERATOR
from torch import fx, nn


class Weight(NamedTuple):
    """An array of the file, and the type that the graph computes with where it is used."""

    name: str
    array: NDArray[Any]
    dtype: torch.dtype


@dataclass
class Operator:
    """An operator that is being converted; its builder calls the methods.

    Attributes
    ----------
    op, name : str
    attributes : Attributes
    inputs : sequence of torch.fx.Node or Weight
        What is computed, and what is in the file.
    owns_weights : bool
        Whether all inputs after the first are weights that no other layer uses, unless it is the same layer,
        called again. Then they become parameters of a sub-module. Otherwise they are parameters of the whole
        module, or are computed from such, and the operator becomes a function of them.
    key : object
        Layers with the same key are one sub-module.
    dtype : torch.dtype
        Type of the result, and of the inputs unless the operator converts them.
    """

    op: str
    name: str
    attributes: Attributes
    inputs: Sequence[fx.Node | Weight]
    owns_weights: bool
    key: object
    dtype: torch.dtype
    _assembly: Assembly
    _used: set[int] = field(default_factory=set)

    @property
    def data(self) -> fx.Node:
        """The first input."""
        return self.value(0)

    def value(self, number: int) -> fx.Node:
        """One input."""
        given = self._input(number)
        if isinstance(given, fx.Node):
            return given
        try:
            return self._assembly.parameter(given.name, given.dtype)
        except ValueError as error:
            raise self.attributes.error(str(error)) from None

    def values(self) -> list[fx.Node]:
        """All inputs, at least one."""
        return [self.value(number) for number in range(max(1, len(self.inputs)))]

    def array(self, number: int) -> NDArray[Any]:
        """An input that has to be a weight of the file."""
        given = self._input(number)
        if isinstance(given, fx.Node):
            raise self.attributes.error(f"its input {number} is computed; expected a weight of the file")
        return given.array

    def skip(self, number: int) -> None:
        """Note that an input has to be there, and does not change the result."""
        self._input(number)

    def check_shape(self, number: int, *expected: int | None) -> None:
        """Raise a ValueError if an input is a weight of another shape; None is any size but 0."""
        given = self._input(number)
        if isinstance(given, Weight) and not _fits(given.array.shape, expected):
            wanted = ", ".join("any" if size is None else str(size) for size in expected)
            where, shape = self.attributes.described(), given.array.shape
            raise ValueError(f"{where}: the weight {given.name!r} has the shape {shape}; expected ({wanted})")

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
        """Call a function of PyTorch."""
        return self._described(self._assembly.call(self.name, function, *args, **kwargs))

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
            node = self._assembly.layer(self.name, self.key, make, weights, dtype or self.dtype, *given)
        except ValueError as error:
            raise self.attributes.error(str(error)) from None
        return self._described(node)

    def finish(self) -> None:
        """Raise a ValueError about attributes and inputs that were not looked at."""
        self.attributes.finish()
        if len(self._used) < len(self.inputs):
            raise self._of_inputs(f"{len(self._used)}")

    def _of_inputs(self, expected: str) -> ValueError:
        found = counted(len(self.inputs), "input")
        return ValueError(f"{self.attributes.described()}: it has {found}; expected {expected}")

    def _described(self, node: fx.Node) -> fx.Node:
        node.meta[OPERATOR] = self.attributes.described()
        return node

    def _input(self, number: int) -> fx.Node | Weight:
        if number >= len(self.inputs):
            raise self._of_inputs(f"at least {number + 1}")
        self._used.add(number)
        return self.inputs[number]


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    if len(shape) != len(expected):
        return False
    return all(
        size == wanted or (size and wanted is None) for size, wanted in zip(shape, expected, strict=True)
    )


Result: TypeAlias = fx.Node | Sequence[fx.Node]
Builder = Callable[[Operator], Result]
