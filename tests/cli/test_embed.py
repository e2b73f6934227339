"""`fasttriplet embed`: what it prints, and how it is stopped and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fasttriplet.cli import main
from tests.cli.command import COMMAND, Capture
from tests.cli.test_stopping import wait_for
from tests.small_rec import identities, write_rec

OWN = """
import time
import numpy as np

class Slow:
    description = "slow"
    needs_images = False

    def prepare(self, index):
        pass

    def embed(self, rows, images):
        time.sleep(0.2)
        return np.repeat(rows["key"].to_numpy()[:, None], 4, 1).astype(np.float32)
"""


def test_the_summary(rec: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "e.npy"
    assert main(["embed", "--rec", str(rec), "--model", "pixels", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    for words in ("72 images in", "72 x 768 float32, 221,312 bytes", "images/s", "pixels: thumbnails"):
        assert words in printed
    assert printed.endswith(f"Embeddings are in {out}; what they are of is in {out}.json\n")
    assert "Left out" not in printed
    assert "resumed" not in printed


def test_the_summary_as_json(tmp_path: Path, capsys: Capture) -> None:
    rec = write_rec(tmp_path / "train.rec", identities(2, 3), damaged=frozenset({2}))
    words = ["embed", "--rec", str(rec), "--model", "pixels", "--out", str(tmp_path / "e.npy"), "--json"]
    assert main(words) == 1
    assert "--on-error" not in capsys.readouterr().out
    assert main([*words, "--on-error", "skip", "--dtype", "float16"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["skipped"][0]["key"] == 2
    assert (found["images"], found["size"], found["dtype"], found["out"]) == (
        6, 768, "float16", str(tmp_path / "e.npy"),
    )  # fmt: skip
    assert main([*words[:-1], "--on-error", "skip", "--overwrite"]) == 0
    assert f"Left out: 1 image, the first: {rec}, key 2: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "npy:e.npy"], "--model must compute embeddings; those of 'npy:e.npy' are in a file"),
        (["--model", "pixels", "--resume", "--overwrite"], "--resume does not go with --overwrite, which"),
        (["--model", "pixels", "--out", "e.parquet"], "e.parquet: the name must end in .npy."),
        (["--model", "pixels", "--dtype", "float64"], "'float64' is not one of"),
    ],
)
def test_what_is_not_understood(rec: Path, words: list[str], message: str, capsys: Capture) -> None:
    assert main(["embed", "--rec", str(rec), "--out", "e.npy", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(("sent", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_stopped_run_is_resumed(
    tmp_path: Path, sent: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("slow.py").write_text(OWN)
    write_rec(Path("train.rec"), identities(1000, 6), damaged=frozenset(range(1, 6001)))
    words = ["embed", "--rec", "train.rec", "--model", "python:slow:Slow", "--out", "e.npy"]
    with subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True) as process:
        wait_for(Path("e.npy.unfinished/about.json").exists)
        process.send_signal(getattr(signal, sent))
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    done = json.loads(Path("e.npy.unfinished/about.json").read_text())["done"]
    assert f"fasttriplet: {done:,} of 6,000 images are kept in e.npy.unfinished; --resume continues" in errors
    assert "Traceback" not in errors
    assert main(words) == 1
    expected = f"e.npy.unfinished: {done:,} of 6,000 images are done; --resume continues, --overwrite starts"
    assert expected in capsys.readouterr().err
    assert main([*words, "--resume"]) == 0
    assert f"after {done:,} images" in capsys.readouterr().out
    assert np.array_equal(np.load("e.npy")[:, 0], np.arange(1, 6001))
    assert not Path("e.npy.unfinished").exists()
