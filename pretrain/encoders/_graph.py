"""The skeleton as a graph: all points of all animals, and how many hops they lie apart."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse.csgraph import shortest_path
from torch import Tensor

from pretrain.data.schema import Schema


def edges(schema: Schema) -> list[tuple[int, int]]:
    """Pairs of points that are joined, each an index on (M, K) flattened.

    Within an animal its bones. Between two animals every keypoint and its counterpart, and the
    front of one's body axis and the back of the other's, so that face to face and face to tail are
    one step each.
    """
    keypoints = len(schema.keypoints)
    starts = range(0, len(schema.animals) * keypoints, keypoints)
    bones = [(schema.keypoint(a), schema.keypoint(b)) for a, b in schema.edges]
    back, front = (schema.keypoint(name) for name in schema.axis)
    across = [(point, point) for point in range(keypoints)] + [(front, back), (back, front)]
    within = [(start + a, start + b) for start in starts for a, b in bones]
    between = [
        (one + a, other + b) for one in starts for other in starts if one < other for a, b in across
    ]
    return within + between


def hop_distances(points: int, pairs: list[tuple[int, int]]) -> Tensor:
    """Length of the shortest path between any two points, (N, N); infinite where there is none."""
    joined = np.zeros((points, points))
    for a, b in pairs:
        joined[a, b] = 1
    hops = shortest_path(joined, directed=False, unweighted=True)
    return torch.from_numpy(hops).to(torch.float32)


def space_time_hops(hops: Tensor, window: int) -> Tensor:
    """The same over the points of ``window`` frames, (window N, window N), frame after frame.

    Each point is joined to itself in every other frame and to its neighbours in all: the released
    MS-G3D tiles A + I over the frames and counts hops afterwards. So two points lie as far apart in
    two frames as in one, and a point one hop from itself.
    """
    tiled = hops.repeat(window, window)
    return torch.where((tiled == 0) & ~torch.eye(len(tiled), dtype=torch.bool), 1.0, tiled)


def scale_adjacency(hops: Tensor, number: int) -> Tensor:
    r"""Disentangled adjacency (Liu et al. 2020, eq. 4): who is exactly k hops away, and oneself;
    normalised symmetrically. Scale 0 is the identity.

    .. math:: \tilde A_k[i, j] = [d(i, j) = k \lor i = j], \quad \hat A_k = D_k^{-1/2} \tilde A_k
    D_k^{-1/2}

    Returns:
        (number, N, N) for k = 0, 1, …
    """
    itself = torch.eye(len(hops), dtype=torch.bool)
    adjacency = torch.stack([(hops == k) | itself for k in range(number)]).to(torch.float32)
    root = adjacency.sum(-1).rsqrt()
    return root.unsqueeze(-1) * adjacency * root.unsqueeze(-2)
