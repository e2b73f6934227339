"""Which errors of frameworks say that memory was short."""

from __future__ import annotations

import pytest

from fasttriplet.embedders._batches import is_shortage


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
