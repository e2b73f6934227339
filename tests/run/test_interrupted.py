"""Ctrl-C and forks in the middle of a run or a feed, in processes of their own."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import indent

import numpy as np
import pytest
from PIL import Image

import fasttriplet as ft
from tests.processes import run_python, stop
from tests.small_rec import picture

pytestmark = pytest.mark.heavy

# Ctrl-C

# A script's model, and the dataset of the argument.
HEAD = """
import gc, os, signal, sys, threading, time
import numpy as np
import fasttriplet as ft

rec, out = sys.argv[1:]

class Model:
    description = "a table"
    needs_images = True
    rows = np.random.default_rng(0).standard_normal((7001, 256)).astype(np.float32)
    def prepare(self, index): pass
    def embed(self, rows, images):
        self.pause()
        return self.rows[rows["key"].to_numpy()]
    def pause(self): pass

class Sleeps(Model):
    def pause(self):
        ready()
        time.sleep(60)

class NoImages(Model):
    needs_images = False
    def pause(self): ready()

def ready(): print("ready", flush=True)

ft.mine_rec, ft.Feed, ft.index_rec(rec)  # imports what they need: Ctrl-C comes later
"""


@pytest.fixture(scope="module")
def slow_to_decode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that take one core 10 s to decode."""
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("PIL.ImageFile.MAXBLOCK", 2**24)  # a progressive JPEG is encoded in one block
        Image.fromarray(pixels).save(encoded, "JPEG", quality=80, subsampling=0, progressive=True)
    path = tmp_path_factory.mktemp("slow") / "train.rec"
    with ft.RecordWriter(path) as writer:
        for key in range(1, 201):
            writer.write(key, ft.IRHeader(0, float(key % 40), key, 0), encoded.getvalue())
    ft.index_rec(path)
    return path


@pytest.fixture(scope="module")
def slow_to_mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two identities of 2,000 images, which take two cores 40 s to mine."""
    path = tmp_path_factory.mktemp("mine") / "train.rec"
    encoded = picture(0, side=8)
    with ft.RecordWriter(path) as writer:
        for key in range(1, 4001):
            writer.write(key, ft.IRHeader(0, float(key % 2), key, 0), encoded)
    ft.index_rec(path)
    return path


MINE = "model=NoImages(), images_per_identity=2000, pairs='ordered', margin=0.001"


@pytest.mark.parametrize(
    ("dataset", "body"),
    [
        ("rec", "ft.mine_rec(rec, model=Sleeps(), out=out, bag_size=15)"),
        ("rec", "for _ in ft.Feed(rec, model=Sleeps(), bag_size=15): pass"),
        ("rec", "for _ in ft.Feed(rec, model=Model(), bag_size=15): ready(); time.sleep(60)"),
        ("slow_to_decode", "ready(); ft.mine_rec(rec, model=Model(), out=out, prefetch=0, threads=1)"),
        ("slow_to_decode", "ready(); list(ft.Feed(rec, model=Model()))"),
        ("slow_to_mine", f"ft.mine_rec(rec, out=out, {MINE})"),
        ("slow_to_mine", f"list(ft.Feed(rec, {MINE}))"),
    ],
)
def test_ctrl_c(request: pytest.FixtureRequest, tmp_path: Path, dataset: str, body: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    arguments = [str(request.getfixturevalue(dataset)), str(folder / "t.parquet")]
    with subprocess.Popen(
        [sys.executable, "-c", HEAD + body, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as script:
        try:
            assert script.stdout is not None
            assert script.stdout.readline() == "ready\n"
            time.sleep(0.3)
            assert script.poll() is None
            took = stop(script, signal.SIGINT)
            _, errors = script.communicate()
        finally:
            script.kill()
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    assert "Exception ignored" not in errors
    assert script.returncode == -signal.SIGINT
    assert list(folder.iterdir()) == []
    assert took < 2


# Forks

FORK = """
def fork(child):
    signal.alarm(30)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        child()
        print("child", flush=True)
        sys.exit(7)  # the whole shutdown of the interpreter
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7, status
    signal.alarm(30)

