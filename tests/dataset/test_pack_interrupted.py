"""`pack` that fails at any moment: files of two versions are never mixed. `tests/faults` kills it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

import fasttriplet as ft
from fasttriplet._files import replacing
from tests.dataset.pictures import people, save
from tests.interrupted import Faults, content, fails, killed, watched

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")

Pack = Callable[[Path], object]


@pytest.fixture(scope="module")
def old_and_new(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pack, Pack]:
    """Two folders of pictures to pack: with other names and numbers, and one has a problem."""
    root = tmp_path_factory.mktemp("pictures")
    for name in ("old", "new"):
        people(root / name)
    save(root / "old" / "p10" / "4.jpg", quality=95)
    (root / "old" / "p10" / "damaged.jpg").write_bytes(b"\xff\xd8\xff")
    for name in ("another", "third"):
        save(root / "new" / name / "a.jpg", quality=95)

    def packs(name: str) -> Pack:
        return lambda out: ft.pack(
            root / name, out / "train.rec", split=0.4, on_error="skip", overwrite=True, threads=1
        )

    return packs("old"), packs("new")


@pytest.fixture
def kept(tmp_path: Path, old_and_new: tuple[Pack, Pack]) -> Path:
    """The old files, of which each run gets a copy."""
    old_and_new[0](tmp_path / "kept")
    return tmp_path / "kept"


def fresh(kept: Path) -> Path:
    """A copy of the old files."""
    folder = kept.with_name("out")
    shutil.rmtree(folder, ignore_errors=True)
    if kept.exists():
        shutil.copytree(kept, folder)
    else:
        folder.mkdir()
    return folder


def undisturbed(kept: Path, pack: Pack) -> tuple[list[str], dict[str, bytes]]:
    """The calls of a whole run, and what it writes."""
    folder = fresh(kept)
    faults = Faults(folder)
    with watched(faults):
        pack(folder)
    assert hidden(folder) == []
    return faults.made, content(folder)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def check_readable(folder: Path, *versions: dict[str, bytes]) -> None:
    """What is there is of one version, and the `.rec` files can be read."""
    found = content(folder)
    assert any(found.items() <= version.items() for version in versions), found.keys()
    for rec in {"train.rec", "train-val.rec"} & found.keys():
        index = ft.index_rec(folder / rec, cache=False)
        dataset = ft.RecordFile(folder / rec)
        assert [dataset.read(key)[0].id for key in index["key"]] == index["key"].to_list()


def test_an_error_at_any_call_leaves_all_as_it_was(kept: Path, old_and_new: tuple[Pack, Pack]) -> None:
    pack = old_and_new[1]
    made, new = undisturbed(kept, pack)
    old = content(kept)
    assert (old.keys() - new.keys(), new.keys() - old.keys()) == ({"train.problems.csv"}, set())
    assert not any(old[name] == new[name] for name in new)
    first = next(at for at, call in enumerate(made) if call.endswith(" train.rec"))
    assert {call.split()[1] for call in made[:first]} >= old.keys() - {
        "train.rec"
    }  # all are put aside before
    for at, call in enumerate(made, start=1):
        folder = fresh(kept)
        if call == "link train.rec .old":  # there are file systems without hard links
            with watched(Faults(folder, fails(at))):
                pack(folder)
            assert content(folder) == new
            continue
        with watched(Faults(folder, fails(at))), pytest.raises(OSError, match="Input/output error") as error:
            pack(folder)
        assert Path(error.value.filename).parent in {folder, folder.parent}
        assert content(folder) == old
        assert hidden(folder) == []


@pytest.mark.heavy
def test_if_nothing_can_be_put_back_it_is_kept_and_said_where(
    kept: Path, old_and_new: tuple[Pack, Pack]
) -> None:
    pack = old_and_new[1]
    made, new = undisturbed(kept, pack)
    old = content(kept)
    for at in range(1, len(made) + 1):
        folder = fresh(kept)
        faults = Faults(folder, fails(at, always=True))
        with watched(faults), pytest.raises(OSError, match="Input/output error") as error:
            pack(folder)
        check_readable(folder, old, new)
        notes = "\n".join(getattr(error.value, "__notes__", []))
        for name in old.items() - content(folder).items():
            (where,) = (folder / f".{name[0]}.unfinished").rglob(".old")
            assert where.read_bytes() == old[name[0]]
            assert f"the old {folder / name[0]} is kept as {where}" in notes
        pack(folder)
        assert (content(folder), hidden(folder)) == (new, [])


@pytest.mark.parametrize("replaces", [True, False])
def test_a_killed_writer_of_records_mixes_nothing(tmp_path: Path, replaces: bool) -> None:
    """Both versions have records of the same lengths, so that either `.idx` would fit either `.rec`."""

    def write(path: Path, first: int) -> None:
        with ft.RecordWriter(path, overwrite=True) as writer:
            for key in range(first, first + 5):
                writer.write(key, ft.IRHeader(0, 1.0, key, 0), b"content")

    folder = tmp_path / "out"
    versions = []
    for first in (100, 500):
        fresh(tmp_path / "none")
        write(folder / "a.rec", first)
        versions.append(content(folder))
    for at in count(1):
        fresh(tmp_path / "none")
        if replaces:
            write(folder / "a.rec", 100)
        run_on = not killed(folder, at, lambda: write(folder / "a.rec", 500))
        found = content(folder)
        assert any(found.items() <= version.items() for version in versions)
        if "a.rec" in found:
            file = ft.RecordFile(folder / "a.rec")
            assert file.keys.tolist() in (list(range(100, 105)), list(range(500, 505)))
            assert [file.read(key)[0].id for key in file.keys] == file.keys.tolist()
        assert replaces <= ("a.rec" in found)
        if run_on:
            break
    assert (found, at > 4) == (versions[1], True)


def test_two_runs_in_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    """They share `property`, which the first that ends gets; the same name at the same time is refused."""
    people(tmp_path / "people")
    out = tmp_path / "out"
    others: list[ft.Packed] = []

    def at_the_same_time(done: int, _: int) -> None:
        if done == 2:
            others.append(ft.pack(tmp_path / "people", out / "b.rec"))
            with pytest.raises(FileExistsError, match="another run is writing it at this moment"):
                ft.pack(tmp_path / "people", out / "a.rec", overwrite=True)

    first = ft.pack(tmp_path / "people", out / "a.rec", progress=at_the_same_time)
    assert (others[0].property, others[0].notes) == (out / "property", ())
    assert first.property is None
    assert "since the one in this folder describes b.rec" in first.notes[0]
    assert (out / "a.rec").read_bytes() == (out / "b.rec").read_bytes()
    assert hidden(out) == []


def test_property_that_another_run_writes_at_this_moment_is_left_to_it(tmp_path: Path) -> None:
    people(tmp_path / "people")
    with replacing(tmp_path / "property"):
        done = ft.pack(tmp_path / "people", tmp_path / "a.rec")
    assert done.property is None
    assert "another run is writing it" in done.notes[0]
