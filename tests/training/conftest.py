"""A small dataset, and a training on it that nothing stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from fasttriplet.training import _train_rec
from tests.small_rec import identities
from tests.training.numpy_backend import NumpyBackend
from tests.training.small import settings, train, write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.rec, 16 identities of 6 images of 24 x 24, and pairs.bin of them."""
    return write_data(tmp_path_factory.mktemp("data"), identities(16, 6), 30)


@pytest.fixture(scope="session")
def unbroken(data: Path) -> Path:
    """The prefix of a training that nothing stopped."""
    train(settings(data), data / "unbroken", verify_on=[data / "pairs.bin"])
    return data / "unbroken"


@pytest.fixture
def numpy_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings be those of NumPy alone."""
    monkeypatch.setattr(_train_rec, "backend_of", lambda _: NumpyBackend)
