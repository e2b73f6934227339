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
from fasttriplet.verify._details import details
from fasttriplet.verify._protocol import FOLDS
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
        measured = verify_pairs(path, "pixels")
        named = {"file": str(path), "files": [str(path)]}
        assert one == named | measured.to_dict() | details(measured)
    assert (result["results"][1]["auc"], result["results"][1]["accuracy"]) == (None, None)
    table = verify(*arguments).output
    assert table.count("accuracy") == 2
    assert re.search("accuracy, AUC, TAR . undefined: all pairs are genuine", table)
    assert table.count("threshold") == 1
    assert "(10 folds)" in table


def test_usage(rec: Path, tmp_path: Path) -> None:
    for arguments in (
        ("--model", "pixels"),
        ("--rec", rec),
        ("--rec", rec, "--pairs", rec, "--model", "pixels"),
        ("--rec", rec, "--model", "nothing"),
        ("--rec", rec, "--model", "pixels", "--pairs-per-kind", 0),
        ("--rec", rec, "--model", "pixels", "--folds", 1),
    ):
        assert verify(*arguments).exit_code == 2
    assert "must end in .png or .svg" in verify("--rec", rec, "--model", "pixels", "--roc", "a.gif").output
    done = verify("--pairs", rec, "--model", "pixels")
    assert "is a .rec file; give it as --rec" in str(done.exception)
    assert pack_pairs(tmp_path / "a.bin").exit_code == 2
    assert pack_pairs(tmp_path / "a.rec", "--rec", rec).exit_code == 2
    assert pack_pairs(tmp_path / "a.bin", "--rec", rec, "--list", rec).exit_code == 2
    assert pack_pairs(tmp_path / "a.bin", "--rec", rec, "--folder", tmp_path).exit_code == 2


def test_folds_and_small_files(rec: Path, tmp_path: Path) -> None:
    default = next(option.default for option in _verify.verify.params if option.name == "folds")
    assert default == FOLDS
    path = tmp_path / "a.bin"
    write_pairs(path, [picture(i) for i in range(8)], [True, True, False, True])
    few = verify("--pairs", path, "--model", "pixels")
    assert "a.bin: 4 pairs are too few for 10 folds" in str(few.exception)
    assert "fewer folds: folds=4" in str(few.exception)  # which `main` shows as --folds 4
    printed = " ".join(output(verify("--pairs", path, "--model", "pixels", "--folds", 2)).split())
    assert "all impostor pairs are in fold 2 of 2" in printed
    assert re.search("TAR at FAR . left out: 1 impostor pair is too few", printed)
    assert "(4 folds)" in output(
        verify("--rec", rec, "--model", "pixels", "--pairs-per-kind", 10, "--folds", 4)
    )


def test_all_files_are_checked_before_one_is_embedded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, same in (("good", [True, False] * 5), ("few", [True, False]), ("one", [False] * 10)):
        write_pairs(tmp_path / f"{name}.bin", [picture(i) for i in range(2 * len(same))], same)
    (tmp_path / "text.bin").write_text("a.jpg b.jpg 1\n")
    embed = MagicMock()
    monkeypatch.setattr("fasttriplet.embedders._pixels.PixelEmbedder.embed", embed)
    monkeypatch.setattr(_verify, "_figure", MagicMock())
    for name, said in (
        ("few", "2 pairs are too few for 10 folds"),
        ("text", "is text"),
        ("one", "one.bin: a ROC curve needs pairs of both kinds, and all pairs are impostors"),
    ):
        done = verify(
            *("--pairs", tmp_path / "good.bin", "--pairs", tmp_path / f"{name}.bin"),
            *("--model", "pixels", "--roc", tmp_path / "roc.png"),
        )
        assert said in str(done.exception)
    embed.assert_not_called()


def test_pairs_of_one_kind_are_not_drawn(tmp_path: Path) -> None:
    for labels, said in (
        (dict.fromkeys(range(20), 7), "no impostor pair"),
        ({1: 0, 2: 1}, "no genuine pair"),
    ):
        rec = write_rec(tmp_path / "a.rec", labels)
        for done in (verify("--rec", rec, "--model", "pixels"), pack_pairs(tmp_path / "a.bin", "--rec", rec)):
            assert isinstance(done.exception, ValueError)
            assert f"{rec}: {said} can be drawn" in str(done.exception)
        assert not (tmp_path / "a.bin").exists()


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
    axes = figure.return_value.add_subplot.return_value
    begin = np.flatnonzero(far <= 1 / 20)[-1]  # one impostor pair of 20
    drawn_far, drawn_tar = axes.plot.call_args_list[0].args
    assert drawn_far.tolist() == [0.05, *far[begin + 1 :]]
    assert drawn_tar.tolist() == tar[begin:].tolist()

    def fail(path: Path, **_: Any) -> None:
        path.write_text("half")
        raise OSError("disk full")

    figure.return_value.savefig = fail
    out.write_text("old")
    assert isinstance(verify(*arguments).exception, FileExistsError)
    assert "disk full" in str(verify(*arguments, "--overwrite").exception)
    assert out.read_text() == "old"
    assert not list(tmp_path.glob(".*"))
    assert verify("--rec", rec, "--model", "pixels", "--overwrite").exit_code == 2


