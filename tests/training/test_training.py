"""A training learns, ends where it should, and goes on from any interruption with the same numbers."""

from __future__ import annotations

import io
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import fasttriplet as ft
from tests.small_rec import identities, write_rec

if TYPE_CHECKING:
    from fasttriplet.training import Trained, TrainSettings

pytestmark = pytest.mark.mxnet

OPTIONS: dict[str, Any] = {"embedding_size": 16, "batch_size": 12, "bag_size": 48, "lr_steps": (25, 50)}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.rec, 16 identities of 6 images of 24 x 24, and pairs.bin of them."""
    folder = tmp_path_factory.mktemp("data")
    with ft.RecordWriter(folder / "train.rec") as writer:
        for key, label in identities(16, 6).items():
            pattern = np.random.default_rng(label).integers(0, 56, (3, 3, 3)).repeat(8, 0).repeat(8, 1)
            noise = np.random.default_rng(1000 + key).integers(0, 200, (24, 24, 3))
            encoded = io.BytesIO()
            Image.fromarray((pattern + noise).astype(np.uint8)).save(encoded, "PNG")
            writer.write(key, ft.IRHeader(0, float(label), key, 0), encoded.getvalue())
    index = ft.index_rec(folder / "train.rec")
    drawn = ft.draw_pairs(index, 30)
    file = ft.RecordFile(folder / "train.rec")
    images = [file.read(index["key"][int(row)])[1] for pair in zip(*drawn[:2], strict=True) for row in pair]
    ft.write_pairs(folder / "pairs.bin", images, drawn.same)
    return folder


def settings(mx: Any, data: Path, **options: Any) -> TrainSettings:
    from fasttriplet.training import TrainSettings  # noqa: PLC0415  needs MXNet

    assert mx
    return TrainSettings(rec=(str(data / "train.rec"),), **{"network": "small"} | OPTIONS | options)


def train(chosen: TrainSettings, out: Path | str, **options: Any) -> Trained:
    from fasttriplet.training import train_rec  # noqa: PLC0415  needs MXNet

    how: dict[str, Any] = {"batches": 70, "verify_every": 30, "checkpoint_every": 20, "log_every": 10}
    return train_rec(chosen, out, **how | options)


def records(out: Path) -> list[dict[str, Any]]:
    """The log, without what differs between equal trainings."""
    lines = [json.loads(line) for line in Path(f"{out}-log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    return [line for line in lines if line["kind"] != "start"]


def same_training(out: Path, other: Path) -> bool:
    """Whether all numbers of two trainings are the same, and all that they logged."""
    from fasttriplet.training._state import load_state  # noqa: PLC0415  needs MXNet

    one, two = (load_state(Path(f"{prefix}-state.npz")) for prefix in (out, other))
    files = ("-0000.params", "-symbol.json", "-best-0000.params", "-best-symbol.json")
    return (
        {**one.plain, "how": None} == {**two.plain, "how": None}
        and one.arrays.keys() == two.arrays.keys()
        and all(np.array_equal(one.arrays[name], two.arrays[name]) for name in one.arrays)
        and all(Path(f"{out}{end}").read_bytes() == Path(f"{other}{end}").read_bytes() for end in files)
        and records(out) == records(other)
    )


@pytest.fixture(scope="module")
def unbroken(mx: Any, data: Path) -> Path:
    """The prefix of a training that nothing stopped."""
    train(settings(mx, data), data / "unbroken", pairs=[data / "pairs.bin"])
    return data / "unbroken"


def test_equal_trainings_have_equal_numbers(mx: Any, data: Path, unbroken: Path, tmp_path: Path) -> None:
    train(settings(mx, data), tmp_path / "again", pairs=[data / "pairs.bin"], threads=1, prefetch=0)
    assert same_training(tmp_path / "again", unbroken)
    train(settings(mx, data, seed=1), tmp_path / "other", pairs=[data / "pairs.bin"])
    assert not same_training(tmp_path / "other", unbroken)


class Stop(Exception):
    """Any exception at all."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, Stop])
