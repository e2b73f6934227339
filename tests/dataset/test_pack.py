"""`fasttriplet pack`: the file that comes out, read with MXNet and with ours, and what is refused."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import fasttriplet as ft
from fasttriplet.cli._pack import pack as command
from fasttriplet.dataset._packing import natural, pack
from fasttriplet.mxnet._networks import small_convnet
from fasttriplet.mxnet._untrained import save_untrained
from tests import reference

RNG = np.random.default_rng(5)


def picture(size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Image.Image:
    image = Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
    return image.convert(mode)


def save(path: Path, image: Image.Image | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three identities, natural order p1, p2, p10, with 2, 1 and 3 JPEGs of 12 x 10."""
    root = tmp_path / "people"
    for identity, images in {
        "p10": ("1.jpg", "2.jpg", "10.jpg"),
        "p2": ("a.jpg",),
        "p1": ("x.jpg", "y.jpeg"),
    }.items():
        for image in images:
            save(root / identity / image, quality=95)
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_layout_and_order(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "train.rec"
    calls: list[tuple[int, int]] = []
    done = pack(folder, out, progress=lambda n, total: calls.append((n, total)))
    assert (done.images, done.identities, done.size, done.kept) == (6, 3, (12, 10), 6)
    assert done.bytes == out.stat().st_size
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
    index = ft.index_rec(out, cache=False)
    assert index["label"].to_list() == [0, 0, 1, 2, 2, 2]
    assert ft.inspect_rec(out, cache=False).layout == "insightface"
    assert {path.name for path in tmp_path.iterdir()} == {
        "people",
        "train.rec",
        "train.idx",
        "property",
        "train.identities.csv",
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


def test_same_folder_same_bytes(folder: Path, tmp_path: Path) -> None:
    save(folder / "p2" / "b.png")
    outputs = []
    for number, threads in enumerate((1, 3)):
        out = tmp_path / str(number) / "train.rec"
        out.parent.mkdir()
        pack(folder, out, size=(8, 8), threads=threads)
        outputs.append([path.read_bytes() for path in sorted(out.parent.iterdir())])
    assert outputs[0] == outputs[1]


def test_natural_order() -> None:
    names = ["p10", "p2", "P3", "10", "9", "p02", "", "p2a", "p"]
    assert sorted(names, key=natural) == ["", "9", "10", "P3", "p", "p02", "p2", "p2a", "p10"]


def test_what_is_encoded_anew(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out.rec"
    smooth = Image.fromarray(np.linspace(0, 255, 20 * 16, dtype=np.uint8).reshape(20, 16))
    images = {
        "0.png": smooth,
        "1.bmp": smooth.convert("RGB"),
        "2.webp": smooth.convert("RGB"),
        "3.gif": smooth,
        "4.tiff": smooth.convert("RGB"),
        "5.png": smooth.convert("LA"),
        "6.png": smooth.convert("RGBA"),
        "7.png": Image.fromarray(np.asarray(smooth).astype(np.uint16) * 257),
        "8.png": smooth.convert("P"),
    }
    for name, image in images.items():
        save(root / "a" / name, image, **({"lossless": True} if name.endswith("webp") else {}))
    save(root / "a" / "9.jpg", smooth, quality=100)
    save(root / "b" / "turned.jpg", smooth.transpose(Image.Transpose.ROTATE_90), quality=100, exif=exif(6))
    save(root / "b" / "turned.png", smooth.transpose(Image.Transpose.ROTATE_90), exif=exif(6))
    done = pack(root, out, quality=100)
    assert (done.kept, done.size) == (1, (20, 16))
    file = ft.RecordFile(out)
    pixels = file.decode(range(1, 13)).astype(int)
    assert np.abs(pixels - np.asarray(smooth)[..., None]).max() <= 6
    gray = [Image.open(io.BytesIO(file.read(key)[1])).mode for key in (1, 6, 8, 10)]
    assert gray == ["L"] * 4


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags


def test_size_resizes(folder: Path, tmp_path: Path) -> None:
    same = save(folder / "p2" / "b.jpg", picture((8, 6)), quality=95)
    result = run(folder, tmp_path / "out.rec", "--size", "8x6")
    assert result.exit_code == 0, result.output
    assert "7 images of 3 identities, 8 x 6" in result.output
    assert "1 JPEGs kept as they were, 6 images encoded" in result.output
    file = ft.RecordFile(tmp_path / "out.rec")
    assert file.decode(range(1, 8)).shape == (7, 8, 6, 3)
    assert file.read(4)[1] == same.read_bytes()
    original = Image.open(folder / "p1" / "x.jpg").convert("RGB")
    expected = np.asarray(original.resize((6, 8), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(file.decode([1])[0] - expected).mean() < 12
    assert run(folder, tmp_path / "square.rec", "--size", "9", "--overwrite").exit_code == 0
    assert ft.RecordFile(tmp_path / "square.rec").decode([1]).shape == (1, 9, 9, 3)


def refused(folder: Path, out: Path, **options: Any) -> str:
    before = {path: path.read_bytes() for path in out.parent.iterdir() if path.is_file()}
    with pytest.raises(ValueError) as error:
        pack(folder, out, **options)
    assert {path: path.read_bytes() for path in out.parent.iterdir() if path.is_file()} == before
    return str(error.value)


def test_structure_is_not_guessed(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.rec"
    save(folder / "stray.jpg")
    assert "stray.jpg: lies beside the identities' folders" in refused(folder, out)
    (folder / ".DS_Store").write_bytes(b"x")
    save(folder / "p1" / "deep" / "z.jpg")
    (folder / "p3").mkdir()
    (folder / "p1" / ".hidden").write_bytes(b"")
    (folder / "p1" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    message = refused(folder, out)
    assert message.startswith("5 problems, nothing was written:\n")
    assert "p1/deep: is a folder inside an identity's folder; expected FOLDER/identity/image" in message
    assert "p1/.hidden: is hidden" in message
    assert "gone.jpg: is not a file (a broken link?)" in message
    for path in ("stray.jpg", ".DS_Store", "p1/.hidden", "p1/gone.jpg"):
        (folder / path).unlink()
    (folder / "p1" / "deep" / "z.jpg").unlink()
    (folder / "p1" / "deep").rmdir()
    assert "p3: has no images; remove the folder. Nothing was written" in refused(folder, out)
    (tmp_path / "empty").mkdir()
    assert "is empty" in refused(tmp_path / "empty", out)
    assert "does not exist" in refused(tmp_path / "nowhere", out)
    assert "is a file" in refused(folder / "p1" / "x.jpg", out)
    assert "lies inside" in refused(folder, folder / "out.rec")
    assert "must end in .rec" in refused(folder, tmp_path / "out")


def test_bad_images_are_all_named(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.rec"
    whole = (folder / "p1" / "x.jpg").read_bytes()
    (folder / "p1" / "x.jpg").write_bytes(whole[:-40])
    assert "x.jpg: damaged JPEG: cut off, its end is missing. Nothing was written" in refused(folder, out)
    (folder / "p1" / "y.jpeg").write_bytes(b"")
    (folder / "p2" / "a.jpg").write_text("hello")
    png = save(folder / "p2" / "b.png").read_bytes()
    (folder / "p2" / "b.png").write_bytes(png[:60])
    save(folder / "p2" / "c.gif", picture(), save_all=True, append_images=[picture()])
    save(folder / "p2" / "d.tiff", Image.fromarray(RNG.random((12, 10), dtype=np.float32)))
    message = refused(folder, out)
    assert message.startswith("6 problems")
    assert "a.jpg: is no image that can be read" in message
    assert "b.png: damaged PNG: cut off" in message
    assert "c.gif: has 2 frames" in message
    assert "d.tiff: is of Pillow's mode F" in message
    for number in range(20):
        (folder / "p10" / f"bad{number}.jpg").write_bytes(b"bad")
    assert "... and 16 more" in refused(folder, out)


def test_sizes_must_agree(folder: Path, tmp_path: Path) -> None:
    save(folder / "p2" / "b.jpg", picture((12, 11)))
    message = refused(folder, tmp_path / "out.rec")
    assert "b.jpg: is 12 x 11 pixels (height x width), " in message
    assert "x.jpg is 12 x 10; --size 12x10 brings all to one size" in message


def test_nothing_is_overwritten_unasked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "train.rec"
    pack(folder, out)
    with pytest.raises(FileExistsError):
        pack(folder, out)
    assert isinstance(run(folder, out).exception, FileExistsError)
    old = out.read_bytes()
    save(folder / "p2" / "b.jpg", quality=95)
    pack(folder, out, overwrite=True)
    assert out.read_bytes() != old
    other = tmp_path / "other.rec"  # `property` would no longer describe train.rec
    with pytest.raises(FileExistsError, match="property"):
        pack(folder, other)


@pytest.mark.parametrize(
    "arguments", [("--size", "0"), ("--size", "12x"), ("--size", "a"), ("--quality", "0"), ("--threads", "0")]
)
def test_usage(folder: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run(folder, tmp_path / "out.rec", *arguments).exit_code == 2
    assert run(folder, tmp_path / "out").exit_code == 2
    assert "does not exist" in str(run(tmp_path / "nowhere", tmp_path / "out.rec").exception)
    options: Any
    for options in ({"size": (0, 3)}, {"quality": 101}, {"threads": 0}):
        with pytest.raises(ValueError):
            pack(folder, tmp_path / "out.rec", **options)


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "in"
    image = save(root / "a" / "0.png", picture((200, 200)))
    for number in range(1, 3000):
        os.link(image, root / "a" / f"{number}.png")
    out = tmp_path / "out"
    out.mkdir()
    code = (
        "import sys; from fasttriplet.dataset._packing import pack; print(1, flush=True); pack(*sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(root), str(out / "a.rec")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 20
    while not any(out.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    names = {path.name for path in out.iterdir()}
    assert names
    assert not names & {"a.rec", "a.idx", "property", "a.identities.csv"}
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert b"KeyboardInterrupt" in errors
    assert not any(out.iterdir())


def unzip_characters(archives: Path, folder: Path) -> Path:
    """One folder for each of the 242 characters, 20 drawings in each, as 1-bit PNGs."""
    unpacked, root = folder / "unpacked", folder / "characters"
    for archive in sorted(archives.glob("*.zip")):
        with zipfile.ZipFile(archive) as pictures:
            pictures.extractall(unpacked)
    root.mkdir()
    for path in sorted(unpacked.glob("images_background_small?/*/*")):
        if not (root / f"{path.parent.name}-{path.name}").exists():  # Greek and Latin are in both archives
            shutil.copytree(path, root / f"{path.parent.name}-{path.name}")
    return root


def test_omniglot(real_data: Path, tmp_path: Path) -> None:
    root = unzip_characters(real_data / "omniglot", tmp_path)
    out = tmp_path / "omniglot.rec"
    deeper = refused(tmp_path / "unpacked" / "images_background_small1", out)
    assert "If the identities are one level deeper, pack that folder" in deeper
    done = pack(root, out)
    assert (done.images, done.identities, done.size) == (4840, 242, (105, 105))
    index = ft.index_rec(out)
    assert index.group_by("label").len()["len"].to_list() == [20] * 242
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
