"""A fork while another thread makes the first call of something: the child can make it, too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.processes import run_python
from tests.small_rec import identities, picture, write_rec

# `race(first, delay)`: a thread makes the call while this process forks, and then the child makes it.
HEAD = """
import os, random, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: a fork while threads run
import fasttriplet as ft

def outcome(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def race(call, delay):
    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(delay)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            call()
        except RuntimeError as error:  # Polars, which the parent had used
            assert "fork" in str(error), error
        os._exit(7)
    code = outcome(child)
    thread.join()
    return code
"""

CALLS = {
    "mine": "ft.mine; import numpy as np; ft.mine(np.eye(6, 4, dtype='f4'), [0, 0, 1, 1, 2, 2])",
    "decode": "ft.decode_images([open(sys.argv[2], 'rb').read()])",
    "read": "ft.RecordFile(sys.argv[1]).decode([1, 2])",
    "dataset": "ft.Dataset(sys.argv[1]).decode([1, 2])",
    "room": "ft.load_embedder('pixels')",
}


@pytest.mark.parametrize("count", [3, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("call", CALLS)
def test_the_first_call(tmp_path: Path, call: str, count: int) -> None:
    """In a new process each time, which imports what the call needs."""
    rec = write_rec(tmp_path / "train.rec", identities(2, 2))
    (tmp_path / "a.jpg").write_bytes(picture(1))
    code = f"""{HEAD}
def call(): {CALLS[call]}

for number in range({count}):
    new = os.fork()
    if new == 0:
        os._exit(race(call, 0.2 * number / {count}))
    assert outcome(new) == 7, number
print("done")
"""
    assert run_python(code, rec, tmp_path / "a.jpg", timeout=60 + 5 * count) == "done\n"


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
def test_many_imports(tmp_path: Path, count: int) -> None:
    """Of a module that takes 4 ms, at any moment of it."""
    (tmp_path / "slow_to_import.py").write_text(
        "import time\nfor _ in range(20): time.sleep(2e-4)\nname = 5\n"
    )
    code = f"""{HEAD}
import sys
sys.path.insert(0, {str(tmp_path)!r})
ft._HOMES["slow"] = ("name",)
def call(): assert ft.name == 5

import importlib
real = importlib.import_module
importlib.import_module = lambda name: real("slow_to_import" if name == "fasttriplet.slow" else name)
chance = random.Random(0)
for number in range({count}):
    sys.modules.pop("slow_to_import", None)
    ft.__dict__.pop("name", None)
    assert race(call, chance.uniform(0, 5e-3)) == 7, number
print("done")
"""
    assert run_python(code, timeout=60 + count / 5) == "done\n"


def test_nothing_is_said_and_forks_of_other_threads_go_on() -> None:
    """A fork that has to wait prints nothing, and neither it nor the importing thread waits for ever."""
    code = f"""{HEAD}
from fasttriplet._forks import importing
import concurrent.futures, logging
def call():
    with importing():
        time.sleep(0.2)
        logging.getLogger("a").warning
        concurrent.futures.ThreadPoolExecutor(1).submit(int).result()
        with importing():
            pid = os.fork()  # by the thread itself
            if pid == 0:
                with importing():
                    os._exit(3)
            assert outcome(pid) == 3

threads = [threading.Thread(target=race, args=(call, 0.05)) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("done")
"""
    assert run_python(code) == "done\n"


def test_columns_of_a_dataset(tmp_path: Path) -> None:
    """What a thread computes once is computed by the child, too."""
    rec = write_rec(tmp_path / "train.rec", identities(2, 2))
    code = f"""{HEAD}
import hashlib
from fasttriplet.dataset import _dataset
dataset = ft.Dataset(sys.argv[1])
started = threading.Event()
def slowly(*arguments):
    started.set()
    time.sleep(0.2)
    return arguments
_dataset.ids_of = slowly
def call():
    dataset.ids
    started.wait()
assert race(call, 0.05) == 7
"""
    assert run_python(code, rec) == ""


@pytest.mark.parametrize("call", CALLS)
def test_a_first_call_imports_nothing_more(tmp_path: Path, call: str) -> None:
    """All is imported with the name, where a fork waits for it."""
    rec = write_rec(tmp_path / "train.rec", identities(2, 2))
    (tmp_path / "a.jpg").write_bytes(picture(1))
    code = f"""
import sys
import fasttriplet as ft
import numpy
for name in ("mine", "decode_images", "RecordFile", "Dataset", "load_embedder"):
    getattr(ft, name)
before = set(sys.modules)
{CALLS[call]}
print(set(sys.modules) - before - {{"fasttriplet.embedders._pixels"}})
"""
    assert run_python(code, rec, tmp_path / "a.jpg") == "set()\n"


def test_the_import_is_light() -> None:
    code = "import sys, fasttriplet; print({'numpy', 'polars', 'fasttriplet._core'} & set(sys.modules))"
    assert run_python(code) == "set()\n"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="that of functools")
def test_cached_property() -> None:
    from fasttriplet._forks import cached_property  # noqa: PLC0415

    class Counted:
        calls = 0

        @cached_property
        def value(self) -> int:
            """Say what it is."""
            self.calls += 1
            return self.calls

    counted = Counted()
    assert (counted.value, counted.value, counted.calls) == (1, 1, 1)
    counted.value = 7
    assert counted.value == 7
    assert Counted.value.__doc__ == "Say what it is."


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_too_few_addresses_for_the_threads_of_polars_are_told(tmp_path: Path) -> None:
    """Without room for them, Polars may end the process."""
    code = """
import resource, sys
import fasttriplet as ft
ft.index_rec
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
for more in (60 << 20, 2 << 30):
    resource.setrlimit(resource.RLIMIT_AS, (size + more, resource.RLIM_INFINITY))
    try:
        print(ft.triplet_seq(ft.index_rec(sys.argv[1], cache=False)).height)
    except MemoryError as error:
        print(error)
"""
    rec = write_rec(tmp_path / "a.rec", identities(6, 4))
    assert run_python(code, rec, POLARS_MAX_THREADS="2").splitlines() == [
        "not enough memory: 360 MB of addresses for 5 threads of Polars; raise the limit on memory (ulimit "
        "-v), or set POLARS_MAX_THREADS=1",
        "24",
    ]
