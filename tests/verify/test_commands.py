"""``fasttriplet verify`` and ``fasttriplet pack-pairs``."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from click.testing import CliRunner, Result

import fasttriplet as ft
from fasttriplet import draw_pairs, read_pairs, verify_pairs, verify_rec, write_pairs
from fasttriplet.cli import _pack_pairs, _verify
from tests.small_rec import identities, picture, write_rec


def verify(*arguments: object) -> Result:
    return CliRunner().invoke(_verify.verify, list(map(str, arguments)))


def pack_pairs(*arguments: object) -> Result:
    return CliRunner().invoke(_pack_pairs.pack_pairs, list(map(str, arguments)))


def output(done: Result) -> str:
    """What a command that succeeded printed."""
    assert done.exit_code == 0, done.output
    return done.output


def test_verify_prints_a_table(rec: Path, tmp_path: Path) -> None:
    printed = output(verify("--rec", rec, "--model", "pixels", "--pairs-per-kind", 20, "--seed", 4))
    found = verify_rec(rec, "pixels", pairs_per_kind=20, seed=4)
    assert found.auc is not None
    assert found.recall_at_1 is not None
    for said in (
        str(rec),
        "40: 20 genuine, 20 impostor",
        f"{found.accuracy:.3%}",
        f"{found.auc:.6f}",
        f"{found.tar[0.1]:.3%}",
        "20 impostor pairs are too few",
        f"{found.xnorm:.4f}",
        f"{found.recall_at_1:.3%} of 32 images",
    ):
        assert said in printed
    without = verify("--rec", rec, "--model", "pixels", "--no-flip", "--no-recall", "--pairs-per-kind", 20)
    assert "not used" in without.output
    assert "recall" not in without.output
    np.save(tmp_path / "emb.npy", np.random.default_rng(0).standard_normal((32, 4)))
    before = verify("--rec", rec, "--model", f"npy:{tmp_path / 'emb.npy'}", "--pairs-per-kind", 20)
    assert "the embeddings were computed before" in output(before)


def test_verify_several_files_as_json(tmp_path: Path, pairs: Any) -> None:
    images, same = pairs
    paths = [tmp_path / "a.bin", tmp_path / "b.bin"]
    write_pairs(paths[0], images, same)
    write_pairs(paths[1], images, [True] * len(same))
    arguments = ("--pairs", paths[0], "--pairs", paths[1], "--model", "pixels")
    done = verify(*arguments, "--json", "--threads", 1)
    output(done)
    result = json.loads(done.stdout)
    assert "baseline" in result["model"]
    assert [one["file"] for one in result["results"]] == list(map(str, paths))
    for one, path in zip(result["results"], paths, strict=True):
        assert one == {"file": str(path)} | verify_pairs(path, "pixels").to_dict()
    assert result["results"][1]["auc"] is None
    table = verify(*arguments).output
    assert table.count("accuracy") == 2
    assert "undefined: all pairs are genuine" in table


def test_usage(rec: Path, tmp_path: Path) -> None:
    for arguments in (
        ("--model", "pixels"),
        ("--rec", rec),
        ("--rec", rec, "--pairs", rec, "--model", "pixels"),
        ("--rec", rec, "--model", "nothing"),
        ("--rec", rec, "--model", "pixels", "--pairs-per-kind", 0),
    ):
        assert verify(*arguments).exit_code == 2
    assert "must end in .png or .svg" in verify("--rec", rec, "--model", "pixels", "--roc", "a.gif").output
    done = verify("--pairs", rec, "--model", "pixels")
    assert "is a .rec file; give it as --rec" in str(done.exception)
    assert pack_pairs(tmp_path / "a.bin").exit_code == 2
    assert pack_pairs(tmp_path / "a.rec", "--rec", rec).exit_code == 2
    assert pack_pairs(tmp_path / "a.bin", "--rec", rec, "--list", rec).exit_code == 2
    assert pack_pairs(tmp_path / "a.bin", "--rec", rec, "--folder", tmp_path).exit_code == 2


def test_help_waits_for_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from fasttriplet.cli._verify import verify\nfrom fasttriplet.cli._pack_pairs import pack_pairs\n"
        "for command in (verify, pack_pairs): command.main(['--help'], standalone_mode=False)\n"
        "assert not {'numpy', 'polars', 'rich', 'mxnet', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_roc_needs_matplotlib(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    done = verify("--rec", rec, "--model", "pixels", "--roc", tmp_path / "roc.png")
    assert isinstance(done.exception, ImportError)
    assert re.search(r"needs matplotlib .*\. Install it.* pip install ", str(done.exception))
    assert not (tmp_path / "roc.png").exists()


def test_roc_is_written_whole(rec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = MagicMock()
    figure.return_value.savefig = lambda path, format, dpi: path.write_text(f"{format} {dpi}")
    monkeypatch.setattr(_verify, "_figure", lambda: figure)
    out = tmp_path / "roc.SVG"
    arguments = ("--rec", rec, "--model", "pixels", "--pairs-per-kind", 20, "--roc", out)
    output(verify(*arguments))
    assert out.read_text() == "svg 150"
    far, tar = verify_rec(rec, "pixels", pairs_per_kind=20).roc()
    drawn = figure.return_value.add_subplot.return_value.plot.call_args_list[0].args
    assert np.array_equal(drawn, (far, tar))

    def fail(path: Path, **_: Any) -> None:
        path.write_text("half")
        raise OSError("disk full")

    figure.return_value.savefig = fail
    out.write_text("old")
    assert isinstance(verify(*arguments).exception, OSError)
    assert out.read_text() == "old"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]
    nowhere = verify("--rec", rec, "--model", "pixels", "--roc", tmp_path / "none" / "a.png")
    assert "there is no folder" in str(nowhere.exception)


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs the [plot] extra")
@pytest.mark.parametrize(("name", "start"), [("roc.png", b"\x89PNG"), ("roc.svg", b"<?xml")])
def test_roc_by_matplotlib(rec: Path, tmp_path: Path, name: str, start: bytes) -> None:
    output(verify("--rec", rec, "--model", "pixels", "--pairs-per-kind", 20, "--roc", tmp_path / name))
    assert (tmp_path / name).read_bytes().startswith(start)


def test_packed_pairs_are_those_of_verify_rec(rec: Path, tmp_path: Path) -> None:
    out = tmp_path / "val.bin"
    done = pack_pairs(out, "--rec", rec, "--pairs-per-kind", 20, "--seed", 4)
    assert "40 pairs, 20 genuine and 20 impostor, 24 x 24" in output(done)
    images, same = read_pairs(out)
    index = ft.index_rec(rec)
    drawn = draw_pairs(index, 20, 4)
    file = ft.RecordFile(rec)
    rows = np.stack([drawn.first, drawn.second], axis=1).ravel()
    assert images == [file.read(key)[1] for key in index["key"].to_numpy()[rows]]
    assert same.tolist() == drawn.same.tolist()
    of_file, of_rec = verify_pairs(out, "pixels"), verify_rec(rec, "pixels", pairs_per_kind=20, seed=4)
    assert np.array_equal(of_file.distances, of_rec.distances)
    assert "exists already; --overwrite replaces it" in str(pack_pairs(out, "--rec", rec).exception)
    output(pack_pairs(out, "--rec", rec, "--pairs-per-kind", 10, "--overwrite"))
    assert len(read_pairs(out)[1]) == 20
    other = write_rec(tmp_path / "b.rec", identities(3, 2))
    output(pack_pairs(tmp_path / "two.bin", "--rec", rec, "--rec", other))


def test_pairs_of_a_list(tmp_path: Path) -> None:
    folder = tmp_path / "faces"
    (folder / "ann b").mkdir(parents=True)
    names = [f"{number}.jpg" for number in range(4)] + ["ann b/x.jpg"]
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture(number))
    listing, out = folder / "pairs.txt", tmp_path / "a.bin"
    listing.write_text("# a comment\n0.jpg 1.jpg 1\n\n2.jpg\tann b/x.jpg\t0\n  3.jpg   0.jpg  0\n")
    assert "3 pairs, 1 genuine and 2 impostor, 24 x 24" in output(pack_pairs(out, "--list", listing))
    images, same = read_pairs(out)
    assert images == [picture(number) for number in (0, 1, 2, 4, 3, 0)]
    assert same.tolist() == [True, False, False]
    moved = tmp_path / "moved.txt"
    moved.write_bytes(listing.read_bytes())
    output(pack_pairs(out, "--list", moved, "--folder", folder, "--overwrite"))
    assert read_pairs(out)[0] == images
    out.unlink()
    (folder / "small.jpg").write_bytes(picture(1, 20))
    for text, said in (
        ("0.jpg 1.jpg 1\n0.jpg 1.jpg\n", "line 2: expected PATH PATH 1"),
        ("0.jpg 1.jpg 2\n", "line 1: expected PATH PATH 1"),
        ("ann b/x.jpg 1.jpg 1\n", "by tabs if a path has spaces"),
        ("0.jpg none.jpg 1\n", "line 1: .*none.jpg: No such file"),
        ("0.jpg 1.jpg 1\n0.jpg pairs.txt 1\n", "line 2: .*pairs.txt: not an image"),
        ("0.jpg 1.jpg 1\n0.jpg small.jpg 1\n", "line 2: .*small.jpg: the image is 20 x 20"),
        ("# nothing\n", "lists no pair"),
    ):
        listing.write_text(text)
        failed = pack_pairs(out, "--list", listing)
        assert isinstance(failed.exception, ValueError)
        with pytest.raises(ValueError, match=said):
            raise failed.exception
        assert not out.exists()
    listing.write_bytes(b"\xff\xfe\x00")
    assert "is no text file" in str(pack_pairs(out, "--list", listing).exception)
