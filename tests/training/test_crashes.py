"""Whichever call of a training fails or is its last, `--resume` ends in the files of an undisturbed one."""

from __future__ import annotations

import errno
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fasttriplet.training._state import load_state
from tests.faults import CHANGES, Ended, Fault, Faults, Kind
from tests.faults.campaign import Tell, is_seen
from tests.small_rec import identities
from tests.summary import POINTS
from tests.training.events import scalars
from tests.training.small import records, write_pairs, write_patterns

RESUME = ["train", "--resume", "--out", "a", "--json"]
_ERRORS: tuple[Kind, ...] = (*CHANGES, "open", "read", "lock", "close")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.rec, 8 identities of 4 images, and pairs.bin."""
    folder = tmp_path_factory.mktemp("small")
    write_patterns(folder / "train.rec", identities(8, 4))
    write_pairs(folder / "train.rec", folder / "pairs.bin", 10)
    return folder


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


def contents(folder: Path) -> dict[str, Any]:
    """All that a training left, without what differs between two that nothing disturbed."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if name.startswith("."):
            found[name] = "unfinished"
        elif name.endswith(".jsonl"):
            found[name] = records(folder / "a")
        elif path.is_file() and path.parent.name != "board":
            found[name] = path.read_bytes()
    found["board"] = scalars(folder / "board")
    return found