@pytest.mark.parametrize(
    ("near", "far", "limits"),
    [
        ([0.1] * 5, [2.0] * 5, (0.1, 0.99)),  # without an error: the curve is the upper edge
        ([2.0, 0.1], [1.0], (0.1, 0.45)),
        ([3.0] * 4, [0.1] * 40, (1 / 40, 0.0)),  # all wrong
        ([3.0] * 98 + [0.1, 0.1], [1.0] * 40, (1 / 40, 0.0)),
    ],
)
def test_axes_of_the_roc_stay_within_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, near: Any, far: Any, limits: Any
) -> None:
    figure = MagicMock()
    figure.return_value.savefig = lambda path, **_: path.write_text("")
    monkeypatch.setattr(_verify, "_figure", lambda: figure)
    found = ft.verify_distances(near + far, [True] * len(near) + [False] * len(far), 2)
    shards = tmp_path / "a.rec", tmp_path / "b.rec"
    _verify._draw({shards: found}, tmp_path / "roc.png", overwrite=False)
    axes = figure.return_value.add_subplot.return_value
    chosen = {name: value for call in axes.set.call_args_list for name, value in call.kwargs.items()}
    assert chosen["xlim"] == (limits[0], 1)
    assert chosen["ylim"] == (pytest.approx(limits[1]), 1)
    drawn = axes.plot.call_args
    assert drawn.kwargs["label"] == f"a.rec b.rec, AUC {found.auc:.4f}"
    for (low, high), values in zip((chosen["xlim"], chosen["ylim"]), drawn.args, strict=True):
        assert low <= values.min() <= values.max() == high == 1


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
    assert isinstance(pack_pairs(out, "--rec", rec).exception, FileExistsError)
    output(pack_pairs(out, "--rec", rec, "--pairs-per-kind", 10, "--overwrite"))
    assert len(read_pairs(out)[1]) == 20
    other = write_rec(tmp_path / "b.rec", identities(3, 2))
    output(pack_pairs(tmp_path / "two.bin", "--rec", rec, "--rec", other, "--labels", "shared"))


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
    (folder / "empty.jpg").touch()
    for text, said in (
        ("0.jpg 1.jpg 1\n0.jpg 1.jpg\n", "line 2: expected PATH PATH 1"),
        ("0.jpg 1.jpg 2\n", "line 1: expected PATH PATH 1"),
        ("ann b/x.jpg 1.jpg 1\n", "with quotes around a path that holds the separator"),
        ("0.jpg none.jpg 1\n", r"pairs\.txt: line 1: .*none.jpg: No such file"),
        ("none.jpg no.jpg 1\n", "none of its 2 images can be read; .*none.jpg. Give .* --folder"),
        ("0.jpg empty.jpg 1\n", "line 1: .*empty.jpg: the file is empty"),
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
    assert "is not text in UTF-8" in str(pack_pairs(out, "--list", listing).exception)


def test_all_that_is_wrong_with_a_list_is_said_at_once(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number))
    (tmp_path / "small.jpg").write_bytes(picture(1, 20))
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "pairs.txt").write_text(
        "0.jpg 1.jpg 1\n0.jpg text.jpg 0\n1.jpg\n2.jpg gone.jpg 1\n3.jpg gone.jpg 1\nsmall.jpg 0.jpg 1\n"
    )
    done = pack_pairs(tmp_path / "a.bin", "--list", tmp_path / "pairs.txt")
    head, *lines = str(done.exception).splitlines()
    assert head == f"{tmp_path / 'pairs.txt'}: 4 problems"
    for line, said in zip(
        lines,
        (
            "  line 2: .*text.jpg: not an image",
            "  line 3: expected PATH PATH 1 .* got '1.jpg'",
            "  line 4: .*gone.jpg: No such file or directory",  # once
            "  line 6: .*small.jpg: the image is 20 x 20 pixels",
        ),
        strict=True,
    ):
        assert re.match(said, line)
    (tmp_path / "pairs.txt").write_text("0.jpg 1.jpg 1\n" + "".join(f"0.jpg {i}.png 0\n" for i in range(30)))
    done = pack_pairs(tmp_path / "a.bin", "--list", tmp_path / "pairs.txt")
    lines = str(done.exception).splitlines()
    assert lines[0].endswith(": 30 problems")
    assert lines[10].startswith("  line 11: ")
    assert lines[11:] == ["  and 20 more"]
    assert not (tmp_path / "a.bin").exists()


def test_what_is_said_of_a_packed_list(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number))
    listing, out = tmp_path / "pairs.txt", tmp_path / "a.bin"

    def packed(*lines: str) -> tuple[str, str]:
        listing.write_text("\n".join(lines))
        done = pack_pairs(out, "--list", listing, "--overwrite")
        output(done)
        return done.stdout, done.stderr

    same, other = "0.jpg 1.jpg 1", "2.jpg 3.jpg 0"
    told, note = packed(same)
    size = f"{out.stat().st_size / 1000:.1f} kB"
    assert told == f"{out}: 1 pair, 1 genuine and 0 impostor, 24 x 24, {size}\n"
    assert "One pair cannot be verified on" in note
    _, note = packed(same, other, same, other)
    assert note == "To verify on these pairs, give `fasttriplet verify` --folds 4.\n"
    _, note = packed(*[same] * 10)
    assert note == "The accuracy on these pairs will be undefined: all pairs are genuine.\n"
    _, note = packed(*[same, other] * 5)
    assert note == ""
