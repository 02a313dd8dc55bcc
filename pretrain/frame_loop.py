"""Arithmetic on frames, written in torch, made one C loop over a recording.

A function of planes that adds, compares and takes roots does to every frame the same, and looks at few neighbours.
:mod:`pretrain.frame_trace` reads it as operations on the numbers of a frame. As C, those go over the recording once, in tiles that fit the
nearest cache, and no result in between goes to memory.

The C compiler is that of the environment variable ``CC``, or else ``cc``. It is asked once a process, and takes half a second.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretrain.frame_trace import COMPARISONS, Planes, Trace

FrameLoop = Callable[[Tensor, Tensor, int, int], None]
"""Of a recording (T, ...), results (P, T), a first frame and the one after the last: fills those frames. Other threads run meanwhile."""


def frame_loop(seen: Planes, missing: Planes, shape: Sequence[int], dtype: torch.dtype, *, reach: int) -> FrameLoop:
    """One C loop that does what a function of planes does.

    Args:
        seen: The function, where no number is NaN.
        missing: The same, where some are; both must be right wherever they are called for.
        shape: Of a frame's numbers.
        dtype: float32 or float64.
        reach: How many frames to either side may matter; what is called for must lie as far from the ends of the recording.

    Raises:
        NotImplementedError: The function does what no loop over frames can.
        RuntimeError: There is no compiler, or it failed.
    """
    loops = [_tile_loop(name, Trace(function, shape, dtype), reach) for name, function in (("seen", seen), ("missing", missing))]
    numbers = int(np.prod(shape))
    text = _whole_text(loops, numbers=numbers, reach=reach, real={torch.float32: "float", torch.float64: "double"}[dtype])
    fill = _compiled(text).fill
    fill.argtypes, fill.restype = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_long] * 3], None

    def loop(x: Tensor, out_PT: Tensor, first: int, last: int) -> None:
        assert x.is_cpu, "on another device"
        assert out_PT.is_cpu, "on another device"
        assert x.dtype == out_PT.dtype == dtype, "of another type"
        assert tuple(x.shape[1:]) == tuple(shape), "of another shape"
        assert x.is_contiguous(), "numbers lie apart"
        assert out_PT.stride(1) == 1, "results lie apart"
        assert reach <= first <= last <= min(len(x), out_PT.shape[1]) - reach, "too near the ends"
        fill(x.data_ptr(), out_PT.data_ptr(), out_PT.stride(0), first, last)

    return loop


def _tile_loop(name: str, trace: Trace, reach: int) -> str:
    """A C function of that name, over one tile: results of its frames from the numbers of its frames and of ``reach`` to either side."""
    far = max([trace.edge, *(abs(frames) for node in trace.results for frames in trace.loads(node))])
    if far > reach:
        raise NotImplementedError(f"a loop over frames looks {reach} frames away, not {far}")
    rows = {node: row for row, node in enumerate(sorted(_kept(trace)))}
    keep = _statements(trace, {f"kept[{row}][t]": node for node, row in rows.items()}, 0, {})
    give = _statements(trace, {f"y{k}[t]": node for k, node in enumerate(trace.results)}, reach, rows)
    return "\n".join([
        f"static void {name}(const real (*restrict x)[WIDTH], real *out, long stride, long frames) {{",
        *(f"    real *restrict y{k} = out + {k} * stride;" for k in range(len(trace.results))),
        *([f"    real kept[{len(rows)}][WIDTH];", *_for_each("frames + 2 * REACH", keep)] if rows else []),
        *_for_each("frames", give), "}",
    ])  # fmt: skip


def _kept(trace: Trace) -> set[int]:
    """Nodes that are asked for at other frames than their own."""
    kept, known, below = set[int](), set[int](), list(trace.results)
    while below:
        node = below.pop()
        what, *of = trace.nodes[node]
        if node in known or what in ("load", "constant"):
            continue
        known.add(node)
        if what == "later":
            kept.add(of[0])
            of = of[:1]
        below += of
    return kept


def _statements(trace: Trace, wanted: dict[str, int], at: int, rows: dict[int, int]) -> list[str]:
    """Statements that put nodes where they are wanted; frame t lies at t + ``at`` of the tile, and some nodes in rows that are kept."""
    called, lines = dict[int, str](), list[str]()

    def call(node: int) -> str:
        if node not in called:
            what, *of = trace.nodes[node]
            if node in rows:
                text = f"kept[{rows[node]}][t + {at}]"
            elif what == "load":
                text = f"x[{of[0]}][t + {at + of[1]}]"
            elif what == "later":
                text = f"kept[{rows[of[0]]}][t + {at + of[1]}]"
            elif what == "constant":
                text = f"(real){_IN_C.get(of[0], of[0])}"
            else:
                text = _IN_C[what].format(*map(call, of))
                if what in COMPARISONS:  # vectors want them where they decide
                    text = f"({text})"
                else:
                    lines.append(f"const real v{node} = {text};")
                    text = f"v{node}"
            called[node] = text
        return called[node]

    for place, node in wanted.items():
        value = call(node)
        lines.append(f"{place} = {value};")
    return lines


def _for_each(frames: str, lines: list[str]) -> list[str]:
    body = [f"        {line}" for line in lines]
    return ['    _Pragma("GCC ivdep")', f"    for (long t = 0; t < {frames}; t++) {{", *body, "    }"]


_IN_C = {
    "eq": "{} == {}", "ne": "{} != {}", "lt": "{} < {}", "le": "{} <= {}", "gt": "{} > {}", "ge": "{} >= {}", "where": "{} ? {} : {}",
    "add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "div": "{} / {}", "neg": "-{}",
    "abs": "ABS({})", "sqrt": "SQRT({})", "atan2": "arctangent({}, {})", "nan": "NAN", "inf": "INFINITY", "-inf": "-INFINITY",
}  # fmt: skip


def _whole_text(loops: list[str], *, numbers: int, reach: int, real: str) -> str:
    short = "f" if real == "float" else ""
    return "\n".join([
        "#include <math.h>", "#include <string.h>", f"typedef {real} real;", f"#define ABS fabs{short}", f"#define SQRT sqrt{short}",
        f"enum {{ NUMBERS = {numbers}, REACH = {reach}, TILE = 128, FETCH = 8 * TILE, WIDTH = (TILE + 2 * REACH + 3) / 4 * 4 }};",
        _short_arctangent() if short else "#define arctangent atan2", _TILE, *loops, _FILL,
    ])  # fmt: skip


def _short_arctangent() -> str:
    """The arctangent of two float32 to 3e-7, in arithmetic, which runs in vectors and in a fifth of the time.

    From 0 to 1, atan(x) = x (c0 + c1 x^2 + c2 x^4 + ...), interpolated at Chebyshev's points; the error falls by 0.17 with each power.
    """
    points = (1 + np.cos(np.pi * (np.arange(9) + 0.5) / 9)) / 2
    wanted = np.arctan(points**0.5) / points**0.5
    first, *others = np.polynomial.Polynomial.fit(points, wanted, 8, window=(0, 1), domain=(0, 1)).coef.tolist()[::-1]
    series = functools.reduce(lambda inner, c: f"({inner} * s + {c!r}f)", others, f"{first!r}f")
    return f"""
