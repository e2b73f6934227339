"""Files of pairs: whatever pickle makes of them is read, and pickles of strangers run nothing."""

from __future__ import annotations

import os
import pickle
import pickletools
import re
import struct
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from fasttriplet import read_pairs, write_pairs
from tests.small_rec import picture


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.bin"


def read(path: Path, data: bytes) -> tuple[list[bytes], list[bool]]:
    path.write_bytes(data)
    images, same = read_pairs(path)
    return images, same.tolist()


def refused(path: Path, data: bytes) -> str:
    with pytest.raises(ValueError) as error:
        read(path, data)
    assert str(error.value).startswith(str(path))
    return str(error.value)


def test_round_trip(path: Path, pairs: Any) -> None:
    images, same = pairs
    arrays: list[Any] = [np.frombuffer(image, np.uint8) for image in images]
    for given_images in (images, arrays, [array[:, None] for array in arrays]):
        write_pairs(path, given_images, np.array(same), overwrite=True)
        found, truth = read_pairs(path)
        assert found == images
        assert truth.dtype == np.bool_
        assert truth.tolist() == same
        assert pickle.loads(path.read_bytes(), encoding="bytes") == (images, same)
        opcodes = [op.name for op, _, _ in pickletools.genops(path.read_bytes())]
        assert opcodes[0] == "PROTO"
        assert not {"BINBYTES", "SHORT_BINBYTES", "FRAME"} & set(opcodes)  # Python 2 does not know them
    assert list(path.parent.iterdir()) == [path]


def test_all_that_pickle_makes_of_pairs(path: Path, pairs: Any) -> None:
    images, same = pairs
    arrays = [np.frombuffer(image, np.uint8).copy() for image in images]
    truths = [
        same, tuple(same), [int(s) for s in same], [np.bool_(s) for s in same], np.array(same),
        np.array(same).astype(np.int64), np.array(same).astype(">i4")[:, None], [np.int32(s) for s in same],
    ]  # fmt: skip
    forms: list[Any] = [images, arrays, [array[:, None] for array in arrays], tuple(images)]
    forms.append([np.asfortranarray(array[:, None]) for array in arrays])
    for protocol in range(6):
        for form in forms:
            for truth in truths if form is images or protocol in (2, 5) else truths[:1]:
                for whole in ((form, truth), [form, truth]):
                    assert read(path, pickle.dumps(whole, protocol)) == (images, same)
    # NumPy 2 has other names for the same.
    renamed = pickle.dumps((arrays, np.array(same)), 2).replace(b"numpy.core.", b"numpy._core.")
    assert read(path, renamed) == (images, same)
    assert read(path, pickletools.optimize(pickle.dumps((arrays, same), 4))) == (images, same)


def python2(images: list[bytes], same: list[bool]) -> bytes:
    """What cPickle of Python 2 writes in protocol 2 for lists of str and bool."""
    short = b"".join(b"T" + struct.pack("<i", len(image)) + image for image in images)
    truths = b"".join(b"\x88" if s else b"\x89" for s in same)
    return b"\x80\x02](" + short + b"e](" + truths + b"e\x86q\x01."


