"""Activations and softmax."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch.nn import functional

import torch
from fasttriplet.torch._graph._operator import Operator
from fasttriplet.torch._graph._prelu import PReLU
from torch import fx, nn

_KINDS = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "softrelu": nn.Softplus,
    "softsign": nn.Softsign,
    "tanh": nn.Tanh,
}


def activation(op: Operator) -> fx.Node:
    """``Activation``."""
    return op.layer(_KINDS[op.attributes.choice("act_type", list(_KINDS))])


def leaky_relu(op: Operator) -> fx.Node:
    """``LeakyReLU``; with a learned slope for each channel (axis 1), or for all, it is PReLU."""
    kinds = ("elu", "gelu", "leaky", "prelu", "rrelu", "selu")
    kind = op.attributes.choice("act_type", kinds, "leaky")
    slope = op.attributes.number("slope", 0.25)
    lower = op.attributes.number("lower_bound", 0.125)
    upper = op.attributes.number("upper_bound", 0.334)
    if kind != "prelu":
        makers: dict[str, Callable[[], nn.Module]] = {
            "elu": partial(nn.ELU, slope),
            "gelu": nn.GELU,
            "leaky": partial(nn.LeakyReLU, slope),
            "rrelu": partial(nn.RReLU, lower, upper),
            "selu": nn.SELU,
        }
        return op.layer(makers[kind])
    if not op.owns_weights:
        return op.call(functional.prelu, op.data, op.value(1))
    return op.layer(lambda: PReLU(op.array(1).size), slots={"weight": 1})


def softmax_activation(op: Operator) -> fx.Node:
    """``SoftmaxActivation``: over the channels, or over the last axis."""
    channels = op.attributes.choice("mode", ("instance", "channel"), "instance") == "channel"
    return op.layer(lambda: nn.Softmax(1 if channels else -1))


def softmax(op: Operator) -> fx.Node:
    """``softmax`` and ``log_softmax``."""
    axis = op.attributes.axis("axis", -1)
    temperature = op.attributes.optional_number("temperature")
    if temperature == 0:
        raise op.attributes.error("temperature=0 cannot be converted; expected another number")
    op.attributes.choice("dtype", ("None",), "None")
    op.attributes.choice("use_length", ("False", "0"), "False")
    data = op.data if temperature is None else op.call(torch.div, op.data, temperature)
    return op.call(torch.softmax if op.op == "softmax" else torch.log_softmax, data, axis)
