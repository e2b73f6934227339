"""Which framework trains, what each of them takes, the formats that are written, and processes of a group."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fasttriplet import Feed, epoch_seed
from fasttriplet.errors import OptionError
from fasttriplet.run._group import Alone
from fasttriplet.training import TrainSettings, _backend, _loop, _train_rec, options_at, train_rec
from fasttriplet.training._state import save_state
from tests.training.numpy_backend import NumpyBackend
from tests.training.small import OPTIONS, records, state

OF_TORCH: list[tuple[str, Any]] = [
    ("optimizer", "adamw"),
    ("precision", "bfloat16"),
    ("precision", "tf32"),
    ("clip_norm", 1.0),
    ("network", "torch:mynet:net"),
]


@pytest.fixture
def chosen(data: Path) -> TrainSettings:
    return TrainSettings(rec=(str(data / "train.rec"),), network="small", band="any", **OPTIONS)


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these be the frameworks that are installed."""

    def find_spec(name: str) -> object:
        return object() if name in names else None

    for module in (_backend, _train_rec):
        monkeypatch.setattr(module, "find_spec", find_spec)


@pytest.mark.parametrize(
    ("frameworks", "network", "expected"),
    [
        (("mxnet", "torch"), "small", "mxnet"),
        (("mxnet",), "small", "mxnet"),
        (("torch",), "small", "torch"),
        (("mxnet", "torch"), "torch:mynet:net,depth=50", "torch"),
        (("torch",), None, "torch"),
        (("mxnet", "torch"), None, "mxnet"),
    ],
)
@pytest.mark.usefixtures("numpy_backend")
def test_the_framework_is_chosen_when_a_training_begins(
    chosen: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    frameworks: tuple[str, ...],
    network: str | None,
    expected: Any,
) -> None:
    installed(monkeypatch, *frameworks)
    symbol = "x-symbol.json" if network is None else None
    chosen = replace(chosen, network=network, symbol=symbol)
    told: list[Mapping[str, Any]] = []
    train_rec(chosen, tmp_path / "a", batches=1, progress=told.append)
    assert told[0]["framework"] == expected
    (start,) = records(tmp_path / "a", "start")
    assert (start["framework"], start["settings"]["framework"]) == (expected, expected)
    assert options_at(tmp_path / "a")[0] == replace(chosen, framework=expected)
    # What is installed later decides nothing.
    installed(monkeypatch, "mxnet" if expected == "torch" else "torch")
    train_rec(chosen, tmp_path / "a", batches=2, resume=True)
    assert state(tmp_path / "a").plain["settings"]["framework"] == expected
    other: Any = "mxnet" if expected == "torch" else "torch"
    if network != "torch:mynet:net,depth=50":
        with pytest.raises(ValueError, match=rf"a training with framework '{expected}' \(now '{other}'\)"):
            train_rec(replace(chosen, framework=other), tmp_path / "a", batches=2, resume=True)


@pytest.mark.parametrize(("name", "value"), OF_TORCH)
def test_mxnet_refuses_what_is_for_pytorch(chosen: TrainSettings, name: str, value: Any) -> None:
    other = replace(chosen, **{name: value})  # may be decided later
    with pytest.raises(OptionError, match=rf"^{name} {value!r} is for PyTorch: give framework='torch'$"):
        replace(other, framework="mxnet")
    assert getattr(replace(other, framework="torch"), name) == value


