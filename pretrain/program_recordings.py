"""Task programming's programs over long recordings: block by block so that the work stays in the cache, a block a core.

Nothing here is known of any program. They are run as they stand, or, if asked, made one C loop (:mod:`pretrain.frame_loop`), which takes
a second or two and needs a C compiler; without one they run as they stand.
"""

from __future__ import annotations

import functools
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from pretrain import programs
from pretrain.frame_loop import FrameLoop, frame_loop
from pretrain.pose.animal import SPAN
from pretrain.pose.planes import planes
from pretrain.pose.schema import Schema

log = logging.getLogger(__name__)


def measure_recording(
    position_TMKX: Tensor, schema: Schema, *, block: int = 20_000, compiled: bool = False, out_TP: Tensor | None = None
) -> Tensor:
    """All programs over one long recording in memory, on as many cores as torch may use.

    Args:
        position_TMKX: px, NaN where missing; any number of frames.
        schema: The skeleton.
        block: Frames worked on at a time; not a power of two, or the coordinates of a frame fight for the same places in the cache.
        compiled: Compile the programs first, for this skeleton; where that fails, a warning says so and nothing else changes. Not for
            positions on a GPU, which run as they stand.
        out_TP: What an earlier call returned for as many frames: its memory takes the results. New memory costs the system as much time as
            compiled programs need for a third of their work.

    Returns:
        (T, P), as :func:`pretrain.programs.measure` returns for one window of all frames; stored program by program.
    """
    position, total = position_TMKX.detach().contiguous(), len(position_TMKX)
    size = (len(programs.names(schema)), total)
    if out_TP is None:
        # numpy asks for huge pages; with small ones the system takes longer to hand the memory over than the programs to fill it.
        out_PT = torch.from_numpy(np.empty(size, torch.empty(0, dtype=position.dtype).numpy().dtype))
    else:
        out_PT = out_TP.T
        assert (out_PT.shape, out_PT.dtype, out_PT.is_contiguous()) == (size, position.dtype, True), "not what this recording returns"

    def fill(first: int, last: int) -> None:
        begin, end = max(0, first - SPAN), min(total, last + SPAN)
        out_PT[:, first:last] = _columns(planes(position[begin:end].unsqueeze(0)), schema)[:, first - begin : last - begin]

    fits = compiled and position.is_cpu and total > 2 * SPAN
    loop = compiled_programs(schema, programs.all_programs(), position.dtype) if fits else None
    # A loop looks SPAN frames away, so it leaves the ends.
    blocks = [(0, SPAN, fill), (total - SPAN, total, fill)] if loop else []
    edge, work = (SPAN, functools.partial(loop, position, out_PT)) if loop else (0, fill)
    blocks += [(first, min(first + block, total - edge), work) for first in range(edge, total - edge, block)]
    left = iter(blocks)

    def fill_what_is_left(_: int) -> None:
        with torch.inference_mode():
            for first, last, how in left:
                how(first, last)

    threads = torch.get_num_threads()
    try:
        # Threads of blocks need not wait for each other after every operation, as torch's own would.
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(fill_what_is_left, range(threads)))
    finally:
        torch.set_num_threads(threads)
    return out_PT.T


@functools.cache
def compiled_programs(schema: Schema, which: tuple[programs.Program, ...], dtype: torch.dtype) -> FrameLoop | None:
    """The programs as one loop over frames; None, and a warning, where that cannot be had."""
    plain, with_gaps = (functools.partial(_columns, schema=schema, gaps=gaps) for gaps in (False, True))
    try:
        return frame_loop(plain, with_gaps, schema.shape, dtype, reach=SPAN)
    except Exception as problem:  # whatever torch or the compiler stumbles over, the programs are right without it
        reason = next((line.strip() for line in str(problem).splitlines() if line.strip()), type(problem).__name__)
        log.warning("programs run uncompiled, with the same result but slower: %s", reason)
        return None


def _columns(planes_MKXBT: Tensor, schema: Schema, *, gaps: bool | None = None) -> Tensor:
    return torch.cat(list(programs.each(planes_MKXBT, schema, gaps=gaps))).squeeze(1)