@pytest.mark.parametrize("where", [("embedded", 1), ("embedded", 4), ("train", 3), ("verification", 1)])
def test_it_goes_on_from_where_it_was_stopped(  # noqa: PLR0917
    mx: Any, data: Path, unbroken: Path, tmp_path: Path, where: tuple[str, int], error: type[BaseException]
) -> None:
    out, pairs = tmp_path / "a", [data / "pairs.bin"]
    seen = 0

    def tell(record: Mapping[str, Any]) -> None:
        nonlocal seen
        seen += record["kind"] == where[0]
        if seen == where[1]:
            seen = 99
            raise error

    with pytest.raises(error):
        train(settings(mx, data), out, pairs=pairs, tell=tell)
    assert seen == 99
    done = train(settings(mx, data), out, pairs=pairs, resume=True)
    assert done.batches == 70
    assert same_training(out, unbroken)
    assert not list(tmp_path.glob(".*"))  # half a file


def test_a_training_goes_on_to_more_batches(mx: Any, data: Path, unbroken: Path, tmp_path: Path) -> None:
    out, pairs = tmp_path / "a", [data / "pairs.bin"]
    for batches in (1, 2, 30, 33, 70):
        train(
            settings(mx, data),
            out,
            pairs=pairs if batches in (30, 70) else (),
            batches=batches,
            resume=batches > 1,
        )
    found, expected = records(out), records(unbroken)
    assert [line for line in found if line["kind"] == "train"] == [
        line for line in expected if line["kind"] == "train"
    ]
    assert Path(f"{out}-0000.params").read_bytes() == Path(f"{unbroken}-0000.params").read_bytes()


