"""`RecordDataset` in this process: images, labels, what is left out, and errors."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

import fasttriplet as ft
from tests.small_rec import identities, picture, write_images, write_rec

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader, Subset, default_collate  # noqa: E402

from fasttriplet.torch import RecordDataset  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="session")
def rec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 images of 4 identities, with the keys 1 to 12."""
    return write_rec(tmp_path_factory.mktemp("records") / "train.rec", identities(4, 3))


def pixels_of(rec: Path) -> Any:
    """(N, 3, H, W) uint8."""
    return torch.from_numpy(ft.Dataset(rec).decode(np.arange(len(ft.Dataset(rec)))).pixels).permute(
        0, 3, 1, 2
    )


def as_float(pixels: Any) -> Any:
    """What ToTensor and Normalize(0.5, 0.5) make of it."""
    return pixels.float().div(255).sub(0.5).div(0.5)


def batches(dataset: Any, **options: Any) -> list[Any]:
    return list(DataLoader(dataset, batch_size=5, **options))


def test_images_and_labels(rec: Path) -> None:
    dataset, expected = RecordDataset(rec), as_float(pixels_of(rec))
    assert len(dataset) == 12
    indices: list[Any] = [0, 7, -1, np.int64(3), torch.tensor(4)]
    for index in indices:
        image, label = dataset[index]
        assert torch.equal(image, expected[index])
        assert (image.dtype, label.dtype, label.shape) == (torch.float32, torch.int64, ())
        assert label == range(12)[index] // 3
    found = batches(dataset)
    assert [type(batch) for batch in found] == [list] * 3
    assert torch.equal(torch.cat([images for images, _ in found]), expected)
    assert torch.equal(torch.cat([labels for _, labels in found]), dataset.targets)
    assert [image.shape for image, _ in dataset] == [(3, 24, 24)] * 12, "as a sequence"
    assert repr(dataset) == f"RecordDataset('{rec}', 12 images)"
    shared = ft.Dataset(rec)
    assert RecordDataset(shared).dataset is shared


def test_every_value_of_a_pixel_is_torchvisions(tmp_path: Path) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    encoded = io.BytesIO()
    pixels = np.arange(3 * 256, dtype=np.uint8).reshape(16, 16, 3)
    Image.fromarray(pixels).save(encoded, "PNG")
    dataset = RecordDataset(write_images(tmp_path / "a.rec", [encoded.getvalue()]))
    compose = transforms.Compose([
        transforms.ToPILImage(), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)
    ])  # fmt: skip
    assert torch.equal(dataset[0][0], compose(pixels))


def test_real_faces_are_those_of_arcface_torch(real_data: Path) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    dataset = RecordDataset(real_data / "lfw112-a" / "train.rec", cache=False)
    assert len(dataset) == 2375
    assert dataset.targets.tolist() == np.load(real_data / "lfw112-a" / "lab_a.npy").tolist()
    compose = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    chosen = [0, 5, 999, 2374]
    pixels = dataset.dataset.decode(np.array(chosen)).pixels
    images, _ = default_collate(dataset.__getitems__(chosen))
    assert torch.equal(images, torch.stack([compose(Image.fromarray(image)) for image in pixels]))


@pytest.mark.parametrize("image", ["uint8", "pil", None])
def test_a_transform_gets_what_is_asked_for(rec: Path, image: Any) -> None:
    seen: list[Any] = []

    def transform(value: Any) -> Any:
        seen.append(value)
        return {"sum": torch.from_numpy(np.asarray(value, np.int64)).sum(), "text": "kept"}

    dataset = RecordDataset(rec, transform=transform, image=image)
    values, labels = batches(dataset)[0]
    pixels = pixels_of(rec)
    assert torch.equal(values["sum"], pixels[:5].long().sum((1, 2, 3)))
    assert values["text"] == ["kept"] * 5
    assert labels.tolist() == [0, 0, 0, 1, 1]
    if image == "pil":
        assert np.array_equal(seen[0], pixels[0].permute(1, 2, 0))
    else:
        assert seen[0].dtype == torch.uint8
        assert seen[0].is_contiguous()
        assert torch.equal(seen[0], pixels[0])
    dataset.transform = None  # as frameworks set it later
    kind = Image.Image if image == "pil" else torch.Tensor
    assert isinstance(dataset[0][0], kind)


def test_uint8_and_float32_for_a_transform(rec: Path) -> None:
    pixels = pixels_of(rec)
    assert torch.equal(batches(RecordDataset(rec, image="uint8"))[1][0], pixels[5:10])
    doubled = RecordDataset(rec, image="float32", transform=lambda image: 2 * image)
    assert torch.equal(doubled[3][0], 2 * as_float(pixels[3]))


