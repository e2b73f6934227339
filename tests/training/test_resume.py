"""A training is resumed after any interruption with the same numbers."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from fasttriplet.training import _loop, _state, _store, options_at, train_rec
from fasttriplet.training._state import State, save_state
from tests.processes import run_python
from tests.small_rec import identities, write_rec
from tests.training.small import (
    records,
    same_numbers,
    same_training,
    settings,
    state,
    train,
    weights,
    write_pairs,
)

pytestmark = [pytest.mark.heavy, pytest.mark.mxnet, pytest.mark.usefixtures("mx")]


def test_equal_trainings_have_equal_numbers(data: Path, unbroken: Path, tmp_path: Path) -> None:
    train(settings(data), tmp_path / "again", verify_on=[data / "pairs.bin"], threads=1, prefetch=0)
    assert same_training(tmp_path / "again", unbroken)
    train(settings(data, seed=1), tmp_path / "other", verify_on=[data / "pairs.bin"])
    assert not same_training(tmp_path / "other", unbroken)


class Stop(Exception):
    """Any exception at all."""


@pytest.mark.parametrize(
    ("where", "error"),
    [
        (("embedded", 1), KeyboardInterrupt),
        (("embedded", 1), Stop),
        (("embedded", 4), SystemExit),
        (("train", 3), KeyboardInterrupt),
        (("train", 3), Stop),
        (("verification", 1), SystemExit),
    ],
)
def test_it_is_resumed_from_where_it_was_stopped(
    data: Path, unbroken: Path, tmp_path: Path, where: tuple[str, int], error: type[BaseException]
) -> None:
    out, verify_on = tmp_path / "a", [data / "pairs.bin"]
    seen = 0

    def progress(record: Mapping[str, Any]) -> None:
        nonlocal seen
        seen += record["kind"] == where[0]
        if seen == where[1]:
            seen = 99
            raise error

    with pytest.raises(error):
        train(settings(data), out, verify_on=verify_on, progress=progress)
    assert seen == 99
    done = train(settings(data), out, verify_on=verify_on, resume=True)
    assert done.batches == 70
    assert same_training(out, unbroken)
    assert not list(tmp_path.glob(".*"))  # half a file


def test_a_training_goes_on_to_more_batches(data: Path, unbroken: Path, tmp_path: Path) -> None:
    out, verify_on = tmp_path / "a", [data / "pairs.bin"]
    for batches in (1, 2, 30, 33, 70):
        now = verify_on if batches in (30, 70) else ()
        train(settings(data), out, verify_on=now, batches=batches, resume=batches > 1)
    assert records(out, "train") == records(unbroken, "train")
    assert weights(out) == weights(unbroken)


# One process imports MXNet, and its forks train.
KILLED = """
import json, os, random, signal, sys, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: a fork while threads run
from tests.training.mxnet_command import command

