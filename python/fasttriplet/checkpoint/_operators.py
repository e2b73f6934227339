"""What a graph does not say: the outputs of an operator, and which of its inputs are running statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_STATES = {
    "BatchNorm": {3: "moving_mean", 4: "moving_var"},
    "BatchNorm_v1": {3: "moving_mean", 4: "moving_var"},
    "CuDNNBatchNorm": {3: "moving_mean", 4: "moving_var"},
    "_contrib_SyncBatchNorm": {3: "moving_mean", 4: "moving_var"},
    "_contrib_BatchNormWithReLU": {3: "moving_mean", 4: "moving_var"},
    "IdentityAttachKLSparseReg": {1: "moving_avg"},
}
INPUTS = {"data": 0, "weight": 1, "gamma": 1, "bias": 2, "beta": 2}


def states_of(op: str) -> Mapping[int, str]:
    """Name the inputs of an operator that are running statistics, by their number."""
    return _STATES.get(op, {})


def output_names(op: str, attributes: Mapping[str, str]) -> Sequence[str]:
    """Name the outputs of an operator, without those that MXNet hides."""
    if op in ("SliceChannel", "split"):
        count = attributes.get("num_outputs", "")
        return [f"output{number}" for number in range(int(count))] if count.isdecimal() else ["output0"]
    return ["output"]
