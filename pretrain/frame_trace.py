"""Arithmetic on frames, written in torch, read as operations on the numbers of one frame and its neighbours."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

Planes = Callable[[Tensor], Tensor]
"""From planes, (..., 1, T), to (P, T)."""

COMPARISONS = frozenset(["eq", "ne", "lt", "le", "gt", "ge"])
ARITHMETIC = COMPARISONS | {"add", "sub", "mul", "div", "neg", "abs", "sqrt", "atan2", "where"}
"""Operations of nodes, by torch's names."""


@dataclass(frozen=True)
class _Value:
    """A tensor of the trace: for each of its numbers, but for time, the node that gives it."""

    nodes: Any
    """Array of node numbers, shaped as the tensor without its last axis, time; a single one where ``frames`` is None."""
    frames: int | None
    edges: tuple[int, int] = (0, 0)
    """Frames at the beginning and at the end that are constant, whatever the nodes say."""


class Trace(fx.Interpreter):
    """Reads a function of planes as nodes. The same operation on the same nodes is one node, and younger than those.

    Args:
        function: From planes to a number a frame for each result; torch must be able to trace it.
        shape: Of a frame's numbers.
        dtype: Of all numbers.

    Raises:
        NotImplementedError: It does what cannot be done frame by frame, or what is not known here.
    """

    nodes: list[tuple[Any, ...]]
    """``("load", n, k)``: number n of the frame k frames later; ``("constant", text)``; ``("later", node, k)``: what a node that looks at
    one frame alone gives k frames later; ``(operation, *nodes)``, an operation of :data:`ARITHMETIC`."""
    results: list[int]
    """The nodes that are asked for."""
    edge: int
    """So many frames at either end of a recording are constant, which no node says."""

    FRAMES = 64  # of the example

    def __init__(self, function: Planes, shape: Sequence[int], dtype: torch.dtype) -> None:
        from torch._decomp import core_aten_decompositions
        from torch.fx.experimental.proxy_tensor import make_fx

        example = torch.zeros(*shape, 1, self.FRAMES, dtype=dtype)
        traced = make_fx(torch.func.functionalize(function), {**core_aten_decompositions()})
        super().__init__(traced(example))
        self.extra_traceback = False
        self.nodes, self._dtype = [], dtype
        self._numbers: dict[tuple[Any, ...], int] = {}
        numbers = [self._node("load", number, 0) for number in range(int(np.prod(shape)))]
        given = self.run(_Value(np.array(numbers, dtype=object).reshape(*shape, 1), self.FRAMES))
        if given.frames != self.FRAMES:
            raise NotImplementedError("a loop over frames gives each frame its number")
        self.results, self.edge = list(given.nodes.flat), max(given.edges)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """One operation of the trace."""
        if target is operator.getitem:
            return args[0][args[1]]
        name = target._schema.name.removeprefix("aten::").strip("_")
        if name in ARITHMETIC:
            return self._each(name, *args, **kwargs)
        method = getattr(self, f"_do_{name}", None)
        if method is None:
            raise NotImplementedError(f"a loop over frames cannot do {name}")
        return method(*args, **kwargs)

    # -- nodes

    def _node(self, *what: Any) -> int:
        if what not in self._numbers:
            self._numbers[what] = len(self.nodes)
            self.nodes.append(what)
        return self._numbers[what]

    def _later(self, node: int, frames: int) -> int:
        """The node that gives what another gives that many frames later; negative: earlier."""
        name, *of = self.nodes[node]
        if not frames or not self.loads(node):
            return node
        if name in ("load", "later"):
            return self._node(name, of[0], of[1] + frames)
        if self.loads(node) == {0}:  # kept, rather than made again for each frame that asks
            return self._node("later", node, frames)
        return self._node(name, *(self._later(one, frames) for one in of))

    @functools.cache  # noqa: B019 (a trace lives as long as it is read)
    def loads(self, node: int) -> frozenset[int]:
        """How many frames later lies what a node needs; empty for a constant."""
        name, *of = self.nodes[node]
        if name == "constant":
            return frozenset()
        if name in ("load", "later"):
            return frozenset([of[1]])
        return frozenset[int]().union(*map(self.loads, of))

    # -- operations on all numbers alike

    def _each(self, name: str, *args: Any, **more: Any) -> _Value:
        if any(value is not None for option, value in more.items() if (option, value) != ("alpha", 1)):
            raise NotImplementedError(f"a loop over frames cannot do {name} with {', '.join(more)}")
        values = [arg if isinstance(arg, _Value) else self._do_full([], arg) for arg in args]
        frames = {value.frames for value in values} - {None}
        if len(frames) > 1:
            raise NotImplementedError("a loop over frames cannot put together pieces of different length")
        made = np.frompyfunc(functools.partial(self._node, name), len(values), 1)
        nodes = np.asarray(made(*(value.nodes for value in values)), dtype=object)
        return _Value(nodes, frames.pop() if frames else None, _widest(values))

    def _do_sum(self, x: _Value, dims: Sequence[int] | None = None, keepdim: bool = False) -> _Value:
        if not dims:
            raise NotImplementedError("a loop over frames cannot work along time")
        add, nodes = np.frompyfunc(functools.partial(self._node, "add"), 2, 1), x.nodes
        for dim in sorted((self._axis(x, dim) for dim in dims), reverse=True):
            nodes = add.reduce(nodes, axis=dim, keepdims=keepdim)
        return replace(x, nodes=np.asarray(nodes, dtype=object))

    def _do_mean(self, x: _Value, dims: Sequence[int] | None = None, keepdim: bool = False) -> _Value:
        total = self._do_sum(x, dims, keepdim)
        return self._each("div", total, x.nodes.size // total.nodes.size)

    def _do_to_copy(self, x: _Value, *, dtype: torch.dtype | None = None, **_: Any) -> _Value:
        if dtype not in (None, self._dtype):
            raise NotImplementedError(f"a loop over frames cannot make {dtype} of {self._dtype}")
        return self._each("where", x, 1.0, 0.0) if self.nodes[x.nodes.flat[0]][0] in COMPARISONS else x

    def _do_isnan(self, x: _Value) -> _Value:
        return self._each("ne", x, x)

    def _do_pow(self, x: _Value, power: object) -> _Value:
        if power == 0.5:
            return self._each("sqrt", x)
        if power != 2:
            raise NotImplementedError(f"a loop over frames cannot do pow with {power}")
        return self._each("mul", x, x)

    def _do_clone(self, x: _Value, **_: Any) -> _Value:
        return x

    # -- constants

    def _do_full(self, size: Sequence[int], value: float, **_: Any) -> _Value:
        constant = self._node("constant", repr(float(value)))  # as text, since NaN does not equal itself
        nodes = np.full(tuple(size[:-1]), constant, dtype=object)
        return _Value(nodes, size[-1] if size else None)

    def _do_scalar_tensor(self, value: float, **_: Any) -> _Value:
        return self._do_full([], value)

    # -- views

    def _axis(self, x: _Value, dim: int) -> int:
        dim += (x.nodes.ndim + 1) * (dim < 0)
        if x.frames is None or dim == x.nodes.ndim:
            raise NotImplementedError("a loop over frames cannot work along time")
        return dim

    def _do_slice(self, x: _Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> _Value:
        if x.frames is not None and dim in (-1, x.nodes.ndim) and step == 1:
            first, last, _ = slice(start, end).indices(x.frames)
            edges = max(0, x.edges[0] - first), max(0, x.edges[1] - (x.frames - last))
            return _Value(self._moved(x.nodes, first), last - first, edges)
        axis = self._axis(x, dim)
        return replace(x, nodes=x.nodes[(slice(None),) * axis + (slice(start, end, step),)])

    def _moved(self, nodes: Any, frames: int) -> Any:
        return np.asarray(np.frompyfunc(lambda node: self._later(node, frames), 1, 1)(nodes), dtype=object)

    def _do_select(self, x: _Value, dim: int, index: int) -> _Value:
        return replace(x, nodes=np.asarray(x.nodes.take(index, axis=self._axis(x, dim)), dtype=object))

    def _do_flip(self, x: _Value, dims: Sequence[int]) -> _Value:
        return replace(x, nodes=np.flip(x.nodes, tuple(self._axis(x, dim) for dim in dims)))

    def _do_squeeze(self, x: _Value, dims: Sequence[int]) -> _Value:
        return replace(x, nodes=x.nodes.squeeze(tuple(self._axis(x, dim) for dim in dims)))

    def _do_unsqueeze(self, x: _Value, dim: int) -> _Value:
        dim += (x.nodes.ndim + 2) * (dim < 0)
        if dim > x.nodes.ndim:
            raise NotImplementedError("a loop over frames has time last")
        return replace(x, nodes=np.expand_dims(x.nodes, dim))

    def _do_cat(self, parts: Sequence[_Value], dim: int = 0) -> _Value:
        if dim not in (-1, parts[0].nodes.ndim):
            nodes = np.concatenate([part.nodes for part in parts], self._axis(parts[0], dim))
            return _Value(nodes, parts[0].frames, _widest(parts))
        # Along time: one piece holds within the recording, as much later as lies before it; those around it are constant.
        lengths = [part.frames or 0 for part in parts]
        inner = [place for place, part in enumerate(parts) if any(self.nodes[node][0] != "constant" for node in part.nodes.flat)]
        if len(inner) != 1:
            raise NotImplementedError("a loop over frames cannot put pieces of time together")
        before, part, after = sum(lengths[: inner[0]]), parts[inner[0]], sum(lengths[inner[0] + 1 :])
        return _Value(self._moved(part.nodes, -before), sum(lengths), (before + part.edges[0], after + part.edges[1]))


def _widest(values: Sequence[_Value]) -> tuple[int, int]:
    return max(value.edges[0] for value in values), max(value.edges[1] for value in values)
