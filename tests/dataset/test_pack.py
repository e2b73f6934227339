"""`pack`: the files that come out, read with MXNet and with ours, and how a run ends."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

import fasttriplet as ft
from fasttriplet import pack
from fasttriplet.mxnet._networks import small_convnet
from fasttriplet.mxnet._untrained import save_untrained
from tests import reference
from tests.dataset.pictures import people, picture, save


def test_layout_and_order(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "train.rec"
    calls: list[tuple[int, int]] = []
    done = pack(folder, out, progress=lambda n, total: calls.append((n, total)))
    assert done == ft.Packed(
        path=out,
        files=(ft.PackedFile(out, 6, 3, out.stat().st_size),),
        images=6,
        identities=3,
        size=(12, 10),
        kept=6,
        encoded=0,
        skipped=0,
        problems=None,
        ignored=0,
        bytes=out.stat().st_size,
        property=tmp_path / "property",
        notes=(),
        seconds=done.seconds,
    )
    assert calls == [(n, 6) for n in range(1, 7)]
    order = ["p1/x.jpg", "p1/y.jpeg", "p2/a.jpg", "p10/1.jpg", "p10/2.jpg", "p10/10.jpg"]
    file = ft.RecordFile(out)
    assert not file.problems
    for key, (name, label) in enumerate(zip(order, (0, 0, 1, 2, 2, 2), strict=True), start=1):
        header, content = file.read(key)
        assert header == ft.IRHeader(0, float(label), key, 0)
        assert content == (folder / name).read_bytes()
    ranges = [file.read(key)[0].label for key in (0, 7, 8, 9)]
    assert np.array_equal(np.stack(ranges), [[7, 10], [1, 3], [3, 4], [4, 7]])
    assert (tmp_path / "property").read_text() == "3,12,10\n"
    names = (tmp_path / "train.identities.csv").read_text()
    assert names == "label,folder,images\n0,p1,2\n1,p2,1\n2,p10,3\n"
    sources = pl.read_parquet(tmp_path / "train.sources.parquet")
    assert dict(sources.schema) == {"key": pl.Int64, "label": pl.Int64, "path": pl.String}
    assert sources.rows() == [*zip(range(1, 7), (0, 0, 1, 2, 2, 2), order, strict=True)]
    index = ft.index_rec(out, cache=False)
    assert index["label"].to_list() == [0, 0, 1, 2, 2, 2]
    assert ft.inspect_rec(out, cache=False).layout == "insightface"
    assert {path.name for path in tmp_path.iterdir()} == {
        "people",
        "train.rec",
        "train.idx",
        "property",
        "train.identities.csv",
        "train.sources.parquet",
    }


@pytest.mark.mxnet
def test_read_as_insightface_does(folder: Path, tmp_path: Path, mx: Any) -> None:
    pack(folder, tmp_path / "train.rec")
    recordio = mx.recordio
    file = recordio.MXIndexedRecordIO(str(tmp_path / "train.idx"), str(tmp_path / "train.rec"), "r")
    header, _ = recordio.unpack(file.read_idx(0))
    assert header.flag > 0
    first, last = int(header.label[0]), int(header.label[1])
    labels = {}
    for identity in range(first, last):
        header, _ = recordio.unpack(file.read_idx(identity))
        for key in range(int(header.label[0]), int(header.label[1])):
            image_header, content = recordio.unpack(file.read_idx(key))
            labels[key] = int(image_header.label)
            assert mx.image.imdecode(content).shape == (12, 10, 3)
    assert labels == {1: 0, 2: 0, 3: 1, 4: 2, 5: 2, 6: 2}
    file.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("format", ["jpeg", "png", "keep"])
def test_same_folder_same_bytes(folder: Path, tmp_path: Path, format: Any) -> None:
    save(folder / "p2" / "b.png")
    (folder / "p2" / "bad.jpg").write_bytes(b"bad")
    outputs = []
    for number, threads in enumerate((1, 3)):
        out = tmp_path / str(number) / "train.rec"
        out.parent.mkdir()
        how: dict[str, Any] = {"size": (8, 8), "split": 0.3, "on_error": "skip"}
        pack(folder, out, threads=threads, format=format, **how)
        outputs.append(contents(out.parent))
    assert len(outputs[0]) == 10
    assert outputs[0] == outputs[1]


def names(rec: Path) -> list[str]:
    with rec.with_suffix(".identities.csv").open(encoding="utf-8") as file:
        return [row["folder"] for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty identities with two pictures each."""
    root = tmp_path_factory.mktemp("twenty") / "in"
    for identity in range(20):
        for image in range(2):
            save(root / f"p{identity}" / f"{image}.png")
    return root