def python2_array(image: bytes) -> bytes:
    """A uint8 array of shape (n, 1), whose text is all str."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    raw = b"T" + struct.pack("<i", len(image)) + image
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xff"
    dtype += b"J\xff\xff\xff\xffK\x00tb"
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    shape = b"J" + struct.pack("<i", len(image)) + b"K\x01\x86"
    return start + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"


def test_pickles_of_python_2(path: Path, pairs: Any) -> None:
    images, same = pairs
    data = python2(images, same)
    assert pickle.loads(data, encoding="bytes") == (images, same)  # the bytes are what they should be
    assert read(path, data) == (images, same)
    arrays = b"\x80\x02](" + b"".join(map(python2_array, images)) + b"e]("
    arrays += b"".join(b"\x88" if s else b"\x89" for s in same) + b"e\x86."
    real, _ = pickle.loads(arrays, encoding="bytes")
    assert [array.tobytes() for array in real] == images
    assert real[0].shape == (len(images[0]), 1)
    assert read(path, arrays) == (images, same)
    # Protocol 0, the default there: text, bytes as repr writes them.
    strings = b"".join(b"S" + repr(image)[1:].encode() + b"\na" for image in images)
    truths = b"".join(b"I0%d\na" % s for s in same)
    assert read(path, b"((lp1\n" + strings + b"(lp2\n" + truths + b"tp3\n.") == (images, same)


class Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self._reduced


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_run(path: Path, protocol: int) -> None:
    witness = path.parent / "witness"
    code = f"open({str(witness)!r}, 'w')"
    for evil in (
        Call(os.system, f"touch {witness}"),
        Call(eval, code),
        Call(exec, code),
        Call(getattr, "a", "upper"),
        Call(subprocess.check_output, ["touch", str(witness)]),
        Call(np.load, str(witness)),
        Call(np.fromfile, str(witness)),
        Path(witness),
        np.array([Call(eval, code)], dtype=object),
        Call,
    ):
        said = refused(path, pickle.dumps(([evil] * 20, [True] * 10), protocol))
        assert "wants to load" in said or "dtype" in said or "something else than verification pairs" in said
        assert "numpy.ndarray" not in said
    assert not witness.exists()
    named = refused(path, pickle.dumps(([Call(eval, "1")], [True]), protocol))
    assert "eval, which verification pairs do not need; nothing of it was run" in named


def glob(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


U1 = glob("numpy.dtype") + b"X\x02\x00\x00\x00u1K\x00K\x01\x87R"
ARRAY = glob("numpy.core.multiarray._reconstruct") + glob("numpy.ndarray") + b"K\x00\x85C\x01b\x87R"
HUGE = b"\x8a\x05" + (2**33).to_bytes(5, "little")


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (ARRAY + b"(K\x01" + HUGE + b"\x85" + U1 + b"\x89C\x01xtb", "8,589,934,592 bytes, and 1 are there"),
        (
            ARRAY + b"(K\x01K\x01K\x01K\x01\x87" + U1 + b"\x89C\x01xtb",
            "3 dimensions; encoded images have one",
        ),
        (ARRAY + b"(K\x01(" + HUGE * 40 + b"t" + U1 + b"\x89C\x01xtb", "40 dimensions"),
        (ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + U1 + b"\x89C\x01xtb", "not described as NumPy does"),
        (ARRAY + b"(K\x01K\x01\x85K\x05\x89C\x01xtb", "not described as NumPy does"),
        (ARRAY + b"Nb", "not described as NumPy does"),
        (ARRAY, "an empty array"),
        (glob("numpy.dtype") + b"X\x01\x00\x00\x00OK\x00K\x01\x87R", "dtype 'O'"),
        (glob("numpy.dtype") + b"X\x02\x00\x00\x00f8K\x00K\x01\x87R", "dtype 'f8'"),
        (glob("numpy.dtype") + HUGE + b"\x85R", "dtype 8589934592"),
        # Flags of an object dtype on a dtype of bytes: NumPy itself would follow the bytes as pointers.
        (U1 + b"(K\x03C\x01|NNNK\x08K\x08K\x3ftb", "several parts"),
        (U1 + b"(K\x03C\x01|K\x01NNK\x08K\x08K\x00tb", "several parts"),
        (U1 + b"(K\x03C\x01|NK\x01NK\x08K\x08K\x00tb", "several parts"),
        (U1 + b"(K\x03C\x01|NNK\x01K\x08K\x08K\x00tb", "several parts"),
        (U1 + b"(K\x03C\x01?NNNK\x08K\x08K\x00tb", "byte order"),
        (glob("numpy.ndarray") + HUGE + b"\x85R", "otherwise than NumPy"),
        (glob("numpy.ndarray") + b")b", "changes ndarray"),
        (glob("numpy.core.multiarray._reconstruct") + b"N(X\x01\x00\x00\x00ak1\x86b", "damaged"),
        (glob("numpy.core.multiarray._reconstruct") + b"Nb", "changes _reconstruct"),
        (glob("numpy.core.multiarray.scalar") + U1 + b"C\x02xx\x86R", "number is not described"),
        (glob("numpy.core.multiarray.scalar") + glob("numpy.dtype") + b"C\x01x\x86R", "number is not"),
        (glob("_codecs.encode") + b"X\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R", "encodes str as 'hex'"),
        (glob("_codecs.decode") + b")R", "_codecs.decode"),
        (glob("builtins.bytes") + b"K\x05\x85R", "calls bytes with an argument"),
        (glob("__builtin__.bytes") + b"C\x01a\x85R", "calls bytes with an argument"),
        (glob("builtins.bytes"), "the function bytes"),
        (glob("builtins.bytes") + b"Nb", "changes bytes"),
        (glob("builtins.bytearray") + b")R", "builtins.bytearray"),
        (glob("numpy.load") + b")R", "numpy.load"),
        (glob("numpy.core.multiarray.fromfile") + b")R", "fromfile"),
        (glob("numpy.core.multiarray._reconstruct") + b"))R", "damaged"),
        (b"r\xff\xff\xff\x7f", "place 2,147,483,647 of the memo"),  # 2**31 pointers would be written
        (b"p2000000000\n", "place 2,000,000,000 of the memo"),
        (b"\x95\xff\xff\xff\xff\xff\x00\x00\x00", "cut off"),
        (b"\x8e\xff\xff\xff\xff\xff\x00\x00\x00", "cut off"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff", "damaged"),
        (b"T\xff\xff\xff\xff", "damaged"),
        (b"Pname\n", "PERSID"),
        (b"}", "EMPTY_DICT"),
        (b"\x82\x01", "EXT1"),
        (b"\x97", "NEXT_BUFFER"),
        (glob("numpy.ndarray") + b")\x81", "NEWOBJ"),
        (b"\xfe", "damaged, or no pickle"),
        (b"h\x09", "damaged"),
        (b"0000", "damaged"),
        (b"L" + b"9" * 5000 + b"L\n", "damaged"),
    ],
)
def test_pickles_made_by_hand(path: Path, program: bytes, said: str) -> None:
    # As the one image of a pickle that is otherwise whole; 20 of them, so that a wrong number is no reason.
    said_so = refused(path, b"\x80\x04](" + program + b"e]\x86.")
    assert said in said_so or (said in ("an empty array", "the function bytes") and "odd" in said_so)


def test_truth_values_without_content(path: Path) -> None:
    said = refused(path, b"\x80\x04](" + b"C\x01x" * 20 + b"e" + ARRAY + b"\x86.")
    assert said == f"{path} is damaged: the array of truth values has no content"


def test_places_of_the_memo_are_those_of_operations(path: Path) -> None:
    """A writer gives an object the next place, so none is beyond the number of operations so far."""
    assert "damaged" not in refused(path, b"\x80\x02Nq\x03.")
    assert "puts an object at place 4 of the memo" in refused(path, b"\x80\x02Nq\x04.")


def test_no_memory_is_filled(path: Path) -> None:
    """A megabyte that is encoded, or copied, a thousand times."""
    text = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"\x94X\x06\x00\x00\x00latin1\x940"
    again = glob("_codecs.encode") + b"h\x00h\x01\x86R"
    assert "again and again" in refused(path, b"\x80\x04" + text + b"0](" + again * 1000 + b"e.")
    buffer = b"\x96" + struct.pack("<Q", 2**20) + b"a" * 2**20 + b"\x940"
    again = glob("numpy.core.numeric._frombuffer") + b"(h\x00" + U1 + b"J\x00\x00\x10\x00\x85tR"
    assert "again and again" in refused(path, b"\x80\x05" + buffer + b"](" + again * 1000 + b"e.")


def test_stand_ins_do_not_keep_anything(path: Path, pairs: Any) -> None:
    """A pickle that tries to change what the next one sees."""
    images, same = pairs
    for name in ("numpy.core.multiarray._reconstruct", "numpy.dtype", "_codecs.encode"):
        for state in (b"N", b")", b"NN\x86", b"N]\x86", b"K\x01"):
            refused(path, b"\x80\x04" + glob(name) + state + b"b.")
    write_pairs(path, images, same, overwrite=True)
    assert read_pairs(path)[0] == images


@pytest.mark.parametrize("protocol", range(6))
def test_files_that_are_cut_off_or_changed(path: Path, protocol: int) -> None:
    images = [b"\xff\xd8" + bytes([i]) * 6 for i in range(4)]
    for form in (images, [np.frombuffer(image, np.uint8).copy() for image in images]):
        whole = pickle.dumps((form, [True, False]), protocol)
        for length in range(len(whole)):
            said = refused(path, whole[:length])
            assert "cut off" in said or length < 3 or "damaged" in said or protocol == 0, said
        rng = np.random.default_rng(protocol)
        for _ in range(200):
            changed = bytearray(whole)
            for place in rng.integers(0, len(whole), 2):
                changed[place] = rng.integers(0, 256)
            try:
                found, truth = read(path, bytes(changed))
            except ValueError as error:
                assert str(error).startswith(str(path))
            else:
                assert len(found) == 2 * len(truth)


def test_what_a_file_is_instead(path: Path, rec: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_pairs(path)
    for content, said in {
        rec.read_bytes(): "is a .rec file; give it as --rec",
        b"a.jpg b.jpg 1\n" * 40: "is text (it starts with b'a.jpg b.jpg 1\\na.jpg b.jp'), not a .bin file",
        b"hello.": "is text",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "Git LFS pointer",
        b"": "is empty",
        picture(1): "single JPEG",
        b"PK\x03\x04rest": "npz",
        bytes(range(1, 30)): "not a .bin file",
    }.items():
        assert said in refused(path, content)
    for other, said in (
        ({"a": 1}, "EMPTY_DICT"),
        ([1, 2, 3], "a pickle of a list of 3; expected (images, same)"),
        (7, "a pickle of a 7"),
        ((b"ab", [True]), "the images are a bytes"),
        (([b"a", b"b"], None), "the truth values are a NoneType"),
        (np.zeros((2, 3), np.uint8), "a pickle of a array, u1 of shape (2, 3)"),
    ):
        assert said in refused(path, pickle.dumps(other, 2))


@pytest.mark.parametrize(
    ("images", "same", "said"),
    [
        ([b"a"] * 3, [True], "3 images cannot be pairs: the number is odd"),
        ([b"a"] * 4, [True], "4 images need 2 truth values, one for each pair, and the file has 1"),
        ([b"a"] * 2, [True] * 3, "2 images need 1 truth value, one for each pair, and the file has 3"),
        ([b"a"] * 4, [True, 2], r"pair 1 \(counted from 0\): expected True or False, got 2"),
        ([b"a"] * 4, [True, 0.0], "pair 1 .* got 0.0"),
        ([b"a"] * 4, [True, "1"], "pair 1 .* got str"),
        ([b"a", b"a", b"a", "a"], [True] * 2, "pair 1 .*, second image, is str; expected an encoded image"),
        ([b"a", b"a", b"", b"a"], [True] * 2, r"pair 1 .*, first image, is empty \(0 bytes\)"),
        (
            [b"a", b"a", np.zeros(0, np.uint8), b"a"],
            [True] * 2,
            r"pair 1 .*, first image, is empty \(0 bytes\)",
        ),
        ([b"a", np.zeros((4, 4), np.uint8)], [True], r"pair 0 .*, second image, is .*\(4, 4\)"),
        ([b"a", np.zeros(4, np.int32)], [True], "pair 0 .*, second image, is .*i"),
    ],
)
def test_pairs_that_do_not_fit(path: Path, images: Any, same: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        write_pairs(path, images, same)
    assert not path.exists()
    for protocol in range(6):
        for fix_imports in (True, False):  # Python 2's names of modules, or Python 3's
            written = pickle.dumps((images, same), protocol, fix_imports=fix_imports)
            assert re.search(said, refused(path, written)), protocol


def test_an_empty_image_of_python_2(path: Path) -> None:
    """Its str is a string of length 0 in each protocol, not a call."""
    for empty in (b"U\x00", b"T\x00\x00\x00\x00", b"S''\n"):
        images = b"(U\x01aU\x01a" + empty + b"U\x01al"
        assert "pair 1 (counted from 0), first image, is empty (0 bytes)" in refused(
            path, images + b"(I01\nI00\nl\x86."
        )


def test_writing_leaves_nothing_half_done(path: Path) -> None:
    path.write_bytes(b"old")
    full = OSError(28, "No space left on device")
    with patch("pickle.dump", side_effect=full), pytest.raises(OSError, match="No space"):
        write_pairs(path, [b"a", b"b"], [True], overwrite=True)
    with pytest.raises(FileExistsError, match="exists already; overwrite=True replaces it"):
        write_pairs(path, [b"a", b"b"], [True])
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
    write_pairs(path.parent / "none" / "a.bin", [b"a", b"b"], [True])  # the folder is made
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_pairs(path.parent, [b"a", b"b"], [True])
