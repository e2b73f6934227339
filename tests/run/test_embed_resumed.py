"""Embedding that was stopped: what is kept, and that a run which continues ends with the same bytes."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fasttriplet as ft
from tests.interrupted import disk_is_full, names
from tests.run.leftovers import nothing_left
from tests.small_rec import Table, identities, random_table, write_images, write_rec

pytestmark = pytest.mark.heavy

DAMAGED = frozenset({1, 2, 3, 20, 41, 42, 60})
FILES = ["e.npy", "e.npy.json"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """72 images, of which some cannot be decoded, to be taken in parts of 8."""
    monkeypatch.setattr("fasttriplet.run._pass.PART", 8)
    (tmp_path / "data").mkdir()
    return write_rec(tmp_path / "data/train.rec", identities(12, 6), damaged=DAMAGED)


def run(rec: Path, out: Path, **options: Any) -> ft.Embedded:
    given: dict[str, Any] = {"model": "pixels", "on_error": "skip"} | options
    with nothing_left():
        return ft.embed_rec(rec, out=out, **given)


def content(folder: Path) -> list[bytes]:
    assert names(folder) == FILES
    return [(folder / name).read_bytes() for name in FILES]


def stopping(at: int, error: BaseException) -> Callable[[str, int, int], None]:
    def progress(_: str, done: int, __: int) -> None:
        if done >= at:
            raise error

    return progress


def stopped(rec: Path, out: Path, at: int = 32, **options: Any) -> BaseException:
    """Let a run be stopped by Ctrl-C after this many images."""
    with pytest.raises(KeyboardInterrupt) as stop:
        run(rec, out, progress=stopping(at, KeyboardInterrupt()), **options)
    return stop.value


@pytest.fixture
def whole(data: Path, tmp_path: Path) -> list[bytes]:
    """The files of a run that nothing stopped."""
    run(data, tmp_path / "whole/e.npy")
    return content(tmp_path / "whole")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), OSError(errno.EIO, "broken")])
def test_stopped_again_and_again(
    data: Path, whole: list[bytes], tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = 3  # none of the first has a vector
    monkeypatch.setattr("fasttriplet.run._pass.PART", part)
    out, seen = tmp_path / "out/e.npy", []
    for at in range(part, 72, part):
        with pytest.raises(type(error)) as stop:
            run(data, out, resume=True, progress=stopping(at, error))
        note = stop.value.__notes__[-1]
        assert note.endswith(f"of 72 images are kept in {out}.unfinished; resume=True continues")
        seen.append(int(note.split()[0]))
        error.__notes__.clear()
        assert names(out.parent) == ["e.npy.unfinished"]
    assert seen == [*range(part, 72, part)]
    done = run(data, out, resume=True)
    assert done.resumed_after == seen[-1]
    assert {one.key for one in done.skipped} == DAMAGED
    assert content(out.parent) == whole


def test_nothing_to_resume(data: Path, whole: list[bytes], tmp_path: Path) -> None:
    out = tmp_path / "out/e.npy"
    stopped(data, out, at=0)
    assert not out.parent.exists()
    assert run(data, out, resume=True).resumed_after == 0
    assert content(out.parent) == whole


def test_what_is_complete_stays(data: Path, whole: list[bytes], tmp_path: Path) -> None:
    """A batch system may start a job again that was killed after its last step."""
    out = tmp_path / "whole/e.npy"
    before = out.stat()
    (tmp_path / "whole/e.npy.unfinished").mkdir()  # the last that a run removes
    done = run(data, out, resume=True)
    assert (done.resumed_after, done.images, done.size) == (72, 72, 768)
    assert {one.key for one in done.skipped} == DAMAGED
    assert (out.stat().st_mtime_ns, out.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert content(tmp_path / "whole") == whole


def test_what_is_complete_and_of_something_else(data: Path, whole: list[bytes], tmp_path: Path) -> None:
    out = tmp_path / "whole/e.npy"
    other = write_rec(tmp_path / "data/other.rec", identities(9, 8))
    wrong: list[tuple[Path, dict[str, Any], str]] = [
        (
            other,
            {},
            "exists already, with the dataset fingerprint '.*', not '.*'; overwrite=True replaces it",
        ),
        (data, {"dtype": "float16"}, "with the dtype 'float32', not 'float16'"),
    ]
    for rec, options, message in wrong:
        with pytest.raises(FileExistsError, match=message):
            run(rec, out, resume=True, **options)
    assert content(tmp_path / "whole") == whole
    stored = np.load(out)
    np.save(out, stored + 1)
    with pytest.raises(FileExistsError, match="it is of another model"):
        run(data, out, resume=True)
    np.save(out, stored[:, 1:])
    with pytest.raises(FileExistsError, match=r"and has [\d,]+ bytes instead of 221,312"):
        run(data, out, resume=True)
    (tmp_path / "whole/e.npy.json").write_text("{")
    with pytest.raises(FileExistsError, match="exists already; overwrite=True replaces it"):
        run(data, out, resume=True)


def test_what_is_kept_is_not_thrown_away_unless_asked(data: Path, whole: list[bytes], tmp_path: Path) -> None:
    out = tmp_path / "out/e.npy"
    stopped(data, out)
    with pytest.raises(FileExistsError) as refused:
        run(data, out)
    assert refused.value.filename == f"{out}.unfinished"
    assert refused.value.strerror == (
        "32 of 72 images are done; resume=True continues, overwrite=True starts again"
    )
    stopped(data, out, at=0, overwrite=True)  # before anything of it was done
    assert names(out.parent) == []
    stopped(data, out)
    assert run(data, out, overwrite=True).resumed_after == 0
    assert content(out.parent) == whole


def test_an_error_before_anything_is_written_keeps_it(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out/e.npy"
    stopped(data, out)
    with pytest.raises(FileNotFoundError):
        run(data.with_name("missing.rec"), out, overwrite=True)
    assert run(data, out, resume=True).resumed_after == 32


def test_a_run_that_may_replace_files_is_resumed_as_one(
    data: Path, whole: list[bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out/e.npy"
    run(data, out, dtype="float16")
    before = content(out.parent)
    stopped(data, out, overwrite=True)
    assert [(out.parent / name).read_bytes() for name in FILES] == before
    run(data, out, resume=True)
    assert content(out.parent) == whole


def test_of_something_else(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out/e.npy"
    stopped(data, out)

    class Other(Table):
        needs_images = True

    other = write_rec(tmp_path / "data/other.rec", identities(9, 8))
    larger = write_rec(tmp_path / "data/larger.rec", identities(12, 6), damaged=DAMAGED, side=30)
    wrong: list[tuple[Path, dict[str, Any], str]] = [
        (other, {}, "32 of 72 images are done with the dataset fingerprint '"),
        (larger, {}, "dataset fingerprint .* and the image size '24 x 24', not '30 x 30'"),
        (
            data,
            {"model": Other(random_table().rows)},
            "with the model 'pixels: .*', not 'a table'; run it as",
        ),
        (data, {"dtype": "float16"}, "with the dtype 'float32', not 'float16'"),
        (data, {"max_pixels": 10_000}, "with the max_pixels 89478485, not 10000"),
    ]
    for rec, options, message in wrong:
        with pytest.raises(ValueError, match=message) as refused:
            run(rec, out, resume=True, **options)
        assert str(refused.value).startswith(f"{out}.unfinished cannot be resumed: ")
        assert str(refused.value).endswith("; run it as before, or overwrite=True starts again")
        assert not hasattr(refused.value, "__notes__")
    monkeypatch.setattr("fasttriplet.run._pass.PART", 1024)  # of another version
    assert run(data, out, resume=True).resumed_after == 32


def test_the_size_of_images_is_their_height_and_width(data: Path, tmp_path: Path) -> None:
    encoded = io.BytesIO()
    Image.new("RGB", (30, 20)).save(encoded, "PNG")
    stopped(write_images(data.with_name("wide.rec"), [encoded.getvalue()] * 9), tmp_path / "e.npy", at=8)
    about = json.loads((tmp_path / "e.npy.unfinished/about.json").read_text())
    assert about["of"]["image size"] == "20 x 30"


def test_other_weights_under_the_same_name(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out/e.npy"
    stopped(data, out, model=random_table())
    same = ", or of the same one with other weights"
    for table, more in ((random_table(seed=1), same), (random_table(size=8), "")):
        expected = rf"unfinished cannot be resumed: it is of another model \(a table\){more}; overwrite"
        with pytest.raises(ValueError, match=expected):
            run(data, out, resume=True, model=table)
    near = random_table()
    near.rows *= 1.001  # as another device may compute it
    assert run(data, out, resume=True, model=near).resumed_after == 32


def test_from_raise_to_skip_and_back(data: Path, tmp_path: Path) -> None:
    """A run that ended at a damaged image is continued without it, and then not as if it had been sound."""
    sound = write_rec(data, identities(12, 6), damaged=frozenset({41}))
    out = tmp_path / "out/e.npy"
    with pytest.raises(ft.RecordError, match="key 41") as stop:
        run(sound, out, on_error="raise")
    assert "40 of 72 images are kept" in stop.value.__notes__[0]
    stopped(sound, out, at=56, resume=True)
    with pytest.raises(ValueError, match="it has skipped 1 image, the first") as refused:
        run(sound, out, resume=True, on_error="raise")
    assert "key 41" in str(refused.value)
    run(sound, out, resume=True)
    run(sound, tmp_path / "again/e.npy")
    assert content(out.parent) == content(tmp_path / "again")


def test_what_is_counted_is_on_the_disk(
    data: Path, whole: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each part the rows, and what was skipped; then the count; and at first the names of all."""
    out, calls = tmp_path / "out/e.npy", list[str]()
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        calls.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        assert os.fstat(descriptor).st_size  # what is written is not in a buffer
        fsync(descriptor)

    def replaced(source: Any, target: Any, **more: Any) -> None:
        calls.append(f"{Path(source).name} -> {Path(target).name}")
        replace(source, target, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", synced)
        patch.setattr(os, "replace", replaced)
        stopped(data, out)
    expected: list[str] = []
    for start in range(1, 33, 8):
        expected.append("e.npy")
        expected += ["skipped.ndjson"] if DAMAGED & {*range(start, start + 8)} else []
        expected += ["about.json.new", "about.json.new -> about.json"]
        expected += ["e.npy.unfinished", "out"] if start == 1 else []
    assert calls == expected
    run(data, out, resume=True)
    assert content(out.parent) == whole


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("fasttriplet.embedders._vectors.Writer.append", "e.npy"),
        ("fasttriplet.run._embed_rec.as_text", "e.npy.json"),
        ("fasttriplet.run._unfinished.Unfinished.copy_to", "e.npy"),
        ("fasttriplet.run._unfinished.os.truncate", "e.npy"),
    ],
)
def test_a_full_disk_names_the_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, name: str
) -> None:
    monkeypatch.setattr(call, disk_is_full)
    with pytest.raises(OSError, match="No space left on device") as error:
        run(data, tmp_path / "out/e.npy")
    assert error.value.filename == str(tmp_path / "out" / name)


