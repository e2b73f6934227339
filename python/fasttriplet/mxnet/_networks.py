"""Networks to train: a small one for first runs, and MobileFaceNet."""

from __future__ import annotations

from typing import Any, Literal, get_args

from fasttriplet._checks import image_size as checked_size
from fasttriplet._checks import one_of, whole_number
from fasttriplet.mxnet._compat import import_mxnet

NETWORKS = ("small", "mobilefacenet")
PReLU = Literal["convolutions", "operator"]

# Epsilons of batch normalisations. MXNet's default, 1e-3, is as large as the variances of the first maps of
# line drawings. The two must differ: MXNet 1.9.1 on a CPU ends the process (SIGSEGV) when it infers a
# normalisation of (B, D) after one of (B, D, 1, 1) with the same epsilon.
_EPSILON, _EPSILON_OF_EMBEDDING = 2e-5, 4e-5
_SMALL_FILTERS = (32, 64, 96, 128)
# The bottlenecks in table 1 of the paper: expansion t, channels c, repetitions n, stride s of the first.
_BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
_LAST_FILTERS = 512
_SHRINKS = 16  # factor of MobileFaceNet's sides: four convolutions of stride 2, each rounding up


def small_convnet(embedding_size: int = 128) -> Any:
    """Build a network of four convolution blocks for small images.

    Each block halves the sides: convolution 3 x 3 with stride 2, batch normalisation, ReLU; 32, 64, 96 and
    128 filters. Then ``fc1``, as InsightFace calls it: fully connected, batch-normalised. The network takes
    RGB 0..255 and normalises it itself.

    Parameters
    ----------
    embedding_size : int, default 128
        Numbers of an embedding, D.

    Returns
    -------
    mxnet.symbol.Symbol
        Input ``data`` (B, 3, H, W), output ``fc1`` (B, D).

    Raises
    ------
    ImportError
        If MXNet cannot be imported.
    ValueError
        If an argument is out of its range.
    """
    embedding_size = whole_number("embedding_size", embedding_size, 1)
    mx = import_mxnet()
    with mx.name.NameManager():  # the same names, however many networks the process has built before
        layer = _normalised_images()
        for number, filters in enumerate(_SMALL_FILTERS, start=1):
            layer = _convolution(layer, f"block{number}", filters, (3, 3), stride=2)
            layer = mx.sym.Activation(layer, name=f"block{number}_relu", act_type="relu")
        layer = mx.sym.FullyConnected(mx.sym.Flatten(layer), name="pre_fc1", num_hidden=embedding_size)
        return _embedding(layer)


