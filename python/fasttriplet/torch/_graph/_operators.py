"""A table of the operators that can be converted, by all names that MXNet has for them."""

from __future__ import annotations

import operator

import torch
from fasttriplet.torch._graph import _arithmetic as values
from fasttriplet.torch._graph import _normalise as normalise
from fasttriplet.torch._graph import _reduce as axes
from fasttriplet.torch._graph import _resize as sizes
from fasttriplet.torch._graph import _shapes as shapes
from fasttriplet.torch._graph._activation import activation, leaky_relu, softmax, softmax_activation
from fasttriplet.torch._graph._batch_norm import batch_norm
from fasttriplet.torch._graph._layers import convolution, deconvolution, fully_connected
from fasttriplet.torch._graph._operator import Builder
from fasttriplet.torch._graph._pooling import pooling, pooling_v1

# Their inputs after the first may become the parameters of a sub-module.
LAYERS: dict[str, Builder] = {
    "BatchNorm": batch_norm,
    "BatchNorm_v1": batch_norm,
    "Convolution": convolution,
    "Convolution_v1": convolution,
    "CuDNNBatchNorm": batch_norm,
    "Deconvolution": deconvolution,
    "FullyConnected": fully_connected,
    "LeakyReLU": leaky_relu,
    "_contrib_SyncBatchNorm": batch_norm,
}

_POWER, _ADD, _SUBTRACT = torch.pow, values.binary(operator.add), values.binary(operator.sub)
_MULTIPLY, _DIVIDE = values.binary(operator.mul), values.binary(operator.truediv)

OPERATORS: dict[str, Builder] = LAYERS | {
    "Activation": activation,
    "BlockGrad": values.without_gradient,
    "Cast": values.cast,
    "Concat": shapes.concatenate,
    "Crop": sizes.crop,
    "Dropout": normalise.dropout,
    "ElementWiseSum": values.total,
    "Flatten": shapes.flatten,
    "InstanceNorm": normalise.instance_norm,
    "L2Normalization": normalise.l2_normalization,
    "LayerNorm": normalise.layer_norm,
    "Pad": shapes.pad,
    "Pooling": pooling,
    "Pooling_v1": pooling_v1,
    "Reshape": shapes.reshape,
    "SliceChannel": shapes.split,
    "SoftmaxActivation": softmax_activation,
    "SwapAxis": shapes.swap_axes,
    "UpSampling": sizes.up_sampling,
    "_add": _ADD,
    "_copy": values.same,
    "_div": _DIVIDE,
    "_div_scalar": values.with_scalar(operator.truediv),
    "_grad_add": _ADD,
    "_maximum": values.larger,
    "_maximum_scalar": values.at_least,
    "_minimum": values.smaller,
    "_minimum_scalar": values.at_most,
    "_minus_scalar": values.with_scalar(operator.sub),
    "_mul": _MULTIPLY,
    "_mul_scalar": values.with_scalar(operator.mul),
    "_plus_scalar": values.with_scalar(operator.add),
    "_power": values.binary(_POWER),
    "_power_scalar": values.with_scalar(_POWER),
    "_rdiv_scalar": values.of_scalar(operator.truediv),
    "_rminus_scalar": values.of_scalar(operator.sub),
    "_rpower_scalar": values.of_scalar(_POWER),
    "_sub": _SUBTRACT,
    "abs": values.unary(torch.abs),
    "broadcast_add": _ADD,
    "broadcast_div": _DIVIDE,
    "broadcast_maximum": values.larger,
    "broadcast_minimum": values.smaller,
    "broadcast_mul": _MULTIPLY,
    "broadcast_power": values.binary(_POWER),
    "broadcast_sub": _SUBTRACT,
    "clip": values.clip,
    "elemwise_add": _ADD,
    "elemwise_div": _DIVIDE,
    "elemwise_mul": _MULTIPLY,
    "elemwise_sub": _SUBTRACT,
    "erf": values.unary(torch.erf),
    "exp": values.unary(torch.exp),
    "expand_dims": shapes.expand_dims,
    "hard_sigmoid": values.hard_sigmoid,
    "log": values.unary(torch.log),
    "log_softmax": softmax,
    "max": axes.reduction(axes.largest),
    "mean": axes.reduction(torch.mean),
    "min": axes.reduction(axes.smallest),
    "negative": values.unary(operator.neg),
    "norm": axes.norm,
    "reciprocal": values.unary(torch.reciprocal),
    "relu": values.unary(torch.relu),
    "rsqrt": values.unary(torch.rsqrt),
    "sigmoid": values.unary(torch.sigmoid),
    "slice": shapes.slice_,
    "slice_axis": shapes.slice_axis,
    "softmax": softmax,
    "softsign": values.unary(torch.nn.functional.softsign),
    "sqrt": values.unary(torch.sqrt),
    "square": values.unary(torch.square),
    "squeeze": shapes.squeeze,
    "stack": shapes.stack,
    "sum": axes.reduction(torch.sum),
    "tanh": values.unary(torch.tanh),
    "tile": shapes.tile,
    "transpose": shapes.transpose,
}

# Aliases: symbols have the names of functions of the Python API, and of old versions.
OPERATORS |= {
    new: OPERATORS[old]
    for new, old in {
        "_Div": "_div",
        "_DivScalar": "_div_scalar",
        "_Maximum": "_maximum",
        "_MaximumScalar": "_maximum_scalar",
        "_Minimum": "_minimum",
        "_MinimumScalar": "_minimum_scalar",
        "_Minus": "_sub",
        "_MinusScalar": "_minus_scalar",
        "_Mul": "_mul",
        "_MulScalar": "_mul_scalar",
        "_Plus": "_add",
        "_PlusScalar": "_plus_scalar",
        "_Power": "_power",
        "_PowerScalar": "_power_scalar",
        "_RDivScalar": "_rdiv_scalar",
        "_RMinusScalar": "_rminus_scalar",
        "_RPowerScalar": "_rpower_scalar",
        "_minus": "_sub",
        "_plus": "_add",
        "add_n": "ElementWiseSum",
        "broadcast_minus": "broadcast_sub",
        "broadcast_plus": "broadcast_add",
        "cast": "Cast",
        "concat": "Concat",
        "crop": "slice",
        "flatten": "Flatten",
        "identity": "_copy",
        "max_axis": "max",
        "min_axis": "min",
        "pad": "Pad",
        "reshape": "Reshape",
        "split": "SliceChannel",
        "stop_gradient": "BlockGrad",
        "sum_axis": "sum",
        "swapaxes": "SwapAxis",
    }.items()
}
