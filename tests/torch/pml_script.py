"""What each process does in `test_metric_learning.py`; it prints one line of JSON for each question."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np
import torch.distributed as dist
from pytorch_metric_learning import distances, losses, miners
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper, DistributedMinerWrapper

import torch
from fasttriplet.torch import TripletMiner

RANK = int(os.environ["RANK"])
# Of each kind our miner, and PML's that returns the same.
KINDS: dict[str, tuple[dict[str, Any], Any]] = {
    "all": ({"margin": 0.2}, miners.TripletMarginMiner(0.2)),
    "semihard": ({"margin": 0.2, "band": "semihard"}, miners.TripletMarginMiner(0.2, "semihard")),
    "hardest": ({"band": "any", "pick": "hardest", "pairs": "hardest"}, miners.BatchHardMiner()),
}


def part(values: torch.Tensor) -> torch.Tensor:
    """This process's half of a batch."""
    return values.chunk(2)[RANK]


def same(found: Any, expected: Any) -> bool:
    return len(found) == len(expected) == 3 and all(map(torch.equal, found, expected))


def main() -> None:
    with np.load(sys.argv[1]) as arrays:
        rows, labels, others, other_labels = (torch.from_numpy(arrays[name]) for name in arrays.files)
    dist.init_process_group("gloo")
    for kind, (options, theirs) in KINDS.items():
        miner = TripletMiner(metric="euclidean", **options)
        for efficient in (False, True):
            for references in (False, True):
                against = (part(others), part(other_labels)) if references else ()
                found, expected = (
                    DistributedMinerWrapper(one, efficient=efficient)(part(rows), part(labels), *against)
                    for one in (miner, theirs)
                )
                answer = {
                    "question": f"{kind}, {efficient=}, {references=}",
                    "triplets": torch.stack(found, dim=1).tolist(),
                    "as PML's": same(found, expected),
                }
                if kind != "hardest":
                    loss = losses.TripletMarginLoss(0.2, distance=distances.LpDistance())
                    wrapped = DistributedLossWrapper(loss, efficient=efficient)
                    given = part(rows).clone().requires_grad_()
                    answer["loss"] = wrapped(given, part(labels), found, *against).item()
                print(json.dumps(answer), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