state, *words = sys.argv[1:]
begin, always = json.loads(words[0]), words[1:]
kills = signal.SIGKILL, signal.SIGTERM, signal.SIGKILL
for number, kind in enumerate([*kills, None], 1):
    errors, written = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(written, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 99
        try:
            code = command([*always, *(["--resume"] if os.path.exists(state) else begin)])
        except SystemExit as ending:
            code = ending.code
        finally:
            os._exit(code)
    os.close(written)
    with os.fdopen(errors) as lines:
        for line in lines:
            if kind and line.startswith(f"batch {10 * number} of"):  # it trains
                time.sleep(random.uniform(0, 0.1))
                os.kill(child, kind)
                break
        told = lines.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in ((0, -signal.SIGKILL, 128 + signal.SIGTERM) if kind else (0,)), (code, told)
"""


def test_a_killed_training_goes_on(data: Path, unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "a"
    always = ["train", "--out", str(out), "--batches", "70", "--verify-on", str(data / "pairs.bin")]
    always += ["--verify-every", "30", "--checkpoint-every", "7", "--log-every", "10"]
    begin = ["--rec", str(data / "train.rec"), "--network", "small", "--embedding-size", "16"]
    begin += ["--batch-size", "12", "--bag-size", "48", "--lr-steps", "25,50"]
    run_python(KILLED, f"{out}-state.npz", json.dumps(begin), *always)
    assert same_training(out, unbroken)


def test_several_devices_keep_statistics_of_their_own(
    mx: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fasttriplet.mxnet import _backend  # noqa: PLC0415  needs MXNet

    monkeypatch.setattr(_backend, "contexts", lambda _: [mx.cpu(0), mx.cpu(1), mx.cpu(2)])
    chosen = settings(data)
    train(chosen, tmp_path / "a", batches=20)
    for batches in (3, 11, 20):
        train(chosen, tmp_path / "b", batches=batches, resume=batches > 3)
    assert same_numbers(tmp_path / "a", tmp_path / "b")
    one = state(tmp_path / "a").arrays
    assert not np.array_equal(one["aux:0:block1_bn_moving_mean"], one["aux:2:block1_bn_moving_mean"])
    assert any(name.startswith("momentum:") for name in one)
    monkeypatch.setattr(_backend, "contexts", lambda _: [mx.cpu(0)])
    with pytest.raises(ValueError, match="on 3 devices, not on 1"):
        train(chosen, tmp_path / "b", batches=30, resume=True)


@pytest.fixture
def with_dropout(mx: Any, tmp_path: Path) -> Path:
    """A symbol that draws random numbers, and has two outputs beside a label."""
    layer = mx.sym.Dropout(mx.sym.Flatten((mx.sym.Variable("data") - 127.5) / 128), p=0.5)
    layer = mx.sym.FullyConnected(layer, num_hidden=8, name="fc1")
    mx.sym.Group([layer, mx.sym.BlockGrad(mx.sym.Variable("softmax_label"))]).save(str(tmp_path / "d.json"))
    return tmp_path / "d.json"


def test_what_the_network_draws_is_the_same(mx: Any, data: Path, tmp_path: Path, with_dropout: Path) -> None:
    chosen = settings(data, network=None, symbol=str(with_dropout), momentum=0.0)
    train(chosen, tmp_path / "a", batches=20)
    train(chosen, tmp_path / "b", batches=7)
    mx.random.seed(99)
    with_dropout.unlink()  # the state has it
    train(chosen, tmp_path / "b", batches=20, resume=True)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_a_batch_that_no_step_has_seen_is_not_lost(
    data: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come between the feed, which handed a batch out, and the step."""

    out, verify_on, steps = tmp_path / "a", [data / "pairs.bin"], iter(range(33))
    step = _loop.Loop._step

    def interrupted(self: Any, batch: ft.TripletBatch) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(_loop.Loop, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(settings(data), out, verify_on=verify_on)
    train(settings(data), out, verify_on=verify_on, resume=True)
    assert same_training(out, unbroken)


def test_a_second_ctrl_c_does_not_stop_the_saving(
    data: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, verify_on, save = tmp_path / "a", [data / "pairs.bin"], vars(_store)["save_state"]

    def interrupted(path: Path, state: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        save(path, state)

    def progress(record: Mapping[str, Any]) -> None:
        if record["kind"] == "train" and record["batch"] == 50:
            monkeypatch.setattr(_store, "save_state", interrupted)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(settings(data), out, verify_on=verify_on, progress=progress)
    monkeypatch.undo()
    assert state(out).plain["batch"] == 50
    train(settings(data), out, verify_on=verify_on, resume=True)
    assert same_training(out, unbroken)


def test_the_best_is_known_when_it_goes_on(data: Path, tmp_path: Path) -> None:
    chosen, verify_on = settings(data), [data / "pairs.bin"]
    train(chosen, tmp_path / "a", batches=5)
    assert state(tmp_path / "a").plain["best"] is None
    done = train(chosen, tmp_path / "a", batches=5, verify_on=verify_on, resume=True)  # verifies, and no more
    assert done.best_batch == state(tmp_path / "a").plain["best"]["batch"] == 5
    again = train(chosen, tmp_path / "a", batches=5, verify_on=verify_on, resume=True)  # nothing
    assert again.best_batch == 5
    assert [line["batch"] for line in records(tmp_path / "a")] == [5]


def test_another_dataset_is_refused(data: Path, tmp_path: Path) -> None:
    chosen = settings(data)
    train(chosen, tmp_path / "a", batches=3)
    other = write_rec(tmp_path / "other.rec", identities(16, 6))  # as many images
    with pytest.raises(ValueError, match=r"a-state\.npz is of another dataset.* rec=PATH"):
        train(replace(chosen, rec=(str(other),)), tmp_path / "a", batches=6, resume=True)
    moved = str(shutil.copy(data / "train.rec", tmp_path / "moved.rec"))
    train(replace(chosen, rec=(moved,)), tmp_path / "a", batches=6, resume=True)
    with pytest.raises(FileNotFoundError, match=r"if it was moved, give its new path as rec=PATH.*gone\.rec"):
        train(replace(chosen, rec=("gone.rec",)), tmp_path / "a", batches=9, resume=True)


def test_damaged_images_may_be_skipped_from_some_point_on(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "d.rec", identities(16, 6), damaged=frozenset({40}))
    chosen = settings(tmp_path, band="violating", bag_size=24)
    chosen = replace(chosen, rec=(str(rec),))
    with pytest.raises(ft.RecordError, match="key 40"):
        train(chosen, tmp_path / "a", batches=100)
    train(replace(chosen, on_error="skip"), tmp_path / "a", batches=100, resume=True)
    train(replace(chosen, on_error="skip"), tmp_path / "b", batches=100)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


def test_other_pairs_are_compared_anew(data: Path, tmp_path: Path) -> None:
    chosen, other = settings(data), str(tmp_path / "other.bin")
    write_pairs(data / "train.rec", tmp_path / "other.bin", 30, seed=1)
    train(chosen, tmp_path / "a", batches=30, verify_on=[data / "pairs.bin"])
    done = train(chosen, tmp_path / "a", batches=31, verify_on=other, resume=True)  # one path is fine
    assert done.best_batch in (30, 31)
    told = [(line["batch"], line["pairs"]) for line in records(tmp_path / "a") if "pairs" in line]
    assert told[-2:] == [(30, other), (31, other)]

    train(chosen, tmp_path / "b", batches=3)
    (tmp_path / "b-best-0000.params").write_bytes(b"years of work")
    with pytest.raises(FileExistsError, match="not of this training"):
        train(chosen, tmp_path / "b", batches=6, verify_on=other, resume=True)
    assert (tmp_path / "b-best-0000.params").read_bytes() == b"years of work"


def test_a_state_from_before_labels_and_cache_were_settings(
    data: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, verify_on = tmp_path / "a", [data / "pairs.bin"]
    train(settings(data), out, verify_on=verify_on, batches=33)
    old = state(out)
    for name in ("labels", "cache"):
        del old.plain["settings"][name]
        assert name not in old.plain["feed"]["arguments"]
    monkeypatch.setattr(_state, "_FORMAT", 2)
    save_state(Path(f"{out}-state.npz"), old)
    monkeypatch.undo()
    chosen, _ = options_at(out)
    assert (chosen.labels, chosen.cache) == (None, True)
    train(replace(chosen, labels="shared", cache=False), out, verify_on=verify_on, resume=True)
    assert same_numbers(out, unbroken)


def test_labels_are_kept_apart_when_it_is_resumed(data: Path, tmp_path: Path) -> None:
    other = write_rec(tmp_path / "other.rec", identities(5, 4))
    chosen = settings(data, labels="separate", cache=tmp_path / "cache")
    chosen = replace(chosen, rec=(*chosen.rec, str(other)))
    train(chosen, tmp_path / "a", batches=3)
    assert records(tmp_path / "a", "start")[0]["identities"] == 16 + 5
    for labels in (None, "shared"):
        with pytest.raises(ValueError, match=r"labels 'separate' \(now 'shared'\)"):
            train(replace(chosen, labels=labels), tmp_path / "a", batches=6, resume=True)
    train(replace(chosen, cache=False), tmp_path / "a", batches=6, resume=True)
    assert not list(tmp_path.glob("*.index"))


def test_it_is_resumed_from_another_folder(
    data: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths that were given from one folder mean the same files in another."""
    shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("unbroken*"))
    monkeypatch.chdir(tmp_path)
    chosen = replace(settings(data), rec=("data/train.rec",), cache="cache")
    train(chosen, "a", batches=30, verify_on="data/pairs.bin")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    again, how = options_at("../a")
    assert again.rec == (str(tmp_path / "data" / "train.rec"),)
    assert again.cache == str(tmp_path / "cache")
    train_rec(again, "../a", **how | {"batches": 31}, resume=True)

    # All is moved: the error names the file and what gives its new path, and the best is still known.
    shutil.move(tmp_path / "data", tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"give its new path as rec=PATH.*data/train\.rec'$"):
        train_rec(again, "../a", **how | {"batches": 70}, resume=True)
    moved = replace(again, rec=("../moved/train.rec",))
    with pytest.raises(FileNotFoundError, match=r"give its new path as verify_on=PATH.*data/pairs\.bin'$"):
        train_rec(moved, "../a", **how | {"batches": 70}, resume=True)
    train_rec(moved, "../a", **how | {"batches": 70, "verify_on": "../moved/pairs.bin"}, resume=True)
    assert weights(tmp_path / "a") == weights(unbroken)
    best = [state(prefix).plain["best"] for prefix in (tmp_path / "a", unbroken)]
    assert best[0] == best[1]


def test_the_command_names_the_flag_of_what_was_moved(data: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copy(data / "train.rec", tmp_path / "train.rec")
    train(replace(settings(data), rec=(str(tmp_path / "train.rec"),)), tmp_path / "a", batches=3)
    (tmp_path / "train.rec").rename(tmp_path / "moved.rec")
    command = ["train", "--out", str(tmp_path / "a"), "--resume", "--batches", "5"]
    assert main(command) == 1
    said = f"{tmp_path / 'train.rec'}: does not exist; if it was moved, give its new path as --rec PATH"
    assert capsys.readouterr().err.splitlines()[-1] == f"fasttriplet: {said}"
    assert main([*command, "--rec", str(tmp_path / "moved.rec")]) == 0


def test_arrays_and_a_network_that_do_not_fit_are_named(data: Path, tmp_path: Path) -> None:
    train(settings(data), tmp_path / "a", batches=2)
    whole = state(tmp_path / "a")
    some = ("arg:fc1_gamma", "aux:0:fc1_moving_mean", "momentum:0")
    changes: dict[str, Any] = {
        "is missing": lambda _: None,
        r"is float32 \(.*1\), not": lambda values: values[..., np.newaxis],
        "is float64": lambda values: values.astype(np.float64),
        "holds NaN or infinity": lambda values: np.full_like(values, np.inf),
    }
    for name in some:
        for message, change in changes.items():
            arrays = whole.arrays | {name: change(whole.arrays[name])}
            kept = {one: values for one, values in arrays.items() if values is not None}
            save_state(tmp_path / "a-state.npz", State(whole.plain, kept))
            with pytest.raises(ValueError, match=rf"a-state\.npz.*{name} {message}"):
                train(settings(data), tmp_path / "a", batches=3, resume=True)
    for name in ("arg:more", "aux:1:fc1_moving_mean", "momentum:99", "momentum:x", "more"):
        save_state(tmp_path / "a-state.npz", State(whole.plain, whole.arrays | {name: np.zeros(3)}))
        with pytest.raises(ValueError, match=rf"a-state\.npz.*the network has no {name}"):
            train(settings(data), tmp_path / "a", batches=3, resume=True)
    symbol = json.loads(whole.plain["network"])
    ring = json.loads(whole.plain["network"])
    ring["nodes"][4]["inputs"][0] = [4, 0, 0]
    changed = [ring, symbol | {"heads": [[9999, 0, 0]]}, symbol | {"heads": [[3, 0, 0]]}]
    others: list[Any] = [5, None, [], {}, "", "x", "{}", '{"nodes": 5}', *map(json.dumps, changed)]
    for network in others:
        save_state(tmp_path / "a-state.npz", State(whole.plain | {"network": network}, whole.arrays))
        with pytest.raises(ValueError, match=r"a-state\.npz.*network must be an MXNet symbol in JSON"):
            train(settings(data), tmp_path / "a", batches=3, resume=True)


def test_a_network_that_is_missing_or_older_is_written_again(data: Path, tmp_path: Path) -> None:
    """The state is written first: whatever comes after it may not have been, when a run ends."""
    verify_on = [data / "pairs.bin"]
    train(settings(data), tmp_path / "a", batches=30, verify_on=verify_on)
    names = [f"a{end}" for end in ("-0000.params", "-symbol.json", "-best-0000.params", "-best-symbol.json")]
    whole = {name: (tmp_path / name).read_bytes() for name in names}
    assert state(tmp_path / "a").plain["best"]["batch"] == 30
    for name in names:
        (tmp_path / name).write_bytes(b"older")
    train(settings(data), tmp_path / "a", batches=30, verify_on=verify_on, resume=True)
    assert {name: (tmp_path / name).read_bytes() for name in names} == whole


def test_the_log_is_that_of_the_state(data: Path, unbroken: Path, tmp_path: Path) -> None:
    """A run that verifies on other pairs is killed before its next checkpoint, after all kinds of lines."""
    out, other = tmp_path / "a", tmp_path / "other.bin"
    write_pairs(data / "train.rec", other, 30, seed=1)
    train(settings(data), out, verify_on=[data / "pairs.bin"], batches=30)
    log, before = Path(f"{out}-log.jsonl"), records(out)
    lines = [{**line, "pairs": str(other)} for line in before if line["batch"] == 30 and "pairs" in line]
    with log.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in [{"kind": "start", "batch": 30}, *lines, *before])
        file.write('{"kind": "tra')
    train(settings(data), out, batches=30, resume=True)
    assert records(out) == before
    log.unlink()
    train(settings(data), out, batches=40, resume=True)
    assert records(out) == records(unbroken, "train")[3:4]
