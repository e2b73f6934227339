"""The demo: the pictures it draws, the sheets it shows, and the run."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image

import fasttriplet as ft
from fasttriplet import IRHeader, RecordFile, RecordWriter, index_rec, verify_pairs
from fasttriplet.cli import main
from fasttriplet.cli._demo import next_commands
from fasttriplet.demo import _run, contact_sheet, draw_identities, run_demo, triplet_sheet

Pictures = NDArray[np.uint8]


@pytest.fixture(scope="module")
def drawn() -> Pictures:
    """(12 identities, 6 images, 64, 64, 3)."""
    pictures = np.zeros((12, 6, 64, 64, 3), dtype=np.uint8)
    for identity, image, pixels in draw_identities(12, 6, size=64, seed=1):
        pictures[identity, image] = pixels
    return pictures


@pytest.fixture(scope="module")
def rec(tmp_path_factory: pytest.TempPathFactory, drawn: Pictures) -> Path:
    """The first images as a .rec without identity records."""
    path = tmp_path_factory.mktemp("sheets") / "some.rec"
    with RecordWriter(path) as writer:
        for key, (identity, image) in enumerate(np.ndindex(5, 4), start=1):
            encoded = path.with_suffix(".png")
            Image.fromarray(drawn[identity, image]).save(encoded)
            writer.write(key, IRHeader(0, float(identity), key, 0), encoded.read_bytes())
    return path


class TestPictures:
    def test_order_shape_and_count(self) -> None:
        drawn = list(draw_identities(3, 2, size=40))
        assert [(identity, image) for identity, image, _ in drawn] == [
            (i, j) for i in range(3) for j in range(2)
        ]
        assert all(pixels.shape == (40, 40, 3) and pixels.dtype == np.uint8 for _, _, pixels in drawn)

    def test_a_larger_set_begins_with_the_smaller_one(self, drawn: Pictures) -> None:
        for identity, image, pixels in draw_identities(3, 2, size=64, seed=1):
            np.testing.assert_array_equal(pixels, drawn[identity, image])

    def test_global_random_state_plays_no_part(self, drawn: Pictures) -> None:
        np.random.seed(5)
        expected = np.random.random()
        np.random.seed(5)
        (_, _, pixels), *_ = draw_identities(1, 1, size=64, seed=1)
        np.testing.assert_array_equal(pixels, drawn[0, 0])
        assert np.random.random() == expected

    def test_another_seed_draws_others(self, drawn: Pictures) -> None:
        (_, _, pixels), *_ = draw_identities(1, 1, size=64, seed=2)
        assert not np.array_equal(pixels, drawn[0, 0])

    def test_no_two_pictures_are_equal(self, drawn: Pictures) -> None:
        flat = drawn.reshape(-1, 64 * 64 * 3)
        assert len(np.unique(flat, axis=0)) == len(flat)

    def test_images_of_an_identity_are_nearer_to_each_other(self, drawn: Pictures) -> None:
        small = drawn.reshape(12 * 6, 8, 8, 8, 8, 3).mean(axis=(2, 4)).reshape(12 * 6, -1)
        small -= small.mean(axis=1, keepdims=True)
        small /= np.linalg.norm(small, axis=1, keepdims=True)
        distance = 2 - 2 * small @ small.T
        labels = np.repeat(np.arange(12), 6)
        same = labels[:, None] == labels
        within = distance[same & ~np.eye(len(labels), dtype=bool)].mean()
        assert within < 0.7 * distance[~same].mean()
        np.fill_diagonal(distance, np.inf)
        right = labels[distance.argmin(axis=1)] == labels
        assert right.mean() > 0.7  # it can be learned
        assert within > 0.05  # and there is something to learn

    @pytest.mark.parametrize("wrong", [{"identities": -1}, {"images": -1}, {"size": 4}, {"seed": -1}])
    def test_numbers_out_of_range(self, wrong: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            draw_identities(**wrong)

    def test_every_kind_of_character_can_be_drawn(self) -> None:
        for seed in range(4):
            assert sum(1 for _ in draw_identities(40, 1, size=16, seed=seed)) == 40


class TestSheets:
    def test_contact_sheet(self, rec: Path, tmp_path: Path) -> None:
        contact_sheet(rec, tmp_path / "sheet.png", identities=3, images=4)
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.format == "PNG"
            assert sheet.size == (2 * 24 + 44 + 4 * 120, 2 * 24 + 34 + 3 * 120 - 8)
            sheet.load()

    def test_contact_sheet_of_less_than_asked_for(self, rec: Path, tmp_path: Path) -> None:
        contact_sheet(rec, tmp_path / "sheet.png", identities=50, images=50)
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.size == (2 * 24 + 44 + 4 * 120, 2 * 24 + 34 + 5 * 120 - 8)

    def test_triplet_sheet_shows_the_three_pictures(self, rec: Path, tmp_path: Path, drawn: Pictures) -> None:
        triplets = pl.DataFrame(
            {
                "anchor_key": [1], "positive_key": [2], "negative_key": [7],
                "anchor_label": [0], "negative_label": [1], "d_ap": [0.5], "d_an": [0.625],
            }
        )  # fmt: skip
        triplet_sheet([rec], triplets, tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.size == (2 * 24 + 3 * 120 + 190, 2 * 24 + 74 + 128)
            pixels = np.asarray(sheet)
        for place, picture in enumerate([drawn[0, 0], drawn[0, 1], drawn[1, 2]]):
            left, top = 24 + place * 120 + 24, 24 + 74 + 24  # 64 pixels in the middle of 112
            np.testing.assert_array_equal(
                pixels[top + 16 : top + 48, left + 16 : left + 48], picture[16:48, 16:48]
            )

    def test_triplet_sheet_takes_several_identities_and_files(self, rec: Path, tmp_path: Path) -> None:
        count = 40
        label = pl.Series([0] * 30 + [1, 2, 3, 4] * 2 + [0, 0])
        triplets = pl.DataFrame(
            {
                "anchor_key": label * 4 + 1, "positive_key": label * 4 + 2, "negative_key": [20] * count,
                "anchor_label": label, "negative_label": [4] * count,
                "d_ap": [0.5] * count, "d_an": [0.6] * count,
                "anchor_file": [0] * count, "positive_file": [1] * count, "negative_file": [1] * count,
            }
        )  # fmt: skip
        triplet_sheet([rec, rec], triplets, tmp_path / "sheet.png", rows=6)
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.size == (2 * 24 + 2 * (3 * 120 + 190) + 24, 2 * 24 + 74 + 3 * 128)

    def test_nothing_to_show(self, rec: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no triplets"):
            triplet_sheet([rec], pl.DataFrame(), tmp_path / "sheet.png")
        with pytest.raises(ValueError, match="images must be a whole number >= 1, not 0"):
            contact_sheet(rec, tmp_path / "sheet.png", images=0)
        assert list(tmp_path.iterdir()) == []

    def test_a_sheet_that_cannot_be_written(self, rec: Path, tmp_path: Path) -> None:
        (tmp_path / "old.png").write_bytes(b"old")
        with pytest.raises(FileExistsError, match="exists already; overwrite=True replaces it"):
            contact_sheet(rec, tmp_path / "old.png")
        (tmp_path / "old.png").unlink()
        with pytest.raises(IsADirectoryError, match="is a folder"):
            contact_sheet(rec, tmp_path)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.heavy
class TestRun:
    def test_tiny(self, tmp_path: Path) -> None:
        told: list[tuple[str, int, int]] = []
        out = tmp_path / "new" / "demo"
        made = run_demo(
            out, identities=4, images=3, size=48, network=False, progress=lambda *step: told.append(step)
        )
        assert {path.name for path in out.iterdir()} >= {
            *("demo.json", "train.rec", "train.idx", "property"),
            *("faces.png", "triplets.png", "triplets.parquet"),
        }
        assert not [path for path in out.iterdir() if path.name.startswith(".pictures")]
        index = index_rec(made.rec)
        assert len(index) == 12
        assert index["label"].n_unique() == 4
        header, _ = RecordFile(made.rec).read(0)
        assert header.flag == 2  # InsightFace's layout
        triplets = pl.read_parquet(made.triplets)
        assert len(triplets) == made.summary.triplets > 0
        assert (triplets["anchor_label"] != triplets["negative_label"]).all()
        assert triplets.select((pl.col("d_ap") < pl.col("d_an")).all()).item()
        page = made.report.read_text(encoding="utf-8")
        for said in ("d_ap + 0.3", "Pairs without a negative", "waited for", "pixels"):
            assert said in page
        for sheet in (made.contact_sheet, made.triplet_sheet):
            with Image.open(sheet) as picture:
                picture.load()
        assert (made.model, made.no_network) == ("pixels", "it was not asked for")
        assert ("drawing", 72, 72) in told  # 20 identities to verify on
        found = verify_pairs(made.pairs, "pixels")
        assert found.genuine == found.impostors == 60
        assert ("mining", 12, 12) in told

    def test_a_demo_that_ends_early_leaves_nothing_that_does_not_fit(self, tmp_path: Path) -> None:
        out = tmp_path / "demo"
        small: dict[str, Any] = {"images": 3, "size": 48, "network": False, "overwrite": True}

        def second(step: str, done: int, _: int) -> None:
            if (step, done) == ("drawing", 1):
                with pytest.raises(FileExistsError, match="another run is writing it at this moment"):
                    run_demo(out, identities=4, **small)

        run_demo(out, identities=4, progress=second, **small)
        complete = {path.name for path in out.iterdir()}
        derived = {"unseen.bin", "triplets.parquet", "faces.png", "triplets.png", "report.html"}
        (out / ".pictures.unfinished" / "random").mkdir(parents=True)  # of a demo that was killed
        assert derived < complete

        def stopped(step: str, *_: int) -> None:
            if step == "packing":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_demo(out, identities=5, progress=stopped, **small)
        left = {path.name for path in out.iterdir()}
        assert complete - left == derived
        assert left < complete

    def test_a_demo_that_was_killed_at_once_can_be_run_again(self, tmp_path: Path) -> None:
        (tmp_path / ".demo.json.unfinished").mkdir()
        run_demo(tmp_path, identities=4, images=3, size=48, network=False)
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    def test_again_over_its_own_files(self, tmp_path: Path) -> None:
        run_demo(tmp_path, identities=4, images=3, size=48, network=False)
        first = (tmp_path / "train.rec").read_bytes()
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(FileExistsError, match="holds an earlier demo; overwrite=True replaces it"):
            run_demo(tmp_path, identities=6, images=3, size=48, network=False)
        run_demo(tmp_path, identities=6, images=3, size=48, network=False, overwrite=True)
        assert len(index_rec(tmp_path / "train.rec")) == 18
        run_demo(tmp_path, identities=4, images=3, size=48, network=False, overwrite=True)
        assert (tmp_path / "train.rec").read_bytes() == first
        assert (tmp_path / "notes.txt").read_text() == "mine"
        assert json.loads((tmp_path / "demo.json").read_text())["identities"] == 4

    def test_a_folder_with_other_files_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "train.rec").write_bytes(b"precious")
        with pytest.raises(FileExistsError, match="not the demo's"):
            run_demo(tmp_path, identities=4, images=3)
        assert [path.name for path in tmp_path.iterdir()] == ["train.rec"]
        with pytest.raises(FileExistsError, match="is a file"):
            run_demo(tmp_path / "train.rec", identities=4, images=3)

    def test_too_few(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="identities must be 2 or more, not 1"):
            run_demo(tmp_path / "demo", identities=1)
        with pytest.raises(ValueError, match="size must be a whole number >= 8, not 2"):
            run_demo(tmp_path / "demo", size=2)
        assert not (tmp_path / "demo").exists()

    def test_without_mxnet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(*_: object) -> str:
            raise ImportError("no MXNet here")

        monkeypatch.setattr("fasttriplet.demo._run._train", missing)
        made = run_demo(tmp_path, identities=4, images=3, size=48)
        assert (made.model, made.no_network) == ("pixels", "no MXNet here")

    def test_command(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def missing(*_: object) -> str:
            raise ImportError("no MXNet here")

        monkeypatch.setattr("fasttriplet.demo._run._train", missing)
        monkeypatch.chdir(tmp_path)
        assert main(["demo", "--identities", "4", "--images", "3", "--threads", "1"]) == 0
        printed = capsys.readouterr()
        assert "12 images of 4 identities" in printed.out
        for name in ("train.rec", "triplets.parquet", "faces.png", "triplets.png", "report.html"):
            assert f"{Path('demo') / name}" in printed.out
            assert (tmp_path / "demo" / name).exists()
        assert "without a network: no MXNet here" in printed.out
        announced = [line for line in printed.err.splitlines() if " of " not in line]
        assert announced == [  # others on a slow machine
            *("drawing: 72 images", "packing: 12 images", "packing: 60 images"),
            *("mining: 12 images", "drawing sheets: 2 sheets", "writing the page"),
        ]
        assert main(["demo"]) == 1
        assert "demo holds an earlier demo; --overwrite replaces it" in capsys.readouterr().err
        assert main(["demo", "--out", "."]) == 1
        assert "files that are not the demo's" in capsys.readouterr().err

    def test_what_it_proposes_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        made = run_demo("demo", identities=4, images=3, network=False)
        run_all(next_commands(made))
        assert len(pl.read_parquet("demo/unseen.parquet")) > 10

    @pytest.mark.mxnet
    @pytest.mark.usefixtures("mx")
    def test_with_a_network(self, tmp_path: Path) -> None:
        told: list[str] = []
        for _ in range(2):  # over its own files
            made = run_demo(
                tmp_path,
                identities=4,
                images=3,
                size=48,
                batches=2,
                overwrite=True,
                progress=lambda step, *_: told.append(step),
            )
            assert made.no_network is None
            assert made.model == f"mxnet:{tmp_path / 'network'},0"
            assert (tmp_path / "network-symbol.json").exists()
            assert (tmp_path / "network-0000.params").exists()
            assert [found["batch"] for found in made.verifications] == [0, 2]
            assert made.summary.triplets > 0
        steps = [step for step, _ in groupby(told)]
        assert steps[-8:-2] == ["packing", "loading MXNet", "verifying", "training", "verifying", "mining"]
        commands = next_commands(made)
        assert main(commands["train for 2 more batches"]) == 0


def run_all(commands: dict[str, list[str]]) -> None:
    """Run commands that need a folder of pictures, `photos`, in the current folder."""
    for identity, image, pixels in draw_identities(2, 2, size=40):
        path = Path("photos", str(identity), f"{image}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    for arguments in commands.values():
        assert main(arguments) == 0, arguments


@pytest.mark.mxnet
@pytest.mark.usefixtures("mx")
def test_a_training_that_runs_out_of_triplets_is_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The characters of some seed may be learned before the last batch."""

    def nothing_left(*_: object, **__: object) -> None:
        raise ft.NoTripletsError("no triplet in an epoch")

    monkeypatch.setattr("fasttriplet.training.train_rec", nothing_left)
    judged = ft.verify_distances([0.1] * 10 + [2.0] * 10, [True] * 10 + [False] * 10)
    monkeypatch.setattr("fasttriplet.demo._run.verify_pairs", lambda *_, **__: judged)
    prefix = tmp_path / "network"
    model, verifications = _run._train(
        tmp_path / "train.rec", tmp_path / "unseen.bin", prefix, 5, 0, 1, lambda *_: None
    )
    assert model == f"mxnet:{prefix},0"
    assert [found["auc"] for found in verifications] == [1.0]