def test_what_mxnet_refuses_is_refused_before_it_is_looked_for(
    chosen: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(monkeypatch, "mxnet", "torch")
    with pytest.raises(OptionError, match="optimizer 'adamw' is for PyTorch"):
        train_rec(replace(chosen, optimizer="adamw"), tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"framework": "keras"}, "framework must be one of 'mxnet', 'torch', not 'keras'"),
        ({"optimizer": "lamb"}, "optimizer must be one of 'sgd', 'adamw', not 'lamb'"),
        ({"precision": "float16"}, "precision must be one of 'float32', 'tf32', 'bfloat16', not 'float16'"),
        ({"clip_norm": 0}, "clip_norm must be above 0"),
        ({"clip_norm": float("inf")}, "clip_norm must be a number >= 0, not inf"),
    ],
)
def test_wrong_values_are_named(chosen: TrainSettings, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        replace(chosen, **options)


def test_bf16_is_short_for_bfloat16(chosen: TrainSettings) -> None:
    short: Any = "bf16"
    assert replace(chosen, precision=short) == replace(chosen, precision="bfloat16")


# Missing frameworks


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let imports of these fail as where they are not installed."""
    for name in [name for name in sys.modules if name.split(".")[0] in names]:
        monkeypatch.delitem(sys.modules, name)
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)
        for module in [one for one in sys.modules if one.startswith(f"fasttriplet.{name}")]:
            monkeypatch.delitem(sys.modules, module)


def test_a_framework_that_is_missing_says_how_to_install_it(
    chosen: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "mxnet", "torch")
    neither = r"needs PyTorch\. Install it: .*torch.* Or give framework='mxnet', which is not installed\. "
    with pytest.raises(ImportError, match=neither + "Install it: .*mxnet"):
        train_rec(chosen, tmp_path / "a")
    for_torch: list[dict[str, Any]] = [
        {"framework": "torch"},
        {"network": "torch:m:net"},
        {"optimizer": "adamw"},
    ]
    for only_torch in for_torch:
        with pytest.raises(ImportError, match=r"needs PyTorch\. Install it: [^\n]*torch") as raised:
            train_rec(replace(chosen, **only_torch), tmp_path / "a")
        assert "mxnet" not in str(raised.value)
    with pytest.raises(ImportError, match=r"MXNet .*Install it: ") as raised:
        train_rec(replace(chosen, framework="mxnet"), tmp_path / "a")
    assert "framework" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_where_mxnet_does_not_load_the_other_is_named(
    chosen: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as beside NumPy 2."""

    class Unfit(NumpyBackend):
        def __init__(self, *_: Any) -> None:
            raise ImportError("MXNet 1.9.1 does not work with NumPy 2", name="mxnet")

    installed(monkeypatch, "mxnet", "torch")
    monkeypatch.setattr(_train_rec, "backend_of", lambda _: Unfit)
    with pytest.raises(ImportError, match=r"NumPy 2\. Or give framework='torch'$"):
        train_rec(chosen, tmp_path / "a")

    class Misspelt(NumpyBackend):
        def __init__(self, *_: Any) -> None:
            raise ImportError("No module named 'my_network'", name="my_network")

    monkeypatch.setattr(_train_rec, "backend_of", lambda _: Misspelt)
    with pytest.raises(ImportError, match=r"^No module named 'my_network'$"):
        train_rec(chosen, tmp_path / "a")


# Exports


@pytest.fixture
def torch_like(chosen: TrainSettings, request: pytest.FixtureRequest) -> TrainSettings:
    request.getfixturevalue("numpy_backend")
    return replace(chosen, framework="torch")


def test_the_networks_are_exported_at_the_end(torch_like: TrainSettings, data: Path, tmp_path: Path) -> None:
    told: list[Mapping[str, Any]] = []
    how: dict[str, Any] = {"verify_on": data / "pairs.bin", "export": ["onnx"], "progress": told.append}
    done = train_rec(torch_like, tmp_path / "a", batches=5, **how)
    files = [f"{tmp_path / 'a'}.onnx", f"{tmp_path / 'a'}-best.onnx"]
    assert done.exported == tuple(files)
    for file in files:
        network = Path(file).with_suffix(".npy").read_bytes()
        assert Path(file).read_bytes() == b"the same as " + network
    assert [record["file"] for record in told if record["kind"] == "exporting"] == files
    assert told[-2]["seconds_left"] == 0
    best = max(records(tmp_path / "a", "verification"), key=lambda line: (line["accuracy"], line["auc"]))
    assert (done.best_batch, done.best_accuracy) == (best["batch"], best["accuracy"])


def test_a_finished_training_can_be_exported_later(torch_like: TrainSettings, tmp_path: Path) -> None:
    out = tmp_path / "a"
    assert train_rec(torch_like, out, batches=3).exported == ()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".npy"}
    for _ in range(2):  # its own files are replaced
        done = train_rec(torch_like, out, batches=3, export="onnx", resume=True)  # type: ignore[arg-type]
        assert done.exported == (f"{out}.onnx",)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix == ".npy"} == before
    assert options_at(out)[1]["export"] == ["onnx"]
    train_rec(torch_like, out, batches=4, **_without_progress(out), resume=True)
    assert Path(f"{out}.onnx").read_bytes() == b"the same as " + Path(f"{out}.npy").read_bytes()