@pytest.mark.parametrize("within", [True, False])
def test_an_error_about_the_folder_names_the_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: bool
) -> None:
    """And one about another file names that one."""
    about = tmp_path / ("out/e.npy.unfinished/about.json.new" if within else "other")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(about))

    monkeypatch.setattr("fasttriplet.run._unfinished.Unfinished._count", lambda *_, **__: full())
    with pytest.raises(OSError, match="No space left on device") as error:
        run(data, tmp_path / "out/e.npy")
    assert error.value.filename == str(tmp_path / "out/e.npy" if within else about)


# What is in the folder


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("cut", "e.npy has {less:,} bytes and should have {size:,}"),
        ("no file", "e.npy has 0 bytes and should have {size:,}"),
        ("nonsense", "about.json is not that of an unfinished run"),
        ("a list", "about.json is not that of an unfinished run"),
        ("another kind", "about.json is not that of an unfinished run"),
        ("version", "it has the version 2, not 1"),
        ("lacks", "about.json lacks something"),
        ("negative", "about.json lacks something"),
        ("of nothing", "about.json lacks something"),
        ("skipped", "skipped.ndjson is missing or damaged"),
        ("no list", "skipped.ndjson has 0 bytes and should have {listed}"),
        ("no list of none", "skipped.ndjson is missing or damaged"),
    ],
)
def test_a_damaged_folder(data: Path, whole: list[bytes], tmp_path: Path, damage: str, why: str) -> None:
    out, folder = tmp_path / "out/e.npy", tmp_path / "out/e.npy.unfinished"
    stopped(data, out)
    about = json.loads((folder / "about.json").read_text())
    file, listed = folder / "e.npy", folder / "skipped.ndjson"
    size, of_list = file.stat().st_size, listed.stat().st_size
    changed = {
        "nonsense": "\udcff{",
        "a list": "[]",
        "another kind": json.dumps(about | {"fasttriplet": "embeddings"}),
        "version": json.dumps(about | {"version": 2}),
        "lacks": json.dumps(about | {"done": "32"}),
        "negative": json.dumps(about | {"size": -1}),
        "of nothing": json.dumps(about | {"of": None}),
    }
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "no file":
        file.unlink()
    elif damage == "no list":
        listed.unlink()
    elif damage == "no list of none":
        listed.unlink()
        (folder / "about.json").write_text(json.dumps(about | {"skipped_bytes": 0}))
    elif damage == "skipped":
        listed.write_bytes(listed.read_bytes().replace(b"{", b"["))
    else:
        (folder / "about.json").write_text(changed[damage], errors="surrogateescape")
    with pytest.raises(ValueError) as refused:
        run(data, out, resume=True)
    why = why.format(less=size - 1, size=size, listed=of_list)
    assert str(refused.value) == f"{folder} cannot be resumed: {why}; overwrite=True starts again"
    run(data, out, overwrite=True)
    assert content(out.parent) == whole


