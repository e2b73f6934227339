"""A state is input like any other file: what is wrong in it is named, and it chooses no place to write to."""

from __future__ import annotations

import copy
import io
import pickle
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttriplet.cli import main
from fasttriplet.training import _state, _train_rec, options_at
from fasttriplet.training._state import State, load_state, save_state
from tests.cli.command import Capture
from tests.small_rec import identities
from tests.training.numpy_backend import NumpyBackend
from tests.training.small import records, write_data

pytestmark = pytest.mark.usefixtures("numpy_backend")

Place = tuple[Any, ...]  # names and numbers

WRONG: tuple[Any, ...] = (None, True, -1, 10**30, float("nan"), "x", "\ud800", [[]], {"a": 1})


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a training of 2 batches, with its dataset, and with that of 3 batches in ``whole``."""
    folder = write_data(tmp_path_factory.mktemp("stopped"), identities(8, 4), 10)
    words = ["--rec", "train.rec", "--network", "small", "--embedding-size", "4", "--batch-size", "6"]
    words += ["--bag-size", "24", "--band", "any", "--verify-on", "pairs.bin", "--verify-every", "2"]
    words += ["--log-every", "1", "--tensorboard", "board", "--cache-dir", "cache"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(_train_rec, "backend_of", lambda _: NumpyBackend)
        assert main(["train", "--out", "a", *words, "--batches", "2"]) == 0
        shutil.copytree(folder, folder / "whole")
        assert resume(folder / "whole") == 0
        yield folder


def resume(folder: Path) -> int:
    # The file of pairs is read at each start, which takes most of the time.
    return main(["train", "--out", str(folder / "a"), "--resume", "--batches", "3"])


def fields(plain: Any, place: Place = ()) -> Iterator[Place]:
    """Where the values of a JSON object are, with those inside of others."""
    inside = plain.items() if isinstance(plain, dict) else enumerate(plain) if isinstance(plain, list) else ()
    for name, value in inside:
        yield (*place, name)
        yield from fields(value, (*place, name))


def with_value(plain: Any, place: Place, value: Any) -> Any:
    """A copy with another value there."""
    changed = copy.deepcopy(plain)
    inside = changed
    for name in place[:-1]:
        inside = inside[name]
    inside[place[-1]] = value
    return changed


def kind(value: Any) -> type:
    return float if type(value) is int else type(value)


@pytest.mark.heavy
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_each_field_is_checked(stopped: Path, tmp_path: Path, capsys: Capture, step: int) -> None:
    """Another type in the place of a value is an error that names file and field, or changes nothing.

    Each wrong value is tried in many fields, and with a step of 1 in all.
    """
    state = load_state(stopped / "a-state.npz")
    plain, whole, tried, number = state.plain, stopped / "whole" / "a", 0, 0
    for place in fields(plain):
        before = plain
        for name in place:
            before = before[name]
        for value in WRONG:
            if kind(value) is kind(before) and isinstance(value, (list, dict)):
                continue
            number += 1
            if number % step:
                continue
            out = tmp_path / "run"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            for file in stopped.glob("a*"):
                shutil.copy(file, out)
            save_state(out / "a-state.npz", State(with_value(plain, place, value), state.arrays))
            code, said = resume(out), capsys.readouterr().err
            tried += 1
            about = f"{'.'.join(map(str, place))} = {value!r}: {code}, {said}"
            assert "Traceback" not in said, about
            if code == 0 and kind(value) is not float:
                assert (out / "a.npy").read_bytes() == whole.with_name("a.npy").read_bytes(), about
                assert records(out / "a") == records(whole), about
            if code != 0 and kind(value) is not kind(before):
                assert code == 1, about
                assert f"{out / 'a'}-" in said, about
                if place[0] != "feed" and value is not None:
                    name = [str(part) for part in place if isinstance(part, str)][-1]
                    assert name in said.replace("-", "_"), about
            assert not [path for path in out.iterdir() if not path.name.startswith("a")], about
    assert tried > 500 // step


def test_devices_of_a_state_are_not_blamed_on_the_command(
    stopped: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "run"
    out.mkdir()
    for file in stopped.glob("a*"):
        shutil.copy(file, out)
    state = load_state(out / "a-state.npz")
    save_state(out / "a-state.npz", State(with_value(state.plain, ("options", "devices"), "x"), state.arrays))
    assert resume(out) == 1
    expected = f"{out / 'a'}-state.npz: devices must be 'cpu', not 'x'; to resume with another value, give "
    assert expected + "--devices VALUE" in capsys.readouterr().err
    words = ["train", "--out", str(out / "a"), "--resume", "--batches", "3", "--devices"]
    assert main([*words, "y"]) == 2
    assert "--devices must be 'cpu', not 'y'" in capsys.readouterr().err
    assert main([*words, "cpu"]) == 0


def test_fields_are_neither_missing_nor_unknown(stopped: Path, tmp_path: Path) -> None:
    state = load_state(stopped / "a-state.npz")
    for place in fields(state.plain):
        if not isinstance(place[-1], str) or place[:2] == ("feed", "arguments") or place[0] == "network":
            continue
        changed = copy.deepcopy(state.plain)
        inside = changed
        for name in place[:-1]:
            inside = inside[name]
        del inside[place[-1]]
        save_state(tmp_path / "a-state.npz", State(changed, state.arrays))
        if place[0] == "feed" and len(place) > 1:
            continue  # for the feed to find
        with pytest.raises(ValueError, match=rf"a-state\.npz: .*(lacks|arguments).*{place[-1]}"):
            load_state(tmp_path / "a-state.npz")
    for name in ("settings", "options", "best"):
        changed = copy.deepcopy(state.plain)
        changed[name]["more"] = 1
        save_state(tmp_path / "a-state.npz", State(changed, state.arrays))
        with pytest.raises(ValueError, match=rf"a-state\.npz: state.{name} has unknown fields: 'more'"):
            load_state(tmp_path / "a-state.npz")


def test_what_is_decided_at_the_beginning_is_there(stopped: Path, tmp_path: Path) -> None:
    plain, arrays = load_state(stopped / "a-state.npz").plain, load_state(stopped / "a-state.npz").arrays
    for name, changed in {
        "framework": with_value(plain, ("settings", "framework"), None),
        "lr_end": with_value(plain, ("settings", "lr_schedule"), "linear"),
    }.items():
        save_state(tmp_path / "a-state.npz", State(changed, arrays))
        with pytest.raises(ValueError, match=rf"a-state\.npz: state.settings.{name} must be known once"):
            load_state(tmp_path / "a-state.npz")


FITS: list[tuple[str, Any]] = [
    ("verified", -1), ("verified", 2), ("best.batch", 2), ("best.batch", 0), ("best", None),
    ("best.accuracy", 0), ("best.auc", 1.0), ("log", 0), ("log", 2**53), ("sums", [0, 0.5, 1e9, 3]),
    ("options.devices", ["cpu"]), ("options.devices", "cpu"), ("verify_on", []), ("options.verify_on", []),
    ("feed.arguments.devices", 1), ("options.tensorboard", None),
]  # fmt: skip
DOES_NOT_FIT: list[tuple[str, Any, str]] = [
    ("verified", 3, "state.verified must be at most batch, 2, not 3"),
    ("verified", -2, "state.verified must be a whole number >= -1, not -2"),
    ("best.batch", 3, "state.best.batch must be at most batch, 2, not 3"),
    ("best.batch", -1, "state.best.batch must be a whole number >= 0, not -1"),
    ("best.accuracy", 1.5, "state.best.accuracy must be a number from 0 to 1, not 1.5"),
    ("best.auc", -0.5, "state.best.auc must be a number from 0 to 1, not -0.5"),
    ("batch", -1, "state.batch must be a whole number >= 0, not -1"),
    (
        "log",
        2**53 + 1,
        "state.log must be a whole number up to 9007199254740992, not 9007199254740993",
    ),
    ("sums", [0, 0, 0], "state.sums must be a list of 4, not [0, 0, 0]"),
    ("sums", [0] * 5, "state.sums must be a list of 4, not [0, 0, 0, 0, 0]"),
    ("sums", [0, 0, -1, 0], "state.sums[2] must be a number >= 0, not -1"),
    ("options.devices", [], "state.options.devices must be a list that is not empty, not []"),
    ("options.devices", ["cpu", 1], "state.options.devices[1] must be a text, not 1"),
    ("options.verify_on", ["a"], "state.options.verify_on[0] must be an absolute path, not 'a'"),
    ("options.tensorboard", "/a\0", "state.options.tensorboard must be an absolute path, not '/a"),
    ("options.threads", 0, "state.options.threads must be a whole number >= 1, not 0"),
    ("options.batches", 0, "state.options.batches must be a whole number >= 1, not 0"),
    ("settings.rec", ["/a", "b"], "state.settings: rec[1] must be an absolute path, not 'b'"),
    ("settings.cache", "kept", "state.settings.cache must be an absolute path, not 'kept'"),
    ("settings.exclude", "x.parquet", "state.settings.exclude must be an absolute path, not 'x.parquet'"),
    ("settings.neighbors", "g.parquet", "state.settings.neighbors must be an absolute path, not 'g.parquet'"),
    ("settings.margin", -1, "state.settings.margin must be a number >= 0, not -1"),
    ("settings.symbol", "/a", "state.settings: give either network or symbol"),
    ("verify_on", ["0" * 63], "state.verify_on[0] must be a SHA-256 in hexadecimal digits, not '0"),
    ("verify_on", ["G" * 64], "state.verify_on[0] must be a SHA-256 in hexadecimal digits, not 'G"),
    ("feed", [], "state.feed must be an object with arguments, not []"),
    ("feed", {"arguments": []}, "state.feed must be an object with arguments, not {"),
    ("feed.arguments.devices", 0, "state.feed.arguments.devices must be a whole number >= 1, not 0"),
    ("feed.arguments.processes", 0, "state.feed.arguments.processes must be a whole number >= 1, not 0"),
    ("best", [], "state.best must be an object with batch, accuracy, auc, not []"),
]


@pytest.mark.parametrize(("version", "lacks"), [(3, False), (4, True), (7, True)])
def test_formats_before_4_had_no_exports(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, lacks: bool
) -> None:
    path, state = tmp_path / "a-state.npz", load_state(stopped / "a-state.npz")
    del state.plain["options"]["export"]
    with monkeypatch.context() as patch:
        patch.setattr(_state, "_FORMAT", version)
        save_state(path, state)
    if lacks:
        with pytest.raises(ValueError, match=r"a-state\.npz: state\.options lacks export"):
            load_state(path)
    else:
        assert load_state(path).plain["options"]["export"] == []


def test_the_limits_of_fields(stopped: Path, tmp_path: Path) -> None:
    path, state = tmp_path / "a-state.npz", load_state(stopped / "a-state.npz")
    assert state.plain["batch"] == 2
    for name, value in FITS:
        save_state(path, State(with_value(state.plain, tuple(name.split(".")), value), state.arrays))
        load_state(path)
    for name, value, said in DOES_NOT_FIT:
        save_state(path, State(with_value(state.plain, tuple(name.split(".")), value), state.arrays))
        with pytest.raises(ValueError) as refused:
            load_state(path)
        assert str(refused.value).startswith(f"{path}: {said}")


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("triplets", None, "the array triplets must be int64 (T, 3), not nothing"),
        ("triplets", np.zeros((2, 3), np.int32), "the array triplets must be int64 (T, 3), not int32 (2, 3)"),
        ("triplets", np.zeros((2, 2), np.int64), "the array triplets must be int64 (T, 3), not int64 (2, 2)"),
        ("triplets", np.zeros(3, np.int64), "the array triplets must be int64 (T, 3), not int64 (3,)"),
        ("matrix", np.array([1.0, np.inf]), "the array matrix holds NaN or infinity"),
    ],
)
def test_arrays_that_no_training_writes(
    stopped: Path, tmp_path: Path, name: str, array: Any, said: str
) -> None:
    path, state = tmp_path / "a-state.npz", load_state(stopped / "a-state.npz")
    arrays = {one: values for one, values in (state.arrays | {name: array}).items() if values is not None}
    save_state(path, State(state.plain, arrays))
    with pytest.raises(ValueError) as refused:
        load_state(path)
    assert str(refused.value).startswith(f"{path}: {said}")


def member(array: Any, allow_pickle: bool = False) -> bytes:
    content = io.BytesIO()
    np.save(content, np.asarray(array), allow_pickle=allow_pickle)
    return content.getvalue()


def text(plain: str | bytes) -> bytes:
    plain = plain.encode() if isinstance(plain, str) else plain
    return member(np.frombuffer(plain, np.uint8))


class Harm:
    def __reduce__(self) -> Any:
        return pytest.fail, ("code of the file was run",)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"plain": text('{"format": 8}')}, "format 8 is of a later version of fasttriplet"),
        ({"plain": text('{"format": "2"}')}, "format must be a whole number >= 1, not '2'"),
        ({"plain": text("{}")}, "format must be a whole number"),
        ({"plain": text("[]")}, "its JSON must be an object"),
        ({"plain": text('{"format": 3, "format": 3}')}, "a field of its JSON is there twice"),
        ({"plain": text('{"format": NaN}')}, "format must be a whole number >= 1, not nan"),
        ({"plain": text("[" * 100_000)}, "recursion"),
        ({"plain": text(b"\xff\xfe")}, "utf-8"),
        ({"plain": text('{"format": ' + "9" * 10_000 + "}")}, "digits"),
        ({"plain": text("")}, "Expecting value"),
        ({}, "Expecting value"),
        ({"plain": b"\x80"}, "magic"),
        ({"plain": text("{}"), "x": member([Harm()], True)}, "x holds object and not numbers"),
        ({"plain": pickle.dumps(Harm())}, "magic"),
        ({"plain": text("{}"), "x": member(np.zeros(3))[:-1]}, "buffer size must be"),
        ({"plain": text("{}"), "x": member(np.zeros(10)).replace(b"(10,)", b"(99,)")}, "cannot reshape"),
    ],
)  # fmt: skip
def test_what_is_not_a_state_is_named(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    path = tmp_path / "a-state.npz"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    with pytest.raises(ValueError, match=rf"a-state\.npz.*{message}.*Resume from a copy that is whole"):
        load_state(path)


def test_a_state_takes_no_more_memory_than_it_is_large(stopped: Path, tmp_path: Path) -> None:
    path = tmp_path / "a-state.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", member(np.zeros(10**7)))
    with pytest.raises(ValueError, match="its arrays are larger than the file"):
        load_state(path)
    shutil.copy(stopped / "a-state.npz", path)
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("matrix.npy", member(np.zeros(3)))
    with pytest.raises(ValueError, match="matrix is there twice"):
        load_state(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_an_error_or_the_same_state(stopped: Path, data: st.DataObject) -> None:
    content = (stopped / "a-state.npz").read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    cut = content[:place]
    flipped = cut + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
    path = stopped / "damaged.npz"
    path.write_bytes(cut)
    with pytest.raises(ValueError, match=r"damaged\.npz"):
        load_state(path)
    path.write_bytes(flipped)
    try:
        state = load_state(path)
    except ValueError as error:
        assert str(path) in str(error)
        return
    whole = load_state(stopped / "a-state.npz")
    assert state.plain == whole.plain
    assert state.arrays.keys() == whole.arrays.keys()
    assert all(np.array_equal(state.arrays[name], values) for name, values in whole.arrays.items())


def test_the_state_does_not_choose_where_to_write(
    stopped: Path, tmp_path: Path, capsys: Capture, recwarn: pytest.WarningsRecorder
) -> None:
    settings, options = options_at("a")
    assert options["tensorboard"] == str(stopped / "board")
    assert settings.cache == str(stopped / "cache")
    assert not recwarn.list
    for file in stopped.glob("a*"):
        shutil.copy(file, tmp_path)
    state = load_state(tmp_path / "a-state.npz")
    state.plain["options"]["tensorboard"] = str(tmp_path / "theirs")
    state.plain["settings"]["cache"] = str(tmp_path / "kept")
    save_state(tmp_path / "a-state.npz", state)
    assert resume(tmp_path) == 0
    said = capsys.readouterr().err
    assert f"it is used only if --tensorboard {tmp_path / 'theirs'} is given" in said
    assert f"it is used only if --cache-dir {tmp_path / 'kept'} is given" in said
    assert not (tmp_path / "theirs").exists()
    assert not (tmp_path / "kept").exists()
    # Event files that lie there are of another training.
    shutil.copytree(stopped / "board", tmp_path / "theirs")
    save_state(tmp_path / "a-state.npz", state)
    before = len(list((tmp_path / "theirs").iterdir()))
    assert resume(tmp_path) == 0
    assert len(list((tmp_path / "theirs").iterdir())) == before
