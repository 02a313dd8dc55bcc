"""The skeleton as a graph: all points of all animals, and which of them are how many steps
apart."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.data.schema import Schema


def edges(schema: Schema) -> list[tuple[int, int]]:
    """Pairs of points that are joined, each a place on (M, K) laid flat.

    Within an animal its bones. Between two animals every keypoint and its counterpart, and the
    front of one's body axis and the back of the other's, so that face to face and face to tail are
    one step each.
    """
    keypoints = len(schema.keypoints)
    starts = range(0, len(schema.animals) * keypoints, keypoints)
    bones = [(schema.keypoint(a), schema.keypoint(b)) for a, b in schema.edges]
    back, front = (schema.keypoint(name) for name in schema.axis)
    met = [(point, point) for point in range(keypoints)] + [(front, back), (back, front)]
    within = [(start + a, start + b) for start in starts for a, b in bones]
    between = [
        (one + a, other + b) for one in starts for other in starts if one < other for a, b in met
    ]
    return within + between


def steps_apart(points: int, joined: list[tuple[int, int]]) -> Tensor:
    """Length of the shortest path between any two points, (N, N); infinite where there is none."""
    apart = torch.full((points, points), torch.inf)
    apart.fill_diagonal_(0)
    for a, b in joined:
        apart[a, b] = apart[b, a] = 1 - float(a == b)
    for by in range(points):  # Floyd 1962
        apart = torch.minimum(apart, apart[:, by : by + 1] + apart[by : by + 1])
    return apart


def scales(apart: Tensor, number: int) -> Tensor:
    r"""Disentangled adjacency (Liu et al. 2020, eq. 4): who is exactly k steps away, and oneself;
    normalised symmetrically.

    .. math:: \tilde A_k[i, j] = [d(i, j) = k \lor i = j], \quad \hat A_k = D_k^{-1/2} \tilde A_k
    D_k^{-1/2}

    Returns:
        (number, N, N) for k = 0, 1, …
    """
    itself = torch.eye(len(apart), dtype=torch.bool)
    reached = torch.stack([(apart == k) | itself for k in range(number)]).to(torch.float32)
    root = reached.sum(-1).rsqrt()
    return root.unsqueeze(-1) * reached * root.unsqueeze(-2)