def test_transforms_of_torchvision(tmp_path: Path) -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    rec = write_images(
        tmp_path / "sizes.rec", [picture(seed, side) for seed, side in enumerate([24, 30, 16])]
    )
    steps = [v2.Resize((8, 8)), v2.ToDtype(torch.float32, scale=True)]
    chosen: list[tuple[Any, Any]] = [("uint8", steps), ("pil", [v2.ToImage(), *steps])]
    for image, compose in chosen:
        [(images, labels)] = batches(RecordDataset(rec, image=image, transform=v2.Compose(compose)))
        assert images.shape == (3, 3, 8, 8)
        assert labels.tolist() == [1, 2, 0]
    with pytest.raises(ft.RecordError, match="images of one batch must have one size"):
        batches(RecordDataset(rec))


def test_errors_of_a_transform_come_through(rec: Path) -> None:
    def fails(_: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        batches(RecordDataset(rec, transform=fails))
    with pytest.raises(TypeError, match="default_collate"):
        batches(RecordDataset(rec, transform=lambda _: object()))
    with pytest.raises(ft.OptionError, match="transform must be a callable"):
        RecordDataset(rec, transform=3)  # type: ignore[arg-type]


def mirrored(dataset: Any) -> list[bool]:
    """Which images are mirrored; each is one of both."""
    plain = pixels_of(dataset.dataset.paths[0])
    found: list[bool] = []
    for images, _ in batches(dataset):
        for image in images:
            at = len(found)
            flipped = torch.equal(image, plain[at].flip(-1))
            assert flipped or torch.equal(image, plain[at])
            found.append(flipped)
    return found


def test_mirroring(rec: Path) -> None:
    dataset = RecordDataset(rec, mirror=True, image="uint8", seed=5)
    torch.manual_seed(1)
    first, second = mirrored(dataset), mirrored(dataset)
    assert first != second, "drawn anew in each epoch"
    assert 0 < sum(first + second) < 24
    torch.manual_seed(1)
    assert mirrored(dataset) == first, "by the random numbers of PyTorch"
    epochs = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        epochs.append(mirrored(dataset))
        assert mirrored(dataset) == epochs[-1]
        raw = ft.Dataset(rec)
        pixels = raw.decode(np.arange(12)).pixels
        augment = ft.Augment(mirror=True)
        expected = ft.assemble(pixels, augment=augment, ids=raw.ids, seed=ft.epoch_seed(5, epoch))
        assert np.array_equal(np.concatenate([images for images, _ in batches(dataset)]), expected)
    assert epochs[0] != epochs[1]
    seen = RecordDataset(rec, mirror=True, transform=lambda image: image, seed=5)
    seen.set_epoch(1)
    assert mirrored(seen) == epochs[1], "before the transform"
    seen.image, seen.transform = "pil", np.array
    assert np.array_equal(seen[0][0], dataset[0][0].numpy().transpose(1, 2, 0))
    floats = RecordDataset(rec, mirror=True, seed=5)
    floats.set_epoch(1)
    assert torch.equal(floats[4][0], as_float(dataset[4][0]))


def test_images_are_excluded(rec: Path, tmp_path: Path) -> None:
    keys, path = [2, 5, 12, 5], tmp_path / "exclude.parquet"
    frame = pl.DataFrame({"reason": ["noise"] * 4, "key": keys})
    frame.write_parquet(path)
    for exclude in (keys, np.array(keys, np.uint32), frame, path, str(path)):
        dataset = RecordDataset(rec, exclude=exclude)
        assert dataset.dataset.keys[dataset.rows].tolist() == [1, 3, 4, 6, 7, 8, 9, 10, 11]
        assert dataset.targets.tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 3]
        images, labels = dataset[3]
        assert torch.equal(images, as_float(pixels_of(rec)[5]))
        assert labels == 1
    assert len(RecordDataset(rec, exclude=[])) == 12


def test_images_of_several_files_are_excluded(rec: Path, tmp_path: Path) -> None:
    other = write_rec(tmp_path / "other.rec", identities(2, 3))
    frame = pl.DataFrame({"key": [1, 3], "file": [1, 0]})
    dataset = RecordDataset([rec, other], labels="separate", exclude=frame)
    assert len(dataset) == 16
    assert dataset.targets.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 5, 5, 5]
    assert dataset.dataset.files[dataset.rows][11:].tolist() == [1] * 5
    assert torch.equal(dataset[11][0], as_float(pixels_of(other)[1]))
    with pytest.raises(ft.OptionError, match="the dataset has 2 files, and a key alone does not say"):
        RecordDataset([rec, other], labels="separate", exclude=[1])
    with pytest.raises(ft.OptionError, match="exclude has key 9 of file 1, which is not in the index"):
        RecordDataset([rec, other], labels="separate", exclude=pl.DataFrame({"key": [9], "file": [1]}))
    with pytest.raises(ft.OptionError, match="must number files from 0"):
        RecordDataset([rec, other], labels="separate", exclude=pl.DataFrame({"key": [9], "file": [-1]}))


