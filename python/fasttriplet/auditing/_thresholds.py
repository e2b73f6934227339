"""What decides a finding: options that override it, and the numbers that were used."""

# Annotations are evaluated at once: as texts, each would be compiled by TypedDict while `--help` waits.
from dataclasses import dataclass, fields, replace
from typing import TypedDict

from fasttriplet._checks import number, whole_number
from fasttriplet._options import Options


class LabelKeywords(TypedDict, total=False):
    """The fields of :class:`LabelOptions` as keyword arguments."""

    other_above: float | None
    lead: float | None
    own_below: float | None
    same_person_above: float | None
    two_people_below: float | None
    smallest_group: int


@dataclass(frozen=True, kw_only=True)
class LabelOptions(Options):
    """Thresholds of the findings that embeddings give. None stands for one calibrated from the dataset.

    Attributes
    ----------
    other_above : float, optional
        Mislabelled: the image and the centre of another identity have at least this cosine.
    lead : float, optional
        Mislabelled: that cosine exceeds the one with the own identity by this much.
    own_below : float, optional
        Outlier: the image and the centre of its own identity have a smaller cosine.
    same_person_above : float, optional
        Same person: two identities have at least this likeness, the mean cosine of two images across them
        divided by that of two images within one. It is 1 for two halves of one person.
    two_people_below : float, optional
        Two people: two groups of an identity have a smaller likeness.
    smallest_group : int, default 3
        Images that a group must have to count as a person of its own.
    """

    other_above: float | None = None
    lead: float | None = None
    own_below: float | None = None
    same_person_above: float | None = None
    two_people_below: float | None = None
    smallest_group: int = 3

    def __post_init__(self) -> None:
        for field in fields(LabelOptions):
            value = getattr(self, field.name)
            if field.name != "smallest_group" and value is not None:
                number(field.name, value, -2, 2)
        whole_number("smallest_group", self.smallest_group, 2)
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The thresholds that were used, and what they were calibrated from. None: the dataset does not show it.

    Attributes
    ----------
    other_above, lead, own_below, same_person_above, two_people_below : float or None
        As in :class:`LabelOptions`. Without a threshold its kind was not looked for.
    smallest_group : int
        As in :class:`LabelOptions`.
    chance, chance_spread : float or None
        Cosine of an image with the mean of another identity: median and standard deviation, as are the next
        ones.
    likeness, likeness_spread : float or None
        Likeness of two identities.
    alike_low : float or None
        Likeness that two halves of an identity, every second image, have in 95 % of the identities.
    usual : float or None
        Mean cosine of two images of an identity, the median of all identities.
    own, own_spread : float or None
        Cosine of an image with its own identity.
    nearest, nearest_spread : float or None
        Cosine of an image with the nearest other identity: median and scale of a Gumbel distribution.
    images, identities : int
        That were compared.
    """

    other_above: float | None = None
    lead: float | None = None
    own_below: float | None = None
    same_person_above: float | None = None
    two_people_below: float | None = None
    smallest_group: int = 3
    chance: float | None = None
    chance_spread: float | None = None
    likeness: float | None = None
    likeness_spread: float | None = None
    alike_low: float | None = None
    usual: float | None = None
    own: float | None = None
    own_spread: float | None = None
    nearest: float | None = None
    nearest_spread: float | None = None
    images: int = 0
    identities: int = 0

    def with_values(self, values: dict[str, float]) -> "Thresholds":
        """The same with other numbers."""
        return replace(self, **values)  # type: ignore[arg-type]

    def overridden(self, options: LabelOptions) -> "Thresholds":
        """The same with the thresholds that the options give."""
        given = {field.name: getattr(options, field.name) for field in fields(LabelOptions)}
        return replace(self, **{name: value for name, value in given.items() if value is not None})

    def __str__(self) -> str:
        """Each threshold in a line of words."""
        words = {
            "mislabelled": (self.other_above, "cosine with another identity at least {:.3f}"),
            "  and": (self.lead, "by {:.3f} more than with the own identity"),
            "outlier": (self.own_below, "cosine with the own identity below {:.3f}"),
            "same person": (self.same_person_above, "likeness of two identities at least {:.3f}"),
            "two people": (self.two_people_below, "likeness of two groups of an identity below {:.3f}"),
        }
        return "\n".join(
            f"{name}: {'not looked for' if value is None else text.format(value)}"
            for name, (value, text) in words.items()
        )
