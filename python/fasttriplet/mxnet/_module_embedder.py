"""The module that is being trained, as an embedder."""

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
        Bound and with weights when the first images come, as the attribute of this name can be set till
        then. Its batches are filled up with black images.
    """

    needs_images = True
    description = "the MXNet module that is being trained"

    def __init__(self, module: Any = None) -> None:
        self.module = module

    def prepare(self, index: pl.DataFrame) -> None:
        """Nothing: the module may not be bound yet."""

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
        at_once, _, *size = self.module.data_shapes[0].shape
        if [*images.shape[1:3]] != size:
            (height, width), (high, wide) = images.shape[1:3], size
            raise ValueError(
                f"the images are {height} x {width} (H x W), and the module takes {high} x {wide}"
            )
        mx = import_mxnet()
        batch = np.zeros((at_once, 3, *size), dtype=np.float32)
        embedded = []
        for start in range(0, len(images), at_once):
            some = images[start : start + at_once]
            assemble(some, out=batch[: len(some)])
            batch[len(some) :] = 0
            self.module.forward(mx.io.DataBatch([mx.nd.array(batch)]), is_train=False)
            embedded.append(self.module.get_outputs()[0].asnumpy()[: len(some)])
        embeddings: NDArray[np.float32] = np.concatenate(embedded)
        check_finite(embeddings, rows, self.description)
        return embeddings
