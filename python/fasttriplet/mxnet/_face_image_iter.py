"""InsightFace's iterator for the triplet losses, by its name and with its arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from fasttriplet._checks import number, whole_number
from fasttriplet._words import counted
from fasttriplet.dataset._augment import Augment
from fasttriplet.errors import OptionError
from fasttriplet.mxnet._triplet_iter import TripletIter
from fasttriplet.run._options import FeedOptions

# Options of Feed and TripletIter that have another name here, or none.
_ELSEWHERE = {
    "rec": "give path_imgrec",
    "model": "give mx_model",
    "module": "give mx_model",
    "devices": "give ctx_num",
    "bag_size": "give triplet_params[0]",
    "margin": "give triplet_params[1]",
    "max_ap": "give triplet_params[2]",
    "epochs": "the iterator has no end; give num_epoch to fit",
    "tail": "all batches are full, and no triplet is dropped",
    "state": "an iterator begins with an epoch; give first_epoch",
    "group": "a module trains in one process, on the devices that it is bound to",
    "layout": "a module takes images of RGB, 0 to 255",
    "color_jittering": "give it, with mirror and cutoff, as augment=fasttriplet.Augment(...)",
    "images_filter": "all identities are used; those with one image can only be negatives",
}
_PASSED_ON = sorted({*FeedOptions.names(), "augment", "first_epoch"} - {*_ELSEWHERE, "images_per_identity"})

# Where users find these: train.py takes triplet_params from the configuration.
_BAG_SIZE = "bag_size (triplet_params[0], config.triplet_bag_size)"
_ALPHA = "alpha (triplet_params[1], config.triplet_alpha)"
_MAX_AP = "max_ap (triplet_params[2], config.triplet_max_ap; 0 for no limit)"


class FaceImageIter(TripletIter):
    """A :class:`fasttriplet.mxnet.TripletIter` that is made with the arguments of InsightFace's iterator.

    It takes the place of ``FaceImageIter`` in InsightFace's ``triplet_image_iter.py``, for the losses
    `triplet` and `atriplet`. An epoch is a pass over the dataset (in InsightFace it is a bag or more). For
    both losses negatives are semi-hard, ``d_ap < d_an < d_ap + alpha``, on the squared L2 distance of unit
    embeddings, as in InsightFace.

    Parameters
    ----------
    batch_size : int
        Images of a batch over all devices; a multiple of 3 for each.
    data_shape : (int, int, int)
        Channels, height and width; the channels are 3.
    path_imgrec, mx_model, data_name, label_name
        `rec`, `module`, `data_name` and `label_name` of a :class:`fasttriplet.mxnet.TripletIter`.
    shuffle : bool
        Must be True.
    aug_list : None
        Must be None; give `rand_mirror` and `cutoff`, or `augment`.
    rand_mirror : bool, default False
        Swap left and right in half of the images, at random.
    cutoff : int, default 0
        Side in pixels of a square around a random centre that is filled with 127.5; 0 or False for none.
    ctx_num : int
        Devices of the module.
    images_per_identity : int
        At least 2; InsightFace takes 5.
    triplet_params : (int, float, float)
        ``[bag_size, alpha, max_ap]``: the most images of a bag, at least those of a batch and of two
        identities; the margin of mining, above 0, at most 1; the distance above which pairs are skipped, 0
        for no limit. Both are squared L2, unless `metric` says otherwise.
    **kwargs
        `augment`, `band`, `boundary`, `cache`, `exclude`, `exclude_kinds`, `fallback`, `first_epoch`,
        `labels`, `max_pixels`, `memory`, `metric`, `negatives_per_pair`, `neighbors`, `normalize`,
        `on_error`, `pairs`, `pick`, `positives_per_anchor`, `prefetch`, `random_share`, `ranks`,
        `refresh_epochs`, `seed`, `threads`, `triplets_per_anchor`: see :class:`fasttriplet.Feed`. `augment`
        replaces `rand_mirror` and `cutoff`. `mean` must be None: the network normalises.

    Raises
    ------
    TypeError
        If there is no option of a name.
    ValueError
        If an argument is missing or wrong; the message says what to change.
    OSError
        If the file cannot be read.
    """

    def __init__(  # noqa: PLR0917  the arguments and their order are InsightFace's
        self,
        batch_size: int,
        data_shape: tuple[int, int, int],
        path_imgrec: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        shuffle: bool = False,
        aug_list: Sequence[Any] | None = None,
        rand_mirror: bool = False,
        cutoff: int = 0,
        ctx_num: int = 0,
        images_per_identity: int = 0,
        triplet_params: Sequence[float] | None = None,
        mx_model: Any = None,
        data_name: str = "data",
        label_name: str = "softmax_label",
        **kwargs: Any,
    ) -> None:
        _check_what_is_fixed(shuffle, aug_list, kwargs.pop("mean", None))
        _check_names(kwargs)
        if triplet_params is None:
            raise ValueError(
                "triplet_params is missing: give [bag_size, alpha, max_ap]. This iterator is for the triplet "
                "losses; for the others use InsightFace's image_iter.py"
            )
        if not path_imgrec:
            raise ValueError("path_imgrec is missing: give the path of the .rec file")
        if mx_model is None:
            raise ValueError("mx_model is missing: give the Module that is trained, which embeds the images")
        _check_batch(batch_size, ctx_num)
        bag_size, margin, max_ap = _bag_margin_max_ap(triplet_params, images_per_identity, batch_size)
        augment = _augment(rand_mirror, cutoff, kwargs.pop("augment", None))
        super().__init__(
            path_imgrec,
            mx_model,
            data_shape=data_shape,
            batch_size=batch_size,
            devices=ctx_num,
            data_name=data_name,
            label_name=label_name,
            images_per_identity=images_per_identity,
            bag_size=bag_size,
            margin=margin,
            max_ap=max_ap,
            augment=augment,
            **kwargs,
        )


def _check_what_is_fixed(shuffle: bool, aug_list: Sequence[Any] | None, mean: Any) -> None:
    if not shuffle:
        raise OptionError(
            "shuffle", "must be True: each epoch has another random order, which `seed` decides"
        )
    if aug_list is not None:
        raise OptionError(
            "aug_list", "must be None: give rand_mirror and cutoff, or augment=fasttriplet.Augment(...)"
        )
    if mean is not None:
        raise OptionError(
            "mean",
            "must be None: images are RGB, 0 to 255, and the network subtracts it, as InsightFace's do",
        )


def _check_names(options: dict[str, Any]) -> None:
    for name in options:
        if name in _ELSEWHERE:
            raise TypeError(f"FaceImageIter has no option {name!r}: {_ELSEWHERE[name]}")
        if name not in _PASSED_ON:
            raise TypeError(
                f"FaceImageIter has no option {name!r}; beside InsightFace's it has {', '.join(_PASSED_ON)}"
            )


def _check_batch(batch_size: int, ctx_num: int) -> None:
    whole_number("ctx_num, the number of the module's devices,", ctx_num, 1)
    if whole_number("batch_size", batch_size, 1) % ctx_num:
        raise OptionError(
            "batch_size",
            f"must be a multiple of ctx_num: {counted(batch_size, 'image')} cannot be shared out to "
            f"{ctx_num} devices",
        )
    each = batch_size // ctx_num
    if each % 3:
        below, above = each // 3 * 3, each // 3 * 3 + 3
        raise ValueError(
            "batch_size / ctx_num (--per-batch-size) must be a multiple of 3, for anchors, positives and "
            f"negatives, not {each}: take {f'{below} or ' if below else ''}{above}"
        )


def _bag_margin_max_ap(
    triplet_params: Sequence[Any], images_per_identity: int, batch_size: int
) -> tuple[int, float, float | None]:
    if not isinstance(triplet_params, (list, tuple)) or len(triplet_params) != 3:
        raise OptionError("triplet_params", f"must be [bag_size, alpha, max_ap], not {triplet_params!r}")
    whole_number("images_per_identity (5 in InsightFace)", images_per_identity, 2)
    bag_size = whole_number(_BAG_SIZE, triplet_params[0], 1)
    if bag_size < 2 * images_per_identity:
        raise ValueError(
            f"{_BAG_SIZE} is {bag_size}, less than two identities of {images_per_identity} images: raise it; "
            "InsightFace takes 7200"
        )
    if bag_size < batch_size:
        raise ValueError(
            f"{_BAG_SIZE} is {bag_size}, less than the {batch_size} images of a batch: raise it to many "
            "batches; InsightFace takes 7200"
        )
    alpha, max_ap = number(_ALPHA, triplet_params[1], 0), number(_MAX_AP, triplet_params[2], 0)
    if not 0 < alpha <= 1:
        raise OptionError(
            _ALPHA,
            f"must be a number above 0, at most 1, a margin on squared distances, not {triplet_params[1]!r}",
        )
    return bag_size, alpha, max_ap or None


def _augment(rand_mirror: bool, cutoff: int, augment: Augment | None) -> Augment | None:
    if cutoff is True:
        raise ValueError("cutoff is the side of the square in pixels, 0 or False for none, not True")
    if augment is None:
        return Augment(mirror=bool(rand_mirror), cutoff=0 if cutoff is False else cutoff)
    if rand_mirror or cutoff:
        raise ValueError(
            "augment replaces rand_mirror and cutoff: use fasttriplet.Augment(mirror=..., cutoff=...)"
        )
    return augment
