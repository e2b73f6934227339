"""Old names of modules and of public names answer with one sentence that says the new one."""

from __future__ import annotations

import sys
from typing import Any

_RENAMED = {"decode_rows": "fasttriplet.Dataset(rec).decode(rows)"}

# Modules of version 0.1, by where their public names are now.
_MODULES = {
    "fasttriplet": "augment feed images index judging line order packing pair_drawing pairs_file "
    "pipeline recordio summary verification",
    "fasttriplet.embedders": "embedders.base embedders.load",
    "fasttriplet.mxnet": "embedders.mxnet mxnet.checkpoint mxnet.compat mxnet.devices mxnet.loss "
    "mxnet.metric mxnet.networks mxnet.triplet_iter mxnet.untrained",
    "fasttriplet.torch": "torch.miner",
    "fasttriplet.training": "mxnet.training",
}
_MOVED = {f"fasttriplet.{old}": new for new, names in _MODULES.items() for old in names.split()}


class _Finder:
    """Asked for modules that nothing else finds."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> None:
        if name in _MOVED:
            raise ModuleNotFoundError(
                f"the module {name} has no public names now: import them from {_MOVED[name]}", name=name
            )


def answer_old_names() -> None:
    """Let the import of an old module name the new one."""
    sys.meta_path.append(_Finder)


def renamed(name: str) -> str | None:
    """Say of an old public name of the package what takes its place, if it is one."""
    return f"fasttriplet.{name} is now {_RENAMED[name]}" if name in _RENAMED else None
