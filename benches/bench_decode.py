"""How many images a second become pixels, beside other decoders and the loop that this replaces.

All images of one `.rec` (by default the real faces beside the checkout: 2,375 JPEGs of 112 x 112, quality
95) into one array. The ways take turns in each round; the figure is each one's best round, because other
work on the machine only ever makes a round slower.

The original's loop is InsightFace's `triplet_image_iter.py`: for each image read_idx, unpack,
mx.image.imdecode, transpose to CHW and copy into the batch. cv2 and Pillow decode bytes that are in memory
already and write nothing into a batch.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import fasttriplet as ft
from fasttriplet.mxnet.compat import import_mxnet
from machine import report

FACES = Path(__file__).parents[2] / "shared" / "data" / "lfw112-a" / "train.rec"


def with_fasttriplet(path: Path, threads: int) -> Callable[[], object]:
    file, index = ft.RecordFile(path), ft.index_rec(path, cache=False)
    return lambda: ft.decode_rows([file], index, threads=threads)


def with_cv2(encoded: list[bytes]) -> Callable[[], object]:
    cv2.setNumThreads(1)
    arrays = [np.frombuffer(image, np.uint8) for image in encoded]
    return lambda: [cv2.imdecode(image, cv2.IMREAD_COLOR) for image in arrays]


def with_pillow(encoded: list[bytes]) -> Callable[[], object]:
    return lambda: [np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in encoded]


def with_the_original(path: Path, keys: list[int], shape: tuple[int, ...]) -> Callable[[], object]:
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--rec", type=Path, default=FACES)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    if not arguments.rec.is_file():
        parser.error(f"no file {arguments.rec}; give one with --rec")
    file, index = ft.RecordFile(arguments.rec), ft.index_rec(arguments.rec, cache=False)
    keys = index["key"].to_list()
    encoded = [file.read(key)[1] for key in keys]
    ways = {
        "fasttriplet, 1 thread": with_fasttriplet(arguments.rec, 1),
        "fasttriplet, 2 threads": with_fasttriplet(arguments.rec, 2),
        "cv2, 1 thread": with_cv2(encoded),
        "Pillow, 1 thread": with_pillow(encoded),
        "the original's loop": with_the_original(arguments.rec, keys, file.decode(keys[:1]).shape[1:]),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(arguments.rounds):
        for name, work in ways.items():
            started = time.perf_counter()
            work()
            best[name] = min(best[name], time.perf_counter() - started)
    rates: dict[str, Any] = {f"{name}, images/s": round(len(keys) / best[name]) for name in ways}
    original = best["the original's loop"]
    rates |= {f"{name} / the original's loop": original / best[name] for name in list(ways)[:2]}
    rates["fasttriplet / cv2, 1 thread"] = best["cv2, 1 thread"] / best["fasttriplet, 1 thread"]
    report(f"decoding {len(keys):,} images of {arguments.rec.name}", rates, as_json=arguments.json)


if __name__ == "__main__":
    main()
