"""A module as an embedder, and the loop over batches that all embedding with MXNet shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fasttriplet.dataset._augment import assemble
from fasttriplet.embedders._base import check_finite, check_images
from fasttriplet.mxnet._compat import import_mxnet

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


class ModuleEmbedder:
    """Runs a module over images without training it; its first output is the embedding.

    Parameters
    ----------
    module : mxnet.mod.Module, optional
        It must be bound and have weights when the first images come; until then the attribute of this name
        can be set.
    description : str, optional
        One line for people.
    """

    needs_images = True

    def __init__(
        self, module: Any = None, description: str = "the MXNet module that is being trained"
    ) -> None:
        self.module = module
        self.description = description

    def prepare(self, index: pl.DataFrame) -> None:
        """Do nothing: the module may not be bound yet."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Embed images.

        Returns
        -------
        (B, D) float32

        Raises
        ------
        ValueError
            If the module is not ready, takes images of another size, or an embedding is not finite.
        """
        images = check_images(rows, images)
        if not (self.module.binded and self.module.params_initialized):
            raise ValueError(
                "the module embeds the images: bind it and give it weights before the first batch"
            )
        shape = tuple(self.module.data_shapes[0].shape)
        if images.shape[1:3] != shape[2:]:
            (height, width), (high, wide) = images.shape[1:3], shape[2:]
            raise ValueError(
                f"the images are {height} x {width} (H x W), and the module takes {high} x {wide}"
            )
        embeddings = embed_in_batches(self.module, images, np.empty(shape, dtype=np.float32))
        check_finite(embeddings, rows, self.description)
        return embeddings


def embed_in_batches(
    module: Any, images: NDArray[np.uint8], batch: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Run a module over images; the last batch is padded with black images, whose outputs are dropped.

    Parameters
    ----------
    module : mxnet.mod.Module
        Bound, with weights.
    images : (N, H, W, 3) uint8
    batch : (B, 3, H, W) float32
        The module's batch, which is overwritten.

    Returns
    -------
    (N, ...) float32
        The module's first output.
    """
    mx = import_mxnet()
    _, shape = module.output_shapes[0]
    outputs = np.empty((len(images), *shape[1:]), dtype=np.float32)
    for start in range(0, len(images), len(batch)):
        chunk = images[start : start + len(batch)]
        assemble(np.ascontiguousarray(chunk), out=batch[: len(chunk)])
        batch[len(chunk) :] = 0
        module.forward(mx.io.DataBatch([mx.nd.array(batch)]), is_train=False)
        outputs[start : start + len(chunk)] = module.get_outputs()[0].asnumpy()[: len(chunk)]
    return outputs