static inline float arctangent(float y, float x) {{
    const float across = fabsf(x), up = fabsf(y), least = up > across ? across : up, most = up > across ? up : across;
    const float slope = least / (most == 0 ? 1 : most), s = slope * slope, low = slope * {series};
    const float first = up > across ? (float)M_PI_2 - low : low, half = x < 0 ? (float)M_PI - first : first;
    return y < 0 ? -half : half;
}}
"""


_TILE = """
typedef real four __attribute__((vector_size(4 * sizeof(real))));
#define MIX __builtin_shufflevector

static inline four load(const real *from) { four v; memcpy(&v, from, sizeof v); return v; }

/* Numbers of frames to frames of numbers, four frames of four numbers at a time. Says whether one is NaN. */
static int tile(const real *from, long frames, real (*restrict to)[WIDTH]) {
    real sum = 0;
    four sums = {0};
    long t = 0;
    for (; t + 4 <= frames; t += 4) {
        const real *row = from + t * NUMBERS;
        int n = 0;
        for (; n + 4 <= NUMBERS; n += 4) {
            const four a = load(row + n), b = load(row + NUMBERS + n), c = load(row + 2 * NUMBERS + n), d = load(row + 3 * NUMBERS + n);
            const four ab = MIX(a, b, 0, 4, 1, 5), cd = MIX(c, d, 0, 4, 1, 5), AB = MIX(a, b, 2, 6, 3, 7), CD = MIX(c, d, 2, 6, 3, 7);
            const four turned[4] = {MIX(ab, cd, 0, 1, 4, 5), MIX(ab, cd, 2, 3, 6, 7), MIX(AB, CD, 0, 1, 4, 5), MIX(AB, CD, 2, 3, 6, 7)};
            for (int k = 0; k < 4; k++) memcpy(to[n + k] + t, turned + k, sizeof(four));
            sums += (a + b) + (c + d);
        }
        for (; n < NUMBERS; n++)
            for (int k = 0; k < 4; k++) sum += to[n][t + k] = row[k * NUMBERS + n];
    }
    for (; t < frames; t++)
        for (int n = 0; n < NUMBERS; n++) sum += to[n][t] = from[t * NUMBERS + n];
    sum += sums[0] + sums[1] + sums[2] + sums[3];
    return sum != sum;
}
"""

_FILL = """
void fill(const real *from, real *out, long stride, long first, long last) {
    real x[NUMBERS][WIDTH] __attribute__((aligned(64)));
    const real *end = from + (last + REACH) * NUMBERS;
    int ignored = 0;
    for (long t = first; t < last; t += TILE) {
        if ((t - first) % FETCH == 0) {  /* memory is read fastest where nothing else is done: one number of each line brings the line */
            const real *line = from + (t + REACH) * NUMBERS, *ahead = end - line > FETCH * NUMBERS ? line + FETCH * NUMBERS : end;
            for (; line < ahead; line += 64 / sizeof(real)) ignored += *(const volatile char *)line;
        }
        const real *begin = from + (t - REACH) * NUMBERS;
        const int gaps = tile(begin, (end - begin) / NUMBERS < WIDTH ? (end - begin) / NUMBERS : WIDTH, x);
        (gaps ? missing : seen)((const real (*)[WIDTH])x, out + t, stride, last - t < TILE ? last - t : TILE);
    }
}
"""


def _compiled(text: str) -> ctypes.CDLL:
    compiler = shlex.split(os.environ.get("CC", "cc"))
    flags = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]
    with tempfile.TemporaryDirectory(prefix="ethoray-") as folder:
        source, library = Path(folder) / "loop.c", Path(folder) / "loop.so"
        source.write_text(text)
        try:
            subprocess.run([*compiler, *flags, "-o", str(library), str(source), "-lm"], check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise RuntimeError(f"there is no C compiler {compiler[0]!r}; CC names another") from None
        except subprocess.CalledProcessError as problem:
            raise RuntimeError(f"{compiler[0]} failed: {problem.stderr.strip()[:400]}") from problem
        return ctypes.CDLL(str(library))  # stays loaded without its file
