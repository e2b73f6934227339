"""How many images a second become pixels and batches, beside other loaders and the loop that this replaces.

The images of one `.rec` (by default real faces: 2,375 JPEGs of 112 x 112, quality 95) are decoded in random
order of their keys, 125 in a call.

The original's loop is InsightFace's `triplet_image_iter.py`: for each image read_idx, unpack,
mx.image.imdecode, transpose to CHW and copy into the batch. ImageRecordIter and DALI read a flat copy of the
same images in the order of the file, which is in their favour. cv2 and Pillow decode bytes that are in memory
already and write nothing into a batch. DALI is left out unless it is installed (`make bench-feed`).

"Kept" is what training does: the bag's pixels are there, and batches of 60 are assembled from random rows of
them.
"""

from __future__ import annotations

import io
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import fasttriplet as ft
import original
from data import FACES, write_dataset
from harness import Bench
from process import Way
from tables import Cell, Table

BATCH = 60
AT_ONCE = 125  # images that all but the original decode in one call: a divisor of 2,375
THREADS = {1: "1 thread", 2: "2 threads"}
UINT8, FLOAT32 = "fasttriplet, to uint8 NHWC", "fasttriplet, to float32 NCHW"
LOOP, ITER = "the original's loop, to float32 NCHW", "ImageRecordIter, to float32 NCHW"
DALI, CV2, PILLOW = "DALI on the CPU, to uint8 NHWC", "cv2, no batch", "Pillow, no batch"
KEPT = "batches of 60 from kept images"

bench = Bench(
    __file__,
    __doc__,
    rounds=9,
    packages=["mxnet", "opencv-python-headless", "pillow", "nvidia-dali-cuda130"],
    against=True,
)
bench.option("--rec", FACES, "file of JPEGs of one size")

Call = Callable[[], object]


def with_fasttriplet(file: ft.RecordFile, keys: NDArray[np.int64], layout: Any, threads: int) -> Call:
    def decode() -> None:
        for at in range(0, len(keys), AT_ONCE):
            file.decode(keys[at : at + AT_ONCE], layout=layout, threads=threads)

    return decode


def with_cv2(encoded: list[bytes]) -> Call:
    cv2.setNumThreads(1)
    arrays = [np.frombuffer(image, np.uint8) for image in encoded]
    return lambda: [cv2.imdecode(image, cv2.IMREAD_COLOR) for image in arrays]


def with_pillow(encoded: list[bytes]) -> Call:
    return lambda: [np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in encoded]


def with_image_record_iter(path: Path, shape: tuple[int, ...], threads: int) -> Call:
    mx = original.mxnet()
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


def with_dali(path: Path, count: int, threads: int) -> Call | None:
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


def from_kept(pixels: NDArray[np.uint8], augment: ft.Augment | None) -> Call:
    rows = np.random.default_rng(1).integers(0, len(pixels), len(pixels))
    batches = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]

    def assemble() -> None:
        for some in batches:  # each is freed before the next, as in a training
            ft.assemble(pixels, some, augment=augment, ids=some)

    return assemble


def ways(rec: str, flat: str) -> dict[str, Way]:
    path, copy = Path(rec), Path(flat)
    file, index = ft.RecordFile(path), ft.index_rec(path, cache=False)
    keys = np.random.default_rng(0).permutation(index["key"].to_numpy())
    encoded = [file.read(key)[1] for key in keys]
    pixels = file.decode(keys)
    shape = pixels.shape[1:]
    augments = {
        KEPT: None,
        f"{KEPT}, mirror and cutoff": ft.Augment(mirror=True, cutoff=32),
        f"{KEPT}, mirror, cutoff and colour jitter": ft.Augment(
            True, 32, brightness=0.125, contrast=0.125, saturation=0.125
        ),
    }
    ours: dict[str, Call] = {}
    peers: dict[str, Call | None] = {LOOP: original.loading(path, keys.tolist(), shape)}
    for threads, name in THREADS.items():
        ours[f"{UINT8}, {name}"] = with_fasttriplet(file, keys, "NHWC", threads)
        ours[f"{FLOAT32}, {name}"] = with_fasttriplet(file, keys, "NCHW", threads)
        peers[f"{ITER}, {name}"] = with_image_record_iter(copy, shape, threads)
        peers[f"{DALI}, {name}"] = with_dali(copy, len(keys), threads)
    one = THREADS[1]
    ours |= {f"{name}, {one}": from_kept(pixels, augment) for name, augment in augments.items()}
    peers |= {f"{CV2}, {one}": with_cv2(encoded), f"{PILLOW}, {one}": with_pillow(encoded)}
    found = {name: Way(call) for name, call in ours.items()}
    return found | {name: Way(call, peer=True) for name, call in peers.items() if call is not None}


def tables(options: Namespace) -> Iterator[Table]:
    count = len(ft.index_rec(options.rec, cache=False))
    with tempfile.TemporaryDirectory() as folder:
        flat = write_dataset(options.rec, Path(folder) / "flat.rec", count)
        took = bench.measure(ways, rec=str(options.rec), flat=str(flat))
    speeds = Table(f"Images a second of {count:,}")
    for name, one in took.items():
        what, _, threads = name.rpartition(", ")
        if name == LOOP:
            what, threads = name, THREADS[1]
        speeds.rows.setdefault(what, {})[threads] = one.per_second(count)
    yield speeds

    def times_as_fast(ours: str, other: str) -> dict[str, Cell]:
        """By threads; each against what it makes itself."""
        found: dict[str, Cell] = {}
        for threads in THREADS.values():
            peer = took.get(other) or took.get(f"{other}, {threads}")
            if peer is not None:
                found[threads] = peer.over(took[f"{ours}, {threads}"])
        return found

    ratios = Table("Times as fast as another")
    ratios.rows[f"{FLOAT32} / the same to uint8 NHWC"] = times_as_fast(FLOAT32, UINT8)
    for other, ours in {LOOP: FLOAT32, ITER: FLOAT32, DALI: UINT8, CV2: UINT8}.items():
        ratio = times_as_fast(ours, other)
        if ratio:
            ratios.rows[f"{ours} / {other}"] = ratio
    ratios.rows[f"{UINT8} / with 1 thread"] = {
        THREADS[2]: took[f"{UINT8}, {THREADS[1]}"].over(took[f"{UINT8}, {THREADS[2]}"])
    }
    yield ratios


if __name__ == "__main__":
    bench.main(tables)
