"""Checkpoints, read and written where there is no MXNet."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fasttriplet.checkpoint._checkpoint import Checkpoint, embedding_of, read_checkpoint, write_checkpoint
from fasttriplet.checkpoint._symbol import Entry, Node, Symbol
from tests.checkpoint.made import numbers
from tests.mxnet.small_networks import NETWORKS, save

NODES = (
    Node("null", "data", {}, ()),
    Node("null", "fc1_weight", {}, (), {"__lr_mult__": "2"}),
    Node("FullyConnected", "fc1", {"num_hidden": "2", "no_bias": "True"}, (Entry(0, 0), Entry(1, 0))),
    Node("null", "bn_gamma", {}, ()),
    Node("null", "bn_beta", {}, ()),
    Node("null", "bn_moving_mean", {}, ()),
    Node("null", "bn_moving_var", {}, ()),
    Node("BatchNorm", "bn", {}, tuple(Entry(node, 0) for node in range(2, 7))),
)
SYMBOL = Symbol(NODES, (Entry(7, 0),))
ARGS = {"fc1_weight": numbers(2, 3), "bn_gamma": numbers(2), "bn_beta": numbers(2)}
AUXS = {"bn_moving_mean": numbers(2), "bn_moving_var": numbers(2)}


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "net", 3, SYMBOL, ARGS, AUXS)
    return tmp_path / "net"


def test_what_was_written_is_read(prefix: Path) -> None:
    found = read_checkpoint(prefix, 3)
    assert found.symbol == SYMBOL
    assert [path.name for path in (found.symbol_path, found.params_path)] == [
        "net-symbol.json",
        "net-0003.params",
    ]
    for arrays, expected in ((found.arg_params, ARGS), (found.aux_params, AUXS)):
        assert arrays.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name], array)


def test_an_equal_symbol_stays_as_it_is(prefix: Path) -> None:
    path = Path(f"{prefix}-symbol.json")
    before = path.stat()
    write_checkpoint(prefix, 4, SYMBOL, ARGS, AUXS)
    assert path.stat().st_ino == before.st_ino
    write_checkpoint(prefix, 5, SYMBOL.up_to(Entry(2, 0)), ARGS, AUXS)
    assert path.stat().st_ino != before.st_ino
    with pytest.raises(FileExistsError):
        write_checkpoint(prefix, 5, SYMBOL, ARGS, AUXS, overwrite=False)


def test_a_symbol_with_other_ends_of_lines_is_another(prefix: Path) -> None:
    path = Path(f"{prefix}-symbol.json")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\n", b"\r\n"))
    write_checkpoint(prefix, 4, SYMBOL, ARGS, AUXS)
    assert path.read_bytes() == content


@pytest.mark.parametrize("how", ["a type", "a name", "a full disk"])
def test_weights_that_cannot_be_written_leave_the_old_files(
    prefix: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in prefix.parent.iterdir()}
    args: dict[str, Any] = ARGS | {"new": numbers(2)}
    error: type[Exception] = ValueError
    if how == "a type":
        args["new"] = np.zeros(2, complex)
    elif how == "a name":
        args["a\0b"] = numbers(2)
    else:
        error = OSError
        plain = np.ascontiguousarray

        def full(array: Any, dtype: Any) -> Any:
            if array is args["new"]:
                raise OSError(errno.ENOSPC, "No space left on device")
            return plain(array, dtype)

        monkeypatch.setattr(np, "ascontiguousarray", full)
    with pytest.raises(error, match=r"net-0003\.params" if error is OSError else None):
        write_checkpoint(prefix, 3, SYMBOL.up_to(Entry(2, 0)), args, AUXS)
    assert {path: path.read_bytes() for path in prefix.parent.iterdir()} == before


_KILLED = """
import os, sys, warnings
from pathlib import Path
import numpy as np
from fasttriplet.checkpoint._checkpoint import write_checkpoint
from tests.checkpoint.test_checkpoint import ARGS, AUXS, SYMBOL

def write(version):
    symbol = SYMBOL.to_json() + " " * version
    write_checkpoint("net", 3, symbol, {"fc1_weight": np.full(3, version, "f4")}, {})
    return [Path(name).read_bytes() for name in ("net-symbol.json", "net-0003.params")]

def found():
    return [path.read_bytes() if (path := Path(name)).exists() else None
            for name in ("net-symbol.json", "net-0003.params")]

warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: a fork while threads run
calls = ("rename", "replace", "link", "unlink", "fsync")
for last in range(1, 100):
    before = write(1)
    child = os.fork()
    if child == 0:
        left = last
        def ending(real):
            def call(*arguments, **options):
                global left
                left -= 1
                if left == 0:
                    os._exit(9)
                return real(*arguments, **options)
            return call
        for name in calls:
            setattr(os, name, ending(getattr(os, name)))
        write(2)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    after = found()
    assert after[0] is not None
    assert after in (before, [before[0], None]) or after[0] != before[0] and after[1] != before[1], last
    complete = write(2)
    assert code != 0 or after == complete
    if code == 0:
        break
print("killed", last - 1 > 4)
"""


def test_after_a_kill_no_network_has_the_weights_of_another(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-c", _KILLED],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (found.stdout, found.stderr) == ("killed True\n", "")


def test_both_files_must_be_replaceable(prefix: Path) -> None:
    """An epoch that is there keeps its network."""
    before = {path: path.read_bytes() for path in prefix.parent.iterdir()}
    with pytest.raises(FileExistsError):
        write_checkpoint(prefix, 3, SYMBOL, ARGS, AUXS, overwrite=False)
    with pytest.raises(FileExistsError):
        write_checkpoint(prefix, 4, SYMBOL.up_to(Entry(2, 0)), ARGS, AUXS, overwrite=False)
    Path(f"{prefix}-symbol.json").unlink()
    with pytest.raises(FileExistsError):
        write_checkpoint(prefix, 3, SYMBOL, ARGS, AUXS, overwrite=False)
    del before[Path(f"{prefix}-symbol.json")]
    assert {path: path.read_bytes() for path in prefix.parent.iterdir()} == before


def test_the_embedding_and_its_weights(prefix: Path) -> None:
    found = embedding_of(read_checkpoint(prefix, 3))
    assert (found.symbol, found.data, found.output) == (SYMBOL, "data", "bn_output")
    inner = embedding_of(read_checkpoint(prefix, 3), "fc1")
    assert [node.name for node in inner.symbol.nodes] == ["data", "fc1_weight", "fc1"]
    assert inner.output == "fc1_output"


def without(prefix: Path, *names: str, **more: Any) -> Checkpoint[Any]:
    args = {name: array for name, array in (ARGS | more).items() if name not in names}
    auxs = {name: array for name, array in AUXS.items() if name not in names}
    write_checkpoint(prefix, 3, SYMBOL, args, auxs)
    return read_checkpoint(prefix, 3)


def test_weights_that_are_missing_or_unknown(prefix: Path) -> None:
    lacking = without(prefix, "bn_beta", "bn_moving_var")
    with pytest.raises(
        ValueError, match=r"net-0003\.params lacks bn_beta, bn_moving_var, which .*net-symbol\.json"
    ):
        embedding_of(lacking)
    assert embedding_of(lacking, "fc1").output == "fc1_output"  # which does not need them
    with pytest.warns(UserWarning, match=r"net-0003\.params holds old, unknown to .*; not used") as warned:
        embedding_of(without(prefix, old=numbers(1)))
    assert warned[0].filename == __file__
    with pytest.raises(ValueError, match=r"net-symbol\.json: the network has no output 'fc2'"):
        embedding_of(lacking, "fc2")


@pytest.mark.mxnet
def test_checkpoints_of_mxnet_are_read_without_it(mx: Any, tmp_path: Path) -> None:
    expected = {}
    for number, (build, output) in enumerate(NETWORKS.values()):
        save(mx, tmp_path / f"net{number}", build(mx), {"y": None})
        _, args, _ = mx.model.load_checkpoint(f"{tmp_path}/net{number}", 0)
        expected[f"{tmp_path}/net{number}"] = f"{output}_output {len(args)}"
    code = (
        "import sys; from fasttriplet.checkpoint._checkpoint import *\n"
        "for prefix in sys.argv[1:]:\n"
        "    c = read_checkpoint(prefix, 0); print(embedding_of(c).output, len(c.arg_params))\n"
        "assert 'mxnet' not in sys.modules and 'polars' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *expected], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == list(expected.values())


@pytest.mark.mxnet
def test_mxnet_reads_what_was_written(mx: Any, prefix: Path) -> None:
    symbol, args, auxs = mx.model.load_checkpoint(str(prefix), 3)
    assert symbol.list_outputs() == ["bn_output"]
    assert symbol.attr_dict()["fc1_weight"]["__lr_mult__"] == "2"
    for arrays, expected in ((args, ARGS), (auxs, AUXS)):
        assert arrays.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name].asnumpy(), array)


def test_the_real_checkpoint(real_data: Path) -> None:
    found = embedding_of(read_checkpoint(real_data / "model-y1" / "model", 0))
    assert (found.data, found.output, len(found.symbol.nodes)) == ("data", "fc1_output", 432)
