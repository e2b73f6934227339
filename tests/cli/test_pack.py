"""``fasttriplet pack``: what it prints, and which usage it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fasttriplet.cli import main
from fasttriplet.cli._pack import pack
from fasttriplet.dataset._packing._options import PackOptions
from tests.cli.command import Capture
from tests.dataset.pictures import people, save


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return people(tmp_path / "people")


def run(*arguments: object) -> int:
    return main(["pack", *map(str, arguments)])


def test_what_it_prints(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "a.rec"
    save(folder / "p2" / "b.png")
    assert run(folder, out) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{out}: 7 images of 3 identities, 12 x 10, {out.stat().st_size / 1000:.1f} kB"
    assert second.startswith("6 kept unchanged, 1 encoded, in ")

    (folder / ".DS_Store").write_bytes(b"")
    (folder / "p1" / "notes.txt").write_text("hello")
    assert run(folder, tmp_path / "b.rec", "--on-error", "skip", "--split", "0.1", "--format", "png") == 0
    train, val, images, ignored, left_out, note = capsys.readouterr().out.splitlines()
    assert train.startswith(f"{tmp_path / 'b.rec'}: ")
    assert " of 2 identities, 12 x 10" in train
    assert val.startswith(f"{tmp_path / 'b-val.rec'}: ")
    assert " of 1 identity, 12 x 10" in val
    assert images.startswith("1 kept unchanged, 6 encoded")
    assert ignored == "1 hidden or system file ignored"
    assert left_out == f"1 problem left out, listed in {tmp_path / 'b.problems.csv'}"
    assert note.startswith("`property` was not written, since the one in this folder describes a.rec")


def test_json(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "a.rec"
    assert run(folder, out, "--split", "0.3", "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    facts = json.loads(printed.out)
    assert facts.pop("seconds") > 0
    parts = facts.pop("files")
    assert [part["path"] for part in parts] == [str(out), str(tmp_path / "a-val.rec")]
    assert sum(part["images"] for part in parts) == 6
    assert sum(part["bytes"] for part in parts) == facts.pop("bytes")
    assert facts == {
        "path": str(out),
        "images": 6,
        "identities": 3,
        "size": [12, 10],
        "kept": 6,
        "encoded": 0,
        "skipped": 0,
        "problems": None,
        "ignored": 0,
        "property": str(tmp_path / "property"),
        "notes": [],
    }


def test_options_reach_it(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    save(folder / "p1" / "more" / "0.jpg")
    out = tmp_path / "a.rec"
    assert run(folder, out, "--size", "8x6", "--fit", "pad", "--identity-depth", "1", "--quality", "10") == 0
    assert "7 images of 3 identities, 8 x 6" in capsys.readouterr().out
    assert run(folder, tmp_path / "b.rec", "--size", "9", "--identity-depth", "1") == 0
    assert "9 x 9" in capsys.readouterr().out


def test_flags_are_the_options() -> None:
    flags = {str(flag.name): flag.to_info_dict().get("default") for flag in pack.params}
    assert set(PackOptions.names()) | {"folder", "out", "overwrite", "as_json"} == set(flags)
    assert all(flags[name] == getattr(PackOptions, name) for name in PackOptions.names())


def test_what_is_there_already(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "a.rec"
    assert run(folder, out) == 0
    assert run(folder, out) == 1
    assert f"{out}: exists already; --overwrite replaces it" in capsys.readouterr().err
    assert run(folder, out, "--overwrite") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "0"), "expected pixels as 112 or as 112x96"),
        (("--size", "12x"), "expected pixels"),
        (("--size", "99999"), "up to 16384 pixels"),
        (("--quality", "0"), "'--quality'"),
        (("--threads", "0"), "'--threads'"),
        (("--fit", "crop"), "--fit must not be 'crop' without a size"),
        (("--split", "1"), "'--split'"),
        (("--split", "nan"), "'--split'"),
        (("--identity-depth", "0"), "'--identity-depth'"),
    ],
)
def test_usage(
    folder: Path, tmp_path: Path, arguments: tuple[str, ...], message: str, capsys: Capture
) -> None:
    assert run(folder, tmp_path / "out.rec", *arguments) == 2
    assert message in capsys.readouterr().err


def test_places(folder: Path, tmp_path: Path) -> None:
    assert run(folder, folder / "out.rec") == 2
    assert run(folder, tmp_path / "out") == 2
    assert run(tmp_path / "nowhere", tmp_path / "out.rec") == 1  # as any other input that is missing
