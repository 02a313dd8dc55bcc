"""Torch in a process that is there for it: threads, memory kept from step to step, and the type of
matrix products."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

import torch

from pretrain.config import Precision

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def configure_torch(threads: int | None = None) -> None:
    """Sets up torch in a worker, trial or benchmark; not in a process of somebody else's.

    glibc hands memory that a step frees back to the system, which clears it and hands it out again
    in the next one: a tenth of a step of a middling encoder. Here it is set to keep it. Other C
    libraries are left as they are.

    On a GPU float32 is float32 (cuDNN would take TF32, with 10 bits of mantissa, for convolutions;
    a recipe's ``precision`` says where fewer bits will do), and cuDNN and cuBLAS repeat themselves.

    Args:
        threads: Of torch; None for as many CPUs as Ray reserved (``OMP_NUM_THREADS``, one without
            it).
    """
    torch.set_num_threads(threads or max(1, int(os.environ.get("OMP_NUM_THREADS", "1") or 1)))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA is first used
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    with contextlib.suppress(OSError, TypeError, AttributeError):
        c_library = ctypes.CDLL(None)
        c_library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        # the most it takes; with one of the two set, it no longer adapts the other
        c_library.mallopt(_M_MMAP_THRESHOLD, 2**25)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: sums are the same on every machine, and small work is not held up where
    others use the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def matmul_precision(precision: Precision, device: str) -> torch.autocast:
    """The context in which matrix products are of a precision.

    Args:
        precision: ``float32``; ``bf16`` (weights stay float32); ``auto``: bf16 where
            :func:`has_bf16_matmul` says so.
        device: ``cpu`` or ``cuda``.
    """
    bf16 = precision == "bf16" or (precision == "auto" and has_bf16_matmul(device))
    return torch.autocast(device, dtype=torch.bfloat16, enabled=bf16)


def has_bf16_matmul(device: str) -> bool:
    """Whether a kind of device has matrix instructions for bfloat16; without them it is many times
    slower than float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_tile") or capabilities.get("avx512_bf16"))
