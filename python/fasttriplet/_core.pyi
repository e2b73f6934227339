from os import PathLike

import numpy as np
from numpy.typing import NDArray

__version__: str

class RecordFile:
    def __new__(cls, path: str | PathLike[str]) -> RecordFile: ...
    def record_at(
        self, offset: int, key: int | None = None
    ) -> tuple[int, float | NDArray[np.float32], int, int, bytes]: ...
