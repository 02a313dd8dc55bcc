"""How torch is set up in a process that is there for it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

STEPS = """
import ctypes, resource, torch
from pretrain.train.torch_setup import configure_torch
if {configured}:
    configure_torch({threads})

c = ctypes.CDLL(None)
c.malloc.argtypes, c.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
c.free.argtypes = [ctypes.c_void_p]
c.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def step():
    blocks = [c.malloc(20 << 20) for _ in range(4)]
    for block in blocks:
        c.memset(block, 1, 20 << 20)
    for block in reversed(blocks):
        c.free(block)

for _ in range(3):
    step()
first = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(torch.get_num_threads(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - first)
"""


def steps(*, configured: bool, threads: int | None = None, **environment: str) -> tuple[int, int]:
    """Threads of torch, and pages that five steps had to ask the system for."""
    script = STEPS.format(configured=configured, threads=threads)
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "OMP_", "GLIBC_"))
    }
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found, pages = map(int, ran.stdout.split())
    return found, pages


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    _, asked = steps(configured=False, OMP_NUM_THREADS="1")
    _, pages = steps(configured=True, OMP_NUM_THREADS="1")
    assert asked > 100, "there would be nothing to keep"
    assert pages < asked / 20


def test_threads_are_what_was_reserved() -> None:
    assert steps(configured=True, OMP_NUM_THREADS="2")[0] == 2
    assert steps(configured=True)[0] == 1
    assert steps(configured=True, threads=3, OMP_NUM_THREADS="2")[0] == 3
