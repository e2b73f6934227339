"""Files that the disk cannot read, or that are changed while they are open: errors or skips, no signal.

The reads are in processes of their own, as a signal would end this one.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import fasttriplet as ft
from tests.processes import compiled, run_python
from tests.small_rec import identities, picture, write_rec

PRELUDE = """
import errno, os, sys, warnings
import numpy as np
import fasttriplet as ft

warnings.simplefilter("ignore")
rec = sys.argv[1]
"""


@pytest.fixture
def rec(tmp_path: Path) -> Path:
    return write_rec(tmp_path / "a.rec", identities(8, 4))


@pytest.fixture(scope="session")
def bad_block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes a block of a file unreadable."""
    return compiled(Path(__file__).parent / "bad_block.c", tmp_path_factory.mktemp("preload"))


def run(code: str, rec: Path, **environment: str) -> str:
    """What the code prints; it must end well."""
    return run_python(PRELUDE + code, rec, timeout=120, **environment)


def overwrite(path: Path, content: bytes) -> None:
    """Write into the file that others have open."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


# --- a block that the disk cannot read


def test_the_image_in_a_bad_block_is_named_or_skipped(rec: Path, bad_block: Path) -> None:
    dataset = ft.Dataset(rec, cache=False)
    place = int(dataset.offsets[5] + 200)  # in the content of the sixth record
    out = run(
        """
dataset = ft.Dataset(rec, cache=False)  # headers are read alone, so that the index is whole
assert len(dataset) == 32
file = ft.RecordFile(rec)
for row in (4, 6):  # its neighbours
    assert dataset.read(row)[1] == file.read(row + 1)[1] and len(dataset.decode([row]).pixels) == 1
for read in (lambda: dataset.decode(dataset.index), lambda: dataset.read(5), lambda: file.read(6)):
    try:
        read()
    except OSError as error:
        assert (error.errno, error.filename) == (errno.EIO, rec)
        print(error)
decoded = dataset.decode(dataset.index, on_error="skip")
assert decoded.kept.tolist() == [i for i in range(32) if i != 5]
[(position, error)] = decoded.failed
assert (position, error.key, error.file) == (5, 6, rec) and isinstance(error, ft.RecordError)
print(error)
mined = ft.mine_rec(rec, model="pixels", band="any", on_error="skip")
assert mined.summary.images == 31
print(*mined.summary.skipped)
with ft.Feed(rec, model="pixels", band="any", batch_size=6, on_error="skip") as feed:
    assert next(feed).images.shape[0] == 18 // 3
""",
        rec,
        LD_PRELOAD=str(bad_block),
        BAD_BLOCK=f"{place}:{place}:{rec}",
    )
    offset = dataset.offsets[5]
    lines = out.splitlines()
    for line in lines[:3]:
        assert line.startswith("[Errno 5] Input/output error, key 6, offset "), line
        assert line.endswith(repr(str(rec)))
    for line in lines[3:]:
        assert line.startswith(f"{rec}, key 6, offset {offset}"), line
        assert "the disk cannot read it: Input/output error" in line


def test_a_header_in_a_bad_block_ends_the_indexing(rec: Path, bad_block: Path) -> None:
    place = int(ft.Dataset(rec, cache=False).offsets[5])
    out = run(
        """
for idx in (True, False):
    if not idx:
        os.remove(rec[:-3] + "idx")
    for index in (ft.index_rec, ft.inspect_rec, lambda rec, cache: ft.RecordFile(rec).keys):
        try:
            index(rec, cache=False)
        except OSError as error:
            assert (error.errno, error.filename) == (errno.EIO, rec)
            print(error)
""",
        rec,
        LD_PRELOAD=str(bad_block),
        BAD_BLOCK=f"{place}:{place}:{rec}",
    )
    lines = out.splitlines()
    assert len(lines) == 6
    assert all("Input/output error, offset " in line for line in lines)


def test_a_row_in_a_bad_block_is_named(tmp_path: Path, bad_block: Path) -> None:
    table = tmp_path / "emb.npy"
    np.save(table, np.ones((32, 16), np.float32))
    write_rec(tmp_path / "a.rec", identities(8, 4))
    out = run(
        """
try:
    ft.mine_rec(os.path.dirname(rec) + "/a.rec", model=f"npy:{rec}", band="any", cache=False)
except OSError as error:
    assert (error.errno, error.filename) == (errno.EIO, rec)
    print(error)
""",
        table,
        LD_PRELOAD=str(bad_block),
        BAD_BLOCK=f"1000:1000:{table}",
    )
    assert "Input/output error, offset " in out


# --- files that are cut short while they are open


def test_a_file_that_is_cut_short_is_told(rec: Path) -> None:
    whole = rec.stat().st_size
    out = run(
        """
