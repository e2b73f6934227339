"""The limit on pixels in runs, verifications, trainings and commands; each names the record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet.cli import main
from fasttriplet.verify._examine import check_for_training
from tests.cli.command import Capture
from tests.dataset.bombs import flat_png
from tests.small_rec import identities, picture, random_table, write_rec

SIDE = 24
LARGE = flat_png(SIDE + 1, SIDE)
REASON = (
    "the header says 25 x 24 pixels (height x width), 600 in all, and at most 576 are decoded; if it is "
    "right, raise max_pixels"
)
LIMIT: dict[str, Any] = {"max_pixels": SIDE**2}


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    """Key 5 of 24 is one row larger than all others."""
    path = tmp_path / "train.rec"
    with ft.RecordWriter(path) as writer:
        for key, label in identities(6, 4).items():
            content = LARGE if key == 5 else picture(1000 * label + key, SIDE)
            writer.write(key, ft.IRHeader(0, float(label), key, 0), content)
    return path


@pytest.fixture
def expected(rec: Path) -> str:
    dataset = ft.Dataset(rec)
    return f"{rec}, key 5, offset {dataset.offsets[4]}: {REASON}"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.bin"
    images = [picture(at, SIDE) for at in range(24)]
    images[7] = LARGE
    ft.write_pairs(path, images, [at % 2 == 0 for at in range(12)])
    return path


RUNS: dict[str, Callable[..., object]] = {
    "mine_rec": lambda rec, **how: ft.mine_rec(rec, band="any", **how).summary,
    "Feed": lambda rec, **how: all_batches(ft.Feed(rec, model="pixels", band="any", **how)),
}


def all_batches(feed: ft.Feed) -> object:
    with feed:
        for _ in feed:
            pass
    return feed.summary


@pytest.mark.parametrize("run", RUNS)
def test_runs(run: str, rec: Path, expected: str) -> None:
    with pytest.raises(ft.RecordError) as error:
        RUNS[run](rec, **LIMIT)
    assert str(error.value) == expected
    summary: Any = RUNS[run](rec, on_error="skip", **LIMIT)
    assert summary.skipped == [expected]
    with pytest.raises(ft.RecordError, match="images of one batch must have one size"):
        RUNS[run](rec)  # below the limit it is an image of another size


def test_a_dataset_keeps_its_own_limit(rec: Path, expected: str) -> None:
    dataset = ft.Dataset(rec, **LIMIT)
    assert ft.mine_rec(dataset, on_error="skip", band="any").summary.skipped == [expected]
    assert ft.mine_rec(dataset, on_error="skip", band="any", **LIMIT).summary.skipped == [expected]
    with pytest.raises(ft.OptionError, match="max_pixels must be 576, as the Dataset was made; give 600 to"):
        ft.mine_rec(dataset, max_pixels=600)
    assert ft.mine_rec(rec, model=random_table(), band="any", **LIMIT).summary.skipped == []


def test_verifications(rec: Path, expected: str, pairs: Path) -> None:
    with pytest.raises(ft.RecordError) as error:
        ft.verify_rec(rec, "pixels", folds=2, **LIMIT)
    assert str(error.value) == expected
    for call in (
        lambda: ft.verify_pairs(pairs, "pixels", **LIMIT),
        lambda: check_for_training(pairs, (SIDE, SIDE), **LIMIT),
    ):
        with pytest.raises(ValueError, match="counted from 0") as of_pair:
            call()
        assert str(of_pair.value) == f"{pairs}: pair 3 (counted from 0), second image, {REASON}"


def test_commands(rec: Path, pairs: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "people" / "a"
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(LARGE)
    (folder / "list.txt").write_text("1.png 1.png 1\n")
    limit = ["--max-pixels", str(SIDE**2)]
    flag = "if it is right, raise --max-pixels"
    for arguments in (
        ["mine", "--rec", rec, "--out", tmp_path / "a.parquet"],
        ["verify", "--rec", rec, "--model", "pixels"],
        ["verify", "--pairs", pairs, "--model", "pixels"],
        ["pack-pairs", tmp_path / "b.bin", "--rec", rec],
        ["pack-pairs", tmp_path / "b.bin", "--list", folder / "list.txt"],
        ["pack", folder.parent, tmp_path / "b.rec"],
    ):
        words = [str(argument) for argument in arguments]
        assert main([*words, *limit]) == 1, words
        told = capsys.readouterr().err
        assert "the header says 25 x 24 pixels (height x width), 600 in all, and at most 576" in told, words
        assert flag in told, words
        assert main([*words, "--max-pixels", "0"]) == 2
        assert "--max-pixels" in capsys.readouterr().err
        assert main([*words, "--max-pixels", str(2**30 + 1)]) == 2
        assert "--max-pixels': 1073741825 is more than 1,073,741,824" in capsys.readouterr().err
    assert (
        main(["mine", "--rec", str(rec), "--out", str(tmp_path / "a.parquet"), "--on-error", "skip", *limit])
        == 0
    )
    assert "key 5" in capsys.readouterr().out
    assert main(["index", "--rec", str(rec), *limit]) == 2
    assert "No such option" in capsys.readouterr().err


def test_a_shortage_of_memory_is_told_in_flags(
    rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    empty = np.empty

    def no_memory(shape: Any, *dtype: Any, **more: Any) -> Any:
        if np.ndim(shape) == 1 and len(shape) == 4:
            raise MemoryError
        return empty(shape, *dtype, **more)

    monkeypatch.setattr(np, "empty", no_memory)
    assert main(["mine", "--rec", str(rec), "--out", str(tmp_path / "a.parquet"), "--no-cache"]) == 1
    told = capsys.readouterr().err
    assert "not enough memory: 41,472 bytes for the pixels of a batch, 24 images of" in told
    assert f"the first of this size is {rec}, key " in told
    assert "in a run with --on-error skip)" in told
    assert "in a run, lower --bag-size, or hold fewer images ahead" in told


def test_a_shortage_while_embedding_is_told_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rec = write_rec(tmp_path / "good.rec", identities(6, 4), side=SIDE)

    def no_memory(*_: object) -> Any:
        raise MemoryError("Unable to allocate 4.20 GiB for an array with shape (9,) and data type float32")

    monkeypatch.setattr("fasttriplet.embedders._pixels.PixelEmbedder.embed", no_memory)
    told = "not enough memory: unable to allocate 4.20 GiB for an array with shape .9,. and data type float32"
    with pytest.raises(MemoryError, match=f"^epoch 0, bag 0: {told}; lower bag_size$"):
        ft.mine_rec(rec, model="pixels")
    with (
        ft.Feed(rec, model="pixels", batch_size=6) as feed,
        pytest.raises(MemoryError, match=f"^epoch 0, bag 0: {told}; lower bag_size$"),
    ):
        next(feed)


@pytest.mark.mxnet
def test_trainings(rec: Path, expected: str, pairs: Path, tmp_path: Path, mx: Any) -> None:  # noqa: ARG001
    from fasttriplet.training import TrainSettings, train_rec  # noqa: PLC0415

    small: dict[str, Any] = {"network": "small", "embedding_size": 8, "batch_size": 6, "band": "any"}
    chosen = TrainSettings(rec=(str(rec),), **small, **LIMIT)
    with pytest.raises(ft.RecordError) as error:
        train_rec(chosen, tmp_path / "a", batches=2)
    assert str(error.value) == expected
    good = write_rec(tmp_path / "good.rec", identities(6, 4), side=SIDE)
    chosen = TrainSettings(rec=(str(good),), **small, **LIMIT)
    with pytest.raises(ValueError, match=r"pair 3 \(counted from 0\), second image, the header says 25 x 24"):
        train_rec(chosen, tmp_path / "b", batches=2, verify_on=pairs)
    train_rec(chosen, tmp_path / "b", batches=2)
    raised = TrainSettings(rec=(str(good),), **small, max_pixels=SIDE**2 + 1)
    assert train_rec(raised, tmp_path / "b", batches=3, resume=True).batches == 3


@pytest.mark.mxnet
def test_insightfaces_iterator(rec: Path, expected: str, mx: Any) -> None:
    from fasttriplet import mxnet  # noqa: PLC0415

    symbol = mxnet.triplet_loss(mxnet.small_convnet(8), 0.3, 6)
    batches = mxnet.FaceImageIter(
        batch_size=6,
        data_shape=(3, SIDE, SIDE),
        path_imgrec=rec,
        shuffle=True,
        ctx_num=1,
        images_per_identity=4,
        triplet_params=[24, 0.3, 0],
        mx_model=mx.mod.Module(symbol, context=mx.cpu()),
        on_error="skip",
        band="any",
        **LIMIT,
    )
    module: Any = batches.feed
    assert module.summary.skipped in ([], [expected])
    batches.feed.close()
