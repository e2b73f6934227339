"""The tutorial, step by step, with a tenth of its pictures and of its batches."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fasttriplet.cli import main
from tests.test_commands import in_blocks

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
SHORTER = {  # what stands in the page, and what stands for it here
    "(60, 20, size=128)": "(12, 6, size=128)",
    "--bag-size 120 --batches 400": "--bag-size 30 --batches 4 --batch-size 12 --log-every 1",
    "--verify-every 100": "--verify-every 2",
}
WITH_PYTORCH = {
    "--network small": "--network small --framework torch",
    "mxnet:models/characters-best,0": "torch:models/characters-best",
}
STEP = re.compile(r"^```(python|text)\n([\s\S]*?)^```$|((?:^ {4}.*\n)+)", re.MULTILINE)
NOT_HERE = {"TAR", "FAR"}  # a FAR of 0.001 needs 1,000 impostor pairs


def words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z@][\w@.-]{2,}", text))


def page_with(changes: dict[str, str]) -> str:
    page = PAGE.read_text(encoding="utf-8")
    for there, here in changes.items():
        assert there in page
        page = page.replace(there, here)
    return page


@pytest.mark.mxnet
@pytest.mark.usefixtures("mx")
def test_every_step_runs_and_prints_what_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "90")
    printed, kinds = "", []
    for kind, content, commands in STEP.findall(page_with(SHORTER)):
        kinds.append(kind)
        if kind == "python":
            exec(compile(content, PAGE.name, "exec"), {})
        elif kind == "text":
            assert words(content) - NOT_HERE <= words(printed), (
                f"the page shows what is not printed: {content}"
            )
        else:
            for _, *arguments in in_blocks(commands):
                assert main(arguments) == 0, arguments
            out, err = capsys.readouterr()
            printed = out + err
    assert (kinds.count("python"), kinds.count("text")) == (2, 7)
    assert Path("triplets.png").exists()


@pytest.mark.torch
def test_every_step_runs_with_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    for kind, content, commands in STEP.findall(page_with(SHORTER | WITH_PYTORCH)):
        if kind == "python":
            exec(compile(content, PAGE.name, "exec"), {})
        elif not kind:
            for _, *arguments in in_blocks(commands):
                assert main(arguments) == 0, arguments
    assert Path("triplets.png").exists()