from fasttriplet import _core
dataset, file, handle = ft.Dataset(rec, cache=False), ft.RecordFile(rec), _core.RecordFile(rec)
file.keys
end = int(dataset.offsets[16]) + 100
os.truncate(rec, end)
reads = (
    lambda: dataset.decode(dataset.index),
    lambda: dataset.read(16),
    lambda: dataset.image_size(dataset.index[20:]),
    lambda: file.read(30),
    lambda: file.decode([3, 25]),
    lambda: _core.scan(handle),
    lambda: ft.mine_rec(dataset, model="pixels", band="any"),
    lambda: next(ft.Feed(dataset, model="pixels", band="any", batch_size=6)),
    lambda: ft.verify_rec(dataset, "pixels"),
)
for read in reads:
    try:
        read()
    except ft.RecordError as error:
        assert error.file == rec and error.offset is not None
        print(error)
decoded = dataset.decode(dataset.index, on_error="skip")
assert decoded.kept.tolist() == list(range(16))
mined = ft.mine_rec(dataset, model="pixels", band="any", on_error="skip")
assert (mined.summary.images, len(mined.summary.skipped)) == (16, 16)
print(len(decoded.failed), end)
""",
        rec,
    )
    *lines, last = out.splitlines()
    count, end = last.split()
    assert count == "16"
    assert len(lines) == 9
    told = f"the file was cut short while it was open: it had {whole:,} bytes and has {int(end):,}"
    assert all(line.endswith(told) for line in lines), lines


def test_a_training_over_a_file_that_is_emptied_ends(rec: Path) -> None:
    out = run(
        """
options = dict(model="pixels", band="any", batch_size=6, bag_size=12, on_error="skip", epochs=None)
with ft.Feed(rec, **options) as feed:
    next(feed)
    os.truncate(rec, 0)
    try:
        for batch in feed:
            pass
    except ft.NoTripletsError as error:
        print(error)
""",
        rec,
    )
    assert out.startswith("no triplet in an epoch"), out


def test_a_table_of_embeddings_that_is_cut_short_is_told(tmp_path: Path) -> None:
    table = tmp_path / "emb.npy"
    np.save(table, np.ones((32, 16), np.float32))
    out = run(
        """
import polars as pl
embedder = ft.load_embedder(f"npy:{rec}")
index = pl.DataFrame({"key": range(32), "label": range(32)})
embedder.prepare(index)
os.truncate(rec, 1000)
assert embedder.embed(index[:4], None).shape == (4, 16)
try:
    embedder.embed(index, None)
except OSError as error:
    print(error)