def test_a_killed_training_goes_on(mx: Any, data: Path, unbroken: Path, tmp_path: Path) -> None:
    assert mx
    out = tmp_path / "a"
    command = [sys.executable, "-m", "fasttriplet", "train", "--out", str(out), "--batches", "70"]
    command += ["--pairs", str(data / "pairs.bin"), "--verify-every", "30", "--checkpoint-every", "7"]
    command += ["--log-every", "10"]
    begin = ["--rec", str(data / "train.rec"), "--network", "small", "--embedding-size", "16"]
    begin += ["--batch-size", "12", "--bag-size", "48", "--lr-steps", "25,50"]
    state = Path(f"{out}-state.npz")
    moment = random.Random(time.time_ns())
    kills = 0
    for kind in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGKILL, None):
        going_on = state.exists()
        process = subprocess.Popen(
            command + (["--resume"] if going_on else begin), stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        if kind is None:
            assert process.wait(60) == 0, process.stderr.read()
        else:
            for line in process.stderr:  # until it trains
                if line.startswith(f"batch {10 * kills + 10} of"):
                    break
            time.sleep(moment.uniform(0, 0.1))
            process.send_signal(kind)
            process.stderr.read()
            code = process.wait(60)
            assert code in (0, -signal.SIGKILL, 128 + signal.SIGTERM, 130)
            kills += 1
        process.stderr.close()
    assert same_training(out, unbroken)


def test_several_devices_keep_statistics_of_their_own(
    mx: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fasttriplet.training import _loop as run  # noqa: PLC0415  needs MXNet
    from fasttriplet.training._state import load_state  # noqa: PLC0415

    monkeypatch.setattr(run, "contexts", lambda _: [mx.cpu(0), mx.cpu(1), mx.cpu(2)])
    chosen = settings(mx, data)
    train(chosen, tmp_path / "a", batches=20)
    for batches in (3, 11, 20):
        train(chosen, tmp_path / "b", batches=batches, resume=batches > 3)
    one, two = (load_state(tmp_path / f"{name}-state.npz").arrays for name in "ab")
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["aux:0:block1_bn_moving_mean"], one["aux:2:block1_bn_moving_mean"])
    assert any(name.startswith("momentum:") for name in one)
    monkeypatch.setattr(run, "contexts", lambda _: [mx.cpu(0)])
    with pytest.raises(ValueError, match="on 3 devices, and now there are 1"):
        train(chosen, tmp_path / "b", batches=30, resume=True)


@pytest.fixture
def with_dropout(mx: Any, tmp_path: Path) -> Path:
    """A symbol that draws random numbers, and has two outputs beside a label."""
    layer = mx.sym.Dropout(mx.sym.Flatten((mx.sym.Variable("data") - 127.5) / 128), p=0.5)
    layer = mx.sym.FullyConnected(layer, num_hidden=8, name="fc1")
    mx.sym.Group([layer, mx.sym.BlockGrad(mx.sym.Variable("softmax_label"))]).save(str(tmp_path / "d.json"))
    return tmp_path / "d.json"


def test_what_the_network_draws_is_the_same(mx: Any, data: Path, tmp_path: Path, with_dropout: Path) -> None:
    chosen = settings(mx, data, network=None, symbol=str(with_dropout), momentum=0.0)
    train(chosen, tmp_path / "a", batches=20)
    train(chosen, tmp_path / "b", batches=7)
    mx.random.seed(99)
    with_dropout.unlink()  # the state has it
    train(chosen, tmp_path / "b", batches=20, resume=True)
    assert (tmp_path / "a-0000.params").read_bytes() == (tmp_path / "b-0000.params").read_bytes()


def test_it_learns_and_keeps_the_best(mx: Any, data: Path, tmp_path: Path) -> None:
    chosen = settings(mx, data, bag_size=96, images_per_identity=6, band="violating", batch_size=48)
    done = train(chosen, tmp_path / "a", batches=150, verify_every=25, pairs=[data / "pairs.bin"])
    told = [line for line in records(tmp_path / "a") if line["kind"] == "verification"]
    assert [line["batch"] for line in told] == [0, 25, 50, 75, 100, 125, 150]
    best = max(told, key=lambda line: (line["accuracy"], line["auc"]))
    assert told[0]["auc"] < 0.75
    assert best["auc"] > 0.9
    assert done.best_batch == best["batch"]
    assert done.best is not None
    again = ft.verify_pairs(data / "pairs.bin", done.best)
    assert (again.accuracy, again.auc) == pytest.approx((best["accuracy"], best["auc"]), abs=1e-3)
    last = ft.verify_pairs(data / "pairs.bin", done.last)
    assert last.auc == pytest.approx(told[-1]["auc"], abs=1e-3)


def test_the_learning_rate_falls(mx: Any, data: Path) -> None:
    chosen = settings(mx, data, learning_rate=0.5, lr_steps=(10, 20), lr_factor=0.1)
    rates = [chosen.learning_rate_behind(batches) for batches in (0, 9, 10, 19, 20, 1000)]
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


def test_pretrained_weights_are_taken_by_name(mx: Any, data: Path, unbroken: Path, tmp_path: Path) -> None:
    start = f"{unbroken},0"
    train(settings(mx, data, pretrained=start, learning_rate=0.0), tmp_path / "a", batches=1)
    before, after = (mx.nd.load(f"{prefix}-0000.params") for prefix in (unbroken, tmp_path / "a"))
    weights = [name for name in before if name.startswith("arg:")]
    assert len(weights) > 5
    assert all((before[name] == after[name]).asnumpy().all() for name in weights)

    fewer = {name: value for name, value in before.items() if "block1" not in name}
    mx.nd.save(str(tmp_path / "fewer-0000.params"), fewer)
    (tmp_path / "fewer-symbol.json").write_bytes(Path(f"{unbroken}-symbol.json").read_bytes())
    with pytest.warns(UserWarning, match="pretrained: block1_bn_beta, .* are not there; drawn at random"):
        train(settings(mx, data, pretrained=f"{tmp_path / 'fewer'},0"), tmp_path / "b", batches=1)
    with pytest.raises(ValueError, match=r"fc1_beta has the shape \(16,\), and the network wants \(8,\)"):
        train(settings(mx, data, pretrained=start, embedding_size=8), tmp_path / "c", batches=1)
    mx.nd.save(str(tmp_path / "fewer-0000.params"), {"arg:other": mx.nd.zeros(3)})
    with pytest.raises(ValueError, match=r"no weight of this network.*it has other"):
        train(settings(mx, data, pretrained=f"{tmp_path / 'fewer'},0"), tmp_path / "d", batches=1)
    with pytest.raises(ValueError, match="PREFIX,EPOCH, not 'model'"):
        train(settings(mx, data, pretrained="model"), tmp_path / "e", batches=1)
    assert not list(tmp_path.glob("[c-e]-*.params"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "large"}, "large"),
        ({"network": None}, "either network or symbol"),
        ({"symbol": "x.json"}, "either network or symbol"),
        ({"rec": "train.rec"}, "rec must be one path or more"),
        ({"batch_size": 20}, "batch_size must be a multiple of 3 .*, not 20"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number >= 0"),
        ({"momentum": 1.5}, "momentum must be a number from 0 to 1"),
        ({"lr_steps": (5, 5)}, "lr_steps must ascend"),
        ({"lr_steps": (0, 5)}, "each of lr_steps"),
        ({"loss": "cubed"}, "loss must be one of"),
        ({"color_jitter": 2.0}, "brightness"),
        ({"bag_size": 1}, "bag_size"),
        ({"margin": -1.0}, "margin"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_settings_are_named(
    mx: Any, data: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(replace(settings(mx, data), **options), tmp_path / "a", batches=1)
    assert not list(tmp_path.glob("*.npz"))


def test_nothing_is_replaced(mx: Any, data: Path, tmp_path: Path) -> None:
    chosen = settings(mx, data)
    with pytest.raises(FileNotFoundError, match=r"no training to go on with: there is no .*a-state.npz"):
        train(chosen, tmp_path / "a", resume=True)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        train(chosen, tmp_path / "b" / "a")
    with pytest.raises(FileNotFoundError, match=r"x\.bin"):
        train(chosen, tmp_path / "a", pairs=[tmp_path / "x.bin"])
    train(chosen, tmp_path / "a", batches=3)
    with pytest.raises(FileExistsError, match=r"there is a training at .*go on with it"):
        train(chosen, tmp_path / "a", batches=3)
    (tmp_path / "mine-0000.params").write_bytes(b"years of work")
    with pytest.raises(FileExistsError, match=r"mine-0000.params exists; give another prefix"):
        train(chosen, tmp_path / "mine", batches=3)
    assert (tmp_path / "mine-0000.params").read_bytes() == b"years of work"
    with pytest.raises(ValueError, match=r"with margin 0.3 \(now 0.5\), seed 0 \(now 3\): it can only"):
        train(replace(chosen, margin=0.5, seed=3), tmp_path / "a", batches=5, resume=True)


def test_the_best_is_known_when_it_goes_on(mx: Any, data: Path, tmp_path: Path) -> None:
    from fasttriplet.training._state import load_state  # noqa: PLC0415  needs MXNet

    chosen, pairs = settings(mx, data), [data / "pairs.bin"]
    train(chosen, tmp_path / "a", batches=5)
    assert load_state(tmp_path / "a-state.npz").plain["best"] is None
    done = train(chosen, tmp_path / "a", batches=5, pairs=pairs, resume=True)  # verifies, and no more
    assert done.best_batch == load_state(tmp_path / "a-state.npz").plain["best"]["batch"] == 5
    again = train(chosen, tmp_path / "a", batches=5, pairs=pairs, resume=True)  # nothing
    assert again.best_batch == 5
    assert [line["batch"] for line in records(tmp_path / "a")] == [5]


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 and no more"])
def test_a_damaged_state_is_named(mx: Any, data: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a-state.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a-state.npz is .*not the state of a training"):
        train(settings(mx, data), tmp_path / "a", resume=True)


def test_another_training_of_the_same_name_waits_for_nobody(mx: Any, data: Path, tmp_path: Path) -> None:
    out, chosen = tmp_path / "a", settings(mx, data)

    def tell(record: Mapping[str, Any]) -> None:
        if record["kind"] == "train":
            with pytest.raises(FileExistsError, match="another training is writing"):
                train(chosen, out, resume=True)

    train(chosen, out, batches=20, tell=tell)
    assert [line["batch"] for line in records(out)] == [10, 20]


def test_a_loss_that_is_not_finite_ends_it(mx: Any, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not finite\. Lower the learning rate"):
        train(settings(mx, data, learning_rate=1e30), tmp_path / "a", checkpoint_every=1)
    weights = mx.nd.load(str(tmp_path / "a-0000.params"))
    assert all(np.isfinite(value.asnumpy()).all() for name, value in weights.items())


def test_an_epoch_without_triplets_ends_it_with_the_reason(mx: Any, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ft.NoTripletsError, match="max_ap"):
        train(settings(mx, data, max_ap=0.0), tmp_path / "a")
    assert (tmp_path / "a-state.npz").exists()


def test_tensorboard_files(mx: Any, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    folder = tmp_path / "board"
    train(settings(mx, data), tmp_path / "a", pairs=[data / "pairs.bin"], tensorboard=folder, batches=20)
    train(settings(mx, data), tmp_path / "a", tensorboard=folder, batches=30, resume=True)
    content = b"".join(file.read_bytes() for file in folder.iterdir())
    for tag in (b"train/loss", b"train/active", b"verification/pairs.bin/auc"):
        assert tag in content


def test_the_documentation_trains(
    mx: Any,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert mx
    page = Path(__file__).parents[2] / "docs" / "training.md"
    code = page.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    (tmp_path / "demo").mkdir()
    shutil.copy(data / "train.rec", tmp_path / "demo" / "train.rec")
    shutil.copy(data / "pairs.bin", tmp_path / "demo" / "unseen.bin")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, str(page), "exec"), {})
    assert capsys.readouterr().out == "mxnet:small,0 mxnet:small-best,0 train\n30\n"


def test_a_batch_that_no_step_has_seen_is_not_lost(
    mx: Any, data: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C may come between the feed, which handed a batch out, and the step."""
    from fasttriplet.training import _loop as run  # noqa: PLC0415  needs MXNet

    out, pairs, steps = tmp_path / "a", [data / "pairs.bin"], iter(range(33))
    step = run._Run._step

    def interrupted(self: Any, batch: ft.TripletBatch) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(run._Run, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(settings(mx, data), out, pairs=pairs)
    train(settings(mx, data), out, pairs=pairs, resume=True)
    assert same_training(out, unbroken)


def test_a_second_ctrl_c_does_not_stop_the_saving(
    mx: Any, data: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fasttriplet.training import _loop as run  # noqa: PLC0415  needs MXNet
    from fasttriplet.training._state import load_state  # noqa: PLC0415

    out, pairs, save = tmp_path / "a", [data / "pairs.bin"], vars(run)["save_state"]

    def interrupted(path: Path, state: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        save(path, state)

    def tell(record: Mapping[str, Any]) -> None:
        if record["kind"] == "train" and record["batch"] == 50:
            monkeypatch.setattr(run, "save_state", interrupted)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(settings(mx, data), out, pairs=pairs, tell=tell)
    monkeypatch.undo()
    assert load_state(Path(f"{out}-state.npz")).plain["batch"] == 50
    train(settings(mx, data), out, pairs=pairs, resume=True)
    assert same_training(out, unbroken)


def test_another_dataset_is_refused(mx: Any, data: Path, tmp_path: Path) -> None:
    chosen = settings(mx, data)
    train(chosen, tmp_path / "a", batches=3)
    other = write_rec(tmp_path / "other.rec", identities(16, 6))  # as many images
    with pytest.raises(ValueError, match="another dataset: its keys, labels or sizes differ"):
        train(replace(chosen, rec=(str(other),)), tmp_path / "a", batches=6, resume=True)
    moved = str(shutil.copy(data / "train.rec", tmp_path / "moved.rec"))
    train(replace(chosen, rec=(moved,)), tmp_path / "a", batches=6, resume=True)
    with pytest.raises(FileNotFoundError, match=r"gone\.rec does not exist; if the dataset was moved"):
        train(replace(chosen, rec=("gone.rec",)), tmp_path / "a", batches=9, resume=True)


def test_damaged_images_may_be_skipped_from_some_point_on(mx: Any, tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "d.rec", identities(16, 6), damaged=frozenset({40}))
    chosen = settings(mx, tmp_path, band="violating", bag_size=24)
    chosen = replace(chosen, rec=(str(rec),))
    with pytest.raises(ft.RecordError, match="key 40"):
        train(chosen, tmp_path / "a", batches=100)
    train(replace(chosen, on_error="skip"), tmp_path / "a", batches=100, resume=True)
    train(replace(chosen, on_error="skip"), tmp_path / "b", batches=100)
    assert (tmp_path / "a-0000.params").read_bytes() == (tmp_path / "b-0000.params").read_bytes()


def test_a_training_of_no_batches_is_replaced(mx: Any, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ft.NoTripletsError):
        train(settings(mx, data, max_ap=0.0), tmp_path / "a")
    train(settings(mx, data), tmp_path / "a", batches=3)
    with pytest.raises(FileExistsError, match="there is a training"):
        train(settings(mx, data), tmp_path / "a", batches=3)


def test_other_pairs_are_compared_anew(mx: Any, data: Path, tmp_path: Path) -> None:
    chosen, other = settings(mx, data), str(shutil.copy(data / "pairs.bin", tmp_path / "other.bin"))
    train(chosen, tmp_path / "a", batches=30, pairs=[data / "pairs.bin"])
    done = train(chosen, tmp_path / "a", batches=31, pairs=other, resume=True)  # one path is fine
    assert done.best_batch in (30, 31)
    told = [(line["batch"], line["pairs"]) for line in records(tmp_path / "a") if "pairs" in line]
    assert told[-2:] == [(30, other), (31, other)]

    train(chosen, tmp_path / "b", batches=3)
    (tmp_path / "b-best-0000.params").write_bytes(b"years of work")
    with pytest.raises(FileExistsError, match="not of this training"):
        train(chosen, tmp_path / "b", batches=6, pairs=other, resume=True)
    assert (tmp_path / "b-best-0000.params").read_bytes() == b"years of work"


def test_what_does_not_fit_the_network_is_named(mx: Any, data: Path, tmp_path: Path) -> None:
    layer = mx.sym.Convolution(mx.sym.Variable("data"), num_filter=4, kernel=(30, 30), name="c")
    mx.sym.FullyConnected(layer, num_hidden=4, name="fc1").save(str(tmp_path / "large.json"))
    with pytest.raises(ValueError, match=r"the network does not take images of 24 x 24 \(H x W\): .*kernel"):
        train(settings(mx, data, network=None, symbol=tmp_path / "large.json"), tmp_path / "a", batches=1)
    with pytest.raises(ValueError, match="needs the beginning of a name"):
        train(settings(mx, data), f"{tmp_path}/", batches=1)
    assert not list(tmp_path.glob("a-*"))


def test_settings_take_paths_and_numbers_of_numpy(mx: Any, data: Path, tmp_path: Path) -> None:
    plain = settings(mx, data)
    numpy: dict[str, Any] = {
        "rec": (data / "train.rec",),
        "lr_steps": [np.int64(25), 50],
        "seed": np.int64(0),
    }
    other = replace(plain, **numpy)
    assert other == plain
    train(other, tmp_path / "a", batches=1)


# The command


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "fasttriplet", "train", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)


def test_the_command_trains_and_goes_on(mx: Any, data: Path, tmp_path: Path) -> None:
    assert mx
    begin: tuple[object, ...] = (
        "--rec",
        data / "train.rec",
        "--network",
        "small",
        "--embedding-size",
        16,
        "--bag-size",
        48,
    )
    begin += ("--batch-size", 12, "--positives", "ordered", "--lr-steps", "5,9", "--no-mirror")
    done = command(*begin, "--out", tmp_path / "a", "--batches", 20, "--pairs", data / "pairs.bin")
    assert done.returncode == 0, done.stderr
    assert "96 images of 16 identities, 24 x 24, on cpu; batch 0 of 20" in done.stderr
    assert "batch 20 of 20  epoch" in done.stderr
    assert "batch 20  pairs.bin: accuracy" in done.stderr
    for name in ("last network", "best network", "a-log.jsonl", "embed", "train"):
        assert name in done.stdout
    first = json.loads((tmp_path / "a-log.jsonl").read_text().splitlines()[0])
    assert first["settings"]["pairs"] == "ordered"
    assert first["settings"]["lr_steps"] == [5, 9]
    assert first["settings"]["mirror"] is False

    done = command("--out", tmp_path / "a", "--batches", 30, "--resume", "--json", "--positives", "ordered")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["batches"] == 30
    assert "batch 30  pairs.bin: accuracy" in done.stderr  # as it was begun
    done = command("--out", tmp_path / "a", "--resume")
    assert "batch 30 of 30: nothing to do, give more --batches" in done.stderr
    done = command("--out", tmp_path / "a", "--batches", 40, "--resume", "--margin", 0.7)
    assert done.returncode == 1
    assert "margin 0.3 (now 0.7)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "a"], 2, "--rec is missing"),
        (["--rec", "x.rec", "--out", "a"], 2, "either --network or --symbol"),
        (["--rec", "x.rec", "--out", "a", "--network", "n", "--symbol", "s"], 2, "either --network or"),
        (["--rec", "x.rec", "--out", "a", "--symbol", "s", "--embedding-size", "3"], 2, "a --symbol has its"),
        (["--rec", "x.rec", "--out", "a", "--network", "small", "--lr-steps", "1;2"], 2, "between commas"),
        (["--rec", "x.rec", "--out", "a", "--network", "small"], 1, "x.rec"),
        (["--resume", "--out", "a"], 1, "no training to go on with"),
    ],
)
def test_what_the_command_refuses(  # noqa: PLR0917
    mx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    assert mx
    monkeypatch.chdir(tmp_path)
    done = command(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.npz"))


def test_a_full_disk_is_named(mx: Any, data: Path, tmp_path: Path) -> None:
    assert mx
    words = f"ulimit -f 400; trap '' XFSZ; exec {sys.executable} -m fasttriplet train --network small"  # KiB
    words += f" --rec {data / 'train.rec'} --out {tmp_path / 'a'} --batches 3 --batch-size 12 --bag-size 48"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert "a-state.npz: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.params"))
    assert not list(tmp_path.glob(".*"))
