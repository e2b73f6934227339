"""How many images a device is given at a time, and which errors say that memory was short."""

from __future__ import annotations

from typing import Any

import pytest

from fasttriplet.embedders._batches import at_a_time, images_each, is_shortage, shortage
from fasttriplet.errors import OptionError


@pytest.mark.parametrize(
    ("wanted", "limits", "expected"),
    [
        (None, {}, 16),
        (5, {}, 5),
        (None, {"least": 32}, 32),
        (None, {"most": 8}, 8),
        (None, {"least": 4, "most": 4}, 4),
        (12, {"least": 2, "most": 12}, 12),
        (2, {"least": 2, "most": 12}, 2),
        (1, {}, 1),
        (2**31 - 1, {}, 2**31 - 1),
    ],
)
def test_how_many_images_each_device_is_given(wanted: Any, limits: dict[str, int], expected: int) -> None:
    assert images_each(wanted, 16, who="a.onnx", **limits) == expected


@pytest.mark.parametrize(
    ("wanted", "limits", "message"),
    [
        (0, {}, "must be a whole number >= 1, not 0"),
        (True, {}, "must be a whole number >= 1, not True"),
        ("3", {}, "must be a whole number >= 1, not '3'"),
        (2**70, {}, "must be a whole number up to 2147483647, not 1180591620717411303424"),
        (1, {"least": 2}, "must be at least 2 for a.onnx, not 1"),
        (8, {"least": 4, "most": 4}, "must be 4 for a.onnx, not 8"),
        (1, {"least": 2, "most": 12}, "must be from 2 to 12 for a.onnx, not 1"),
    ],
)
def test_numbers_of_images_that_do_not_fit(wanted: Any, limits: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        images_each(wanted, 16, who="a.onnx", **limits)
    assert str(caught.value) == f"batch_size {message}"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you t"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB)"),
        RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cudaMalloc retry failed: out of memory"),
        RuntimeError("Failed to allocate memory for requested buffer of size 802816"),
        RuntimeError("Memory allocation failed"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("bad allocation"),
    ],
    ids=str,
)
def test_errors_that_say_it(error: Exception) -> None:
    assert is_shortage(error)


@pytest.mark.parametrize("text", ["", "shape mismatch", "CUDNN_STATUS_NOT_SUPPORTED", "out of range"])
def test_errors_that_do_not(text: str) -> None:
    assert not is_shortage(RuntimeError(text))


def test_what_is_said_of_a_shortage() -> None:
    several = shortage("a.onnx", ["cuda:0", "cuda:1"], 64, (112, 96))
    assert type(several) is MemoryError
    assert str(several) == (
        "not enough memory on cuda:0, cuda:1 for 64 images of 112 x 96 at a time in a.onnx; lower batch_size"
    )
    for images in (1, 2):
        lower = "lower batch_size" in str(shortage("a.onnx", ["cpu"], images, (8, 6)))
        assert lower == (images > 1)


def test_what_is_said_of_the_number_of_images() -> None:
    assert at_a_time(128, ["cpu"]) == "128 images at a time"
    assert at_a_time(1, ["cuda:0", "cuda:1"]) == "1 image at a time on each"
