"""The built-in networks as MXNet's symbols."""

from __future__ import annotations

from typing import Any

from fasttriplet.checkpoint._networks import PReLU, network_of
from fasttriplet.mxnet._compat import import_mxnet

_ANY_SIZE = (112, 112)  # for the small network


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
    return build_network("small", _ANY_SIZE, embedding_size)


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
        fraction of the time on a CPU, or by MXNet's operator, which is one kernel on a GPU and is known to
        other tools. The names and shapes of the weights are the same.

    Returns
    -------
    mxnet.symbol.Symbol
        As :func:`small_convnet`.

    Notes
    -----
    As in InsightFace's networks, the embedding is batch-normalised without a learned factor.
    """
    return build_network("mobilefacenet", image_size, embedding_size, prelu=prelu)


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
    graph = network_of(name, image_size, embedding_size, prelu=prelu)
    return import_mxnet().sym.load_json(graph.to_json())
