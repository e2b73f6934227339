"""Files of arrays: against ``mx.nd.save`` and ``mx.nd.load`` in both directions, and damaged in every way."""

from __future__ import annotations

import re
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from fasttriplet.checkpoint._params import read_arrays, writer_of
from tests.checkpoint.made import MAGIC, TYPES, array_of, file_of, numbers

of_mxnet_1 = TYPES[:8]
# MXNet hands names to its own code as C strings.
names_of_arrays = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
shapes = hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4)
arrays_of_mxnet_1 = st.sampled_from(of_mxnet_1).flatmap(lambda kind: hnp.arrays(kind, shapes))


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether type, shape and bits are the same."""
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def read_params(path: Path) -> dict[str, NDArray[Any]]:
    names, arrays = read_arrays(path)
    return dict(zip(names, arrays, strict=True))


def write_params(path: Path, params: dict[str, NDArray[Any]]) -> None:
    writer_of(params)(path)


# --- MXNet


@pytest.mark.mxnet
@settings(max_examples=80, deadline=None)
@given(st.dictionaries(names_of_arrays, arrays_of_mxnet_1, max_size=4))
def test_files_are_those_of_mxnet(
    mx: Any, tmp_path_factory: pytest.TempPathFactory, params: dict[str, NDArray[Any]]
) -> None:
    ours, theirs = (tmp_path_factory.getbasetemp() / name for name in ("ours.params", "theirs.params"))
    mx.nd.save(str(theirs), {name: mx.nd.array(array, dtype=array.dtype) for name, array in params.items()})
    write_params(ours, params)
    assert ours.read_bytes() == theirs.read_bytes()
    found = read_params(theirs)
    loaded = mx.nd.load(str(ours)) or {}  # of no arrays it makes a list
    assert list(found) == list(params)
    assert loaded.keys() == params.keys()
    for name, array in params.items():
        assert same(found[name], array)
        assert same(loaded[name].asnumpy(), array)


@pytest.mark.mxnet
def test_arrays_without_names(mx: Any, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    arrays = [numbers(3), numbers(2, 2, kind="int8")]
    mx.nd.save(str(theirs), [mx.nd.array(array, dtype=array.dtype) for array in arrays])
    names, found = read_arrays(theirs)
    assert names == []
    assert all(map(same, found, arrays))


@pytest.mark.mxnet
@pytest.mark.parametrize("version", [0, 1, 2])
def test_old_versions(mx: Any, tmp_path: Path, version: int) -> None:
    arrays = {kind: numbers(2, 3, kind=kind) for kind in of_mxnet_1} | {"empty": numbers(2, 0)}
    path = tmp_path / "old.params"
    path.write_bytes(file_of([array_of(array, version) for array in arrays.values()], list(arrays)))
    found, loaded = read_params(path), mx.nd.load(str(path))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert same(found[name], array)
        assert same(loaded[name].asnumpy(), array)


@pytest.mark.mxnet
def test_shapes_of_numpy(mx: Any, tmp_path: Path) -> None:
    """Version 3, which MXNet writes where its shapes are those of NumPy."""
    path = tmp_path / "new.params"
    with mx.util.np_shape(True):
        scalar, empty = mx.nd.ones(()), mx.nd.ones((2, 0))
        mx.nd.save(str(path), {"scalar": scalar, "empty": empty, "array": mx.nd.ones((2, 1))})
    found = read_params(path)
    assert path.read_bytes() == file_of([array_of(array, 3) for array in found.values()], list(found))
    assert {name: array.shape for name, array in found.items()} == {
        "scalar": (), "empty": (2, 0), "array": (2, 1),
    }  # fmt: skip
    assert found["scalar"] == 1


@pytest.mark.mxnet
def test_bfloat16_becomes_float32(mx: Any, tmp_path: Path) -> None:
    values = mx.nd.array([[1, -2.5, 3.14159], [1e-30, np.inf, 0]])
    mx.nd.save(f"{tmp_path}/a.params", {"a": mx.nd.amp_cast(values, dtype="bfloat16")})
    found = read_params(tmp_path / "a.params")["a"]
    assert found.dtype == np.float32
    nearest = (values.asnumpy().view("<u4") + 0x8000 & 0xFFFF0000).view("<f4")
    np.testing.assert_array_equal(found, nearest)


@pytest.mark.mxnet
@pytest.mark.parametrize("kind", ["csr", "row_sparse"])
def test_sparse_arrays_are_named(mx: Any, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.params"
    sparse = mx.nd.array([[1, 0], [0, 2], [0, 0]]).tostype(kind)
    mx.nd.save(str(path), {"arg:dense": mx.nd.ones(2), "arg:w": sparse})
    with pytest.raises(
        ValueError, match=rf"a\.params: array 'arg:w' is sparse \({kind}\); make it dense with"
    ):
        read_params(path)
    mx.nd.save(str(path), [mx.nd.ones(2), sparse])
    with pytest.raises(ValueError, match=rf"a\.params: array 2 of 2 is sparse \({kind}\)"):
        read_arrays(path)


def test_real_files(real_data: Path) -> None:
    for path, count in (("model-y1/model-0000", 284), ("symbols/retinaface-mnet10-0000", 244)):
        found = read_params(real_data / f"{path}.params")
        size = sum(array.nbytes for array in found.values())
        assert len(found) >= count / 2
        assert all(np.isfinite(array).all() for array in found.values())
        assert 0 < (real_data / f"{path}.params").stat().st_size - size < 120 * len(found)


# --- forms that MXNet 1.9.1 cannot load


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_arrays_that_were_never_filled(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.params"
    path.write_bytes(file_of([array_of(None, version), array_of(numbers(3), version)], ["a", "b"]))
    found = read_params(path)
    assert same(found["a"], np.empty(0, np.float32))
    assert same(found["b"], numbers(3))


@pytest.mark.parametrize("kind", TYPES[8:])
def test_types_of_mxnet_2(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.params"
    path.write_bytes(file_of([array_of(numbers(2, 2, kind=kind), 3)], ["a"]))
    assert same(read_params(path)["a"], numbers(2, 2, kind=kind))
    with pytest.raises(ValueError, match=f"array 'a' is {kind}, a type that MXNet 1.9.1 does not have"):
        writer_of({"a": numbers(2, kind=kind)})


# --- writing


def test_arrays_of_any_layout_are_written(tmp_path: Path) -> None:
    path, array = tmp_path / "a.params", numbers(4, 6)
    params = {
        "T": array.T,
        "strided": array[::2, ::-3],
        "big": array.astype(">f4"),
        "F": np.asfortranarray(array),
    }
    write_params(path, params)
    for name, found in read_params(path).items():
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, params[name])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.float32(3), r"'b' has no dimensions.*reshape it to \(1,\)"),
        (np.zeros(2, complex), "'b' is complex128"),
        (np.array(["x"]), "'b' is <U1"),
        (np.array([None]), "'b' is object"),
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is(array: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        writer_of({"a": numbers(3), "b": np.asarray(array)})
    for name in ("a\0b", "\ud800"):
        with pytest.raises(ValueError, match="cannot be the name of an array"):
            writer_of({name: numbers(3)})


# --- damaged files


def refused(path: Path, content: bytes) -> str:
    """The message of the ValueError. Reading takes less memory than a few times the file."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
            read_arrays(path)
        assert tracemalloc.get_traced_memory()[1] < 100_000 + 4 * len(content)
    finally:
        tracemalloc.stop()
    return str(caught.value)


