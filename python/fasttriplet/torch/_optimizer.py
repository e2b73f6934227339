"""The optimizer of a training: which weights decay, what it keeps, and how it is saved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from fasttriplet.checkpoint._symbol import parse_symbol
from fasttriplet.torch._graph._network import ConvertedNetwork
from fasttriplet.training._settings import TrainSettings
from torch import nn


def optimizer_of(network: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Make the optimizer of a training, with all that it will keep, at 0.

    Each group of weights has an ``lr_scale``, by which the learning rate is multiplied.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    multipliers = _of_symbol(network) if isinstance(network, ConvertedNetwork) else {}
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            decays = not name.endswith("bias")
            groups[multipliers.get(name, (1.0, float(decays)))].append(weight)
    if not groups:
        raise ValueError("the network has no weights that can be trained")
    made = [
        {"params": weights, "lr_scale": rate, "weight_decay": settings.weight_decay * decay}
        for (rate, decay), weights in groups.items()
    ]
    optimizer: torch.optim.Optimizer
    kept: tuple[str, ...]
    if settings.optimizer == "adamw":
        optimizer, kept = torch.optim.AdamW(made, lr=settings.learning_rate), ("exp_avg", "exp_avg_sq")
    else:
        momentum = float(settings.momentum)
        optimizer = torch.optim.SGD(made, lr=settings.learning_rate, momentum=momentum)
        kept = ("momentum_buffer",) if momentum else ()
    # PyTorch makes them in the first step; so a state is the same before and after it.
    for group in optimizer.param_groups:
        for weight in group["params"]:
            optimizer.state[weight] |= {
                name: torch.zeros_like(weight, memory_format=torch.preserve_format) for name in kept
            }
            if settings.optimizer == "adamw":
                optimizer.state[weight]["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step.

    As in MXNet, a gradient enters the momentum with the learning rate of its step, and a later rate does not
    change that: m = momentum m + rate (gradient + decay), weight -= m. For PyTorch's SGD that is a rate of 1,
    and 1 - `dampening` for the gradient.
    """
    for group in optimizer.param_groups:
        of_group = rate * group["lr_scale"]
        if group.get("momentum"):
            group["lr"], group["dampening"] = 1.0, 1 - of_group
        else:
            group["lr"] = of_group


def kept_by(optimizer: torch.optim.Optimizer, network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """What the optimizer keeps for each weight, as ``("momentum_buffer:conv1.weight", tensor)``."""
    for name, weight in network.named_parameters():
        for kind, values in optimizer.state.get(weight, {}).items():
            yield f"{kind}:{name}", values


def _of_symbol(network: ConvertedNetwork) -> dict[str, tuple[float, float]]:
    """Factors of learning rate and decay, as MXNet has them: only weights and gammas decay."""
    nodes = {node.name: node for node in parse_symbol(network.origin.symbol).nodes if node.is_variable}
    found: dict[str, tuple[float, float]] = {}
    for place, (name, _) in network.origin.places.items():
        noted = nodes[name].annotations
        usual = float(name.endswith(("_weight", "_gamma")))
        found[place] = _factor(noted, "__lr_mult__", 1.0, name), _factor(noted, "__wd_mult__", usual, name)
    return found


def _factor(noted: Any, key: str, usual: float, name: str) -> float:
    try:
        return float(noted.get(key, usual))
    except ValueError:
        raise ValueError(f"{key} of the weight {name!r} must be a number, not {noted[key]!r:.100}") from None
