"""The wheel of `make wheel` in clean environments: each Python, the oldest and newest packages, each extra.

A Python is `python3.12` on the PATH, or one of pyenv's. The oldest packages are those that `pyproject.toml`
allows and that have wheels for the Python; uv finds them, and fetches packages. The table in CONTRIBUTING.md
says what was run; `--junitxml=FILE` keeps the versions of all packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
EXTRAS = ("", "onnx", "export", "plot", "ray", "mxnet", "torch")
UNAVAILABLE = {
    ("3.15", "onnx"): "ONNX Runtime has no wheels for Python 3.15",
    ("3.15", "ray"): "Ray has no wheels for Python 3.15",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel() -> Path:
    found = sorted((CHECKOUT / "dist").glob("fasttriplet-*.whl"))
    if len(found) != 1:
        pytest.skip("`make wheel` leaves one wheel in dist/")
    return found[0]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """uv links the files of its cache into each environment; with PyTorch they are tens of gigabytes."""
    folder = tmp_path_factory.mktemp("uv")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("UV_CACHE_DIR", str(folder))
        yield
    shutil.rmtree(folder)


def tool(name: str) -> Path:
    """A program that `make wheel` installs beside this Python."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.skip(f"`make wheel` installs {name}")
    return path


def python(version: str) -> Path:
    """The Python of this version, or the test is skipped."""
    on_the_path = shutil.which(f"python{version}")
    named = [Path(on_the_path)] if on_the_path else []
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    for path in [*named, *of_pyenv]:
        # pyenv has a program on the PATH for each version, which fails for those that are not chosen
        if subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return path
    pytest.skip(f"no python{version} on the PATH or among pyenv's")


def test_it_fits_every_python_from_3_11_on_and_holds_types_and_license(wheel: Path) -> None:
    assert "-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as opened:
        names = {name.partition("/")[2] for name in opened.namelist() if name.startswith("fasttriplet/")}
        assert any(name.endswith(".dist-info/licenses/LICENSE") for name in opened.namelist())
    assert {"py.typed", "_core.pyi", "_core.abi3.so", "reporting/style.css", "reporting/script.js"} <= names
    package = CHECKOUT / "python" / "fasttriplet"
    sources = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources


def test_it_needs_no_newer_glibc_than_it_says(wheel: Path) -> None:
    assert "manylinux2014_x86_64" in wheel.name
    said = subprocess.run(
        [tool("auditwheel"), "show", wheel], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert 'is consistent with the following platform tag:\n"manylinux_2_17_x86_64"' in said, said


def cells() -> Iterator[Any]:
    for version in PYTHONS:
        for age in ("oldest", "newest"):
            for extra in EXTRAS:
                if extra == "mxnet" and version not in ("3.11", "3.12"):
                    continue
                yield pytest.param(version, age, extra, id=f"{version}-{age}-{extra or 'alone'}")


@pytest.mark.parametrize(("version", "age", "extra"), list(cells()))
def test_it_works_in_a_clean_environment(
    wheel: Path,
    version: str,
    age: str,
    extra: str,
    *,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """Fetches packages."""
    if (version, extra) in UNAVAILABLE:
        pytest.skip(UNAVAILABLE[version, extra])
    uv, venv = tool("uv"), tmp_path / "venv"
    subprocess.run(
        [uv, "venv", "--quiet", "--no-python-downloads", "--python", python(version), venv],
        check=True,
        timeout=120,
    )
    extras = {"": [], "torch": ["torch", "export"]}.get(extra, [extra])
    what = f"fasttriplet[{','.join(extras)}] @ {wheel.as_uri()}"
    wanted = PROJECT["dependencies"] + [
        one for name in extras for one in PROJECT["optional-dependencies"][name]
    ]
    # For uv, what the wheel needs is direct only if it is named, too.
    oldest = ["--resolution", "lowest-direct", *wanted] if age == "oldest" else []
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--only-binary", ":all:", "--python", venv]
    installed = subprocess.run(
        [*install, what, *oldest],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert installed.returncode == 0, installed.stderr
    # Only the helpers: the package of this checkout, too, would hide the one that was installed.
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "tests").symlink_to(CHECKOUT / "tests")
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [venv / "bin" / "python", "-m", "tests.installed", *([extra] if extra else [])],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=tmp_path / "work",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "helpers"), "RAY_USAGE_STATS_ENABLED": "0"},
    )
    versions = subprocess.run(
        [uv, "pip", "freeze", "--python", venv], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    record_property("packages", versions.split("\n"))
    if version != "3.15":  # where the oldest is the newest
        assert ("polars==1.30.0" in versions) == (age == "oldest"), versions
    shutil.rmtree(venv)
    assert done.returncode == 0, f"{done.stderr}\n{versions}"
