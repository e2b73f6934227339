"""The exceptions of fasttriplet."""

from __future__ import annotations


class RecordError(ValueError):
    """Bytes in a ``.rec`` or ``.idx`` file, or an image in it, are not what the format promises.

    Attributes
    ----------
    key : int or None
        The record's key, where one is known.
    offset : int or None
        Byte offset of the record in the ``.rec`` file, where one is known.
    """

    def __init__(self, message: str, key: int | None = None, offset: int | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.offset = offset

    def __reduce__(self) -> tuple[type[RecordError], tuple[str, int | None, int | None]]:
        return type(self), (str(self), self.key, self.offset)


class RecordWarning(UserWarning):
    """Something in a ``.rec`` or ``.idx`` file is not as it should be, and was worked around."""


class NoTripletsError(ValueError):
    """A whole run found no triplet; the message says why."""


class SpecError(ValueError):
    """A spec string such as ``mxnet:model,0`` is not of a known form, or an option does not apply to it."""