def _without_progress(out: Path) -> dict[str, Any]:
    return {name: value for name, value in options_at(out)[1].items() if name != "batches"}


@pytest.mark.parametrize("name", ["a.onnx", "a-best.onnx"])
def test_an_export_replaces_nothing_of_others(torch_like: TrainSettings, tmp_path: Path, name: str) -> None:
    out, theirs = tmp_path / "a", tmp_path / name
    theirs.write_bytes(b"years of work")
    with pytest.raises(FileExistsError, match=rf"exists already; overwrite=True.*{name}"):
        train_rec(torch_like, out, batches=3, export=["onnx"])
    assert [*tmp_path.iterdir()] == [theirs]
    train_rec(torch_like, out, batches=3)
    with pytest.raises(FileExistsError, match=rf"{name} exists, and is not of this training: move it away"):
        train_rec(torch_like, out, batches=5, export=["onnx"], resume=True)
    assert state(out).plain["batch"] == 3
    assert theirs.read_bytes() == b"years of work"
    train_rec(torch_like, out, batches=1, export=["onnx"], overwrite=True)
    assert Path(f"{out}.onnx").read_bytes().startswith(b"the same as ")
    assert not Path(f"{out}-best.onnx").exists()  # there are no pairs, and it was of the training before


def test_what_an_export_needs_is_looked_for_before_a_training_begins(
    torch_like: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_export(self: Any, kind: str) -> None:  # noqa: ARG001
        raise ImportError(f"{kind} needs onnxscript")

    monkeypatch.setattr(NumpyBackend, "check_export", check_export)
    with pytest.raises(ImportError, match="onnx needs onnxscript"):
        train_rec(torch_like, tmp_path / "a", batches=1, export=["onnx"])
    assert not list(tmp_path.iterdir())


@pytest.mark.mxnet
@pytest.mark.usefixtures("mx")
@pytest.mark.parametrize("kind", ["mxnet", "onnx"])
def test_mxnet_exports_nothing(chosen: TrainSettings, tmp_path: Path, kind: Any) -> None:
    expected = rf"export '{kind}' goes with framework='torch'\. .* which fasttriplet\.torch\.from_mxnet reads"
    with pytest.raises(OptionError, match=expected):
        train_rec(replace(chosen, framework="mxnet"), tmp_path / "a", export=[kind])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("export", ["coreml", ["onnx", "coreml"], 5, None, {"onnx": 1}])
def test_unknown_formats_are_named(torch_like: TrainSettings, tmp_path: Path, export: Any) -> None:
    with pytest.raises(OptionError, match=r"^export must be"):
        train_rec(torch_like, tmp_path / "a", export=export)


def test_an_export_that_fails_loses_nothing(
    torch_like: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a"

    def export(*_: Any) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(NumpyBackend, "export", export)
        with pytest.raises(OSError, match="disk full"):
            train_rec(torch_like, out, batches=3, export=["onnx"])
    assert json.loads(Path(f"{out}-log.jsonl").read_text().splitlines()[0])["batches"] == 3
    done = train_rec(torch_like, out, batches=3, export=["onnx"], resume=True)
    assert (done.batches, done.exported) == (3, (f"{out}.onnx",))


# Several processes


class Peer:
    """A process that is not the first of a group; alone, as this one is."""

    rank, size = 1, 1


@pytest.fixture
def peer(torch_like: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> TrainSettings:
    def feed(*arguments: Any, group: Any, **options: Any) -> Feed:
        assert group is NumpyBackend.group
        return Feed(*arguments, **options)

    monkeypatch.setattr(NumpyBackend, "group", Peer())
    monkeypatch.setattr(_loop, "Feed", feed)
    return torch_like


def test_several_processes_train_with_pytorch(chosen: TrainSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "mxnet", "torch")
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert _backend.usual_framework(chosen) == "torch"


def test_a_framework_without_groups_trains_in_one_process(
    torch_like: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match=r"^framework 'mxnet' trains in one process, and 2 were started"):
        train_rec(replace(torch_like, framework="mxnet"), tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_an_error_before_the_first_batch_ends_all_processes(
    torch_like: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str | None] = []

    class First(Alone):
        def leave(self, reason: str | None) -> None:
            told.append(reason)

    def no_journal(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(NumpyBackend, "group", First())
    monkeypatch.setattr(_train_rec, "Journal", no_journal)
    with pytest.raises(OSError, match="disk full"):
        train_rec(torch_like, tmp_path / "a")
    assert told == ["failed: OSError: disk full"]


def test_another_process_than_the_first_only_steps(peer: TrainSettings, data: Path, tmp_path: Path) -> None:
    told: list[Mapping[str, Any]] = []
    how: dict[str, Any] = {"verify_on": data / "pairs.bin", "export": ["onnx"], "log_every": 1}
    done = train_rec(
        peer, tmp_path / "a" / "b", batches=5, tensorboard=tmp_path / "c", progress=told.append, **how
    )
    assert (done.batches, done.best, done.exported) == (5, None, ())
    assert not told
    assert not list(tmp_path.iterdir())


def test_it_leaves_signals_to_the_first(
    peer: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, seeds = NumpyBackend.step, list[int]()

    def signalled(self: NumpyBackend, batch: Any, learning_rate: float, seed: int) -> None:
        step(self, batch, learning_rate, seed)
        seeds.append(seed)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.raise_signal(number)

    monkeypatch.setattr(NumpyBackend, "step", signalled)
    before = signal.getsignal(signal.SIGTERM)
    assert train_rec(peer, tmp_path / "a", batches=3).batches == 3
    assert signal.getsignal(signal.SIGTERM) == before
    # What the network draws differs between processes.
    assert seeds == [epoch_seed(epoch_seed(peer.seed, batch), 1) for batch in range(3)]


def test_it_is_resumed_from_the_state_of_the_first(
    peer: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a"
    with monkeypatch.context() as patch:
        patch.setattr(NumpyBackend, "group", None)
        patch.setattr(_loop, "Feed", Feed)
        train_rec(peer, out, batches=3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert train_rec(peer, out, batches=5, resume=True).batches == 5
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("processes", [1, 3])
def test_a_training_is_resumed_on_as_many_processes(
    torch_like: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    out = tmp_path / "a"
    train_rec(torch_like, out, batches=2)
    if processes > 1:
        found = state(out)
        found.plain["feed"]["arguments"]["processes"] = processes
        save_state(Path(f"{out}-state.npz"), found)
    group = Peer()
    group.size = 2
    monkeypatch.setattr(NumpyBackend, "group", group)
    then = "1 process" if processes == 1 else "3 processes"
    with pytest.raises(ValueError, match=rf"a-state\.npz is of a training on {then}, not on 2"):
        train_rec(torch_like, out, batches=3, resume=True)
