"""A cluster of two machines, both of which are this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.run.test_whole import dataset
from tests.small_rec import identities

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture(scope="session")
def ray() -> Any:
    return pytest.importorskip("ray")


@pytest.fixture(scope="session")
def cluster(ray: Any) -> Iterator[Any]:  # noqa: ARG001  it is installed
    """A head and one more node, with a CPU each."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A `.rec` of 80 identities, and embeddings of its images."""
    return dataset(tmp_path_factory.mktemp("ray"), identities(80, 4), sorted_by_label=False)
