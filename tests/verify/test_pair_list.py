"""Lists of pairs in all the forms in which they come."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from fasttriplet import read_pairs
from fasttriplet.verify._pair_list import PairList, read_list
from tests.small_rec import picture
from tests.verify.test_commands import output, pack_pairs

FOLDER = Path("faces")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pairs.txt"


def read(path: Path, content: str | bytes) -> PairList:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_list(path, FOLDER)


def pairs(path: Path, content: str | bytes) -> list[tuple[str, str, bool]]:
    """The pairs of a list without problems, with paths below the folder."""
    found = read(path, content)
    assert not found.problems
    return [(*(str(image.relative_to(FOLDER)) for image in one.images), one.same) for one in found.pairs]  # type: ignore[misc]


EXPECTED = [("a b/1.jpg", "2.jpg", True), ("2.jpg", "c,d.png", False)]


@pytest.mark.parametrize(
    "text",
    [
        "a b/1.jpg\t2.jpg\t1\n2.jpg\tc,d.png\t0\n",
        "# made by hand\n\na b/1.jpg\t2.jpg\t1\n   \n  2.jpg   c,d.png 0  ",
        'a b/1.jpg,2.jpg,1\n2.jpg,"c,d.png",0\n',
        'image1,image2,label\n"a b/1.jpg", 2.jpg, True\n2.jpg,"c,d.png",FALSE\n',
        "first\tsecond\tis same\na b/1.jpg\t2.jpg\ttrue\n2.jpg\tc,d.png\tfalse\n",
        '"a b/1.jpg" 2.jpg 1\n2.jpg c,d.png 0\n',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_encodings_and_ends_of_lines(path: Path, text: str, encoding: str, end: str) -> None:
    assert pairs(path, text.replace("\n", end).encode(encoding)) == EXPECTED


def test_names_in_other_scripts(path: Path) -> None:
    names = "\u738b/1.jpg", "Zo\u00eb\u2028\x85.jpg"  # Python's splitlines would cut the second
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert pairs(path, "\t".join((*names, "1")).encode(encoding)) == [(*names, True)]


LFW = ["Ann_B\t1\t4", "C\t12\t3", "Ann_B\t4\tC\t1", "C\t2\tD\t10000"]
LFW_PAIRS = [
    ("Ann_B/Ann_B_0001.jpg", "Ann_B/Ann_B_0004.jpg", True),
    ("C/C_0012.jpg", "C/C_0003.jpg", True),
    ("Ann_B/Ann_B_0004.jpg", "C/C_0001.jpg", False),
    ("C/C_0002.jpg", "D/D_10000.jpg", False),
]


@pytest.mark.parametrize(
    ("first", "times", "folds"),
    [("1\t2", 1, 1), ("3\t2", 3, 3), ("3 2", 3, 3), ("2", 1, None), ("4", 2, None), (None, 1, None)],
)
@pytest.mark.parametrize("separator", ["\t", " ", ","])
def test_lists_of_lfw(path: Path, first: str | None, times: int, folds: int | None, separator: str) -> None:
    lines = [line.replace("\t", separator) for line in LFW * times]
    text = "\n".join(lines if first is None else [first, *lines])
    for content in (text, "\ufeff" + text.replace("\n", "\r\n") + "\r\n"):
        assert pairs(path, content) == LFW_PAIRS * times
        assert read(path, content).folds == folds
        assert read(path, content).pairs[0].line == (1 if first is None else 2)


def test_a_table_of_lfw(path: Path) -> None:
    """Its shorter lines are padded."""
    lines = ["name,imagenum1,imagenum2,", "Ann_B,1,4,", "Ann_B,4,C,1"]
    assert pairs(path, "\n".join(lines)) == LFW_PAIRS[0::2]


def test_which_form_a_list_has(path: Path) -> None:
    # "x 3 1" may be a pair of paths, or of LFW: another line decides.
    assert pairs(path, "x 3 1\na.jpg b.jpg 0\n") == [("x", "3", True), ("a.jpg", "b.jpg", False)]
    assert pairs(path, "x 3 1\nx 3 y 1\n")[0] == ("x/x_0003.jpg", "x/x_0001.jpg", True)
    assert pairs(path, "x 3 1\n") == [("x", "3", True)]
    found = read(path, "2\nAnn 1 2\na.jpg b.jpg 1\nAnn 1 Bob\nAnn 1 Bob x\n")
    assert [line for line, _ in found.problems] == [3, 4, 5]
    assert "expected NAME NUMBER NUMBER" in found.problems[0][1]


def test_numbers_have_up_to_nine_digits(path: Path) -> None:
    assert pairs(path, "x 123456789 y 1\n") == [("x/x_123456789.jpg", "y/y_0001.jpg", False)]
    assert [line for line, _ in read(path, "x 1234567890 y 1\n").problems] == [1]


def test_a_line_that_is_long_is_said_in_part(path: Path) -> None:
    ((_, said),) = read(path, f"{'x' * 300}\n").problems
    assert said.endswith(f"got '{'x' * 100}'")


def test_lines_that_are_not_pairs(path: Path) -> None:
    text = "a.jpg b.jpg 1\na.jpg b.jpg\na.jpg b.jpg 2\na.jpg,,1\n1\na.jpg\tb.jpg\tyes\nx\ty\tz\n"
    found = read(path, text)
    assert [line for line, _ in found.problems] == [2, 3, 4, 5, 6, 7]
    assert all(said.startswith("expected PATH PATH 1") for _, said in found.problems)
    assert found.problems[1][1].endswith("got 'a.jpg b.jpg 2'")
    assert [line for line, _ in read(path, "a.jpg,b.jpg,2\na.jpg,b.jpg,1\n").problems] == [1]  # not a header
    assert [line for line, _ in read(path, "a,b,2\na,b,1\n").problems] == [1]
    assert len(read(path, f"a.jpg,{'b' * 200_000},1\n").problems) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "lists no pair; expected a pair per line: PATH PATH 1"),
        ("# a.jpg b.jpg 1\n\n", "lists no pair"),
        ("10\t300\n", "lists no pair"),
        ("image1,image2,label\n", "lists no pair"),
        ("2\t2\nA 1 2\nA 1 B 2\n", "lists 2 pairs, and its first line says 8. Complete the list, or remove"),
        ("1\nA 1 2\nA 1 B 2\nA 2 B 2\n", "lists 3 pairs, and its first line says 2"),
        (b"a.jpg \xff.jpg 1\n", "is not text in UTF-8"),
        ("a.jpg b.jpg 1\n".encode("utf-16-le"), "is not text in UTF-8"),  # without a byte order mark
        (b"\x80\x02](", "is a Python pickle, not a list of pairs"),
        (picture(1), "is a single JPEG, not a list of pairs"),
        (b"\x0a\x23\xd7\xce" * 9, "is a .rec file; give it as --rec, not a list of pairs"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (pickle.dumps([b"a" * 300], 4), "is a Python pickle"),
    ],
)
def test_what_is_not_a_list(path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(ValueError) as error:
        read(path, content)
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)


def test_lfw_is_packed(tmp_path: Path, path: Path) -> None:
    """Images with any ending; a missing one is named as LFW names it."""
    faces = tmp_path / "lfw"
    for number, name in enumerate(
        ("Ann/Ann_0001.jpg", "Ann/Ann_0002.png", "Bob/Bob_0010.JPG", "Bob/Bob_0002.jpeg")
    ):
        (faces / name).parent.mkdir(parents=True, exist_ok=True)
        (faces / name).write_bytes(picture(number))
    lines = ["Ann\t1\t2", "Ann\t2\tBob\t10", "Bob\t10\t2", "Ann\t1\tBob\t2"]
    path.write_text("2\t1\n" + "\n".join(lines))
    done = pack_pairs(tmp_path / "a.bin", "--list", path, "--folder", faces)
    output(done)
    images, same = read_pairs(tmp_path / "a.bin")
    assert images == [picture(number) for number in (0, 1, 1, 2, 2, 3, 0, 3)]
    assert same.tolist() == [True, False, True, False]
    assert "--folds 2" in done.stderr
    path.write_text("2\t1\n" + "\n".join([*lines[:3], "Ann\t3\tBob\t2"]))
    failed = pack_pairs(tmp_path / "b.bin", "--list", path, "--folder", faces)
    assert (
        str(failed.exception)
        == f"{path}: line 5: {faces / 'Ann' / 'Ann_0003.jpg'}: No such file or directory"
    )
    elsewhere = pack_pairs(tmp_path / "b.bin", "--list", path)
    assert "Give the folder that the paths start from as --folder" in str(elsewhere.exception)