class Trainings:
    """A training, disturbed at each of its calls.

    All runs are in one folder, as the state has absolute paths.
    """

    def __init__(self, faults: Faults, folder: Path, words: list[str], before: Path | None = None) -> None:
        self.faults, self.folder, self.words, self.before = faults, folder / "run", words, before
        self.done: list[Any] = []
        self.start()
        ended = faults.run(self.folder, *words)
        assert ended.code == 0, ended.errors
        self.whole = contents(self.folder)

    def start(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.before is None:
            self.folder.mkdir()
        else:
            shutil.copytree(self.before, self.folder)

    def calls(self, kinds: tuple[Kind, ...]) -> list[tuple[int, str]]:
        """The calls of a run that nothing disturbs, with their numbers."""
        self.start()
        return [*enumerate(self.faults.run(self.folder, *self.words, kinds=kinds).calls, 1)]

    def kills(self) -> list[Fault]:
        calls = self.calls(CHANGES)
        return [*(Fault(at, "kill") for at, _ in calls), Fault(len(calls), "kill after")]

    def kills_with_effect(self) -> list[Fault]:
        """Kills after each call that changes what is under final names."""
        return [Fault(at, "kill after") for at, call in self.calls(CHANGES) if is_seen(call)]

    def errors(self) -> list[Fault]:
        numbers = (errno.EIO, errno.ENOSPC)
        return [Fault(at, "fail", numbers[at % 2], _ERRORS) for at, _ in self.calls(_ERRORS)]

    def full(self) -> list[Fault]:
        kinds: tuple[Kind, ...] = ("create", "write")
        return [Fault(at, "fail from there", errno.ENOSPC, kinds) for at, _ in self.calls(kinds)]

    def go_through(
        self, tell: Tell, faults: list[Fault], repair: Callable[[Path], list[str]] | None = None
    ) -> None:
        tell(POINTS, len(faults))
        bad = []
        for fault in faults:
            self.start()
            ended = self.faults.run(self.folder, *self.words, fault=fault)
            try:
                self.examine(fault, ended)
                self.repair(repair)
            except AssertionError as error:
                call = ended.calls[fault.at - 1 :][:1]
                bad.append(
                    f"{fault}: {call}\n  {str(error)[:2000]}\n  exit code {ended.code}\n  {ended.errors}"
                )
        assert not bad, f"{len(bad)} of {len(faults)} end badly\n" + "\n".join(bad[:8])

    def examine(self, fault: Fault, ended: Ended) -> None:
        assert not ended.hung, "it hangs"
        if fault.action.startswith("kill"):
            assert ended.code == -signal.SIGKILL
            return
        assert "Traceback" not in ended.errors
        if ended.code == 0:  # such as an error when unfinished files are removed
            assert without_unfinished(contents(self.folder)) == self.whole
        else:
            assert ended.code == 1
            assert any(
                name in ended.errors.splitlines()[-1] for name in ("a-", "a.", "board", "train.rec", ".bin")
            )

    def repair(self, how: Callable[[Path], list[str]] | None) -> None:
        now = contents(self.folder)
        if now in self.done:
            return
        self.done.append(now)
        resumed = self.faults.run(self.folder, *(how or self.next)(self.folder))
        assert resumed.code == 0, resumed.errors
        found = contents(self.folder)
        wrong = [name for name in found.keys() | self.whole.keys() if found.get(name) != self.whole.get(name)]
        assert not wrong, f"{wrong} differ after {resumed.errors}"

    def next(self, folder: Path) -> list[str]:
        """Resume the training if there is one, else begin it again."""
        if (folder / "a-state.npz").exists():
            return RESUME
        return self.words


def without_unfinished(found: dict[str, Any]) -> dict[str, Any]:
    return {name: content for name, content in found.items() if content != "unfinished"}


def test_a_kill_after_each_change(numpy: Faults, small: Path, in_memory: Path, record_property: Tell) -> None:
    trainings = Trainings(numpy, in_memory, command(small))
    trainings.go_through(record_property, trainings.kills_with_effect())


@pytest.mark.slow
def test_a_kill_at_each_call(numpy: Faults, small: Path, in_memory: Path, record_property: Tell) -> None:
    trainings = Trainings(numpy, in_memory, command(small))
    trainings.go_through(record_property, trainings.kills())


@pytest.mark.slow
def test_an_error_at_each_call(numpy: Faults, small: Path, in_memory: Path, record_property: Tell) -> None:
    trainings = Trainings(numpy, in_memory, command(small))
    trainings.go_through(record_property, [*trainings.errors(), *trainings.full()])


@pytest.mark.slow
@pytest.mark.parametrize("at", [0.4, 0.7, 1.0])
def test_a_fault_at_each_call_of_a_resumed_run(
    numpy: Faults, small: Path, in_memory: Path, record_property: Tell, at: float
) -> None:
    whole = Trainings(numpy, in_memory, command(small))
    kills = whole.kills()
    whole.start()
    ended = numpy.run(whole.folder, *whole.words, fault=kills[int(at * len(kills)) - 1])
    assert ended.code == -signal.SIGKILL
    shutil.copytree(whole.folder, in_memory / "killed")
    resumed = Trainings(numpy, in_memory, RESUME, in_memory / "killed")
    assert resumed.whole == whole.whole
    resumed.go_through(record_property, [*resumed.kills(), *resumed.errors()])


@pytest.mark.slow
def test_a_fault_at_each_call_of_a_training_that_replaces_another(
    numpy: Faults, small: Path, in_memory: Path, record_property: Tell
) -> None:
    """Either the earlier one is whole, or the new one can be resumed."""
    earlier = Trainings(numpy, in_memory, command(small, seed=1))
    shutil.copytree(earlier.folder, in_memory / "earlier")
    replacing = Trainings(numpy, in_memory, [*command(small), "--overwrite"], in_memory / "earlier")

    def repair(folder: Path) -> list[str]:
        if load_state(folder / "a-state.npz").plain["settings"]["seed"] == 0:
            return RESUME
        assert without_unfinished(contents(folder)) == earlier.whole, "the earlier one is not whole"
        return replacing.words

    replacing.go_through(record_property, [*replacing.kills(), *replacing.errors()], repair)


@pytest.mark.slow
@pytest.mark.mxnet
def test_a_kill_at_each_call_of_mxnet(
    mxnet: Faults, small: Path, in_memory: Path, record_property: Tell
) -> None:
    trainings = Trainings(mxnet, in_memory, command(small))
    trainings.go_through(record_property, trainings.kills())


@pytest.mark.slow
@pytest.mark.mxnet
def test_an_error_at_each_call_of_mxnet(
    mxnet: Faults, small: Path, in_memory: Path, record_property: Tell
) -> None:
    trainings = Trainings(mxnet, in_memory, command(small))
    trainings.go_through(record_property, [*trainings.errors(), *trainings.full()])
