"""What processes of a training say when one of them cannot go on."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from fasttriplet.errors import PeerError
from fasttriplet.torch import _processes
from fasttriplet.torch._processes import Processes
from torch import distributed

pytestmark = pytest.mark.torch


class Group:
    """That of two processes, the other of which may have left."""

    size = 2

    def __init__(self, reason: str | None) -> None:
        self._reason = reason

    def check(self) -> None:
        if self._reason is not None:
            raise PeerError(self._reason)


def processes(monkeypatch: pytest.MonkeyPatch, reason: str | None = None) -> Processes:
    monkeypatch.setattr(_processes, "TorchGroup", lambda: Group(reason))
    return Processes()


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("process 1 failed: OSError: disk full", "^process 1 failed: OSError: disk full$"),
        (None, "^another process of the training has ended: Connection closed by peer$"),
    ],
)
def test_a_lost_connection_names_the_reason(
    monkeypatch: pytest.MonkeyPatch, reason: str | None, message: str
) -> None:
    def lost(*_: Any) -> None:
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(distributed, "all_reduce", lost)
    with pytest.raises(PeerError, match=message):
        processes(monkeypatch, reason).average([], torch.zeros(4))


def test_too_little_memory_is_not_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(distributed, "all_reduce", lambda _: None)
    weight = torch.nn.Parameter(torch.zeros(3))
    weight.grad = torch.ones(3)
    together = processes(monkeypatch)
    monkeypatch.setattr(torch, "cat", short)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        together.average([weight], torch.zeros(4))
