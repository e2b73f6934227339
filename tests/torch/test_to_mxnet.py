"""`fasttriplet.torch.to_mxnet`: the way back, to what MXNet loads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from fasttriplet.checkpoint._checkpoint import read_checkpoint  # noqa: E402
from fasttriplet.torch import from_mxnet, to_mxnet  # noqa: E402
from tests.torch import conversion as c  # noqa: E402
from tests.torch import graphs  # noqa: E402
from tests.torch.converted import outputs, take_a_step  # noqa: E402
from torch import nn  # noqa: E402

pytestmark = pytest.mark.torch


def test_the_way_there_and_back_changes_nothing(prefix: Path, module: Any, tmp_path: Path) -> None:
    to_mxnet(module, tmp_path / "back", 3)
    original, written = read_checkpoint(prefix, 0), read_checkpoint(tmp_path / "back", 3)
    assert written.arg_params.keys() == original.arg_params.keys() - {"fc7_weight"}
    assert written.aux_params.keys() == original.aux_params.keys()
    for kind in ("arg_params", "aux_params"):
        for name, array in getattr(written, kind).items():
            assert np.array_equal(array, getattr(original, kind)[name]), name
    assert torch.equal(outputs(from_mxnet(tmp_path / "back", 3)), outputs(module))


@pytest.mark.mxnet
@pytest.mark.parametrize("steps", [0, 2])
def test_mxnet_loads_what_is_written(mx: Any, module: Any, tmp_path: Path, steps: int) -> None:
    for step in range(steps):
        take_a_step(module, step)
    to_mxnet(module, tmp_path / "back", 7)
    symbol, args, auxs = mx.model.load_checkpoint(str(tmp_path / "back"), 7)
    assert symbol.list_outputs() == ["fc1_output"]
    weights = {name: value.asnumpy() for name, value in (args | auxs).items()}
    (found,) = c.mxnet_outputs(mx, symbol, weights, graphs.images())
    assert c.apart(outputs(module).numpy(), found) < c.BAR


@pytest.mark.mxnet
def test_the_network_of_our_own_in_mxnet(mx: Any, prefix: Path, module: Any) -> None:
    """Shared and computed weights, in a training step too."""
    symbol, args, auxs = mx.model.load_checkpoint(str(prefix), 0)
    symbol = c.without_dropout(mx, symbol.get_internals()["fc1_output"])
    weights = {name: value.asnumpy() for name, value in (args | auxs).items()}
    factors = np.random.default_rng(0).standard_normal((4, graphs.NUMBERS))
    batch = graphs.images().astype(np.float64)  # float32 moves values across the kinks of PReLU
    theirs = c.mxnet_step(mx, c.without_prelu_operator(mx, symbol), weights, batch, factors)
    module.dropout0.p = 0.0
    found = c.compared(c.torch_step(module.double(), batch, factors), theirs)
    assert max(found.values()) < 1e-7, found
    assert not theirs.gradients["fc1_gamma"].any()


def test_files_are_not_replaced_unasked(module: Any, tmp_path: Path) -> None:
    to_mxnet(module, tmp_path / "out")
    before = (tmp_path / "out-0000.params").read_bytes()
    take_a_step(module)
    with pytest.raises(FileExistsError, match=r"overwrite=True.*out-0000\.params"):
        to_mxnet(module, tmp_path / "out")
    assert (tmp_path / "out-0000.params").read_bytes() == before
    to_mxnet(module, tmp_path / "out", 1)  # the network is the same
    to_mxnet(module, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out-0000.params").read_bytes() != before


def test_another_network_is_not_replaced_unasked(module: Any, tmp_path: Path) -> None:
    (tmp_path / "out-symbol.json").write_text("another")
    with pytest.raises(FileExistsError, match=r"out-symbol\.json"):
        to_mxnet(module, tmp_path / "out")
    assert [path.name for path in tmp_path.glob("out*")] == ["out-symbol.json"]


def test_bfloat16_is_written_as_float32(module: Any, tmp_path: Path) -> None:
    to_mxnet(module.bfloat16(), tmp_path / "out")
    assert {array.dtype for array in read_checkpoint(tmp_path / "out", 0).arg_params.values()} == {
        np.dtype("f4")
    }


def replaced(module: Any, layer: nn.Module) -> Any:
    module.conv0 = layer
    return module


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda _: nn.Linear(2, 2), "expected a module that from_mxnet returned, not a Linear"),
        (nn.DataParallel, "not a DataParallel; give what is inside of it, .module"),
        (torch.compile, "give what is inside of it, ._orig_mod"),
        (
            lambda m: replaced(m, nn.Identity()),
            "other parameters than from_mxnet gave it.*conv0.weight",
        ),
        (
            lambda m: replaced(m, nn.Conv2d(3, 8, 5, bias=False)),
            r"conv0\.weight has the shape \(8, 3, 5, 5\).*expected \(8, 3, 3, 3\)",
        ),
    ],
)
def test_other_modules_are_an_error(
    module: Any, other: Callable[..., Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        to_mxnet(other(module), tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
