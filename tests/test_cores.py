"""How many cores networks use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fasttriplet import _cores
from fasttriplet._cores import cores


def test_two_threads_of_a_core_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cores, "_share", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5})
    siblings = {"cpu0": "0,4", "cpu1": "1,5", "cpu2": "2,6", "cpu5": "1,5"}
    monkeypatch.setattr(Path, "read_text", lambda path: siblings[path.parent.parent.name])
    assert cores() == 3

    def hidden(path: Path) -> str:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "read_text", hidden)
    assert cores() == 4


@pytest.mark.parametrize(("share", "expected"), [(None, 4), (0.5, 1), (2.0, 2), (2.9, 2), (64.0, 4)])
def test_a_container_s_share_is_rounded_down(
    share: float | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_cores, "_share", lambda: share)
    monkeypatch.setattr(_cores, "_cores_of_affinity", lambda: 4)
    assert cores() == expected


GROUPS: dict[str, tuple[str, dict[str, str], float | None]] = {
    "version 2": ("0::/a/b\n", {"a/b/cpu.max": "150000 100000\n"}, 1.5),
    "version 2, of the group above": (
        "0::/a/b\n",
        {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 50000\n", "cpu.max": "max 100000\n"},
        1.0,
    ),
    "version 2, the smallest": (
        "0::/a/b\n",
        {"a/b/cpu.max": "800000 100000\n", "a/cpu.max": "300000 100000\n"},
        3.0,
    ),
    "version 2, no limit": ("0::/\n", {"cpu.max": "max 100000\n"}, None),
    "version 2, in a container, by the host's path": ("0::/docker/1\n", {"cpu.max": "200000 100000"}, 2.0),
    "version 1": (
        "5:memory:/\n3:cpu,cpuacct:/a\n",
        {"cpu/a/cpu.cfs_quota_us": "250000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
        2.5,
    ),
    "version 1, in a container": (
        "1:cpu:/docker/1\n0::/\n",
        {"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        4.0,
    ),
    "version 1, no limit": (
        "1:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        None,
    ),
    "other controllers": ("9:name=systemd:/\n2:cpuacct:/\n", {"cpu.max": "100000 100000\n"}, None),
    "nonsense": ("\n0::\n1:cpu\n0::/../..\n", {"cpu.max": "a b c", "cpu/cpu.cfs_quota_us": ""}, None),
    "a period of 0": ("0::/\n", {"cpu.max": "100000 0\n"}, None),
}


@pytest.mark.parametrize("case", GROUPS)
def test_the_quota_of_control_groups(case: str, tmp_path: Path) -> None:
    lines, files, expected = GROUPS[case]
    (tmp_path / "of_process").write_text(lines)
    for name, text in files.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert _cores._share(tmp_path / "groups", tmp_path / "of_process") == expected


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert _cores._share(tmp_path, tmp_path / "none") is None
