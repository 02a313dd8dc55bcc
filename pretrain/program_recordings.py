"""Task programming's programs over long recordings: block by block so that the work stays in the cache, a block a core.

Nothing here is known of any program. They are run as they stand, or, if asked, traced once and made one C++ loop by torch's compiler,
which takes seconds the first time (torch keeps the result on disk) and needs a C++ compiler; without one they run as they stand.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from pretrain import programs
from pretrain.pose.animal import SPAN
from pretrain.pose.planes import planes
from pretrain.pose.schema import Schema

log = logging.getLogger(__name__)

Work = Callable[[Tensor], Tensor]
"""From one block's positions, (T, M, K, X), to (P, T)."""


def measure_recording(position_TMKX: Tensor, schema: Schema, *, block: int = 20_000, compiled: bool = False) -> Tensor:
    """All programs over one long recording in memory, on as many cores as torch may use.

    Args:
        position_TMKX: px, NaN where missing; any number of frames.
        schema: The skeleton.
        block: Frames worked on at a time; not a power of two, or the coordinates of a frame fight for the same places in the cache.
        compiled: Compile the programs first, for this skeleton and block; where that fails, a warning says so and nothing else changes.

    Returns:
        (T, P), as :func:`pretrain.programs.measure` returns for one window of all frames; stored program by program.
    """
    assert block > 2 * SPAN, "a block must be longer than movement looks"
    position, total, step = position_TMKX.detach(), len(position_TMKX), block - 2 * SPAN
    # numpy asks for huge pages; with small ones the system takes longer to hand the memory over than the programs to fill it.
    out_PT = torch.from_numpy(np.empty((len(programs.names(schema)), total), torch.empty(0, dtype=position.dtype).numpy().dtype))

    def fill(first: int, work: Work) -> None:
        # All blocks are equally long, so that one compiled loop fits them: the last begins early.
        begin, last = max(0, min(first - SPAN, total - block)), min(total, first + step)
        with torch.inference_mode():
            out_PT[:, first:last] = work(position[begin : begin + block])[:, first - begin : last - begin]

    threads = torch.get_num_threads()
    try:
        # Threads of blocks need not wait for each other after every operation, as torch's own would.
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            work: Work = functools.partial(_as_they_stand, schema=schema)
            if compiled and total >= block:
                loop = pool.submit(compiled_programs, schema, programs.all_programs(), block, position.dtype).result()
                work = work if loop is None else loop
            list(pool.map(lambda first: fill(first, work), range(0, total, step)))
    finally:
        torch.set_num_threads(threads)
    return out_PT.T


@functools.cache
def compiled_programs(schema: Schema, which: tuple[programs.Program, ...], frames: int, dtype: torch.dtype) -> Work | None:
    """The programs as one loop over a block of that many frames, and another for gaps; None, and a warning, where that cannot be had."""
    try:
        import torch._inductor  # these take a second to import
        from torch.fx.experimental.proxy_tensor import make_fx

        # Tracing runs the programs, so they may use all of Python. The wrapper in C++ lets other threads run. What torch.compile adds,
        # checks of the arguments of every call, takes 20 µs a block.
        example, loops = torch.zeros(*schema.shape, 1, frames, dtype=dtype), []
        for gaps in (False, True):
            graph = make_fx(functools.partial(_columns, schema=schema, gaps=gaps))
            loop = torch._inductor.compile(graph(example), [example], options={"cpp.threads": 1, "cpp_wrapper": True})
            with torch.inference_mode():
                loop(example)
            loops.append(loop)
    except Exception as problem:  # whatever the compiler stumbles over, the programs are right without it
        reason = next((line.strip() for line in str(problem).splitlines() if line.strip()), type(problem).__name__)
        log.warning("programs run uncompiled, with the same result but slower: %s", reason)
        return None

    def work(block_TMKX: Tensor) -> Tensor:
        # The sum says whether a point is missing and brings the block into the cache, faster than the transposition would.
        loop = loops[int(block_TMKX.sum().isnan())]
        found_PT: Tensor = loop(planes(block_TMKX.unsqueeze(0)))
        return found_PT

    return work


def _as_they_stand(block_TMKX: Tensor, schema: Schema) -> Tensor:
    return _columns(planes(block_TMKX.unsqueeze(0)), schema)


def _columns(planes_MKXBT: Tensor, schema: Schema, *, gaps: bool | None = None) -> Tensor:
    return torch.cat(list(programs.each(planes_MKXBT, schema, gaps=gaps))).squeeze(1)