""",
        table,
    )
    assert out.startswith(f"{table}, offset 1000: the file was cut short while it was open: it has 1,000 ")


# --- files that are overwritten in place


def test_another_dataset_over_the_file_is_told_or_skipped(rec: Path, tmp_path: Path) -> None:
    dataset = ft.Dataset(rec, cache=False)
    other = write_rec(tmp_path / "b.rec", {key + 100: key // 3 for key in range(60)}, side=20)
    overwrite(rec, other.read_bytes())
    with pytest.raises(ft.RecordError, match=r"a\.rec, key 1, offset 0: not the record that was indexed"):
        dataset.decode(dataset.index)
    with pytest.raises(ft.RecordError, match="was the file changed after it was indexed"):
        dataset.read(0)
    skipped = dataset.decode(dataset.index, on_error="skip")
    assert len(skipped.failed) == len(dataset)
    with pytest.raises(ft.NoTripletsError, match="none of 32 images can be decoded"):
        ft.mine_rec(dataset, model="pixels", on_error="skip")


def test_noise_over_a_file_is_told_at_the_first_use_of_a_key(rec: Path) -> None:
    uses: list[Callable[[ft.RecordFile], object]] = [
        len,
        lambda file: file.keys,
        lambda file: 1 in file,
        lambda file: file.read(1),
        lambda file: file.decode([1]),
    ]
    files = [ft.RecordFile(rec) for _ in uses]
    size = rec.stat().st_size
    overwrite(rec, np.random.default_rng(1).bytes(size))
    told = rf"a\.rec: no readable record from offset 0 to the end of the file \({size:,} bytes\): .*"
    for use, file in zip(uses, files, strict=True):
        with pytest.raises(ft.RecordError, match=told + "; the file was overwritten while it was open$"):
            use(file)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"label": 5.0}, "its label is 5, not 0"),
        ({"label": 0.5}, "its label is 0.5, not 0"),
        ({"record_id": 9}, "its id is 9, not 1"),
        ({"content": b"x"}, "its length in bytes is 1, not "),
    ],
)
def test_what_a_record_is_compared_by(tmp_path: Path, change: dict[str, object], told: str) -> None:
    def write(name: str, label: object = 0.0, record_id: int = 1, content: bytes = picture(1)) -> Path:
        with ft.RecordWriter(tmp_path / name) as writer:
            writer.write(1, ft.IRHeader(0, label, record_id, 0), content)  # type: ignore[arg-type]
            writer.write(2, ft.IRHeader(0, 0.0, 2, 0), bytes(5000))
        return tmp_path / name

    rec = write("a.rec")
    dataset = ft.Dataset(rec, cache=False)
    overwrite(rec, write("b.rec", **change).read_bytes())  # type: ignore[arg-type]
    reads = (lambda: dataset.read(0), lambda: dataset.decode([0]), lambda: dataset.decode(dataset.index[:1]))
    for read in reads:
        with pytest.raises(ft.RecordError, match=told) as error:
            read()
        assert (error.value.key, error.value.offset) == (1, 0)


def test_what_may_differ_from_the_index_is_no_alarm(tmp_path: Path) -> None:
    paths = [write_rec(tmp_path / f"{name}.rec", identities(4, 3)) for name in "ab"]
    with ft.RecordWriter(tmp_path / "c.rec") as writer:  # keys that are not the ids, several labels
        for key in range(6):
            writer.write(70 + key, ft.IRHeader(0, [key // 2, 0.25], 900 - key, 0), picture(key))
    for cache in (False, True, True):  # the last time, what is known of a file is from the cache
        separate = ft.Dataset([*paths, tmp_path / "c.rec"], labels="separate", cache=cache)
        assert any(separate.label_shifts)
        assert len(separate.decode(separate.index).pixels) == 30
        assert {separate.read(row)[0].id for row in range(30)} == {*range(1, 13), *range(895, 901)}
    own = separate.index.with_columns(label=pl.lit(7), key=pl.col("key"))  # a user's identities
    assert not separate.decode(own, on_error="skip").failed
    assert not separate.decode(own.drop("label", "length"), on_error="skip").failed
    with pytest.raises(ValueError, match="rows: key 5 of file 2 is not in the index of this dataset"):
        separate.decode(own.with_columns(key=pl.lit(5), file=pl.lit(2, pl.UInt32)))


def test_a_dataset_is_not_unpickled_over_another_file(rec: Path, tmp_path: Path) -> None:
    pickled = pickle.dumps(ft.Dataset(rec, cache=False))
    whole = bytearray(rec.read_bytes())
    damaged = whole.copy()
    damaged[0] = 0  # one record is no reason not to use the other ones
    overwrite(rec, bytes(damaged))
    assert len(pickle.loads(pickled)) == 32
    other = write_rec(tmp_path / "b.rec", identities(8, 4, first_key=2)).read_bytes()
    overwrite(rec, (other + b"\0" * len(whole))[: len(whole)])
    with pytest.raises(ft.RecordError, match=r"a\.rec is not the file that was indexed: [4-8] of 8 records"):
        pickle.loads(pickled)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("count", "damaged", "passes"), [(2, 1, True), (3, 2, False), (4, 2, True), (1, 1, False)]
)
def test_a_dataset_is_unpickled_unless_most_records_differ(
    tmp_path: Path, count: int, damaged: int, passes: bool, which: int
) -> None:
    """Of each of two files."""
    paths = [write_rec(tmp_path / f"{name}.rec", identities(1, count)) for name in "ab"]
    dataset = ft.Dataset(paths, labels="separate", cache=False)
    pickled = pickle.dumps(dataset)
    whole = bytearray(paths[which].read_bytes())
    for row in range(damaged):
        label = int(dataset.offsets[which * count + row]) + 12
        whole[label : label + 4] = np.float32(77).tobytes()
    overwrite(paths[which], bytes(whole))
    if passes:
        assert len(pickle.loads(pickled)) == 2 * count
        return
    with pytest.raises(ft.RecordError) as caught:
        pickle.loads(pickled)
    said = str(caught.value)
    assert said.startswith(
        f"{paths[which]} is not the file that was indexed: {damaged} of {count} records differ; the first: "
        f"{paths[which]}, key 1, offset 0: not the record that was indexed"
    )


def test_a_dataset_whose_file_has_another_size_is_not_unpickled(rec: Path) -> None:
    pickled = pickle.dumps(ft.Dataset(rec, cache=False))
    whole = rec.read_bytes()
    for content in (whole + bytes(4), whole[:-4]):
        overwrite(rec, content)
        with pytest.raises(ft.RecordError) as caught:
            pickle.loads(pickled)
        assert str(caught.value) == (
            f"{rec} has {len(content):,} bytes, and had {len(whole):,} when it was indexed: it was replaced"
        )