def test_every_truncation(tmp_path: Path) -> None:
    arrays = [array_of(numbers(2, 3), version) for version in (0, 1, 2, 3)] + [array_of(None)]
    whole = file_of(arrays, ["arg:a", "aux:b", "ä", "", "e"])
    for length in range(len(whole)):
        message = refused(tmp_path / "cut.params", whole[:length])
        if length < len(MAGIC):
            assert re.search(r"is (empty, )?not a file of MXNet parameters", message)
        else:
            place = int(re.search(r"is damaged or cut off: before byte (\d+), ", message)[1])  # type: ignore[index]
            assert place <= length
    refused(tmp_path / "cut.params", whole + b"\0")


def test_every_byte_of_the_heads(tmp_path: Path) -> None:
    """Whatever they are, the file covers what is read, or an error says what is wrong."""
    path, items = tmp_path / "changed.params", numbers(2, 3).tobytes()
    whole = file_of([array_of(numbers(2, 3), version) for version in (0, 1, 2, 3)], ["a", "b", "c", "d"])
    inside = {at for found in re.finditer(re.escape(items), whole) for at in range(*found.span())}
    assert len(inside) == 4 * len(items)
    tracemalloc.start()
    refusals = 0
    for at in set(range(len(whole))) - inside:
        for value in {0, 1, 3, 128, 255, whole[at] ^ 1} - {whole[at]}:
            path.write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            try:
                names, arrays = read_arrays(path)
            except ValueError as error:
                refusals += 1
                assert re.match(f"{re.escape(str(path))} is (damaged|not a file)|.*is sparse", str(error))
            else:
                assert len(names) in (0, len(arrays))
                assert sum(array.nbytes for array in arrays) <= 2 * len(whole)  # bfloat16 doubles
    assert refusals > 400
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


