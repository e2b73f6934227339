from typing import Literal

import numpy as np
from numpy.typing import NDArray

__version__: str

def instruction_set() -> str: ...
def instruction_sets() -> list[str]: ...
def mine(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    ids: NDArray[np.int64] | None,
    *,
    band: Literal["semihard", "violating", "hard", "any"],
    pick: Literal["random", "hardest", "all"],
    negatives_per_pair: int,
    pairs: Literal["unordered", "ordered", "hardest", "easiest"],
    margin: float,
    max_ap: float | None,
    normalize: bool,
    seed: int,
    threads: int | None,
) -> tuple[
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.int64],
    NDArray[np.float64],
    NDArray[np.float64],
    tuple[int, int, int, int, int],
]: ...
