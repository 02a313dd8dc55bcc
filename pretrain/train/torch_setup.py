"""Torch in a process that is there for it alone: how many threads, and memory kept from step to
step."""

from __future__ import annotations

import contextlib
import ctypes
import os

import torch

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def configure_torch(threads: int | None = None) -> None:
    """Settles torch in a worker, trial or benchmark; not in a process of somebody else's.

    glibc hands memory that a step frees back to the system, which clears it and hands it out again
    in the next one: a tenth of a step of a middling encoder. It is told to keep it. Other C
    libraries are left as they are.

    Args:
        threads: Of torch; None for as many CPUs as Ray reserved (``OMP_NUM_THREADS``, one without
            it).
    """
    torch.set_num_threads(threads or max(1, int(os.environ.get("OMP_NUM_THREADS", "1") or 1)))
    with contextlib.suppress(OSError, TypeError, AttributeError):
        c_library = ctypes.CDLL(None)
        c_library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        c_library.mallopt(
            _M_MMAP_THRESHOLD, 2**25
        )  # the most it takes; told one of the two, it no longer finds out the other