HEAD = struct.pack("<iii", 1, 0, 0)
ONE = [array_of(numbers(1))]
CSR = struct.pack("<Iiiq", 0xF993FAC9, 2, 1, 2**60) + struct.pack("<iq", 1, 5) + HEAD


def start(form: str, *values: int) -> bytes:
    """A file of one array that is called "a" and begins so."""
    return file_of([struct.pack(f"<{form}", *values)], ["a"])


def shaped(*shape: int) -> bytes:
    """A file of one array with this shape and no items."""
    return start(f"Iii{len(shape)}qiii", 0xF993FAC9, 0, len(shape), *shape, 1, 0, 0)


HOSTILE = {
    "nothing": (MAGIC, "the file ends where numbers are expected"),
    "arrays": (MAGIC + struct.pack("<Q", 2**64 - 1), f"in array 1 of {2**64 - 1}, the file ends"),
    "size": (shaped(2**62, 4), f"in array 1 of 1, {2**66} bytes are announced and 17 left"),
    "sizes": (shaped(*[2**63 - 1] * 32), "bytes are announced and 17 left"),
    "no items": (shaped(0, 2**62), rf"in array 'a', the shape \(0, {2**62}\) is announced"),
    "negative size": (shaped(2, -1), r"in array 1 of 1, the shape \(2, -1\) is announced"),
    "dimensions": (shaped(*[1] * 33), "33 dimensions are announced; expected at most 32"),
    "old dimensions": (start("I", 2**31), f"{2**31} dimensions are announced"),
    "negative dimensions": (start("Iii", 0xF993FAC9, 0, -2), "-2 dimensions are announced"),
    "storage": (start("Ii", 0xF993FAC9, 3), "the storage is 3; expected 0, a dense array"),
    "context": (start("IIiii", 1, 1, 4, 0, 0), "context 4 and type 0 are announced"),
    "type": (start("IIiii", 1, 1, 1, 0, 13), "context 1 and type 13 are announced"),
    "sparse": (file_of([CSR + struct.pack("<iiq", 6, 1, 2) * 2], []), f"{2**62} bytes are announced"),
    "more": (file_of(ONE, []) + b"\0", "the last name ends 1 bytes before the end of the file"),
    "two names": (file_of(ONE, ["a", "b"]), "2 names are announced for 1 arrays"),
    "one name": (file_of(ONE * 2, ["a", "a"]), "in the name of array 2 of 2, 'a' is the name of an earlier"),
    "not UTF-8": (file_of(ONE, [b"a\xff"]), r"in the name of array 1 of 1, b'a\\xff' is not UTF-8"),
    "zero byte": (file_of(ONE, ["a\0b"]), r"in the name of array 1 of 1, 'a\\x00b' holds a zero byte"),
    "long name": (file_of(ONE, [])[:-8] + struct.pack("<QQ", 1, 2**63), f"{2**63} bytes are announced and 0"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_numbers(tmp_path: Path, case: str) -> None:
    content, message = HOSTILE[case]
    found = refused(tmp_path / "bad.params", content)
    assert re.search(rf"bad\.params is damaged or cut off: before byte \d+, .*{message}", found), found


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty, not"),
        (b"PK\x03\x04", "is a zip archive"),
        (b"version https://git-lfs", "is a Git LFS pointer"),
        (b"\x12\x01", "is not"),
        (b"{}", "is not"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, what: str) -> None:
    assert f"a.params {what}" in refused(tmp_path / "a.params", content)
