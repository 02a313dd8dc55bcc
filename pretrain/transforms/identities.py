"""Identity swaps of a tracker, corrected: for features that do not ask which animal is called the
first, and so need only that each goes on as itself."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from pretrain.data.schema import Schema
from pretrain.transforms.interaction import points_of

MOST_ANIMALS = 3
"""More are left as they are: their orders are too many to compare."""
MEMORY_S = 8.0
"""Seconds for which an animal that is not seen is expected where it was."""
ELSEWHERE = 1.0
"""Body lengths that it costs an animal to come from nowhere."""
PASSES = 8
_NEVER = 10**9


def correct_identity_swaps(position_MKXBT: Tensor, schema: Schema, body_px: Tensor) -> Tensor:
    """The same positions with the frames of each animal together: in every frame the animals that
    are seen go on where they were last seen, so that they move least in sum.

    Matching frame after frame (greedily) is what is meant; all frames are matched at once instead,
    each with what came before in its present order, again and again until nothing changes. A frame
    that several swaps in a row depend on needs as many passes; after :data:`PASSES` it stays as
    it is.

    Args:
        position_MKXBT: px; NaN where missing.
        schema: Skeleton and frame rate.
        body_px: Length of a body.
    """
    animals = len(position_MKXBT)
    if not 2 <= animals <= MOST_ANIMALS:
        return position_MKXBT
    centroid_MXBT = _centroids(position_MKXBT, schema) / body_px
    itself_BTM = torch.arange(animals, device=centroid_MXBT.device).expand(
        *centroid_MXBT.shape[2:], animals
    )
    slot_BTM = itself_BTM
    for _ in range(PASSES):
        step_BTM = _order(centroid_MXBT, round(MEMORY_S * schema.fps))
        if not torch.compiler.is_exporting() and torch.equal(step_BTM, itself_BTM):
            break
        slot_BTM = slot_BTM.gather(-1, step_BTM)
        centroid_MXBT = _reordered(centroid_MXBT, step_BTM)
    return _reordered(position_MKXBT, slot_BTM)


def _reordered(x_MABT: Tensor, slot_BTM: Tensor) -> Tensor:
    """In every frame the values of the animals in another order; between M and (B, T) may be any
    axes."""
    index_MBT = slot_BTM.permute(2, 0, 1)
    return x_MABT.gather(
        0, index_MBT[(slice(None), *[None] * (x_MABT.dim() - 3))].expand_as(x_MABT)
    )


def _centroids(position_MKXBT: Tensor, schema: Schema) -> Tensor:
    """(M, X, B, T): of nose, neck and tail base what is seen; NaN where nothing is."""
    groups = list(points_of(schema).values())[:3]
    point_PMXBT = torch.stack([position_MKXBT[:, list(k)].mean(1) for k in groups])
    seen = point_PMXBT == point_PMXBT
    total = torch.where(seen, point_PMXBT, 0.0).sum(0)
    number = seen.sum(0)
    return torch.where(number > 0, total / number.clamp(min=1), torch.nan)


def _order(centroid_MXBT: Tensor, memory: int) -> Tensor:
    """(B, T, M): what each animal is called in every frame."""
    animals, _, batch, frames = centroid_MXBT.shape
    seen_MBT = centroid_MXBT[:, 0] == centroid_MXBT[:, 0]
    index_T = torch.arange(frames, device=centroid_MXBT.device)
    last_MBT = torch.where(seen_MBT, index_T, -_NEVER).cummax(-1).values
    before = torch.full_like(last_MBT[..., :1], -_NEVER)
    last_MBT = torch.cat([before, last_MBT[..., :-1]], -1)
    known_MBT = index_T - last_MBT <= memory
    at_MXBT = last_MBT.clamp(min=0).unsqueeze(1).expand_as(centroid_MXBT)
    was_MXBT = centroid_MXBT.gather(-1, at_MXBT)
    matters_BT = known_MBT.any(0)

    def cost(one: int, other: int) -> Tensor:
        """From where one was to where what is now called the other is."""
        moved_BT = (was_MXBT[one] - centroid_MXBT[other]).square().sum(0).sqrt()
        moved_BT = torch.where(known_MBT[one], moved_BT, ELSEWHERE)
        return torch.where(seen_MBT[other] & matters_BT, moved_BT, 0.0)

    each = {pair: cost(*pair) for pair in itertools.product(range(animals), repeat=2)}
    orders = list(itertools.permutations(range(animals)))
    totals = [
        torch.stack([each[one, other] for other, one in enumerate(order)]).sum(0)
        for order in orders
    ]
    best_BT = torch.zeros((batch, frames), dtype=torch.int64, device=centroid_MXBT.device)
    least_BT = totals[0]
    for number, total in enumerate(totals[1:], 1):
        nearer = total < least_BT
        best_BT = torch.where(nearer, number, best_BT)
        least_BT = torch.where(nearer, total, least_BT)
    if animals == 2:
        swapped_BT = best_BT.cumsum(-1) % 2
        return torch.stack([swapped_BT, 1 - swapped_BT], -1)
    # what came before each: from one frame to the next, then over 2 frames, 4, 8 …
    before_BTM = torch.tensor(orders, device=centroid_MXBT.device)[best_BT]
    reach = 1
    while reach < (2**20 if torch.compiler.is_exporting() else frames):
        earlier_T = (index_T - reach).clamp(min=0)
        composed = before_BTM[:, earlier_T].gather(-1, before_BTM)
        before_BTM = torch.where((index_T >= reach)[:, None], composed, before_BTM)
        reach *= 2
    return before_BTM.argsort(-1)
