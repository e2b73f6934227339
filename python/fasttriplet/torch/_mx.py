"""What datasets for PyTorch use of MXNet: reading a ``.rec`` by key, and decoding an image."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fasttriplet.dataset._images import decode_images
from fasttriplet.dataset._recordio import IRHeader, RecordFile

_HEADER = struct.Struct("<IfQQ")


class MXIndexedRecordIO:
    """The reading half of ``mxnet.recordio.MXIndexedRecordIO``."""

    def __init__(self, idx_path: str, uri: str, flag: str, key_type: type = int) -> None:
        if flag != "r" or key_type is not int:
            raise ValueError(
                f"this stands in for MXNet where files are read by whole numbers, not for flag={flag!r} and "
                f"key_type={key_type!r}; fasttriplet.RecordWriter writes"
            )
        self._file = RecordFile(uri, idx_path)
        self.keys: list[int] = self._file.keys.tolist()

    def read_idx(self, idx: int) -> bytes:
        """The header and the content of a record."""
        (flag, label, record_id, id2), content = self._file.read(idx)
        labels = b"" if flag == 0 else np.asarray(label, "<f4").tobytes()
        return _HEADER.pack(flag, 0.0 if flag else label, record_id, id2) + labels + content

    def close(self) -> None:
        """Do nothing: the file is closed when nobody refers to it."""


class _Image(np.ndarray[Any, Any]):
    def asnumpy(self) -> NDArray[np.uint8]:
        return np.asarray(self)


def _unpack(s: bytes) -> tuple[IRHeader, bytes]:
    flag, label, record_id, id2 = _HEADER.unpack_from(s)
    end = _HEADER.size + 4 * flag
    # float64, because PyTorch makes an int64 tensor of a float, and not of NumPy's float32.
    labels = np.frombuffer(s[_HEADER.size : end], "<f4").astype(np.float64)
    return IRHeader(flag, labels if flag else label, record_id, id2), s[end:]


def _imdecode(buf: bytes) -> _Image:
    return decode_images([buf], threads=1)[0].view(_Image)


mx = SimpleNamespace(
    recordio=SimpleNamespace(MXIndexedRecordIO=MXIndexedRecordIO, IRHeader=IRHeader, unpack=_unpack),
    image=SimpleNamespace(imdecode=_imdecode),
)
