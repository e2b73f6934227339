"""What is said of a file that holds something else."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from pathlib import Path

import numpy as np
import pytest

import fasttriplet as ft
from fasttriplet._contents import describe_wrong_file, kind_of
from tests.small_rec import picture, write_rec


def npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"version https://git-lfs.github.com/", "a Git LFS pointer (fetch the data with `git lfs pull`)"),
        (picture(1), "a single JPEG"),
        (b"\x89PNG\r\n\x1a\n", "a single PNG"),
        (b"\r\n\x23\xd7\xce", "a .rec file that was copied in text mode (copy it again in binary mode)"),
        (npz(), "a zip archive (an .npz, or a PyTorch file)"),
        (npy(), "a .npy file"),
        (gzip.compress(b"a"), "compressed with gzip (unpack it first)"),
        (bz2.compress(b"a"), "compressed with bzip2 (unpack it first)"),
        (lzma.compress(b"a"), "compressed with xz (unpack it first)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kinds_are_told_by_the_first_bytes(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "a"
    path.write_bytes(content)
    assert kind_of(content) == kind
    assert describe_wrong_file(path, "a model") == f"{path} is {kind}, not a model"
    assert describe_wrong_file(path, "a model", magic=content[:4]) == f"{path} is not a model"


@pytest.mark.parametrize("content", [b"hello", b"\x00", b"P", b"\xff\xd8"])
def test_other_kinds_are_not_guessed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    assert kind_of(content) is None
    assert describe_wrong_file(tmp_path / "a", "a model") == f"{tmp_path / 'a'} is not a model"


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    for magic in (None, b"PK"):
        assert (
            describe_wrong_file(tmp_path / "a", "a model", magic) == f"{tmp_path / 'a'} is empty, not a model"
        )


def test_a_rec_is_recognised(tmp_path: Path) -> None:
    rec = write_rec(tmp_path / "a.rec", {1: 0})
    assert kind_of(rec.read_bytes()) == "a .rec file; give it as --rec"
    with pytest.raises(ValueError, match=r"a\.rec is a \.rec file; give it as --rec, not a \.npy file"):
        ft.load_embedder(f"npy:{rec}")
