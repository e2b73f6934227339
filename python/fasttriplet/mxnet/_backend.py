"""MXNet's part of a training: a module, its optimizer, and all numbers that they consist of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fasttriplet.checkpoint._networks import PReLU
from fasttriplet.checkpoint._outputs import SAVE_WITHOUT_LOSS, read_up_to_embedding
from fasttriplet.checkpoint._symbol import parse_symbol
from fasttriplet.embedders._batches import is_shortage, shortage
from fasttriplet.mxnet._checkpoint import load_checkpoint, load_symbol, save_checkpoint
from fasttriplet.mxnet._compat import import_mxnet, reason_of
from fasttriplet.mxnet._devices import contexts, name_of
from fasttriplet.mxnet._loss import triplet_loss
from fasttriplet.mxnet._metric import TripletMetric
from fasttriplet.mxnet._module_embedder import ModuleEmbedder
from fasttriplet.mxnet._networks import build_network
from fasttriplet.mxnet._quiet import quiet
from fasttriplet.run._feed import TripletBatch
from fasttriplet.training._backend import Backend
from fasttriplet.training._pretrained import check_pretrained, epoch_of_checkpoint
from fasttriplet.training._settings import TrainSettings

_MXNET_SEEDS = 2**31 - 1


class TrainingBackend(Backend):
    """An ``mx.mod.Module`` with the triplet loss; see :class:`fasttriplet.training._backend.Backend`."""

    endings = ("-symbol.json", "-0000.params")
    exports: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def __init__(self, settings: TrainSettings, devices: str | Sequence[str] | None) -> None:
        self._mx = import_mxnet()
        self._settings = settings
        self._contexts = contexts(devices)
        self.devices = tuple(map(name_of, self._contexts))
        self.embedder = ModuleEmbedder(description=f"the network in training, on {', '.join(self.devices)}")
        self.sums = [0.0] * 4
        self._metric = TripletMetric(settings.margin_of_loss, settings.loss)

    def begin(self, image_size: tuple[int, int]) -> None:
        """See :meth:`Backend.begin`."""
        mx, settings = self._mx, self._settings
        self._bind(_network(settings, image_size, self.devices[0]), image_size)
        given = _pretrained(settings)
        mx.random.seed(settings.seed % _MXNET_SEEDS)
        self._module.init_params(mx.init.Zero())  # for the shapes
        args, auxs = self._module.get_params()
        if given:
            wanted = {name: value.shape for name, value in (args | auxs).items()}
            plain = {name: value.asnumpy() for name, value in given.items()}
            check_pretrained(wanted, plain, f"the checkpoint {settings.pretrained}")
        self._module.init_params(
            # As InsightFace for its residual networks.
            mx.init.Xavier(rnd_type="gaussian", factor_type="out", magnitude=2),
            arg_params={name: given[name] for name in args if name in given},
            aux_params={name: given[name] for name in auxs if name in given},
            allow_missing=True,
            force_init=True,
        )
        self._begin_optimizer()

    def load(self, network: Any, arrays: Mapping[str, NDArray[Any]], image_size: tuple[int, int]) -> None:
        """See :meth:`Backend.load`."""
        mx = self._mx
        self._bind(_symbol_of(network), image_size)
        self._module.init_params(mx.init.Zero())
        wanted_args, wanted_auxs = self._module.get_params()
        args = {name: _found(arrays, f"arg:{name}", value) for name, value in wanted_args.items()}
        auxs = [
            {name: _found(arrays, f"aux:{device}:{name}", value) for name, value in wanted_auxs.items()}
            for device in range(len(self.devices))
        ]
        self._module.set_params(
            {name: mx.nd.array(value) for name, value in args.items()},
            {name: mx.nd.array(value) for name, value in auxs[0].items()},
        )
        for executor, aux in zip(self._executors, auxs, strict=True):
            for name, value in aux.items():
                executor.aux_dict[name][:] = value
        self._begin_optimizer()
        # So that it takes the mean over the devices when it is asked for running statistics.
        self._module._params_dirty = True
        momenta = {
            key: _found(arrays, _name_of_momentum(key), wanted_args[weight])
            for key, weight in self._momenta.items()
        }
        self._updater.states = {key: mx.nd.array(value) for key, value in momenta.items()}
        self._updater.states_synced = dict.fromkeys(momenta, False)
        known = {f"arg:{name}" for name in args} | set(map(_name_of_momentum, momenta))
        known |= {f"aux:{device}:{name}" for device, aux in enumerate(auxs) for name in aux}
        if unknown := arrays.keys() - known:
            raise ValueError(f"the network has no {min(unknown)}")

    def _bind(self, embedding: Any, image_size: tuple[int, int]) -> None:
        mx, settings = self._mx, self._settings
        symbol = triplet_loss(embedding, settings.margin_of_loss, settings.batch_size, settings.loss)
        # The optimizer is updated through the store of all devices, or for one device without a store.
        module = mx.mod.Module(symbol, context=self._contexts)
        images = settings.batch_size * len(self.devices)
        height, width = image_size
        try:
            with quiet():
                module.bind([("data", (images, 3, height, width))], [("softmax_label", (images,))])
        except Exception as error:  # of MXNet, not always of its own class
            if is_shortage(error):
                raise shortage("the training", self.devices, settings.batch_size, image_size) from error
            raise ValueError(
                f"the network does not take images of {height} x {width} (H x W): {reason_of(error)}"
            ) from error
        self._embedding, self._module, self.embedder.module = embedding, module, module

    def _begin_optimizer(self) -> None:
        settings = self._settings
        self._module.init_optimizer(
            kvstore="device",
            optimizer="sgd",
            optimizer_params={
                "learning_rate": settings.learning_rate,
                "momentum": settings.momentum,
                "wd": settings.weight_decay,
                "rescale_grad": 1.0 / len(self.devices),  # the loss is a mean on each device
            },
            force_init=True,
        )
        # A gamma that is fixed is set to 1 by each pass, and would decay after it.
        self._module._optimizer.set_wd_mult(dict.fromkeys(_fixed_gammas(self._embedding), 0.0))

    @property
    def _executors(self) -> list[Any]:
        """The network on each device."""
        executors: list[Any] = self._module._exec_group.execs
        return executors

    @property
    def _updater(self) -> Any:
        """What holds the momenta: the module's updater, or with several devices that of their store."""
        return self._module._updater or self._module._kvstore._updater

    @property
    def _momenta(self) -> dict[int | str, str]:
        """The weight of each key of the updater: keys are numbers of weights, or with a store their names."""
        names = self._module._param_names if self._settings.momentum else []
        return dict(enumerate(names)) if self._module._updater else dict(zip(names, names, strict=True))

    @property
    def network(self) -> Any:
        """The JSON of the symbol without the loss."""
        return self._embedding.tojson()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Weights are the same on all devices; running statistics differ, so those of each are there."""
        weights = self._executors[0].arg_dict
        found = {f"arg:{name}": weights[name].asnumpy() for name in self._module._param_names}
        for device, executor in enumerate(self._executors):
            found |= {f"aux:{device}:{name}": value.asnumpy() for name, value in executor.aux_dict.items()}
        states = self._updater.states
        for key, weight in self._momenta.items():
            # The updater makes zeros in the first step.
            momentum = states[key].asnumpy() if key in states else np.zeros_like(found[f"arg:{weight}"])
            found[_name_of_momentum(key)] = momentum
        return found

    def step(self, batch: TripletBatch, learning_rate: float, seed: int) -> None:
        """Train on one batch."""
        mx = self._mx
        mx.random.seed(seed % _MXNET_SEEDS)
        self._module._optimizer.lr = learning_rate
        labels = mx.nd.array(batch.labels.astype(np.float32))
        self._module.forward_backward(mx.io.DataBatch([mx.nd.array(batch.images)], [labels]))
        self._module.update()
        self._metric.sums = self.sums
        self._module.update_metric(self._metric, [labels])
        self.sums = self._metric.sums
        mx.nd.waitall()

    def save(self, prefix: str) -> None:
        """Write a checkpoint; running statistics are the mean over the devices."""
        save_checkpoint(prefix, 0, self._embedding, *self._module.get_params())

    def spec(self, prefix: str) -> str:
        """``mxnet:PREFIX,0``."""
        return f"mxnet:{prefix},0"


def _network(settings: TrainSettings, image_size: tuple[int, int], device: str) -> Any:
    """The network without a loss: its input is ``data``, its output the embedding."""
    if settings.network is not None:
        prelu: PReLU = "convolutions" if device == "cpu" else "operator"
        return build_network(settings.network, image_size, settings.embedding_size, prelu=prelu)
    assert settings.symbol is not None
    path = Path(settings.symbol)
    graph = read_up_to_embedding(path)
    embedding, mx = load_symbol(graph, path), import_mxnet()
    try:
        _, shapes, _ = embedding.infer_shape_partial(data=(1, 3, *image_size))
    except mx.base.MXNetError:  # binding the network says why
        return embedding
    shape = shapes[0] if shapes else ()
    if len(shape) == 1:
        raise ValueError(
            f"{path}: output {graph.name_of(graph.heads[0])} has shape {shape} for 1 image, and an embedding "
            f"has (1, D). {SAVE_WITHOUT_LOSS}"
        )
    # (B, D, 1, 1) counts as (B, D).
    return mx.sym.Flatten(embedding) if len(shape) > 2 else embedding


def _symbol_of(network: Any) -> Any:
    """The network of a state."""
    mx, wrong = import_mxnet(), "network must be an MXNet symbol in JSON"
    if not isinstance(network, str):
        raise ValueError(f"{wrong}, not {network!r:.100}")
    try:
        graph = parse_symbol(network)
        if "data" not in graph.arguments():
            raise ValueError("it has no input data")
        return mx.sym.load_json(graph.to_json())
    except (ValueError, mx.base.MXNetError) as error:
        raise ValueError(f"{wrong}: {reason_of(error)}") from error


def _pretrained(settings: TrainSettings) -> dict[str, Any]:
    """Weights and running statistics to begin with, by name; empty if there is no checkpoint to take."""
    if settings.pretrained is None:
        return {}
    prefix, epoch = epoch_of_checkpoint(settings.pretrained)
    checkpoint = load_checkpoint(prefix, epoch)
    return checkpoint.arg_params | checkpoint.aux_params


def _fixed_gammas(symbol: Any) -> list[str]:
    nodes = parse_symbol(symbol.tojson()).nodes
    return [
        nodes[node.inputs[1].node].name
        for node in nodes
        if node.op == "BatchNorm" and node.attributes.get("fix_gamma", "True") in ("True", "1")
    ]


def _name_of_momentum(key: int | str) -> str:
    return f"momentum:{json.dumps(key)}"


def _found(arrays: Mapping[str, NDArray[Any]], name: str, wanted: Any) -> NDArray[Any]:
    if name not in arrays:
        raise ValueError(f"{name} is missing")
    array = arrays[name]
    if array.shape != wanted.shape or array.dtype != wanted.dtype:
        raise ValueError(
            f"{name} is {array.dtype} {array.shape}, not {np.dtype(wanted.dtype)} {wanted.shape}"
        )
    return array