def refused():
    try:
        next(feed)
    except RuntimeError as error:
        assert "fork" in str(error), error
    else:
        raise AssertionError("a batch in the child")
    assert next(feed, None) is None

def batches(): return [batch.ids.tolist() for batch in feed]
options = {"bag_size": 15, "batch_size": 9, "epochs": 2}
with ft.Feed(rec, model=Model(), **options) as feed:
    expected = batches()
"""


@pytest.mark.parametrize(
    "body",
    [
        # In a with block, which the child leaves by sys.exit, and without one.
        """
with ft.Feed(rec, model=Model(), **options) as feed:
    found = [next(feed).ids.tolist()]
    fork(refused)
    found += batches()
assert found == expected
feed = ft.Feed(rec, model=Model(), **options)
found = [next(feed).ids.tolist()]
fork(refused)
found += batches()
""",
        # The child closes the feed, or deletes it.
        """
def close():
    feed.close()
    feed.close()
def refused_and_close():
    refused()
    close()
def delete():
    global feed
    del feed
    gc.collect()
feed = ft.Feed(rec, model=Model(), **options)
found = [next(feed).ids.tolist()]
for child in (refused_and_close, close, delete, lambda: None):
    fork(child)
found += batches()
""",
        # After every tenth batch, whatever the threads do at that moment.
        """
feed = ft.Feed(rec, model=Model(), **options)
found = []
for number, batch in enumerate(feed):
    found.append(batch.ids.tolist())
    if number % 10 == 0 and number < len(expected) - 1:
        fork(refused)
""",
    ],
)
def test_a_fork_in_the_middle(rec: Path, tmp_path: Path, body: str) -> None:
    body += "assert found == expected\nassert not [t for t in threading.enumerate() if 'fast' in t.name]\n"
    code = HEAD + FORK + "for options['prefetch'] in (0, 1, 3):\n" + indent(body, "    ")
    printed = run_python(code + "print('parent')", rec, tmp_path / "out.parquet").splitlines()
    assert printed[-1] == "parent"
    assert set(printed[:-1]) == {"child"}


def test_a_fork_by_the_embedder_while_the_next_bag_is_decoded(rec: Path, tmp_path: Path) -> None:
    body = """
class Forks(Model):
    def pause(self): fork(lambda: None)
with ft.Feed(rec, model=Forks(), **options) as feed:
    found = batches()
assert found == expected
print('parent')
"""
    printed = run_python(HEAD + FORK + body, rec, tmp_path / "out.parquet")
    assert printed.splitlines() == 8 * ["child"] + ["parent"]


def test_a_child_decodes_with_a_handle_of_its_parent(rec: Path, tmp_path: Path) -> None:
    body = """
file = ft.RecordFile(rec)
keys = list(range(1, 73))
pixels = file.decode(keys)
def decodes(): assert (file.decode(keys) == pixels).all()
fork(decodes)
feed = ft.Feed(rec, model=Model(), **options)
found = [next(feed).ids.tolist()]
fork(decodes)
found += batches()
assert found == expected
unused = ft.RecordFile(rec)
def first(): assert (unused.decode(keys) == pixels).all()
fork(first)
"""
    printed = run_python(HEAD + FORK + body + "print('parent')", rec, tmp_path / "out.parquet")
    assert printed.splitlines() == 3 * ["child"] + ["parent"]


def test_polars_after_a_fork_is_an_error_and_no_hang(rec: Path) -> None:
    code = f"""
import os, signal, sys
import fasttriplet as ft
rec = {str(rec)!r}
index = ft.index_rec(rec)
file = ft.RecordFile(rec)
for call in (lambda: ft.triplet_seq(index), lambda: ft.index_rec(rec), lambda: ft.mine_rec(rec)):
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        assert len(file.decode([1, 2, 3])) == 3
        try:
            call()
        except RuntimeError as error:
            assert "Polars" in str(error), error
            sys.exit(7)
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    assert run_python(code) == ""