def test_what_cannot_be_excluded(rec: Path, tmp_path: Path) -> None:
    with pytest.raises(ft.OptionError, match=r"has key 17, which is not in .* \(2 of 3 keys are not\)"):
        RecordDataset(rec, exclude=[1, 17, 99])
    with pytest.raises(ft.OptionError, match="exclude names all 12 images of the dataset: none is left"):
        RecordDataset(rec, exclude=range(1, 13))
    with pytest.raises(ft.OptionError, match="must have a column 'key', and has name"):
        RecordDataset(rec, exclude=pl.DataFrame({"name": [1]}))
    with pytest.raises(ValueError, match="exclude: key must be a list of integers"):
        RecordDataset(rec, exclude=pl.DataFrame({"key": ["1"]}))
    with pytest.raises(ValueError, match="exclude must be a list of integers"):
        RecordDataset(rec, exclude=[0.5])  # type: ignore[list-item]
    (tmp_path / "keys.csv").write_text("key\n1\n")
    with pytest.raises(ft.OptionError, match=r"must be a Parquet file, and .*keys\.csv cannot be read"):
        RecordDataset(rec, exclude=tmp_path / "keys.csv")
    with pytest.raises(FileNotFoundError):
        RecordDataset(rec, exclude=tmp_path / "missing.parquet")


def test_labels_are_renumbered(tmp_path: Path) -> None:
    rec = tmp_path / "gaps.rec"
    with ft.RecordWriter(rec) as writer:
        for key, number in enumerate([40, -3, 7, 40, 9], start=1):
            writer.write(key, ft.IRHeader(0, number, key, 0), picture(key))
    dataset = RecordDataset(rec, exclude=[3], renumber=True)
    assert dataset.targets.tolist() == [2, 0, 2, 1]
    assert dataset.classes == ["-3", "9", "40"]
    assert dataset.class_to_idx == {"-3": 0, "9": 1, "40": 2}
    assert [int(label) for _, label in dataset] == [2, 0, 2, 1]
    plain = RecordDataset(rec)
    assert plain.targets.tolist() == [40, -3, 7, 40, 9]
    with pytest.raises(ValueError, match=r"label -3 is negative.* renumber=True"):
        _ = plain.classes


def test_classes_have_the_names_of_packed_folders(rec: Path, tmp_path: Path) -> None:
    assert RecordDataset(rec).classes == ["0", "1", "2", "3"]
    for name in ("ann", "bob", "eve"):
        (tmp_path / "people" / name).mkdir(parents=True)
        (tmp_path / "people" / name / "1.jpg").write_bytes(picture(1))
    ft.pack(tmp_path / "people", tmp_path / "people.rec")
    dataset = RecordDataset(tmp_path / "people.rec")
    assert dataset.classes == ["ann", "bob", "eve"]
    assert [dataset.classes[target] for target in dataset.targets] == dataset.classes
    assert RecordDataset(tmp_path / "people.rec", exclude=[2], renumber=True).classes == ["ann", "eve"]
    both = RecordDataset([tmp_path / "people.rec", rec], labels="separate")
    assert both.classes == ["ann", "bob", "eve", "3", "4", "5", "6"]
    table = tmp_path / "people.identities.csv"
    table.write_text(table.read_text() + "3,x,1,9,9\n")
    assert RecordDataset(tmp_path / "people.rec").classes == ["0", "1", "2"], "the table of another file"


@pytest.mark.parametrize(
    ("index", "kind"), [(12, IndexError), (-13, IndexError), (0.5, TypeError), (slice(3), TypeError)]
)
def test_indices_that_there_are_not(rec: Path, index: Any, kind: type[Exception]) -> None:
    dataset = RecordDataset(rec)
    message = r"is out of range: the dataset has 12 images" if kind is IndexError else "must be an int, not"
    with pytest.raises(kind, match=message):
        dataset[index]
    with pytest.raises(kind, match=message):
        dataset.__getitems__([0, index])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "float16"}, "image must be one of 'float32', 'uint8', 'pil', not 'float16'"),
        ({"mirror": 1}, "mirror must be True or False"),
        ({"renumber": "yes"}, "renumber must be True or False"),
        ({"on_error": "ignore"}, "on_error must be one of"),
        ({"threads": 0}, "threads must be a whole number >= 1"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
        ({"max_pixels": 0}, "max_pixels must be a whole number >= 1"),
    ],
)
def test_wrong_options(rec: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ft.OptionError, match=message):
        RecordDataset(rec, **options)
    with pytest.raises(TypeError, match=r"RecordDataset\(\) has no option 'mirrored'; did you mean 'mirror'"):
        RecordDataset(rec, mirrored=True)  # type: ignore[call-arg, unused-ignore]
    with pytest.raises(ft.OptionError, match="epoch must be a whole number >= 0"):
        RecordDataset(rec).set_epoch(-1)
    with pytest.raises(ft.OptionError, match="epoch must be a whole number up to"):
        RecordDataset(rec).set_epoch(2**63)


