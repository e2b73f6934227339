"""The networks whose conversion is compared with MXNet, and the comparison, one process each.

``python -m tests.torch.networks NAME [SIZE]`` prints what was measured as JSON, and without arguments a table
of all networks that are there, in Markdown. MXNet 1.9.1 on a CPU ends the process (SIGSEGV) for some networks
after others: its normalisations of (B, D) and (B, D, 1, 1) share a cache.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parents[3] / "shared" / "data"
# What InsightFace's sample_config.py sets.
_CONFIG: dict[str, Any] = {
    "bn_mom": 0.9, "densenet_dropout": 0.0, "emb_size": 512, "fp16": False, "memonger": False,
    "net_act": "prelu", "net_blocks": [1, 4, 6, 2], "net_input": 1, "net_multiplier": 1.0, "net_output": "E",
    "net_se": 0, "net_unit": 3, "num_layers": 18, "workspace": 256,
}  # fmt: skip

BUILT_IN = ["small", "mobilefacenet", "mobilefacenet, PReLU operator"]
FILES = {
    "model-y1": "model-y1/model",
    "mobilefacenet-dim512": "symbols/mobilefacenet-dim512",
    "r34-amf": "symbols/r34-amf",
    "retinaface-mnet10": "symbols/retinaface-mnet10",
}
_FLOAT32_ONLY = ["retinaface-mnet10"]  # MXNet's Crop
# Of recognition/arcface_mxnet/symbol: the file, and what differs from the configuration above.
INSIGHTFACE: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"fresnet {depth}": ("fresnet", {"num_layers": depth}) for depth in (18, 34, 50, 100)},
    **{
        f"fresnet 18, output {output}": ("fresnet", {"net_output": output})
        for output in ("Z", "FC", "SFC", "GAP", "GNAP", "GDC", "F", "G", "H", "I", "J")
    },
    **{f"fresnet 18, unit {unit}": ("fresnet", {"net_unit": unit}) for unit in (1, 2)},
    **{f"fresnet 18, input {number}": ("fresnet", {"net_input": number}) for number in (0, 2)},
    "fresnet 18, squeeze and excitation": ("fresnet", {"net_se": 1}),
    "fresnet 18, unit 1, squeeze and excitation": ("fresnet", {"net_se": 1, "net_unit": 1}),
    "fresnet 18, ReLU": ("fresnet", {"net_act": "relu"}),
    "fmobilefacenet": ("fmobilefacenet", {"net_output": "GDC"}),
    "fmobilefacenet, output GNAP": ("fmobilefacenet", {"net_output": "GNAP"}),
    "fmobilefacenet, twice as deep": ("fmobilefacenet", {"net_output": "GDC", "net_blocks": [2, 8, 16, 4]}),
    "fmobilenet": ("fmobilenet", {}),
    "fmobilenet, input 0": ("fmobilenet", {"net_input": 0}),
    "fmnasnet": ("fmnasnet", {}),
    "fmnasnet, output GDC": ("fmnasnet", {"net_output": "GDC"}),
    "vargfacenet": ("vargfacenet", {"net_output": "J", "net_multiplier": 1.25}),
    "vargfacenet, squeeze and excitation": ("vargfacenet", {"net_se": 1}),
    "fdensenet 121": ("fdensenet", {"num_layers": 121}),
    "fdensenet 169": ("fdensenet", {"num_layers": 169}),
    "fresnet 18, float16": ("fresnet", {"fp16": True}),
}


def build(mx: Any, name: str, size: int = 112) -> Any:
    """Build a network; `size` is that of the images of those that are built in."""
    from fasttriplet.mxnet import build_network  # noqa: PLC0415

    if name in BUILT_IN:
        network, _, operator = name.partition(", ")
        return build_network(network, (size, size), prelu="operator" if operator else "convolutions")
    if name in FILES:
        return mx.sym.load(f"{DATA / FILES[name]}-symbol.json")
    return _of_insightface(mx, *INSIGHTFACE[name])


def checkout() -> Path | None:
    """The checkout of deepinsight/insightface that INSIGHTFACE names."""
    found = os.environ.get("INSIGHTFACE")
    return Path(found) if found else None


def _of_insightface(mx: Any, file: str, settings: Mapping[str, Any]) -> Any:
    """Build a network with a function of InsightFace, which prints and imports more than it uses."""
    folder = checkout()
    assert folder is not None
    sys.path.insert(0, str(folder / "recognition" / "arcface_mxnet" / "symbol"))
    config: Any = ModuleType("config")
    config.config = SimpleNamespace(**{**_CONFIG, **settings})
    unused: Any = ModuleType("sklearn.decomposition")
    unused.PCA = None
    sys.modules |= {"config": config, "sklearn": ModuleType("sklearn"), "sklearn.decomposition": unused}
    with redirect_stdout(io.StringIO()), mx.name.NameManager():
        return importlib.import_module(file).get_symbol()


def measure(name: str, size: int = 112, batch: int = 4) -> dict[str, float]:
    """Compare a network with its conversion, in inference and in one training step.

    MXNet's steps are without its operator for PReLU, whose gradients are wrong in some networks.

    Returns
    -------
    dict
        Distances relative to the norm. ``inference`` is the worst of all outputs. ``loss``, ``output``,
        ``gradients`` (the worst of all weights, and of the images) and ``statistics`` are those of a training
        step in float32, ``... in float64`` of one in float64. ``... of PyTorch`` and ``... of MXNet`` are how
        far each is in float32 from PyTorch in float64: they tell whose the rounding is. Of a network in
        float16, all this is measured in float32, and ``float16`` is how far its outputs are from that.
    """
    import torch  # noqa: PLC0415
    from fasttriplet.mxnet import import_mxnet  # noqa: PLC0415
    from tests.torch import conversion as c  # noqa: PLC0415

    mx = import_mxnet()
    torch.set_num_threads(2)
    original = build(mx, name, size)
    symbol = c.in_float32(mx, original)
    images = c.pictures((batch, 3, size, size))
    weights = _stored(mx, name) or c.random_weights(mx, symbol, images)
    if name.endswith("float16"):
        weights = {name: array.astype(np.float16).astype(np.float32) for name, array in weights.items()}
    module = c.converted(symbol, weights)
    outputs = c.mxnet_outputs(mx, symbol, weights, images)
    pairs = zip(c.torch_outputs(module, images), outputs, strict=True)
    found = {"inference": max(c.apart(got, expected) for got, expected in pairs)}

    if name.endswith("float16"):
        half = c.converted(original, weights)
        found["float16"] = c.apart(c.torch_outputs(half, images)[0], outputs[0])
        found["inference"] = c.apart(c.torch_outputs(half.float(), images)[0], outputs[0])

    single = symbol[len(outputs) - 1]  # a detector has several
    symbol = c.without_dropout(mx, single)
    names = {*symbol.list_arguments(), *symbol.list_auxiliary_states()}
    weights = {name: array for name, array in weights.items() if name in names}
    factors = np.random.default_rng(1).standard_normal(outputs[-1].shape).astype(np.float32)
    ours = c.torch_step(c.converted(symbol, weights), images, factors)
    exact = c.torch_step(c.converted(symbol, weights).double(), images, factors)
    plain = c.without_prelu_operator(mx, symbol)
    theirs = c.mxnet_step(mx, plain, weights, images, factors)
    found |= c.compared(ours, theirs)
    for whose, step in (("PyTorch", ours), ("MXNet", theirs)):
        found |= {f"{kind} of {whose}": value for kind, value in c.compared(step, exact).items()}
    if name not in _FLOAT32_ONLY:
        wide = c.mxnet_step(mx, plain, weights, images.astype(np.float64), factors.astype(np.float64))
        found |= {f"{kind} in float64": value for kind, value in c.compared(exact, wide).items()}
    return found


def _stored(mx: Any, name: str) -> dict[str, NDArray[Any]] | None:
    path = DATA / f"{FILES[name]}-0000.params" if name in FILES else None
    if path is None or not path.is_file():
        return None
    return {name[4:]: value.asnumpy() for name, value in mx.nd.load(str(path)).items()}


def measured(name: str, size: int = 112) -> dict[str, float]:
    """Compare a network in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.torch.networks", name, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    if done.returncode:
        raise RuntimeError(f"{name} ended with {done.returncode}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _print_table() -> None:
    names = [*BUILT_IN, *(FILES if DATA.is_dir() else ()), *(INSIGHTFACE if checkout() else ())]
    columns = (
        "inference",
        "output of PyTorch",
        "output of MXNet",
        "loss",
        "statistics",
        "gradients in float64",
    )
    print(f"| network | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 1) + "|")
    for name in names:
        found = measured(name)
        cells = (f"{found[column]:.0e}" if column in found else "" for column in columns)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:]))))
    else:
        _print_table()
