"""The source distribution of `make sdist`: what is in it, and that it builds without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
OFFLINE = {"CARGO_NET_OFFLINE": "true"}  # the crates are those that built the extension of this environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sdist() -> Path:
    found = sorted((CHECKOUT / "dist").glob("fasttriplet-*.tar.gz"))
    if len(found) != 1:
        pytest.skip("`make sdist` leaves one archive in dist/")
    return found[0]


def names(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as opened:
        return {member.name.partition("/")[2] for member in opened.getmembers() if member.isfile()}


def test_it_holds_what_a_build_reads_and_nothing_else(sdist: Path) -> None:
    files = ["ls-files", "--cached", "--others", "--exclude-standard", "rust", "python"]
    listed = subprocess.run(["git", *files], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    sources = {name for name in listed.stdout.split("\n") if name and (CHECKOUT / name).exists()}
    beside = {"Cargo.toml", "Cargo.lock", "pyproject.toml", "README.md", "LICENSE", "PKG-INFO"}
    assert names(sdist) == sources | beside


def test_the_lock_file_is_that_of_the_checkout(sdist: Path) -> None:
    with tarfile.open(sdist) as opened:
        (member,) = (one for one in opened.getmembers() if re.fullmatch(r"[^/]+/Cargo\.lock", one.name))
        held = opened.extractfile(member)
        assert held is not None
        assert held.read() == (CHECKOUT / "Cargo.lock").read_bytes()


def test_cargo_builds_it_offline(sdist: Path, tmp_path: Path) -> None:
    """With crates that were fetched before: those of the lock file, and no others."""
    with tarfile.open(sdist) as opened:
        opened.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    subprocess.run(
        ["cargo", "check", "--locked", "--offline", "--features", "python", "--quiet"],
        cwd=unpacked,
        check=True,
        timeout=900,
        env=os.environ | {"PYO3_PYTHON": sys.executable, "CARGO_TARGET_DIR": str(tmp_path / "target")},
    )


def test_pip_builds_and_installs_it_without_a_network(sdist: Path, tmp_path: Path) -> None:
    """With maturin installed; `--target` leaves this environment as it is."""
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-build-isolation",
        "--no-index",
        "--no-deps",
    ]
    subprocess.run(
        [*install, "--target", tmp_path / "installed", sdist],
        check=True,
        timeout=1800,
        env=os.environ
        | OFFLINE
        | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "MATURIN_PEP517_ARGS": "--locked"}
        | {"CARGO_TARGET_DIR": str(tmp_path / "target")},
    )
    code = "import fasttriplet; print(fasttriplet.__file__); from fasttriplet import _core"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "installed")},
    )
    assert Path(done.stdout.strip()).is_relative_to(tmp_path / "installed")