def test_damaged_images(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "a.rec", identities(4, 3), damaged=frozenset({3, 7, 8, 9, 10}))
    with pytest.raises(ft.RecordError, match="key 3"):
        batches(RecordDataset(rec))
    for transform in (None, lambda image: image):
        dataset = RecordDataset(rec, on_error="skip", transform=transform, image="uint8")
        with pytest.warns(ft.RecordWarning, match="left out of a batch: .*key 3"):
            images, labels = next(iter(DataLoader(dataset, batch_size=4)))
        assert labels.tolist() == [0, 0, 1]
        assert torch.equal(images, pixels_of_some(rec, [0, 1, 3]))
        with pytest.raises(ft.RecordError, match="key 3"):
            dataset[2]
        with pytest.raises(ft.RecordError, match="key 7"):
            dataset.__getitems__([6, 7, 8])


def pixels_of_some(rec: Path, rows: Sequence[int]) -> Any:
    return torch.from_numpy(ft.Dataset(rec).decode(np.array(rows)).pixels).permute(0, 3, 1, 2)


def test_a_batch_for_which_there_is_no_memory(tmp_path: Path) -> None:
    encoded = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(encoded, "PNG")
    rec = write_images(tmp_path / "a.rec", [encoded.getvalue()])
    dataset = RecordDataset(rec, max_pixels=2**30)
    with pytest.raises(MemoryError, match=r"not enough memory: .* a batch, 100 images of 30000 x 30000"):
        dataset.__getitems__([0] * 100)
    with pytest.raises(ft.RecordError, match="max_pixels"):
        RecordDataset(rec)[0]


def test_a_batch_is_not_copied(rec: Path) -> None:
    dataset = RecordDataset(rec)
    batch = dataset.__getitems__([3, 3, 1])
    assert isinstance(batch, list)
    images, labels = default_collate(batch)
    assert batch[0][0].data_ptr() == images.data_ptr()
    assert labels.tolist() == [1, 1, 0]
    batch[0] = batch[2]  # whoever changes the list gets what is in it
    assert default_collate(batch)[1].tolist() == [0, 1, 0]
    assert default_collate(batch[:1])[0].shape == (1, 3, 24, 24)
    assert torch.equal(default_collate(batch[1:])[0], images[1:])
    [(subset, _)] = DataLoader(Subset(dataset, [3, 3, 1]), batch_size=3)
    assert torch.equal(subset, images)
    [own] = DataLoader(dataset, batch_size=12, collate_fn=len)
    assert own == 12
    assert dataset.__getitems__([]) == []


def test_a_subclass_may_change_what_an_image_is(rec: Path) -> None:
    class Doubled(RecordDataset):
        def __getitem__(self, index: int) -> Any:
            image, label = super().__getitem__(index)
            return 2 * image, label

    images, _ = batches(Doubled(rec))[0]
    assert torch.equal(images, 2 * as_float(pixels_of(rec)[:5]))


def test_pickles_and_copies(rec: Path) -> None:
    dataset = RecordDataset(rec, exclude=[1], renumber=True, mirror=True)
    dataset.set_epoch(2)
    expected = batches(dataset)
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert repr(other) == repr(dataset)
        assert other.classes == dataset.classes
        for (images, labels), (others, other_labels) in zip(expected, batches(other), strict=True):
            assert torch.equal(images, others)
            assert torch.equal(labels, other_labels)
        assert repr(pickle.loads(pickle.dumps(other))) == repr(dataset)
        other.set_epoch(3)  # of this one alone
    assert torch.equal(batches(dataset)[0][0], expected[0][0])


def test_a_pickle_whose_file_was_changed(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "a.rec", identities(4, 3))
    pickled = pickle.dumps(RecordDataset(rec))
    write_rec(rec, identities(3, 3))
    changed = pickle.loads(pickled)
    with pytest.raises(ft.RecordError, match="it was replaced"):
        changed[0]
    rec.unlink()
    gone = pickle.loads(pickled)
    assert len(gone) == 12
    with pytest.raises(FileNotFoundError, match=r"a\.rec"):
        gone[0]


def test_labels_that_are_not_int64(tmp_path: Path) -> None:
    for label, message in ((2.5, "2.5"), (float("nan"), "NaN"), (2.0**70, "label")):
        rec = tmp_path / f"{label}.rec"
        with ft.RecordWriter(rec) as writer:
            writer.write(1, ft.IRHeader(0, label, 1, 0), picture(1))
        with pytest.raises((ValueError, ft.RecordError), match=message):
            RecordDataset(rec)
