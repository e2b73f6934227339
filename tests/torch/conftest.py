"""A folder with a module of the user's and files of its network; a network of our own as files of MXNet."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.torch.graphs import network
from tests.torch.small_modules import SIZE, module_in
from tests.training.conftest import data

__all__ = ["data"]  # a fixture


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a module `mynet` and files of its network."""
    import torch  # noqa: PLC0415  not installed everywhere

    class Adds(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def forward(self, a: Any, b: Any) -> Any:
            return a + b

    folder = tmp_path_factory.mktemp("networks")
    module_in(folder, "mynet")
    sys.path.insert(0, str(folder))
    import mynet  # type: ignore[import-not-found]  # noqa: PLC0415

    net = mynet.net()
    torch.save(net.state_dict(), folder / "state.pth")
    torch.save(net, folder / "module.pt")
    net.eval()
    example = torch.zeros(4, 3, *SIZE)
    torch.export.save(torch.export.export(net, (example,)), folder / "fixed.pt2")
    batch = torch.export.Dim("batch", min=2, max=12)
    dynamic = torch.export.export(net, (example,), dynamic_shapes=({0: batch},))
    torch.export.save(dynamic, folder / "dynamic.pt2")
    torch.export.save(torch.export.export(mynet.net(), (example,)), folder / "training.pt2")
    two = torch.export.export(Adds().eval(), (example, example))
    torch.export.save(two, folder / "two.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        jit: Any = torch.jit
        jit.save(jit.trace(net, example), folder / "script.pt")
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def net(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)
    import mynet  # noqa: PLC0415

    return mynet.net()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """The checkpoint of a small network of our own."""
    return network().save(tmp_path / "model", "softmax")


@pytest.fixture
def module(prefix: Path) -> Any:
    """It, as a module."""
    from fasttriplet.torch import from_mxnet  # noqa: PLC0415  needs PyTorch

    return from_mxnet(prefix, 0)
