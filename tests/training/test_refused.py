"""Files, states and weights with which a training does not begin or go on, on a backend of NumPy alone."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet.training import TrainSettings, _train_rec, train_rec
from fasttriplet.training._journal import Journal
from fasttriplet.training._pace import Pace
from fasttriplet.training._pretrained import check_pretrained, epoch_of_checkpoint
from fasttriplet.training._state import load_state
from tests.small_rec import identities, picture
from tests.training.numpy_backend import NumpyBackend
from tests.training.small import OPTIONS, records, state, write_patterns

pytestmark = pytest.mark.usefixtures("numpy_backend")


@pytest.fixture
def chosen(data: Path) -> TrainSettings:
    return TrainSettings(rec=(str(data / "train.rec"),), network="small", band="any", **OPTIONS)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Files


@pytest.mark.parametrize("name", ["rec", "verify_on"])
def test_a_folder_in_the_place_of_a_file(chosen: TrainSettings, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    how: dict[str, Any] = {"verify_on": tmp_path / "folder"} if name == "verify_on" else {}
    settings = chosen
    if name == "rec":
        settings = TrainSettings(rec=(str(tmp_path / "folder"),), network="small", band="any", **OPTIONS)
    with pytest.raises(OSError, match=r"is not a file: '.*folder'$"):
        train_rec(settings, tmp_path / "a", batches=2, **how)
    train_rec(chosen, tmp_path / "a", batches=2)
    with pytest.raises(OSError, match=rf"is not a file; if it was moved, give its new path as {name}=PATH"):
        train_rec(settings, tmp_path / "a", batches=3, resume=True, **how)


def test_pairs_are_decoded_up_to_the_limit_of_pixels(chosen: TrainSettings, tmp_path: Path) -> None:
    ft.write_pairs(tmp_path / "large.bin", [picture(i, 30) for i in range(40)], [True, False] * 10)
    settings = replace(chosen, max_pixels=899)
    with pytest.raises(ValueError, match=r"large\.bin.* 30 x 30 pixels .* raise max_pixels"):
        train_rec(settings, tmp_path / "a", batches=2, verify_on=tmp_path / "large.bin")


def test_names_that_no_framework_writes(chosen: TrainSettings, tmp_path: Path) -> None:
    with pytest.raises(ft.OptionError, match=r"^out must be a name in UTF-8, not '.*udcff'$"):
        train_rec(chosen, f"{tmp_path}/a\udcff", batches=1)
    assert names(tmp_path) == []


def test_a_training_that_another_one_has_just_continued(
    chosen: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After this one has read the state, and before it has locked the log."""
    train_rec(chosen, tmp_path / "a", batches=2)
    before, path = (tmp_path / "a-log.jsonl").read_bytes(), tmp_path / "a-state.npz"

    def late(*arguments: Any) -> Journal:
        shutil.copy(path, tmp_path / "copy")
        (tmp_path / "copy").replace(path)
        return Journal(*arguments)

    monkeypatch.setattr(_train_rec, "Journal", late)
    with pytest.raises(FileExistsError, match=r"another training has just written .*a-state\.npz: give the"):
        train_rec(chosen, tmp_path / "a", batches=3, resume=True)
    assert (tmp_path / "a-log.jsonl").read_bytes() == before
    monkeypatch.undo()


def test_a_state_of_another_dataset(chosen: TrainSettings, tmp_path: Path) -> None:
    train_rec(chosen, tmp_path / "a", batches=2)
    other = write_patterns(tmp_path / "other.rec", identities(16, 5))
    settings = TrainSettings(**{**chosen.to_dict(), "rec": (str(other),)})
    with pytest.raises(ValueError) as error:
        train_rec(settings, tmp_path / "a", batches=3, resume=True)
    assert str(error.value) == (
        f"{tmp_path / 'a'}-state.npz is of another dataset: its keys, labels or sizes differ; give the files "
        "that the training began with, in that order, as rec=PATH"
    )


def test_an_empty_log_is_in_nobodys_way(chosen: TrainSettings, tmp_path: Path) -> None:
    (tmp_path / "a-log.jsonl").touch()
    with pytest.raises(ft.NoTripletsError):
        train_rec(TrainSettings(**{**chosen.to_dict(), "max_ap": 0.0}), tmp_path / "a", batches=2)
    train_rec(chosen, tmp_path / "a", batches=2)
    (tmp_path / "b-log.jsonl").write_text("mine")
    with pytest.raises(FileExistsError, match=r"exists already; .*b-log\.jsonl"):
        train_rec(chosen, tmp_path / "b", batches=2)
    assert (tmp_path / "b-log.jsonl").read_text() == "mine"


# States


