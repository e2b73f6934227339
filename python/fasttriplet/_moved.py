"""Old names of modules and of public names answer with one sentence that says the new one."""

from __future__ import annotations

import sys
from typing import Any

_RENAMED = {"fasttriplet.decode_rows": "fasttriplet.Dataset(rec).decode(rows)"}

# The modules of the flat layout, by what took their place.
_MODULES = {
    "import its public names from fasttriplet": "augment feed images index judging line order packing "
    "pair_drawing pairs_file pipeline recordio summary verification",
    "import its public names from fasttriplet.embedders": "embedders.base embedders.load",
    "import its public names from fasttriplet.mxnet": "mxnet.compat mxnet.face_image_iter mxnet.loss "
    "mxnet.metric mxnet.networks mxnet.triplet_iter mxnet.untrained",
    "import its public names from fasttriplet.torch": "torch.miner",
    "import its public names from fasttriplet.training": "mxnet.training",
    "fasttriplet.load_embedder makes its embedder": "embedders.mxnet embedders.pixels embedders.precomputed",
    "what it held is private now": "checks contents explain files forks sink timeline worker "
    "mxnet.checkpoint mxnet.devices mxnet.module_embedder mxnet.outputs mxnet.quiet",
}
_GONE = {f"fasttriplet.{old}": now for now, names in _MODULES.items() for old in names.split()}


class _Finder:
    """Asked for modules that nothing else finds."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> None:
        if name in _GONE:
            raise ModuleNotFoundError(f"the module {name} is gone: {_GONE[name]}", name=name)


def answer_old_names() -> None:
    """Let the import of an old module name the new one."""
    sys.meta_path.append(_Finder)


def renamed(name: str) -> str | None:
    """Say of an old public name, with its package, what takes its place, if it is one."""
    return f"{name} is now {_RENAMED[name]}" if name in _RENAMED else None
