"""A module as an embedder, and the loop over batches that all embedding with MXNet shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fasttriplet._words import counted
from fasttriplet.dataset._augment import assemble
from fasttriplet.embedders._base import check_finite, check_images, is_embedding
from fasttriplet.mxnet._compat import import_mxnet

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray


class ModuleEmbedder:
    """Runs a module over images without training it; its first output is the embedding.

    The module must be bound and have weights when the first images come; until then the attribute can be set.
    """

    needs_images = True

    def __init__(
        self, module: Any = None, description: str = "the MXNet module that is being trained"
    ) -> None:
        self.module, self.description = module, description

    def prepare(self, index: pl.DataFrame) -> None:
        """Do nothing: the module may not be bound yet."""

    def embed(self, rows: pl.DataFrame, images: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Run the module over images of the size that it takes."""
        images = check_images(rows, images)
        if not (self.module.binded and self.module.params_initialized):
            raise ValueError(
                "the module embeds the images: bind it and give it weights before the first batch"
            )
        shape = tuple(self.module.data_shapes[0].shape)
        if images.shape[1:3] != shape[2:]:
            given, taken = ("{} x {}".format(*size) for size in (images.shape[1:3], shape[2:]))
            raise ValueError(f"the images are {given} (H x W), and the module takes {taken}")
        embeddings = embed_in_batches(
            self.module,
            images,
            np.empty(shape, dtype=np.float32),
            who=self.description,
            advice="Put the embedding first, as mx.sym.Group([embedding, loss]) and "
            "fasttriplet.mxnet.triplet_loss do",
        )
        check_finite(embeddings, rows, self.description)
        return embeddings


def embed_in_batches(
    module: Any, images: NDArray[np.uint8], batch: NDArray[np.float32], *, who: str, advice: str
) -> NDArray[np.float32]:
    """The module's first output for (N, H, W, 3) images, in batches that are made in `batch`, (B, 3, H, W).

    The last batch is padded with black images, whose outputs are dropped. If the output is not an embedding,
    the text of the ValueError begins with `who` and ends with the `advice`.
    """
    mx = import_mxnet()
    _, shape = module.output_shapes[0]
    embeddings = np.empty((len(images), *shape[1:2]), dtype=np.float32)
    for start in range(0, len(images), len(batch)):
        chunk = images[start : start + len(batch)]
        assemble(np.ascontiguousarray(chunk), out=batch[: len(chunk)])
        batch[len(chunk) :] = 0
        module.forward(mx.io.DataBatch([mx.nd.array(batch)]), is_train=False)
        output = module.get_outputs()[0].asnumpy()
        # Not output_shapes, where the first number of each shape is the size of the batch.
        if not is_embedding(output.shape, len(batch)):
            raise ValueError(f"{who}: {_shapes(module, len(batch))}. {advice}")
        embeddings[start : start + len(chunk)] = output[: len(chunk)].reshape(len(chunk), -1)
    return embeddings


def _shapes(module: Any, images: int) -> str:
    """Say which shape the first output has and an embedding would have, and which other outputs have that."""
    (name, shape), *others = zip(
        module.output_names, (output.shape for output in module.get_outputs()), strict=True
    )
    fitting = [repr(other) for other, its_shape in others if is_embedding(its_shape, images)]
    of_others = f", as {' and '.join(fitting)} has" if fitting else ""
    return (
        f"output {name!r} has the shape {shape} for {counted(images, 'image')}, and an embedding has "
        f"({images}, D){of_others}"
    )
