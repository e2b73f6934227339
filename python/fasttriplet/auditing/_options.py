"""The options of an audit."""

# Annotations are evaluated at once: as texts, each would be compiled by TypedDict while `--help` waits.
from dataclasses import dataclass
from typing import TypedDict

from fasttriplet._checks import number
from fasttriplet._options import Options
from fasttriplet.auditing._thresholds import LabelKeywords, LabelOptions
from fasttriplet.dataset._options import DatasetKeywords, DatasetOptions


class PictureKeywords(TypedDict, total=False):
    """The fields of :class:`PictureOptions` as keyword arguments."""

    contrast_below: float | None
    brightness_below: float | None
    sharpness_below: float | None
    copies_above: float


@dataclass(frozen=True, kw_only=True)
class PictureOptions(Options):
    """Thresholds of the findings that pixels give. None stands for one calibrated from the dataset.

    Attributes
    ----------
    contrast_below : float, optional
        Nearly uniform: the gray levels, 0 to 255, have a smaller standard deviation.
    brightness_below : float, optional
        Dark: the mean of the gray levels is below this.
    sharpness_below : float, optional
        Blurred: the standard deviation of the Laplacian is a smaller multiple of the contrast.
    copies_above : float, default 0.8
        The same picture again: the details of both have at least this correlation.
    """

    contrast_below: float | None = None
    brightness_below: float | None = None
    sharpness_below: float | None = None
    copies_above: float = 0.8

    def __post_init__(self) -> None:
        for name in ("contrast_below", "brightness_below", "sharpness_below"):
            if (value := getattr(self, name)) is not None:
                number(name, value, 0)
        number("copies_above", self.copies_above, 0, 1)
        super().__post_init__()


class AuditKeywords(DatasetKeywords, LabelKeywords, PictureKeywords, total=False):
    """The fields of :class:`AuditOptions` as keyword arguments."""


@dataclass(frozen=True, kw_only=True)
class AuditOptions(DatasetOptions, LabelOptions, PictureOptions):
    """The options of :func:`fasttriplet.audit`."""
