"""What the workers of a run share: embeddings to contrast with, and means over the global batch."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def count() -> int:
    """Workers of this run; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this worker, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def gather(x: Tensor) -> Tensor:
    """Joins the rows of all workers in order of rank; the gradient of a row goes back to its
    worker.

    Args:
        x: (N, …), the same shape on every worker.

    Returns:
        (workers * N, …).
    """
    if count() == 1:
        return x
    if not x.requires_grad:
        return _all_gather(x)
    rows: Tensor = _Gather.apply(x)  # type: ignore[no-untyped-call]
    return rows


def _all_gather(x: Tensor) -> Tensor:
    plain = x.to(torch.uint8) if x.dtype == torch.bool else x.contiguous()
    rows = [torch.empty_like(plain) for _ in range(count())]
    dist.all_gather(rows, plain)
    return torch.cat(rows).to(x.dtype)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _all_gather(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Each worker's loss is a share of the whole, so the gradient of a row is the sum over the
        # workers' shares. A copy: autograd may have handed the same tensor to somebody else, and
        # all_reduce writes into it.
        grad = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad)
        rows = len(grad) // count()
        return grad[rank() * rows : (rank() + 1) * rows]


def mean_over_workers(total: Tensor, number: Tensor) -> Tensor:
    """The mean over the global batch, as a loss of this worker.

    Args:
        total: Sum of this worker's terms (scalar).
        number: How many there were (scalar); the terms that were masked do not count.

    Returns:
        A scalar whose mean over the workers is (sum of all totals) / (sum of all numbers); so is
        its gradient once the workers' gradients are averaged, as DistributedDataParallel does. 0
        where nobody had a term.
    """
    number = number.detach().to(total.dtype)
    if count() > 1:
        number = number.clone()
        dist.all_reduce(number)
    return total * (count() / number.clamp(min=1))


def mean(x: Tensor) -> Tensor:
    """Mean over the workers, without gradient."""
    x = x.detach().clone()
    if count() > 1:
        dist.all_reduce(x)
    return x / count()
