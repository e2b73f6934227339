"""The folder of a run's work: what is said about it where the run ends with an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from fasttriplet.run._work_folder import work_folder


def notes_of_a_failed_run(out: Path | None, done: str | None) -> list[str]:
    with pytest.raises(MemoryError) as failed, work_folder(out, resume=False, overwrite=False) as work:
        (work.place / "a part").touch()
        work.note(done)
        raise MemoryError
    return getattr(failed.value, "__notes__", [])


def test_what_is_kept_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "t.parquet.unfinished"
    assert notes_of_a_failed_run(tmp_path / "t.parquet", "3 bags") == [
        f"kept in {folder}: 3 bags; resume=True continues"
    ]
    assert folder.is_dir()


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_what_is_no_folder_of_a_run_is_in_the_way(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "t.parquet.unfinished"
    if kind == "file":
        folder.touch()
    elif kind == "link":  # to a folder that could be one
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to("elsewhere")
    else:
        (folder / "of somebody").mkdir(parents=True)
    with (
        pytest.raises(FileExistsError, match="is in the way: it is not the folder of an unfinished run"),
        work_folder(tmp_path / "t.parquet", resume=True, overwrite=False),
    ):
        pass
    assert folder.exists()


def test_what_was_only_begun_is_not(tmp_path: Path) -> None:
    assert notes_of_a_failed_run(tmp_path / "t.parquet", None) == []


def test_of_a_run_without_a_file_nothing_is_kept() -> None:
    assert notes_of_a_failed_run(None, "3 bags") == []
