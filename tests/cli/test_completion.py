"""Tab completes commands, flags, choices and names of files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fasttriplet.cli import main
from tests.cli.command import Capture, run


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """An environment with the command `fasttriplet` on the PATH, as its entry point is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "fasttriplet"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom fasttriplet.cli import main\nsys.exit(main())\n")
    script.chmod(0o755)
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


BASH = """
eval "$(fasttriplet completion bash)"
complete -p fasttriplet >/dev/null || exit 3
compopt() { printf 'by bash: %s %s\\n' "$@"; }
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_fasttriplet_completion "$1"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (["mi"], ["mine"]),
        (["pa"], ["pack", "pack-pairs"]),
        (["mine", "--ba"], ["--bag-size", "--band", "--batch-size"]),
        (["mine", "--band", "se"], ["semihard"]),
        (["mine", "--rec", "a.rec", "--metric", ""], ["sqeuclidean", "euclidean", "cosine"]),
        (["ne"], ["neighbors"]),
        (["neighbors", "--of", ""], ["identities", "rows"]),
        (["train", "--loss", "a"], ["angular"]),
        (["train", "--refresh"], ["--refresh-epochs"]),
        (["mine", "--rec", ""], ["by bash: -o default"]),
        (["pack", ""], ["by bash: -o default"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
    ],
)
def test_bash_completes(installed: dict[str, str], line: list[str], wanted: list[str]) -> None:
    words = ["bash", "-c", BASH, "bash", "fasttriplet", *line]
    done = subprocess.run(words, env=installed, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(filter(None, done.stdout.splitlines())) == sorted(wanted)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell(shell: str, capsys: Capture) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_FASTTRIPLET_COMPLETE={shell}_complete" in script
    if shutil.which(shell) is not None:  # it has no errors of syntax
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=60)


@pytest.mark.parametrize(
    ("shell", "word", "wanted"), [("zsh", "plain\nsemihard\n", "2"), ("fish", "plain,semihard\n", "se")]
)
def test_what_zsh_and_fish_are_answered(shell: str, word: str, wanted: str) -> None:
    asked = {"_FASTTRIPLET_COMPLETE": f"{shell}_complete", "COMP_WORDS": "fasttriplet mine --band se"}
    done = run(env=os.environ | asked | {"COMP_CWORD": "3" if shell == "zsh" else wanted})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(word)


def test_the_help_has_the_lines_for_all_shells(capsys: Capture) -> None:
    assert main(["completion", "--help"]) == 0
    shown = capsys.readouterr().out
    assert 'eval "$(fasttriplet completion bash)"' in shown
    assert 'eval "$(fasttriplet completion zsh)"' in shown
    assert "fasttriplet completion fish | source" in shown
