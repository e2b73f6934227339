"""Whichever call of a training fails or is its last, `--resume` ends in the files of an undisturbed one."""

from __future__ import annotations

import errno
import shutil
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fasttriplet.training._state import load_state
from tests.faults import CHANGES, Ended, Fault, Faults, Kind
from tests.faults.disturbed import Disturbed, Tell, unfinished
from tests.small_rec import identities
from tests.training.events import scalars
from tests.training.small import records, write_data

pytestmark = pytest.mark.heavy

RESUME = ["train", "--resume", "--out", "a", "--json"]
_ERRORS: tuple[Kind, ...] = (*CHANGES, "open", "read", "lock", "close")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.rec, 8 identities of 4 images, and pairs.bin."""
    return write_data(tmp_path_factory.mktemp("small"), identities(8, 4), 10)


@pytest.fixture(scope="module")
def numpy(shim: Path) -> Iterator[Faults]:
    with Faults(shim, function="tests.training.numpy_backend:command") as faults:
        yield faults


@pytest.fixture(scope="module")
def mxnet(mx: Any, shim: Path) -> Iterator[Faults]:  # noqa: ARG001  skips
    with Faults(shim, function="tests.training.mxnet_command:command") as faults:
        yield faults


def command(small: Path, **options: Any) -> list[str]:
    """A training of 4 batches, verified after each second one, with a checkpoint after 3 and at the end."""
    chosen = {
        "rec": small / "train.rec", "network": "small", "embedding_size": 4, "batch_size": 6, "bag_size": 24,
        "band": "any", "batches": 4, "verify_on": small / "pairs.bin", "verify_every": 2,
        "checkpoint_every": 3, "log_every": 1, "tensorboard": "board", "threads": 1, "out": "a",
    } | options  # fmt: skip
    words = [word for name, value in chosen.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return ["train", "--no-cache", "--json", *words]


def exporting(small: Path, **options: Any) -> list[str]:
    """The same, with another format of the networks at the end."""
    return command(small, export="onnx", **options)


def contents(folder: Path) -> dict[str, Any]:
    """All that a training left, without what differs between two that nothing disturbed."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if unfinished(name):
            continue
        if name.endswith(".jsonl"):
            found[name] = records(folder / "a")
        elif path.is_file() and path.parent.name != "board":
            found[name] = path.read_bytes()
    found["board"] = scalars(folder / "board")
    return found


class Trainings(Disturbed):
    """A training that is resumed, or begun again where there is no state."""

    def contents(self, folder: Path) -> dict[str, Any]:
        return contents(folder)

    def next(self, found: dict[str, Any]) -> Iterable[str]:
        return RESUME if "a-state.npz" in found else self.words

    def examine(self, fault: Fault, call: str, ended: Ended) -> None:
        if call and fault.action.startswith("kill"):
            return
        assert "Traceback" not in ended.errors
        if ended.code == 0:  # such as an error when unfinished files are removed
            assert self.contents(self.folder) == self.whole
        else:
            assert ended.code == 1
            known = ("a-", "a.", "board", "train.rec", ".bin")
            assert any(name in ended.errors.splitlines()[-1] for name in known)


class Replacing(Trainings):
    """A training that replaces an earlier one: that is whole, or the new one can be resumed."""

    earlier: dict[str, Any]

    def next(self, found: dict[str, Any]) -> Iterable[str]:
        if load_state(self.folder / "a-state.npz").plain["settings"]["seed"] == 0:
            return RESUME
        assert found == self.earlier, "the earlier one is not whole"
        return self.words


@pytest.fixture
def nothing(in_memory: Path) -> Path:
    """An empty folder."""
    (in_memory / "before").mkdir()
    return in_memory / "before"


def errors_of(trainings: Trainings) -> Iterable[Fault]:
    return trainings.errors(errno.EIO, errno.ENOSPC, kinds=_ERRORS)


def test_a_kill_after_each_change(numpy: Faults, small: Path, nothing: Path, record_property: Tell) -> None:
    trainings = Trainings(numpy, nothing, exporting(small), record_property, quick=True)
    trainings.go_through(trainings.kills())


@pytest.mark.slow
def test_a_kill_at_each_call(numpy: Faults, small: Path, nothing: Path, record_property: Tell) -> None:
    trainings = Trainings(numpy, nothing, exporting(small), record_property)
    trainings.go_through(trainings.kills())


@pytest.mark.slow
def test_an_error_at_each_call(numpy: Faults, small: Path, nothing: Path, record_property: Tell) -> None:
    trainings = Trainings(numpy, nothing, exporting(small), record_property)
    trainings.go_through(errors_of(trainings), trainings.full())


@pytest.mark.slow
@pytest.mark.parametrize("at", [0.4, 0.7, 1.0])
def test_a_fault_at_each_call_of_a_resumed_run(
    numpy: Faults, small: Path, nothing: Path, record_property: Tell, at: float
) -> None:
    whole = Trainings(numpy, nothing, exporting(small), record_property)
    kills = [*whole.kills()]
    assert whole.run(fault=kills[int(at * len(kills)) - 1]).code == -signal.SIGKILL
    killed = Path(shutil.copytree(whole.folder, nothing.with_name("killed")))
    resumed = Trainings(numpy, killed, RESUME, record_property)
    assert resumed.whole == whole.whole
    resumed.go_through(resumed.kills(), errors_of(resumed))


@pytest.mark.slow
def test_a_fault_at_each_call_of_a_training_that_replaces_another(
    numpy: Faults, small: Path, nothing: Path, record_property: Tell
) -> None:
    earlier = Trainings(numpy, nothing, exporting(small, seed=1), record_property)
    before = Path(shutil.copytree(earlier.folder, nothing.with_name("earlier")))
    replacing = Replacing(numpy, before, [*exporting(small), "--overwrite"], record_property)
    replacing.earlier = earlier.whole
    replacing.go_through(replacing.kills(), errors_of(replacing))


@pytest.mark.slow
@pytest.mark.mxnet
def test_a_kill_at_each_call_of_mxnet(
    mxnet: Faults, small: Path, nothing: Path, record_property: Tell
) -> None:
    trainings = Trainings(mxnet, nothing, command(small), record_property)
    trainings.go_through(trainings.kills())


@pytest.mark.slow
@pytest.mark.mxnet
def test_an_error_at_each_call_of_mxnet(
    mxnet: Faults, small: Path, nothing: Path, record_property: Tell
) -> None:
    trainings = Trainings(mxnet, nothing, command(small), record_property)
    trainings.go_through(errors_of(trainings), trainings.full())
