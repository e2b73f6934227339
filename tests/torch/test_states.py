"""Files of weights that are ambiguous, odd or hostile."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from fasttriplet.torch._state import load_state

pytestmark = pytest.mark.torch


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def state(prefix: str = "") -> dict[str, Any]:
    return {f"{prefix}{name}": values + 1 for name, values in network().state_dict().items()}


def load(folder: Path, found: Any, net: Any = None) -> str:
    torch.save(found, folder / "a.pth")
    return load_state(network() if net is None else net, folder / "a.pth").replace(str(folder), "")


ITSELF: dict[str, Any] = {}
ITSELF["model"] = ITSELF
DEEP: dict[str, Any] = state()
for _ in range(20):
    DEEP = {"model": DEEP}

WRONG: dict[str, tuple[Any, str]] = {
    "two prefixes": (
        state("student.") | state("teacher."),
        "a.pth holds weights for the network several times, with the prefixes 'student.', 'teacher.'; save",
    ),
    "with and without a prefix": (state() | state("ema."), "with the prefixes no prefix, 'ema.'; save"),
    "two prefixes of a part": (
        {"model": {name: values for name, values in (state("a.") | state("b.")).items() if "0." in name}},
        "a.pth['model'] holds weights for the network several times, with the prefixes 'a.', 'b.'",
    ),
    "a key that is a number": (
        state() | {3: torch.ones(2)},
        "a.pth has the key 3; names of weights are text",
    ),
    "keys of an entry": ({"model": {(1, 2): torch.ones(2)}}, "a.pth['model'] has the key (1, 2); names"),
    "itself": (ITSELF, "['model']['model'] is nested deeper than any checkpoint, or holds itself"),
    "deep": (DEEP, "is nested deeper than any checkpoint"),
    "a list": (state() | {"0.bias": [1.0, 2.0]}, "a.pth: 0.bias is a list, and Sequential needs a tensor"),
    "a list, with a prefix": (
        state("m.") | {"m.0.bias": [1.0]},
        "a.pth: m.0.bias is a list, and Sequential needs a tensor",
    ),
    "nothing": ({}, "a.pth holds no state_dict; its entries are: none"),
    "an empty entry": ({"model": {}}, "a.pth['model'] holds no state_dict; its entries are: none"),
    "no tensor": ({"a": 1}, "a.pth holds no state_dict; its entries are: a"),
    "sparse": (
        state() | {"0.weight": torch.ones(2, 3).to_sparse()},
        "a.pth does not fit Sequential: ",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_states_that_are_wrong(case: str, tmp_path: Path) -> None:
    found, message = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        load(tmp_path, found)


def test_the_prefix_that_fits_most(tmp_path: Path) -> None:
    """A head may have a part with the names of the network."""
    found = state("backbone.") | {"head.0.weight": torch.ones(9, 9), "0.weight": torch.ones(3)}
    assert load(tmp_path, found) == (
        "/a.pth without the prefix 'backbone.', not used: head.0.weight, 0.weight"
    )


def test_keys_beside_the_state_may_be_anything(tmp_path: Path) -> None:
    assert load(tmp_path, {"model": state(), 3: "steps"}) == "/a.pth['model']"


def test_numbers_beside_the_weights_are_not_used_and_said(tmp_path: Path) -> None:
    assert load(tmp_path, state() | {"epoch": 3, "note": "x"}) == "/a.pth, not used: epoch, note"
    assert load(tmp_path, state("m.") | {"m.step": 3}) == ("/a.pth without the prefix 'm.', not used: m.step")


def test_a_state_that_is_no_tensor(tmp_path: Path) -> None:
    class Extra(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        kept: Any = 1

        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(2, 2)

        def get_extra_state(self) -> Any:
            return {"kept": self.kept}

        def set_extra_state(self, state: Any) -> None:
            self.kept = state["kept"]

    net, other = Extra(), Extra()
    net.kept = 5
    assert load(tmp_path, net.state_dict(), other) == "/a.pth"
    assert other.kept == 5
    with pytest.raises(ValueError, match=r"a\.pth: _extra_state is a Tensor, and Extra needs a dict"):
        load(tmp_path, dict(net.state_dict()) | {"_extra_state": torch.ones(1)}, other)


def test_a_layer_that_takes_its_shape_from_its_weights(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.LazyLinear(2), torch.nn.BatchNorm1d(2))
    load(tmp_path, state(), net)
    assert net[0].weight.shape == (2, 3)


def test_the_system_s_errors_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(error: Exception) -> None:
        def fails(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(torch, "load", fails)

    path = tmp_path / "a.pth"
    torch.save(state(), path)
    for error in (PermissionError(13, "no"), MemoryError()):
        failing(error)
        with pytest.raises(type(error)):
            load_state(network(), path)
    failing(RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"))
    with pytest.raises(MemoryError, match=r"^not enough memory to load .*a\.pth$"):
        load_state(network(), path)
    for damage in (IndexError("pop from empty list"), AttributeError("x"), AssertionError()):
        failing(damage)
        with pytest.raises(ValueError, match=r"a\.pth is not a file that torch\.save wrote, or is damaged"):
            load_state(network(), path)


def test_damaged_files_end_with_an_error_that_names_them(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(state(), path)
    content = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(3):
            at = int(torch.randint(len(content), (1,), generator=generator))
            damaged[at] = int(torch.randint(256, (1,), generator=generator))
        path.write_bytes(damaged)
        try:
            load_state(network(), path)
        except ValueError as error:
            assert str(path) in str(error)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pth")
    with pytest.raises(OSError, match="is a pipe or a device; expected a file of weights"):
        load_state(network(), tmp_path / "a.pth")
