"""What a graph does not say about operators: which inputs are running statistics, and names of outputs.

The tables are those of MXNet 1.9.1, without operators that networks do not have, such as optimizers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

_BATCH_NORMS = (
    "BatchNorm", "BatchNorm_v1", "CuDNNBatchNorm", "_contrib_BatchNormWithReLU", "_contrib_SyncBatchNorm",
)  # fmt: skip
_STATES = {
    **{op: {3: "moving_mean", 4: "moving_var"} for op in (*_BATCH_NORMS, "_contrib_quantized_batch_norm")},
    "IdentityAttachKLSparseReg": {1: "moving_avg"},
}
# How MXNet fills an input that is given no other initializer.
_INITIALIZERS = {
    **{op: {3: '["zero", {}]', 4: '["one", {}]'} for op in _BATCH_NORMS},
    "LeakyReLU": {1: '["Constant", {"value": 0.25}]'},
    "IdentityAttachKLSparseReg": {1: '["zero", {}]'},
    "UpSampling": {1: '["bilinear", {}]'},
}
# Numbers of the inputs that operators with weights have.
INPUTS = {"data": 0, "weight": 1, "gamma": 1, "label": 1, "bias": 2, "beta": 2}

_TWO, _THREE = ("output0", "output1"), ("output0", "output1", "output2")
_OUTPUTS: dict[str, Sequence[str]] = {
    **dict.fromkeys(("CTCLoss", "_contrib_CTCLoss", "_contrib_ctc_loss", "ctc_loss"), ("output0",)),
    **dict.fromkeys(("_contrib_box_nms", "_contrib_box_non_maximum_suppression"), ("output0",)),
    **dict.fromkeys(("_linalg_det", "linalg_det", "sort"), ("output0",)),
    **dict.fromkeys(("_linalg_gelqf", "linalg_gelqf", "_linalg_slogdet", "linalg_slogdet"), _TWO),
    **dict.fromkeys(("_linalg_syevd", "linalg_syevd", "_histogram", "moments", "_contrib_box_encode"), _TWO),
    **dict.fromkeys(("_contrib_quantize", "_contrib_quantize_v2", "_contrib_requantize"), _THREE),
    "_contrib_MultiBoxTarget": ("loc_target", "loc_mask", "cls_target"),
    "_contrib_calibrate_entropy": ("threshold", "divergence"),
    "_contrib_hawkesll": ("output", "out_state"),
    "_contrib_quantize_asym": ("output", "scale", "shift"),
    **dict.fromkeys(("_sparse_make_loss", "make_loss"), ("loss",)),
}
_MOMENTS = ("output_mean_var", dict.fromkeys(("True", "1"), ("output", "mean", "var")))
_DEVIATIONS = ("output_mean_var", dict.fromkeys(("True", "1"), ("output", "mean", "std")))
_SCORES = ("output_score", dict.fromkeys(("True", "1"), ("output", "score")))
# An attribute, and the names for each of its values that changes them.
_OUTPUTS_BY_VALUE: dict[str, tuple[str, Mapping[str, Sequence[str]]]] = {
    **{op: _MOMENTS for op in _BATCH_NORMS if op != "_contrib_SyncBatchNorm"},
    **dict.fromkeys(("GroupNorm", "LayerNorm"), _DEVIATIONS),
    **dict.fromkeys(("_contrib_MultiProposal", "_contrib_Proposal"), _SCORES),
    "LeakyReLU": ("act_type", {"rrelu": ("output", "mask")}),
    "topk": ("ret_typ", {"value": ("output0",), "both": _TWO}),
}


def states_of(op: str) -> Mapping[int, str]:
    """Return the endings of an operator's inputs that are running statistics, by their number."""
    return _STATES.get(op, {})


def initializers_of(op: str) -> Mapping[int, str]:
    """Return the initializers of an operator's inputs, by their number."""
    return _INITIALIZERS.get(op, {})


def output_names(op: str, attributes: Mapping[str, str]) -> Sequence[str]:
    """Name the outputs of an operator, as MXNet does in ``NAME_output``, without those that it hides."""
    if op in ("SliceChannel", "split"):
        return _numbered(attributes.get("num_outputs", ""))
    if op in ("_split_v2", "amp_multicast"):
        count = attributes.get("sections", "0") if op == "_split_v2" else attributes.get("num_outputs", "")
        if count == "0":
            count = str(len(re.findall("[0-9]+", attributes.get("indices", ""))))
        names = _numbered(count)
        return names if len(names) > 1 else ("output",)
    if op in ("RNN", "_contrib_quantized_rnn"):
        return _of_rnn(op, attributes)
    if op.startswith("_contrib_quantized_"):
        return ("output", "min_output", "max_output")
    attribute, by_value = _OUTPUTS_BY_VALUE.get(op, ("", {}))
    return by_value.get(attributes.get(attribute, ""), _OUTPUTS.get(op, ("output",)))


def _numbered(count: str) -> Sequence[str]:
    number = int(count) if count.isdecimal() and len(count) <= 3 else 1  # a hostile graph may name millions
    return [f"output{output}" for output in range(number)]


def _of_rnn(op: str, attributes: Mapping[str, str]) -> Sequence[str]:
    if attributes.get("state_outputs", "False") not in ("True", "1"):
        return ("output",)
    cell = "statecell_ouput" if op == "_contrib_quantized_rnn" else "statecell_output"
    return ("output", "state_output", cell)[: 3 if attributes.get("mode") == "lstm" else 2]