def member(array: Any, version: tuple[int, int] = (1, 0)) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, array, version=version)  # type: ignore[no-untyped-call]
    return content.getvalue()


def test_arrays_that_a_training_does_not_write(tmp_path: Path) -> None:
    path, noise = tmp_path / "a-state.npz", np.random.default_rng(0).random(99)
    for content, kind, said in (
        (member(noise), zipfile.ZIP_DEFLATED, "x is compressed"),
        (member(noise, (2, 0)), zipfile.ZIP_STORED, "x is not in version 1.0 of the format of arrays"),
    ):
        with zipfile.ZipFile(path, "w", kind) as file:
            file.writestr("x.npy", content)
        with pytest.raises(ValueError, match=rf"a-state\.npz is .*: {said}\. Resume from a copy that"):
            load_state(path)
    with zipfile.ZipFile(path, "w") as file:  # by columns, as NumPy may write them
        file.writestr("x.npy", member(np.asfortranarray(np.arange(6).reshape(2, 3))))
    with pytest.raises(ValueError, match="Expecting value"):
        load_state(path)


# Weights


def test_weights_that_are_not_finite_from_the_beginning(
    chosen: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = NumpyBackend.begin

    def infinite(self: NumpyBackend, image_size: tuple[int, int]) -> None:
        begin(self, image_size)
        self.matrix[3, 2] = np.inf

    monkeypatch.setattr(NumpyBackend, "begin", infinite)
    with pytest.raises(ValueError, match=r"^matrix after batch 0 is not finite: begin with other weights$"):
        train_rec(chosen, tmp_path / "a", batches=2)
    assert names(tmp_path) == []


@pytest.mark.parametrize("what", ["loss", "momentum"])
def test_numbers_that_are_not_finite_later(
    chosen: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The state is that of the last checkpoint, from which another training may begin."""
    step, told = NumpyBackend.step, list[Mapping[str, Any]]()

    def diverges(self: NumpyBackend, *arguments: Any) -> None:
        step(self, *arguments)
        batches = told[-1]["batch"]
        if what == "loss" and batches == 4:
            self.sums[0] = np.nan
        if what == "momentum" and batches == 5:
            self.momentum = self.momentum + np.nan

    monkeypatch.setattr(NumpyBackend, "step", diverges)
    number = "the loss of batch 5" if what == "loss" else "momentum after batch 6"
    with pytest.raises(ValueError) as error:
        train_rec(chosen, tmp_path / "a", batches=9, checkpoint_every=3, log_every=1, progress=told.append)
    assert str(error.value) == (
        f"{number} is not finite. Lower the learning rate: begin another training, with the weights of "
        f"batch 3 as pretrained='numpy:{tmp_path}/a.npy'"
    )
    assert state(tmp_path / "a").plain["batch"] == 3
    assert np.array_equal(np.load(tmp_path / "a.npy"), state(tmp_path / "a").arrays["matrix"])


def test_pretrained_weights_that_do_not_fit(recwarn: pytest.WarningsRecorder) -> None:
    wanted = {"a": (2, 3), "b": (3,), "c": (1,)}
    given = {name: np.ones(shape) for name, shape in wanted.items()}
    check_pretrained(wanted, given | {"extra": np.ones(9)}, "x.params")
    assert not recwarn.list
    for change, said in (
        ({"b": np.array([1, np.nan, 1])}, "pretrained: x.params holds NaN or infinity, in b"),
        ({"b": np.ones(4)}, r"pretrained: the weight b has the shape \(4,\), and the network wants \(3,\)"),
        ({"extra": np.array([np.inf])}, "pretrained: x.params holds NaN or infinity, in extra"),
    ):
        with pytest.raises(ValueError, match=f"^{said}$"):
            check_pretrained(wanted, given | change, "x.params")
    for others, named in (({}, "none at all"), ({"z": np.ones(1), "y": np.ones(1)}, "y")):
        with pytest.raises(ValueError, match=rf"no weight of this network, such as a; it has {named} and"):
            check_pretrained(wanted, others, "x.params")
    with pytest.warns(UserWarning, match="^pretrained: b, c are not there; drawn at random$") as warned:
        check_pretrained(wanted, {"a": np.ones((2, 3)), "z": np.ones(1)}, "x.params")
    assert warned[0].filename == __file__


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("a,0", ("a", 0)),
        ("mxnet:a/b,12", ("a/b", 12)),
        ("a,b,3", ("a,b", 3)),
        ("a", None),
        (",3", None),
        ("a,", None),
        ("a,-1", None),
        ("mxnet:a,x", None),
    ],
)
def test_the_epoch_of_a_checkpoint(spec: str, found: tuple[str, int] | None) -> None:
    if found is not None:
        assert epoch_of_checkpoint(spec) == found
        return
    with pytest.raises(ft.OptionError, match=rf"^pretrained must be PREFIX,EPOCH, not '{spec}'$"):
        epoch_of_checkpoint(spec)
    with pytest.raises(ft.OptionError, match=r"^pretrained must be a file, not "):
        epoch_of_checkpoint(spec, "a file")


# The log


def test_lines_have_the_means_since_the_line_before(
    chosen: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all triplets of the batches, and the learning rate of the last of them."""
    step, sums = NumpyBackend.step, list[list[float]]()

    def noted(self: NumpyBackend, batch: Any, learning_rate: float, seed: int) -> None:
        before = list(self.sums)
        step(self, batch, learning_rate, seed)
        more = [now - then for now, then in zip(self.sums, before, strict=True)]
        sums.append([*more, learning_rate, batch.epoch, batch.bag])

    monkeypatch.setattr(NumpyBackend, "step", noted)
    for batches in (5, 13):  # a line over a batch of the run before
        train_rec(chosen, tmp_path / "a", batches=batches, log_every=4, resume=batches > 5)
    assert len(sums) == 13
    lines = records(tmp_path / "a", "train")
    assert [line["batch"] for line in lines] == [4, 8, 12]
    for line in lines:
        of_line = np.array(sums[line["batch"] - 4 : line["batch"]])
        means = of_line[:, :3].sum(axis=0) / of_line[:, 3].sum()
        assert [line["loss"], line["active"], line["norm"]] == pytest.approx(means)
        assert [line["learning_rate"], line["epoch"], line["bag"]] == of_line[-1, 4:].tolist()
    first = json.loads((tmp_path / "a-log.jsonl").read_text().splitlines()[0])
    assert first.pop("settings") == state(tmp_path / "a").plain["settings"]
    assert first == {
        "kind": "start", "batch": 0, "batches": 5, "framework": first["framework"], "images": 96,
        "identities": 16, "image_size": [24, 24], "devices": ["cpu"], "processes": 1,
    }  # fmt: skip


def test_lines_are_on_the_disk_before_the_state_that_counts_them(
    chosen: TrainSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, counted = list[str](), list[int]()
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append(path.name)
        if path.name == "a-log.jsonl":
            counted.append(sum('"kind": "train"' in line for line in path.read_text().splitlines()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    train_rec(chosen, tmp_path / "a", batches=7, checkpoint_every=3, log_every=2)
    of_both = [name for name in synced if "log" in name or "state" in name]
    assert ["log" in name for name in of_both] == [True, False] * 4  # at first, after 3 and 6, and at the end
    assert counted == [0, 1, 3, 3]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize(
    ("where", "saved"), [("after a step", 5), ("in an embedding", 5), ("in a step", 3), ("before a step", 3)]
)
def test_an_error_saves_what_is_whole(
    chosen: TrainSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    error: type[BaseException],
    where: str,
    saved: int,
) -> None:
    """Not weights that are half changed, nor a place behind a batch that no step has seen."""
    step, embed, fetched, batches = NumpyBackend.step, NumpyBackend.embed, Pace.fetched, 0

    def ends(now: str) -> None:
        if now == where and batches == 5:
            raise error("ended")

    def steps(self: NumpyBackend, *arguments: Any) -> None:
        nonlocal batches
        ends("in a step")
        step(self, *arguments)
        batches += 1

    def embeds(self: NumpyBackend, *arguments: Any) -> Any:
        ends("in an embedding")
        return embed(self, *arguments)

    def fetches(self: Pace, *arguments: Any) -> bool:
        ends("before a step")
        return fetched(self, *arguments)

    # A bag of all images is 5 batches, and the next one is embedded before the sixth.
    settings = TrainSettings(
        **{**chosen.to_dict(), "bag_size": 96, "images_per_identity": 6, "batch_size": 144, "seed": 3}
    )
    train_rec(settings, tmp_path / "whole", batches=7)
    with monkeypatch.context() as patch:
        patch.setattr(NumpyBackend, "step", steps)
        patch.setattr(NumpyBackend, "embed", embeds)
        patch.setattr(Pace, "fetched", fetches)
        with pytest.raises(error, match="ended"):
            train_rec(
                settings, tmp_path / "a", batches=7, checkpoint_every=3,
                progress=lambda record: ends("after a step") if record["kind"] == "step" else None,
            )  # fmt: skip
    assert state(tmp_path / "a").plain["batch"] == saved
    assert np.array_equal(np.load(tmp_path / "a.npy"), state(tmp_path / "a").arrays["matrix"])
    train_rec(settings, tmp_path / "a", batches=7, resume=True)
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "whole.npy"))
