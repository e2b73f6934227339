"""How many images a second become pixels and batches, beside other loaders and the loop that this replaces.

The images of one `.rec` (by default the real faces beside the checkout: 2,375 JPEGs of 112 x 112, quality
95) are decoded in random key order. The ways take turns in each round; the figure is each one's best round,
because other work on the machine only ever makes a round slower.

The original's loop is InsightFace's `triplet_image_iter.py`: for each image read_idx, unpack,
mx.image.imdecode, transpose to CHW and copy into the batch. ImageRecordIter and DALI read a flat copy of the
same images in the order of the file, which is in their favour. cv2 and Pillow decode bytes that are in memory
already and write nothing into a batch. The row of DALI is there if it is installed (`make bench-feed`).

"Kept" is what training does: the bag's pixels are there, and batches of 60 are assembled from random rows of
them.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import fasttriplet as ft
from faces import FACES, write_dataset
from fasttriplet.mxnet.compat import import_mxnet
from machine import report

BATCH = 60
AT_ONCE = 125  # images that all but the original decode in one call: a divisor of 2,375

Way = Callable[[], object]


def with_fasttriplet(file: ft.RecordFile, keys: NDArray[np.int64], layout: Any, threads: int) -> Way:
    def decode() -> None:
        for at in range(0, len(keys), AT_ONCE):
            file.decode(keys[at : at + AT_ONCE], layout=layout, threads=threads)

    return decode


def with_cv2(encoded: list[bytes]) -> Way:
    cv2.setNumThreads(1)
    arrays = [np.frombuffer(image, np.uint8) for image in encoded]
    return lambda: [cv2.imdecode(image, cv2.IMREAD_COLOR) for image in arrays]


def with_pillow(encoded: list[bytes]) -> Way:
    return lambda: [np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in encoded]


def with_the_original(path: Path, keys: list[int], shape: tuple[int, ...]) -> Way:
    mx: Any = import_mxnet()
    records = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "r")

    def assemble() -> NDArray[np.float32]:
        batch = np.empty((len(keys), shape[2], shape[0], shape[1]), np.float32)
        for row, key in enumerate(keys):
            _, content = mx.recordio.unpack(records.read_idx(key))
            image = mx.nd.transpose(mx.image.imdecode(content), axes=(2, 0, 1))
            batch[row] = image.asnumpy()
        return batch

    return assemble


def with_image_record_iter(path: Path, shape: tuple[int, ...], threads: int) -> Way:
    mx: Any = import_mxnet()
    batches = mx.io.ImageRecordIter(
        path_imgrec=str(path),
        path_imgidx=str(path.with_suffix(".idx")),
        data_shape=(shape[2], shape[0], shape[1]),
        batch_size=AT_ONCE,
        preprocess_threads=threads,
    )

    def epoch() -> None:
        batches.reset()
        for batch in batches:
            batch.data[0].wait_to_read()

    return epoch


def with_dali(path: Path, count: int, threads: int) -> Way | None:
    try:
        from nvidia.dali import fn, pipeline_def, types  # noqa: PLC0415
    except ImportError:
        return None

    @pipeline_def  # type: ignore[untyped-decorator]
    def decode() -> Any:
        data, label = fn.readers.mxnet(path=[str(path)], index_path=[str(path.with_suffix(".idx"))])
        return fn.decoders.image(data, device="cpu", output_type=types.RGB), label

    pipeline = decode(batch_size=AT_ONCE, num_threads=threads, device_id=None, prefetch_queue_depth=2)
    pipeline.build()
    return lambda: [pipeline.run() for _ in range(count // AT_ONCE)]


def from_kept(pixels: NDArray[np.uint8], augment: ft.Augment | None) -> Way:
    rows = np.random.default_rng(1).integers(0, len(pixels), len(pixels))
    batches = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]

    def assemble() -> None:
        for some in batches:  # each let go before the next, as by a training
            ft.assemble(pixels, some, augment=augment, ids=some)

    return assemble


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--rec", type=Path, default=FACES)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    if not arguments.rec.is_file():
        parser.error(f"no file {arguments.rec}; give one with --rec")
    file, index = ft.RecordFile(arguments.rec), ft.index_rec(arguments.rec, cache=False)
    keys = np.random.default_rng(0).permutation(index["key"].to_numpy())
    encoded = [file.read(key)[1] for key in keys]
    pixels = file.decode(keys)
    shape = pixels.shape[1:]
    with tempfile.TemporaryDirectory() as folder:
        flat = write_dataset(arguments.rec, Path(folder) / "flat.rec", len(keys))
        ways: dict[str, Way | None] = {
            "decode to uint8 NHWC, 1 thread": with_fasttriplet(file, keys, "NHWC", 1),
            "decode to uint8 NHWC, 2 threads": with_fasttriplet(file, keys, "NHWC", 2),
            "decode to float32 NCHW, 1 thread": with_fasttriplet(file, keys, "NCHW", 1),
            "decode to float32 NCHW, 2 threads": with_fasttriplet(file, keys, "NCHW", 2),
            "the original's loop": with_the_original(arguments.rec, keys.tolist(), shape),
            "ImageRecordIter, 1 thread": with_image_record_iter(flat, shape, 1),
            "ImageRecordIter, 2 threads": with_image_record_iter(flat, shape, 2),
            "cv2, 1 thread": with_cv2(encoded),
            "Pillow, 1 thread": with_pillow(encoded),
            "kept, 1 thread": from_kept(pixels, None),
            "kept, mirror and cutoff, 1 thread": from_kept(pixels, ft.Augment(mirror=True, cutoff=32)),
            "kept, these and colours, 1 thread": from_kept(
                pixels, ft.Augment(True, 32, brightness=0.125, contrast=0.125, saturation=0.125)
            ),
            "DALI on the CPU, 1 thread": with_dali(flat, len(keys), 1),
            "DALI on the CPU, 2 threads": with_dali(flat, len(keys), 2),
        }
        best = measure({name: way for name, way in ways.items() if way is not None}, arguments.rounds)
    results: dict[str, Any] = {f"{name}, images/s": round(len(keys) / best[name]) for name in best}
    results |= ratios(best)
    report(f"loading {len(keys):,} images of {arguments.rec.name}", results, as_json=arguments.json)


def measure(ways: dict[str, Way], rounds: int) -> dict[str, float]:
    """Best seconds of each."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, work in ways.items():
            started = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def ratios(best: dict[str, float]) -> dict[str, float]:
    """What the bars are about."""

    def speed(name: str, of: str) -> float:
        return best[of] / best[name]

    uint8, planes = "decode to uint8 NHWC", "decode to float32 NCHW"
    results = {
        "2 threads / 1 thread": speed(f"{uint8}, 2 threads", f"{uint8}, 1 thread"),
        "float32 NCHW / uint8 NHWC, 1 thread": speed(f"{planes}, 1 thread", f"{uint8}, 1 thread"),
        "float32 NCHW / uint8 NHWC, 2 threads": speed(f"{planes}, 2 threads", f"{uint8}, 2 threads"),
    }
    for other in ("the original's loop", "ImageRecordIter", "DALI on the CPU", "cv2"):
        for threads in ("1 thread", "2 threads"):
            name = other if other == "the original's loop" else f"{other}, {threads}"
            # Each against what it makes itself.
            made = uint8 if other in ("DALI on the CPU", "cv2") else planes
            ours = f"{made}, {threads}"
            if name in best:
                results[f"{ours} / {other}"] = speed(ours, name)
    return results


if __name__ == "__main__":
    main()