def test_a_folder_that_is_a_file(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(NotADirectoryError, match="file is not a folder"):
            run(data, tmp_path / "file" / "e.npy", **options)


def test_what_is_not_counted_is_cut_off(data: Path, whole: list[bytes], tmp_path: Path) -> None:
    out, folder = tmp_path / "out/e.npy", tmp_path / "out/e.npy.unfinished"
    stopped(data, out)
    for name in ("e.npy", "skipped.ndjson"):
        with (folder / name).open("ab") as file:
            file.write(b"half a part")
    (folder / "about.json.new").write_text("{")
    run(data, out, resume=True)
    assert content(out.parent) == whole


@pytest.mark.parametrize("what", ["a file", "a link", "other files"])
@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_something_else_has_its_name(data: Path, tmp_path: Path, what: str, options: dict[str, bool]) -> None:
    folder = tmp_path / "out/e.npy.unfinished"
    folder.parent.mkdir()
    if what == "a file":
        folder.write_text("mine")
    elif what == "a link":
        folder.symlink_to(tmp_path / "data")
    else:
        folder.mkdir()
        (folder / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match=r"is in the way: .*unfinished.*; move it away"):
        run(data, tmp_path / "out/e.npy", **options)
    assert names(folder.parent) == ["e.npy.unfinished"]


# Kills

SCRIPT = """
import os, sys, time
import fasttriplet as ft
from fasttriplet.run import _pass
from tests.small_rec import Table

_pass.PART = 8

class Slow(ft.load_embedder("pixels").__class__):
    def embed(self, rows, images):
        time.sleep(0.02)
        return super().embed(rows, images)

def report(step, done, of):
    print(done, flush=True)

ft.embed_rec(sys.argv[1], model=Slow(), out=sys.argv[2], resume=True, on_error="skip", progress=report)
"""


def test_killed_at_any_moment(data: Path, whole: list[bytes], tmp_path: Path) -> None:
    """By SIGKILL, again and again, until a run comes to its end."""
    out, chance, kills = tmp_path / "out/e.npy", random.Random(0), 0
    for _ in range(20):
        command = [sys.executable, "-c", SCRIPT, str(data), str(out)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(chance.uniform(0, 0.1))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            _, errors = process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors
        kills += 1
    assert process.returncode == 0
    assert kills > 0
    assert content(out.parent) == whole


# Forks, each of which is killed before another of the calls that write, or change names.
FORKS = """
import itertools, os, shutil, sys, traceback
from pathlib import Path
import fasttriplet as ft
from fasttriplet.run import _embed_rec, _pass

data, folder = sys.argv[1], Path(sys.argv[2])
whole = [Path(one).read_bytes() for one in sys.argv[3:]]
files = [folder / "e.npy", folder / "e.npy.json"]
_pass.PART = 30

def forked(work):
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def embed(**options):
    ft.embed_rec(data, model="pixels", out=files[0], on_error="skip", **options)

def killed(at):
    calls = itertools.count(1)
    for name in ("link", "rename", "replace", "unlink", "fsync", "truncate", "rmdir", "mkdir"):
        def call(*arguments, real=getattr(os, name), **more):
            if next(calls) == at:
                os._exit(9)
            return real(*arguments, **more)
        setattr(os, name, call)
    embed()

states = set()
for at in itertools.count(1):
    shutil.rmtree(folder, ignore_errors=True)
    code = forked(lambda: killed(at))
    if code == 0:
        break
    assert code == 9, code
    there = tuple(file.exists() for file in files)
    code = forked(lambda: embed(resume=True))
    states.add((*there, code))
    assert code == 0, (at, there, code)
    assert [file.read_bytes() for file in files] == whole, at
    assert sorted(os.listdir(folder)) == ["e.npy", "e.npy.json"], at
print(at, sorted(states))
"""


def test_killed_before_each_call(data: Path, whole: list[bytes], tmp_path: Path) -> None:
    """Also between the new names, and while the folder is removed: both files are there then."""
    given = [str(data), str(tmp_path / "out"), *(str(tmp_path / "whole" / name) for name in FILES)]
    done = subprocess.run(
        [sys.executable, "-c", FORKS, *given], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    count, states = done.stdout.split(" ", 1)
    assert int(count) > 30
    assert all(str(state) in states for state in ((False, False, 0), (True, False, 0), (True, True, 0)))
    assert len(whole) == len(FILES)
