"""The network in training: its module, its optimizer, and all numbers that they consist of."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet.dataset._order import epoch_seed
from fasttriplet.mxnet._compat import import_mxnet
from fasttriplet.mxnet._loss import triplet_loss
from fasttriplet.mxnet._metric import TripletMetric
from fasttriplet.mxnet._quiet import quiet
from fasttriplet.run._feed import TripletBatch
from fasttriplet.training._settings import TrainSettings

_MXNET_SEEDS = 2**31 - 1


class Model:
    """A network with the triplet loss, on its devices.

    Parameters
    ----------
    embedding : mxnet.symbol.Symbol
        With the input ``data`` and one output, (B, D).
    settings : TrainSettings
    contexts : list of mxnet.Context
    image_size : (int, int)
        Height and width.

    Raises
    ------
    ValueError
        If the network does not take such images.
    """

    def __init__(
        self, embedding: Any, settings: TrainSettings, contexts: Sequence[Any], image_size: tuple[int, int]
    ) -> None:
        self._mx = mx = import_mxnet()
        self.embedding = embedding
        self._settings = settings
        self.metric = TripletMetric(settings.margin, settings.loss)
        symbol = triplet_loss(embedding, settings.margin, settings.batch_size, settings.loss)
        # The optimizer is updated through the store of all devices, or for one device without a store.
        self.module = mx.mod.Module(symbol, context=list(contexts))
        images = settings.batch_size * len(contexts)
        try:
            with quiet():
                self.module.bind([("data", (images, 3, *image_size))], [("softmax_label", (images,))])
        except RuntimeError as error:  # MXNetError is one
            height, width = image_size
            if "llocate" in str(error):
                raise MemoryError(f"for {images} images of {height} x {width} (H x W) at once") from error
            reason = [line for line in str(error).splitlines() if "rror" in line] or [str(error)]
            raise ValueError(
                f"the network does not take images of {height} x {width} (H x W): {reason[-1].strip()}"
            ) from error

    def begin(self, args: Mapping[str, Any], auxs: Mapping[str, Any]) -> None:
        """Take these weights, draw the others, and set up the optimizer.

        Parameters
        ----------
        args, auxs : dict of str to NDArray
            By name; those of other names are not used.

        Raises
        ------
        ValueError
            If a weight has another shape, or all are of other names.
        """
        mx, settings = self._mx, self._settings
        mx.random.seed(settings.seed % _MXNET_SEEDS)
        # As InsightFace for its residual networks.
        initializer = mx.init.Xavier(rnd_type="gaussian", factor_type="out", magnitude=2)
        self.module.init_params(mx.init.Zero())  # for the shapes
        wanted_args, wanted_auxs = self.module.get_params()
        if args or auxs:
            self._check(wanted_args | wanted_auxs, {**args, **auxs})
        self.module.init_params(
            initializer,
            arg_params={name: value for name, value in args.items() if name in wanted_args},
            aux_params={name: value for name, value in auxs.items() if name in wanted_auxs},
            allow_missing=True,
            force_init=True,
        )
        self._begin_optimizer()

    def _begin_optimizer(self) -> None:
        settings, devices = self._settings, len(self._contexts)
        self.module.init_optimizer(
            kvstore="device",
            optimizer="sgd",
            optimizer_params={
                "learning_rate": settings.learning_rate,
                "momentum": settings.momentum,
                "wd": settings.weight_decay,
                "rescale_grad": 1.0 / devices,  # the loss is a mean on each device
            },
            force_init=True,
        )
        self._optimizer = self.module._optimizer
        # A gamma that is fixed is set to 1 by each pass, and would decay behind it.
        self._optimizer.set_wd_mult(dict.fromkeys(_fixed_gammas(self.embedding), 0.0))

    @property
    def _contexts(self) -> list[Any]:
        contexts: list[Any] = self.module._context
        return contexts

    @property
    def _updater(self) -> Any:
        """What holds the momenta: the module's, or with several devices that of their store."""
        return self.module._updater or self.module._kvstore._updater

    @staticmethod
    def _check(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        for name in sorted(wanted.keys() & given.keys()):
            if wanted[name].shape != given[name].shape:
                raise ValueError(
                    f"pretrained: the weight {name} has the shape {given[name].shape}, and the network wants "
                    f"{wanted[name].shape}"
                )
        missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
        if len(missing) == len(wanted):
            raise ValueError(
                f"pretrained: the checkpoint has no weight of this network, such as {missing[0]}; it has "
                f"{extra[0]} and others"
            )
        if missing:
            warnings.warn(f"pretrained: {_some(missing)} not there; drawn at random", stacklevel=6)

    def step(self, batch: TripletBatch, behind: int) -> None:
        """Train on one batch; so many are behind it."""
        mx = self._mx
        # For layers that draw: the numbers depend on the batch, not on what the process did before.
        mx.random.seed(epoch_seed(self._settings.seed, behind) % _MXNET_SEEDS)
        self._optimizer.lr = self._settings.learning_rate_behind(behind)
        labels = mx.nd.array(batch.labels.astype(np.float32))
        self.module.forward_backward(mx.io.DataBatch([mx.nd.array(batch.images)], [labels]))
        self.module.update()
        self.module.update_metric(self.metric, [labels])
        mx.nd.waitall()

    def params(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Weights and running statistics for a checkpoint: of several devices the mean."""
        args, auxs = self.module.get_params()
        return args, auxs

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All numbers that a training goes on with, by name.

        Running statistics are of each device. Those of the first device stand for its weights, which are the
        same on all.
        """
        executors = self.module._exec_group.execs
        found = {f"arg:{name}": executors[0].arg_dict[name].asnumpy() for name in self._names()}
        for device, executor in enumerate(executors):
            found |= {f"aux:{device}:{name}": value.asnumpy() for name, value in executor.aux_dict.items()}
        for key, state in self._updater.states.items():
            if state is not None:  # without momentum
                found[f"momentum:{json.dumps(key)}"] = state.asnumpy()
        return found

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take what :meth:`arrays` gave, with as many devices.

        Raises
        ------
        ValueError
            If something is missing or has another shape.
        """
        mx = self._mx
        executors = self.module._exec_group.execs
        args = {name: _found(arrays, f"arg:{name}") for name in self._names()}
        auxs = [
            {name: _found(arrays, f"aux:{device}:{name}") for name in executor.aux_dict}
            for device, executor in enumerate(executors)
        ]
        self.module.init_params(mx.init.Zero())
        wanted_args, wanted_auxs = self.module.get_params()
        for wanted, given in ((wanted_args, args), *((wanted_auxs, aux) for aux in auxs)):
            for name, value in given.items():
                if wanted[name].shape != value.shape:
                    raise ValueError(f"{name} has the shape {value.shape}, not {wanted[name].shape}")
        self.module.set_params(
            {name: mx.nd.array(value) for name, value in args.items()},
            {name: mx.nd.array(value) for name, value in auxs[0].items()},
        )
        for executor, aux in zip(executors, auxs, strict=True):
            for name, value in aux.items():
                executor.aux_dict[name][:] = value
        self._begin_optimizer()
        self._updater.states = {
            json.loads(name.removeprefix("momentum:")): mx.nd.array(value)
            for name, value in arrays.items()
            if name.startswith("momentum:")
        }
        self._updater.states_synced = dict.fromkeys(self._updater.states, False)

    def _names(self) -> list[str]:
        """Of the weights."""
        names: list[str] = self.module._param_names
        return names


def _fixed_gammas(symbol: Any) -> list[str]:
    nodes = json.loads(symbol.tojson())["nodes"]
    return [
        nodes[node["inputs"][1][0]]["name"]
        for node in nodes
        if node["op"] == "BatchNorm" and node.get("attrs", {}).get("fix_gamma", "True") in ("True", "1")
    ]


def _found(arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    return arrays[name]


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} are" if len(names) <= 5 else f"{shown} and {len(names) - 5} more are"
