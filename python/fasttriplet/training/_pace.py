"""How long the rest of a training takes."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from fasttriplet.run._summary import Summary


@dataclass(slots=True)
class _Mean:
    """The mean of a few values; of many, the latest count most."""

    memory: int
    value: float = 0.0
    count: int = 0

    def add(self, value: float) -> None:
        self.count += 1
        self.value += (value - self.value) / min(self.count, self.memory)


class Pace:
    """Estimates the rest of a training from what its parts took.

    The mean time of a batch would mislead: whole bags are embedded between some of the batches, the pairs of
    a verification between others, and the better the network, the fewer batches a bag gives. So a step and
    the embedding of an image are timed apart.
    """

    def __init__(self, triplets_of_batch: int, triplets: int = 0) -> None:
        self._triplets_of_batch = triplets_of_batch
        self._restored = triplets  # mined by the run before
        self._seen = (0, 0, 0)  # bags, images and triplets of the summary when a batch was last fetched
        self._batches_ready = 0
        self._step = _Mean(100)  # seconds
        self._image = _Mean(4)  # seconds, to embed it, with decoding and mining where these were waited for
        self._bag_images, self._bag_batches = _Mean(4), _Mean(4)

    def fetched(self, summary: Summary, seconds: float) -> bool:
        """Take note of a batch that took this long to come; whether bags were embedded for it."""
        before, self._seen = self._seen, (summary.bags, summary.images, summary.triplets)
        bags, images, triplets = (now - then for now, then in zip(self._seen, before, strict=True))
        ready = (self._restored + summary.triplets) // self._triplets_of_batch
        self._batches_ready = max(0, ready - summary.batches)
        if bags:
            self.embedded(seconds, images)
            self._bag_images.add(images / bags)
            self._bag_batches.add(triplets / self._triplets_of_batch / bags)
        return bags > 0

    def embedded(self, seconds: float, images: int) -> None:
        """Take note of images of a bag or a verification."""
        if images:
            self._image.add(seconds / images)

    def stepped(self, seconds: float) -> None:
        """Take note of a step."""
        self._step.add(seconds)

    def seconds_left(self, batches: int, images: int) -> float | None:
        """How long this many batches, and the embedding of as many images besides their bags, will take.

        None while a part of it is unknown.
        """
        mined = max(0, batches - self._batches_ready)  # in bags to come
        if (batches and not self._step.count) or (mined and not self._bag_batches.value):
            return None
        if mined:
            images += ceil(mined / self._bag_batches.value) * round(self._bag_images.value)
        if images > 0 and not self._image.count:
            return None
        return batches * self._step.value + max(0, images) * self._image.value
