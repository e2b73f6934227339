"""The exceptions of fasttriplet."""

from __future__ import annotations


class RecordError(ValueError):
    """Bytes in a ``.rec`` or ``.idx`` file, or an image, are not what the format promises.

    Parameters
    ----------
    message : str
        What ``str(error)`` gives: where the bytes are, a colon and the reason.
    key, offset, file, position, reason : optional
        The attributes below. Without a `reason`, the whole message is the reason.

    Attributes
    ----------
    key : int or None
        The record's key, where one is known.
    offset : int or None
        Byte offset of the record in the ``.rec`` file, where one is known.
    file : str or None
        The file. None if the image was given as bytes.
    position : int or None
        Index of the image, counted from 0, among the images that were given to the call that was to decode
        them. None outside of such calls.
    reason : str
        What was found and what was expected: the message without the words that say where.
    """

    def __init__(
        self,
        message: str,
        key: int | None = None,
        offset: int | None = None,
        *,
        file: str | None = None,
        position: int | None = None,
        reason: str | None = None,
    ) -> None:
        # The message alone is in `args`, and the rest in `__dict__`: so copies and pickles are complete.
        super().__init__(message)
        self.key = key
        self.offset = offset
        self.file = file
        self.position = position
        self.reason = message if reason is None else reason


class RecordWarning(UserWarning):
    """Something in a ``.rec``, an ``.idx`` or a kept index is not as it should be, and was worked around."""


class CollapseWarning(UserWarning):
    """Embeddings of different identities are nearly equal, so that triplets of them are noise."""


class NoTripletsError(ValueError):
    """A whole epoch gave no triplet that is of use; the message says why."""


class CollapsedError(NoTripletsError):
    """In a whole epoch, embeddings of different identities were nearly equal."""


class PeerError(RuntimeError):
    """Another process of a group failed or ended, so this one cannot continue; the message says why."""


class OptionError(ValueError):
    """An option has a value out of its range, or one that does not go with another option.

    Parameters
    ----------
    argument : str
        The name of the option.
    reason : str
        What is wrong, as the words that follow the name.

    Attributes
    ----------
    argument, reason : str
        As above. The message is the two together.
    """

    def __init__(self, argument: str, reason: str) -> None:
        super().__init__(argument, reason)
        self.argument = argument
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.argument} {self.reason}"


class SpecError(ValueError):
    """A spec string such as ``mxnet:model,0`` is not of a known form."""