class TestSplit:
    def test_two_datasets_with_labels_of_their_own(self, twenty: Path, tmp_path: Path) -> None:
        out, val = tmp_path / "all.rec", tmp_path / "all-val.rec"
        done = pack(twenty, out, split=0.2, format="keep")
        assert [(file.path, file.images, file.identities) for file in done.files] == [
            (out, 32, 16),
            (val, 8, 4),
        ]
        assert (done.images, done.identities, done.kept) == (40, 20, 40)
        assert done.bytes == out.stat().st_size + val.stat().st_size
        assert sorted(names(out) + names(val)) == sorted(path.name for path in twenty.iterdir())
        for rec in (out, val):
            assert ft.inspect_rec(rec, cache=False).layout == "insightface"
            index = ft.index_rec(rec, cache=False)
            assert index["label"].to_list() == [label for label in range(len(names(rec))) for _ in range(2)]
            file = ft.RecordFile(rec)
            assert not file.problems
            table = pl.read_parquet(rec.with_suffix(".sources.parquet"))
            sources = dict(table.select("key", "path").iter_rows())
            for key, label in index.select("key", "label").iter_rows():
                path = twenty / names(rec)[label] / f"{(key - 1) % 2}.png"
                assert file.read(key)[1] == path.read_bytes()
                assert sources[key] == path.relative_to(twenty).as_posix()
        assert len(contents(tmp_path)) == 9  # four for each, and property

    def test_the_seed_chooses(self, twenty: Path, tmp_path: Path) -> None:
        chosen: dict[int, list[str]] = {}
        for seed in (0, 0, 1, 2**64 - 1):
            pack(twenty, tmp_path / "a.rec", split=0.2, seed=seed, overwrite=True)
            got = names(tmp_path / "a-val.rec")
            assert chosen.setdefault(seed, got) == got
        assert len({tuple(one) for one in chosen.values()}) == 3

    def test_more_identities_do_not_move_the_others(self, folder: Path, tmp_path: Path) -> None:
        for number in range(20, 50):
            save(folder / f"p{number}" / "a.jpg", quality=95)
        pack(folder, tmp_path / "a.rec", split=0.5)
        before = set(names(tmp_path / "a-val.rec"))
        save(folder / "p51" / "a.jpg", quality=95)
        pack(folder, tmp_path / "a.rec", split=0.5, overwrite=True)
        assert len(before - set(names(tmp_path / "a-val.rec"))) <= 1

    @pytest.mark.parametrize(("share", "expected"), [(0.001, 1), (0.5, 10), (0.999, 19)])
    def test_each_file_has_an_identity(
        self, twenty: Path, tmp_path: Path, share: float, expected: int
    ) -> None:
        assert pack(twenty, tmp_path / "a.rec", split=share).files[1].identities == expected

    def test_without_a_split_the_earlier_part_is_named(self, twenty: Path, tmp_path: Path) -> None:
        pack(twenty, tmp_path / "a.rec", split=0.2)
        (note,) = pack(twenty, tmp_path / "a.rec", overwrite=True).notes
        assert note == "if a-val.rec is of an earlier split, a.rec has its identities, too"
        assert pack(twenty, tmp_path / "a.rec", split=0.2, overwrite=True).notes == ()

    def test_one_identity_cannot_be_split(self, tmp_path: Path) -> None:
        save(tmp_path / "in" / "a" / "0.png")
        with pytest.raises(ValueError, match=r"split=0\.\d+ needs at least 2 identities, found 1"):
            pack(tmp_path / "in", tmp_path / "a.rec", split=0.5)

    def test_the_other_file_is_not_overwritten_unasked(self, twenty: Path, tmp_path: Path) -> None:
        (tmp_path / "a-val.idx").write_text("mine")
        with pytest.raises(FileExistsError, match=r"a-val\.idx"):
            pack(twenty, tmp_path / "a.rec", split=0.5)
        assert contents(tmp_path) == {"a-val.idx": b"mine"}