def mobilefacenet(
    embedding_size: int = 128,
    image_size: tuple[int, int] = (112, 112),
    *,
    prelu: PReLU = "convolutions",
) -> Any:
    """Build MobileFaceNet.

    The network of Chen et al., "MobileFaceNets: Efficient CNNs for Accurate Real-Time Face Verification on
    Mobile Devices", 2018, table 1: 0.99 million parameters for embeddings of 128 numbers. It takes RGB
    0..255 and normalises it itself.

    Parameters
    ----------
    embedding_size : int, default 128
    image_size : (int, int), default (112, 112)
        Height and width of the images. The global depthwise convolution has one weight for each place of the
        last map, whose sides are a 16th of these, rounded up.
    prelu : {"convolutions", "operator"}, default "convolutions"
        How PReLU is computed: as the sum of two depthwise convolutions, with which a training step takes a
        fifth of the time on a CPU, or by MXNet's operator, which is one kernel on a GPU and is known to other
        tools. The names and shapes of the weights are the same.

    Returns
    -------
    mxnet.symbol.Symbol
        As :func:`small_convnet`.

    Notes
    -----
    As in InsightFace's networks, the embedding is batch-normalised without a learned factor.
    """
    embedding_size = whole_number("embedding_size", embedding_size, 1)
    height, width = checked_size(image_size)
    one_of("prelu", prelu, get_args(PReLU))
    mx = import_mxnet()

    def activated(
        layer: Any, name: str, filters: int, kernel: tuple[int, int], *, stride: int = 1, groups: int = 1
    ) -> Any:
        layer = _convolution(layer, name, filters, kernel, stride=stride, groups=groups)
        return _prelu(layer, f"{name}_prelu", filters, prelu)

    with mx.name.NameManager():
        layer = activated(_normalised_images(), "conv1", 64, (3, 3), stride=2)
        layer = activated(layer, "conv2", 64, (3, 3), groups=64)
        channels, number = 64, 0
        for expansion, filters, repetitions, first_stride in _BOTTLENECKS:
            for stride in (first_stride, *[1] * (repetitions - 1)):
                number += 1
                name, inside = f"bottleneck{number}", channels * expansion
                inner = activated(layer, f"{name}_expand", inside, (1, 1))
                inner = activated(inner, f"{name}_depthwise", inside, (3, 3), stride=stride, groups=inside)
                inner = _convolution(inner, f"{name}_project", filters, (1, 1))
                residual = stride == 1 and channels == filters
                layer = mx.sym.elemwise_add(inner, layer, name=f"{name}_add") if residual else inner
                channels = filters
        layer = activated(layer, "conv3", _LAST_FILTERS, (1, 1))
        last_map = (-(-height // _SHRINKS), -(-width // _SHRINKS))
        layer = _convolution(layer, "gdc", _LAST_FILTERS, last_map, groups=_LAST_FILTERS, padded=False)
        # The shape is given so that images of another size are an error instead of a wider layer.
        weight = mx.sym.Variable("pre_fc1_weight", shape=(embedding_size, _LAST_FILTERS))
        layer = mx.sym.FullyConnected(
            mx.sym.Flatten(layer), weight=weight, name="pre_fc1", num_hidden=embedding_size, no_bias=True
        )
        return _embedding(layer)


def build_network(
    name: str, image_size: tuple[int, int], embedding_size: int = 128, *, prelu: PReLU = "convolutions"
) -> Any:
    """Build a network by its name.

    Parameters
    ----------
    name : {"small", "mobilefacenet"}
        :func:`small_convnet` or :func:`mobilefacenet`.
    image_size, embedding_size, prelu
        See :func:`mobilefacenet`; the small network takes images of any size.

    Returns
    -------
    mxnet.symbol.Symbol
        As :func:`small_convnet`.
    """
    one_of("network", name, NETWORKS)
    image_size = checked_size(image_size)
    if name == "small":
        return small_convnet(embedding_size)
    return mobilefacenet(embedding_size, image_size, prelu=prelu)


def _normalised_images() -> Any:
    return (import_mxnet().sym.Variable("data") - 127.5) * 0.0078125


def _convolution(
    layer: Any,
    name: str,
    filters: int,
    kernel: tuple[int, int],
    *,
    stride: int = 1,
    groups: int = 1,
    padded: bool = True,
) -> Any:
    """Convolution and batch normalisation."""
    mx = import_mxnet()
    layer = mx.sym.Convolution(
        layer,
        name=f"{name}_conv",
        num_filter=filters,
        kernel=kernel,
        stride=(stride, stride),
        pad=(kernel[0] // 2, kernel[1] // 2) if padded else (0, 0),
        num_group=groups,
        no_bias=True,
    )
    return mx.sym.BatchNorm(layer, name=f"{name}_bn", fix_gamma=False, eps=_EPSILON, momentum=0.9)


def _embedding(layer: Any) -> Any:
    return import_mxnet().sym.BatchNorm(
        layer, name="fc1", fix_gamma=True, eps=_EPSILON_OF_EMBEDDING, momentum=0.9
    )


def _prelu(layer: Any, name: str, channels: int, by: PReLU) -> Any:
    """``max(x, 0) + slope * min(x, 0)`` with a learned slope for each channel, at first 0.25.

    He et al., "Delving Deep into Rectifiers", 2015.
    """
    mx = import_mxnet()
    slopes = mx.sym.Variable(f"{name}_gamma", shape=(channels,), init=mx.init.Constant(0.25))
    if by == "operator":
        return mx.sym.LeakyReLU(layer, gamma=slopes, act_type="prelu", name=name)
    # slope * x + (1 - slope) * max(x, 0) has only operators of oneDNN, so no map is copied to another layout.
    weight = mx.sym.Reshape(slopes, shape=(-1, 1, 1, 1), name=f"{name}_weight")
    options = {"num_filter": channels, "num_group": channels, "kernel": (1, 1), "no_bias": True}
    positive = mx.sym.Activation(layer, act_type="relu", name=f"{name}_relu")
    return mx.sym.elemwise_add(
        mx.sym.Convolution(layer, weight=weight, name=f"{name}_all", **options),
        mx.sym.Convolution(positive, weight=1 - weight, name=f"{name}_positive", **options),
        name=name,
    )
