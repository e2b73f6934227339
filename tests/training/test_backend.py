"""A training runs on any backend: here on one of NumPy alone."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasttriplet.errors import OptionError
from fasttriplet.training import TrainSettings, _state, options_at, train_rec
from fasttriplet.training._backend import Backend
from tests.training.numpy_backend import NumpyBackend
from tests.training.small import OPTIONS, records, same_arrays, state

pytestmark = pytest.mark.usefixtures("numpy_backend")


@pytest.fixture
def chosen(data: Path) -> TrainSettings:
    return TrainSettings(rec=(str(data / "train.rec"),), network="small", band="any", **OPTIONS)


def test_a_training_needs_no_framework(data: Path, chosen: TrainSettings, tmp_path: Path) -> None:
    done = train_rec(chosen, tmp_path / "a", batches=30, verify_on=data / "pairs.bin", log_every=5)
    assert (done.last, done.best) == (f"numpy:{tmp_path / 'a'}.npy", f"numpy:{tmp_path / 'a-best'}.npy")
    assert {file.name for file in tmp_path.iterdir()} == {
        f"a{end}" for end in (".npy", ".json", "-best.npy", "-best.json", "-state.npz", "-log.jsonl")
    }
    losses = [line["loss"] for line in records(tmp_path / "a", "train")]
    assert len(losses) == 6
    assert losses[-1] < losses[0]


def test_it_is_resumed_with_the_same_numbers(data: Path, chosen: TrainSettings, tmp_path: Path) -> None:
    how: dict[str, Any] = {"verify_on": [data / "pairs.bin"], "verify_every": 10, "log_every": 4}
    train_rec(chosen, tmp_path / "a", batches=30, **how)

    def stop(record: Mapping[str, Any]) -> None:
        if record["kind"] == "embedded":
            raise KeyboardInterrupt

    train_rec(chosen, tmp_path / "b", batches=10, **how)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_rec(chosen, tmp_path / "b", batches=30, **how, resume=True, progress=stop)
    train_rec(chosen, tmp_path / "b", batches=30, **how, resume=True)
    one, two = state(tmp_path / "a").plain, state(tmp_path / "b").plain
    assert {**one, "options": None} == {**two, "options": None}
    assert same_arrays(tmp_path / "a", tmp_path / "b")
    assert records(tmp_path / "a") == records(tmp_path / "b")


def test_a_device_has_the_next_images_before_it_is_done_with_these(
    chosen: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    class Begun:
        def __init__(self, embed: Callable[[], Any]) -> None:
            done.append("begun")
            self._embed = embed

        def done(self) -> bool:
            return False

        def result(self) -> Any:
            done.append("waited")
            return self._embed()

    def progress(record: Mapping[str, Any]) -> None:
        if record["kind"] == "embedded":
            done.append(f"{record['images']} of {record['of']}")

    train_rec(chosen, tmp_path / "a", batches=3)
    monkeypatch.setattr("fasttriplet.run._bag.PART", 20)
    monkeypatch.setattr(
        NumpyBackend,
        "start_embedding",
        lambda *both: Begun(partial(NumpyBackend.embed, *both)),
        raising=False,
    )
    train_rec(chosen, tmp_path / "b", batches=3, progress=progress)
    assert done[:9] == [
        "0 of 45", "begun", "0 of 45", "begun", "0 of 45", "begun", "waited", "20 of 45", "waited",
    ]  # fmt: skip
    assert np.allclose(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"), atol=1e-5)


def test_batches_are_laid_out_by_the_backend(
    chosen: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[int] = set()

    def layout(self: NumpyBackend, *arguments: Any, **options: Any) -> Any:
        threads.add(threading.get_ident())
        return Backend.layout(self, *arguments, **options)

    monkeypatch.setattr(NumpyBackend, "layout", layout)
    train_rec(chosen, tmp_path / "a", batches=2)
    assert len(threads - {threading.get_ident()}) == 1


def test_nothing_that_its_backend_wrote_is_replaced(chosen: TrainSettings, tmp_path: Path) -> None:
    (tmp_path / "a-best.npy").write_bytes(b"years of work")
    with pytest.raises(FileExistsError, match=r"exists already.*a-best\.npy"):
        train_rec(chosen, tmp_path / "a", batches=1)


def test_cosine_is_squared_l2_on_another_scale(chosen: TrainSettings, tmp_path: Path) -> None:
    squared = replace(chosen, margin=0.03, band="violating")
    train_rec(squared, tmp_path / "a", batches=20)
    train_rec(replace(squared, metric="cosine", margin=0.015, loss_margin=0.03), tmp_path / "b", batches=20)
    train_rec(replace(squared, metric="cosine", margin=0.015), tmp_path / "c", batches=20)
    train_rec(replace(squared, normalize=False), tmp_path / "d", batches=20)
    a, b, c, d = (np.load(tmp_path / f"{name}.npy") for name in "abcd")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert not np.array_equal(a, d)


def test_a_state_of_format_1_is_resumed(data: Path, chosen: TrainSettings, tmp_path: Path) -> None:
    verify_on = [str(data / "pairs.bin")]
    train_rec(chosen, tmp_path / "a", batches=20, verify_on=verify_on)
    train_rec(chosen, tmp_path / "b", batches=8, verify_on=verify_on)
    plain, arrays = state(tmp_path / "b").plain, state(tmp_path / "b").arrays
    plain["options"]["pairs"] = plain["options"].pop("verify_on")
    plain["options"].pop("export")
    before = {"verify_on": "pairs", "sums": "metric", "options": "how", "network": "symbol"}
    plain = {before.get(name, name): value for name, value in plain.items()}
    for name in (name for added in _state._ADDED.values() for name in added):
        plain["settings"].pop(name)
    plain["feed"]["arguments"].pop("metric")
    text = json.dumps(plain | {"format": 1}).encode()
    np.savez(tmp_path / "b-state.npz", plain=np.frombuffer(text, np.uint8), **arrays)
    settings, options = options_at(tmp_path / "b")
    assert settings == replace(chosen, framework="mxnet")
    assert options["verify_on"] == verify_on
    train_rec(settings, tmp_path / "b", **options | {"batches": 20}, resume=True)
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))


def test_a_state_of_format_3_is_of_mxnet_with_sgd(chosen: TrainSettings, tmp_path: Path) -> None:
    train_rec(replace(chosen, framework="mxnet"), tmp_path / "a", batches=20)
    train_rec(replace(chosen, framework="mxnet"), tmp_path / "b", batches=8)
    plain, arrays = state(tmp_path / "b").plain, state(tmp_path / "b").arrays
    for name in _state._ADDED[4]:
        plain["settings"].pop(name)
    plain["options"].pop("export")

    def save(version: int) -> None:
        text = json.dumps(plain | {"format": version}).encode()
        np.savez(tmp_path / "b-state.npz", plain=np.frombuffer(text, np.uint8), **arrays)

    save(4)
    with pytest.raises(ValueError, match=r"b-state\.npz: state.settings lacks clip_norm, framework, lr_end"):
        options_at(tmp_path / "b")
    save(3)
    settings, options = options_at(tmp_path / "b")
    assert settings == replace(chosen, framework="mxnet")
    assert options["export"] == []
    train_rec(settings, tmp_path / "b", **options | {"batches": 20}, resume=True)
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy"))
    del plain["settings"]["labels"]  # which format 3 has
    save(3)
    with pytest.raises(ValueError, match=r"state.settings lacks labels"):
        options_at(tmp_path / "b")


def test_old_names_of_arguments_are_answered(chosen: TrainSettings, tmp_path: Path) -> None:
    for name, now in (("pairs", "verify_on"), ("tell", "progress")):
        with pytest.raises(TypeError, match=rf"no option '{name}': it is called '{now}'"):
            train_rec(chosen, tmp_path / "a", **{name: ()})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"train_rec\(\) has no option 'thread'; did you mean 'threads'"):
        train_rec(chosen, tmp_path / "a", **{"thread": 1})  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"^settings must be a TrainSettings, not 'train\.rec'$"):
        train_rec("train.rec", tmp_path / "a")  # type: ignore[arg-type]


def test_training_does_not_import_mxnet() -> None:
    code = "import fasttriplet.training._train_rec, sys; print(any('mxnet' in name for name in sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
