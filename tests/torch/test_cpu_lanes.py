"""Networks of specs on the CPU: several batches at the same time, each in one thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fasttriplet as ft
from tests.torch.small_modules import SIZE, module_in, random_images, rows_of

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.torch

# Its result is wrong if two threads use it at the same time.
KEEPING = """

import threading
seen = set()

class Keeping(Net):
    def forward(self, x):
        seen.add((threading.current_thread(), torch.get_num_threads()))
        self.kept = torch.relu(self.stem_bn(self.stem(x)))
        for block in self.blocks:
            self.kept = block(self.kept)
        return self.features(self.fc(torch.flatten(self.kept, 1)))


def keeping():
    torch.manual_seed(1)
    return randomised(Keeping())
"""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("keeping")
    path = folder / f"{module_in(folder, 'keepingnet')}.py"
    path.write_text(path.read_text(encoding="utf-8") + KEEPING, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder
    del sys.modules["keepingnet"]


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr("fasttriplet.torch._embedder.cores", lambda: 4)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def test_the_number_of_cores_changes_no_bit() -> None:
    images, found = random_images(333), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        embedder = ft.load_embedder("torch:keepingnet:keeping", devices="cpu", batch_size=4)
        found.append(embedder.embed(rows_of(333), images))
        assert torch.get_num_threads() == threads
    np.testing.assert_array_equal(found[1], found[0])
    np.testing.assert_array_equal(found[2], found[0])


def test_each_batch_has_one_thread(threads: int) -> None:
    import keepingnet  # type: ignore[import-not-found]  # noqa: PLC0415

    embedder = ft.load_embedder("torch:keepingnet:keeping", devices="cpu", batch_size=4)
    embedder.embed(rows_of(1), random_images(1))  # tries the orders of values
    keepingnet.seen.clear()
    embedder.embed(rows_of(64), random_images(64))
    used, of_each = zip(*keepingnet.seen, strict=True)
    assert threading.main_thread() not in used
    assert (set(of_each), 2 <= len(set(used)) <= threads) == ({1}, True)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["factory", "script", "program"])
def test_the_networks_share_their_weights(kind: str, folder: Path, threads: int) -> None:
    import keepingnet  # noqa: PLC0415

    spec, example = "torch:keepingnet:net", torch.zeros(4, 3, *SIZE)
    if kind == "script":
        spec = f"torch:{folder}/net.pt"
        torch.jit.save(torch.jit.trace(keepingnet.net().eval(), example), folder / "net.pt")
    if kind == "program":
        spec = f"torch:{folder}/net.pt2"
        torch.export.save(torch.export.export(keepingnet.net().eval(), (example,)), folder / "net.pt2")
    embedder = ft.load_embedder(spec, devices="cpu", batch_size=4)
    embedder.embed(rows_of(9), random_images(9))
    networks = [lane.network for lane in embedder._lanes]  # type: ignore[attr-defined]
    places = [[values.data_ptr() for values in network.parameters()] for network in networks]
    assert len({id(network) for network in networks}) == threads
    assert places == places[:1] * threads


def test_a_failing_batch_ends_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    import keepingnet  # noqa: PLC0415

    embedder = ft.load_embedder("torch:keepingnet:keeping", devices="cpu", batch_size=4)
    embedder.embed(rows_of(1), random_images(1))
    calls: list[int] = []

    def failing(*_: object) -> None:
        calls.append(1)
        raise ArithmeticError("no more")

    monkeypatch.setattr(keepingnet.Keeping, "forward", failing)
    with pytest.raises(
        RuntimeError, match=r"keepingnet:keeping.* failed on 4 images .*ArithmeticError: no more"
    ):
        embedder.embed(rows_of(400), random_images(400))
    assert len(calls) < 100
    assert torch.get_num_threads() == 3