def test_nothing_is_overwritten_unasked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "train.rec"
    pack(folder, out)
    with pytest.raises(FileExistsError):
        pack(folder, out)
    old = out.read_bytes()
    save(folder / "p2" / "b.jpg", quality=95)
    pack(folder, out, overwrite=True)
    assert out.read_bytes() != old


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 3)}, "height in size"),
        ({"size": (3, 2**14 + 1)}, "up to 16384 pixels"),
        ({"fit": "crop"}, "fit must not be 'crop' without a size"),
        ({"fit": "cut"}, "fit must be one of"),
        ({"format": "webp"}, "format must be one of 'jpeg', 'png', 'keep'"),
        ({"quality": 101}, "quality"),
        ({"identity_depth": 0}, "identity_depth"),
        ({"split": 0}, "split must be a number above 0 and below 1, not 0"),
        ({"split": 1.0}, "split must be a number above 0 and below 1"),
        ({"split": float("nan")}, "split"),
        ({"on_error": "ignore"}, "on_error"),
        ({"seed": -1}, "seed"),
        ({"threads": 0}, "threads"),
    ],
)
def test_options_are_checked_first(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack(tmp_path / "nowhere", tmp_path / "out.rec", **options)


def test_ranges_that_float32_rounds(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fasttriplet.dataset._packing._layout.EXACT", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pack(folder, tmp_path / "a.rec")  # 10 records
    save(folder / "p2" / "b.jpg", quality=95)
    with pytest.warns(ft.RecordWarning, match=r"b\.rec: with more than 10 records"):
        pack(folder, tmp_path / "b.rec")


def test_the_files_appear_together(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        assert not contents(tmp_path).keys() & {"a.rec", "a.idx", "a.identities.csv", "a.sources.parquet"}
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fasttriplet.dataset._packing._pack.write_property", fail)
    with pytest.raises(OSError, match="No space left"):
        pack(folder, tmp_path / "a.rec")
    assert [path.name for path in tmp_path.iterdir()] == ["people"]


def in_a_process(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; from fasttriplet import pack\n{code}", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def many(root: Path) -> Path:
    """Enough pictures to take seconds."""
    image = save(root / "a" / "0.png", picture((200, 200)))
    for number in range(1, 3000):
        os.link(image, root / "a" / f"{number}.png")
    return root


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C leaves nothing, and a kill leaves nothing that has a name of the dataset."""
    root = many(tmp_path / "in")
    out = tmp_path / "out"
    out.mkdir()
    process = in_a_process("print(1, flush=True); pack(*sys.argv[1:])", root, out / "a.rec")
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 20
    while not any(out.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert any(out.iterdir())
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    if number == signal.SIGINT:
        assert b"KeyboardInterrupt" in errors
        assert not any(out.iterdir())
    assert all(path.name.startswith(".") for path in out.iterdir())


def test_a_full_disk(tmp_path: Path) -> None:
    """As a limit on the size of a file: the error names the file, and nothing is left."""
    for number in range(40):
        save(tmp_path / "in" / "a" / f"{number}.png", picture((200, 200)))
    out = tmp_path / "out"
    out.mkdir()
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))\n"
        "try: pack(*sys.argv[1:])\nexcept OSError as error: print(error.filename, error.strerror)"
    )
    output, errors = in_a_process(code, tmp_path / "in", out / "a.rec").communicate(timeout=60)
    assert output.decode().startswith(f"{out / 'a.rec'} File too large"), errors.decode()
    assert not any(out.iterdir())


def unzip_characters(archives: Path, folder: Path) -> Path:
    """One folder for each of the 242 characters, with the first 4 of its 20 drawings, as 1-bit PNGs."""
    root = folder / "characters"
    for archive in sorted(archives.glob("*.zip")):
        with zipfile.ZipFile(archive) as pictures:
            for name in pictures.namelist():
                _, *character, drawing = name.split("/")
                if drawing and int(drawing[-6:-4]) <= 4:  # Greek and Latin are in both archives
                    path = root / "-".join(character) / drawing
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(pictures.read(name))
    return root


def test_omniglot(real_data: Path, tmp_path: Path) -> None:
    deep, out = tmp_path / "deep", tmp_path / "omniglot.rec"
    with zipfile.ZipFile(real_data / "omniglot" / "images_background_small1.zip") as pictures:
        pictures.extractall(deep, [name for name in pictures.namelist() if "/Balinese/" in name])
    with pytest.raises(ValueError, match="see identity_depth"):
        pack(deep / "images_background_small1", out)
    deeper = pack(deep / "images_background_small1", tmp_path / "deep.rec", identity_depth=2)
    assert "Balinese/character01" in names(deeper.path)
    root = unzip_characters(real_data / "omniglot", tmp_path)
    done = pack(root, out)
    assert (done.images, done.identities, done.size) == (968, 242, (105, 105))
    index = ft.index_rec(out)
    assert index.group_by("label").len()["len"].to_list() == [4] * 242
    pixels = ft.RecordFile(out).decode(index["key"].to_numpy()[:200]).astype(int)
    drawn = sorted((root / "Balinese-character01").iterdir())
    assert np.abs(pixels[0] - np.asarray(Image.open(drawn[0]).convert("RGB"))).mean() < 1
    assert (pixels.max(axis=-1) == pixels.min(axis=-1)).all()


@pytest.mark.mxnet
@pytest.mark.usefixtures("mx")
def test_omniglot_is_mined_with_an_untrained_network(real_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "omniglot.rec"
    pack(unzip_characters(real_data / "omniglot", tmp_path), out, size=(64, 64))
    save_untrained(str(tmp_path / "net"), small_convnet(32), (64, 64), seed=1)
    embedder = ft.load_embedder(f"mxnet:{tmp_path / 'net'},0")
    result = ft.mine_rec(out, model=embedder, images_per_identity=2, margin=0.2)
    # The same by hand, with the plain definition in place of the miner.
    seq = ft.triplet_seq(ft.index_rec(out), images_per_identity=2)
    embeddings = embedder.embed(seq, ft.RecordFile(out).decode(seq["key"].to_numpy()))
    seed, keys = ft.epoch_seed(0, 0), seq["key"].to_list()
    expected = reference.mine(embeddings, seq["label"].to_list(), margin=0.2, ids=keys, seed=seed)
    names = ("anchor_key", "positive_key", "negative_key", "d_ap", "d_an")
    assert len(expected) > 200
    assert result.triplets.select(names).collect().rows() == expected


def test_a_packed_file_holds_the_same_images(real_data: Path, tmp_path: Path) -> None:
    source = ft.RecordFile(real_data / "lfw112-a" / "train.rec")
    index = ft.index_rec(real_data / "lfw112-a" / "train.rec", cache=False)
    for key, label in index.select("key", "label").iter_rows():
        path = tmp_path / "faces" / str(label) / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(key)[1])
    done = pack(tmp_path / "faces", tmp_path / "train.rec")
    assert (done.images, done.kept, done.identities) == (2375, 2375, 109)
    packed = ft.RecordFile(tmp_path / "train.rec")
    assert np.array_equal(ft.index_rec(packed.path)["label"], index["label"])
    assert all(packed.read(key)[1] == source.read(key)[1] for key in range(1, 2376))


def test_the_property_of_an_earlier_split_is_replaced_whatever_it_holds(tmp_path: Path) -> None:
    """It belongs to no other file of the folder, so it need not be read."""
    people(tmp_path / "faces")
    for overwrite in (False, True):
        ft.pack(tmp_path / "faces", tmp_path / "out/train.rec", split=0.4, overwrite=overwrite)
        written = (tmp_path / "out/property").read_bytes()
        (tmp_path / "out/property").write_bytes(b"damaged")
    assert written.endswith(b",12,10\n")
