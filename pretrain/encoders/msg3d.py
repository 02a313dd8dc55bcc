"""MS-G3D: graph convolutions over the skeletons of all animals, in space and in space and time at
once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor, nn

from pretrain.components import Count, Counts, Whole
from pretrain.encoders import AbstractEncoder
from pretrain.encoders._graph import edges, hop_distances, scale_adjacency, space_time_hops
from pretrain.encoders._over_time import over_time, zero_invalid
from pretrain.errors import error_if, refuse
from pretrain.transforms.features import Features

_OF_POINTS = ("scene", "confidence", "visible")
_BRANCHES = 6


class MSG3D(AbstractEncoder):
    """Multi-scale spatial-temporal graph convolution (Liu et al. 2020, Disentangling and Unifying
    Graph Convolutions).

    Points of all animals are the nodes ``N`` of one graph (:func:`pretrain.encoders._graph.edges`).
    A block is the paper's: graph convolution over several scales and two multi-scale temporal
    convolutions, in parallel G3D, which joins the graphs of ``window`` frames into one; their sum
    through a third temporal convolution. Strides over time become dilation, batch norm becomes
    layer norm. Point features are ``scene`` and ``confidence``, where visible; other features of
    the recipe, if any, reach all points through a linear layer. Points are averaged in each animal
    and the animals concatenated.

    Args:
        features: With the groups ``scene`` and ``confidence``.
        width: Channels of a point, a multiple of 6.
        dilations: One block each; its reach to either side is 12 times that.
        hops: Greatest distance in the graph that a scale looks at.
        window: Frames that G3D joins, an odd number up to 17, a dilation apart.
        dim: D.
    """

    groups = _OF_POINTS[:2]

    def __init__(
        self,
        features: Features,
        *,
        width: int = 24,
        dilations: Counts = (1, 4),
        hops: Whole = 4,
        window: int = 3,
        dim: Count = 96,
    ) -> None:
        super().__init__()
        assert set(self.groups) <= set(features.columns), f"features without {self.groups}"
        refuse(
            error_if(
                width < 1 or width % _BRANCHES,
                f"width is {width}; it must be a multiple of {_BRANCHES}",
            )
            + error_if(
                window not in range(1, 18, 2),
                f"window is {window}; it must be an odd number of frames up to 17",
            ),
            about="encoder msg3d",
        )
        schema = features.schema
        self.dim = dim
        self.animals, self.keypoints, self.coordinates = schema.shape
        self.context = (12 * sum(dilations),) * 2
        self.columns = {name: features.columns[name] for name in _OF_POINTS}
        self.rest = [
            columns for name, columns in features.columns.items() if name not in _OF_POINTS
        ]
        points = self.animals * self.keypoints
        apart = hop_distances(points, edges(schema))
        in_space = scale_adjacency(apart, hops + 1)
        in_space_time = scale_adjacency(space_time_hops(apart, window), hops + 1)
        self.enter = nn.Linear(self.coordinates + 2, width)
        rest = sum(columns.stop - columns.start for columns in self.rest)
        self.enter_rest = nn.Linear(rest, width, bias=False) if rest else None
        self.blocks = nn.ModuleList(
            _Block(width, in_space, in_space_time, window, step) for step in dilations
        )
        self.leave = nn.Linear(self.animals * width, dim)

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, F) to (B, T, D)."""
        scene, confidence, visible = (x_BTF[..., self.columns[name]] for name in _OF_POINTS)
        visible = visible.unsqueeze(-1)
        place = scene.reshape(*visible.shape[:-1], self.coordinates)
        points = torch.cat([place * visible, confidence.unsqueeze(-1) * visible, visible], -1)
        # Points first: a graph is then one matrix against everything else, and channels stay last.
        h = self.enter(rearrange(points, "b t n c -> n b t c"))
        if self.enter_rest is not None:
            h = h + self.enter_rest(torch.cat([x_BTF[..., columns] for columns in self.rest], -1))
        for block in self.blocks:
            h = block(h, valid_BT)
        animals = reduce(h, "(m k) b t c -> b t (m c)", "mean", m=self.animals, k=self.keypoints)
        out: Tensor = self.leave(animals)
        return out


class _Block(nn.Module):
    """(N, B, T, C) to the same."""

    def __init__(
        self, width: int, in_space: Tensor, in_space_time: Tensor, window: int, step: int
    ) -> None:
        super().__init__()
        self.space = _OverGraph(width, in_space)
        self.spread, self.spread_on, self.after = (_OverTime(width, step) for _ in range(3))
        self.space_time = _OverGraphAndTime(width, in_space_time, window, step)

    def forward(self, h: Tensor, valid_BT: Tensor) -> Tensor:
        factorised = self.spread_on(F.relu(self.spread(F.relu(self.space(h)), valid_BT)), valid_BT)
        return F.relu(self.after(F.relu(factorised + self.space_time(h, valid_BT)), valid_BT))


class _OverGraph(nn.Module):
    """sum_k (A_k + R_k) X W_k, normalised: a weight for each number of hops between points, R
    learned (there, eq. 3 and 5)."""

    def __init__(self, width: int, adjacency: Tensor) -> None:
        super().__init__()
        self.adjacency_NL: Tensor
        number, points, _ = adjacency.shape
        self.register_buffer(
            "adjacency_NL", adjacency.transpose(0, 1).reshape(points, -1), persistent=False
        )
        self.also_NL = nn.Parameter(torch.empty(points, number * points).uniform_(-1e-6, 1e-6))
        self.weight = _weights(number, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, h: Tensor) -> Tensor:
        by_scale = torch.matmul(h.reshape(1, -1, h.shape[-1]), self.weight).view(
            self.also_NL.shape[1], -1
        )
        out: Tensor = self.norm(((self.adjacency_NL + self.also_NL) @ by_scale).view(h.shape))
        return out


class _OverGraphAndTime(nn.Module):
    """G3D (there, section 3.3): the points of ``window`` frames as one graph
    (:func:`pretrain.encoders._graph.space_time_hops`)."""

    def __init__(self, width: int, adjacency: Tensor, window: int, step: int) -> None:
        super().__init__()
        self.adjacency_WSL: Tensor
        self.window, self.step = window, step
        # For each frame that is looked at: rows are the points of all frames, columns the scales
        # and points of that one.
        by_frame = rearrange(adjacency, "k s (w n) -> w s (k n)", w=window)
        self.register_buffer("adjacency_WSL", by_frame.contiguous(), persistent=False)
        self.residual_WSL = nn.Parameter(torch.empty_like(by_frame).uniform_(-1e-6, 1e-6))
        self.weight = _weights(len(adjacency), width)
        self.norm = nn.LayerNorm(width)
        self.join = nn.Linear(window * width, width)
        self.leave = nn.LayerNorm(width)

    def forward(self, h: Tensor, valid_BT: Tensor) -> Tensor:
        points, batch, frames, width = h.shape
        reach = self.window // 2 * self.step
        h = F.pad(zero_invalid(h, valid_BT), (0, 0, reach, reach))
        by_scale = torch.matmul(h.reshape(1, -1, width), self.weight).view(
            -1, batch, frames + 2 * reach, width
        )
        joined = torch.zeros((), device=h.device)
        for index, among in enumerate(self.adjacency_WSL + self.residual_WSL):
            frame = by_scale[:, :, index * self.step :][:, :, :frames]
            joined = joined + among @ frame.reshape(len(frame), -1)
        each = F.relu(self.norm(joined.view(self.window, -1, width)))
        together: Tensor = self.leave(self.join(each.transpose(0, 1).flatten(1)))
        return together.view(points, batch, frames, width)


class _OverTime(nn.Module):
    """Six branches of a sixth of the channels: kernels of 3 frames, 1 to 4 steps apart, the
    greatest of 3 frames, the frame itself, which alone has no activation."""

    def __init__(self, width: int, step: int) -> None:
        super().__init__()
        self.step, part = step, width // _BRANCHES
        self.enter = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.convs = nn.ModuleList(
            nn.Conv1d(part, part, 3, padding=step * times, dilation=step * times)
            for times in range(1, _BRANCHES - 1)
        )
        self.leave = nn.LayerNorm(width)

    def forward(self, h: Tensor, valid_BT: Tensor) -> Tensor:
        x = zero_invalid(self.norm(self.enter(h)), valid_BT).flatten(0, 1)
        width = x.shape[-1] // _BRANCHES
        *parts, greatest = F.relu(x[..., :-width]).chunk(_BRANCHES - 1, -1)
        convolved = [over_time(conv, part) for conv, part in zip(self.convs, parts, strict=True)]
        # Nothing is below zero, so that zeros beyond the ends never win.
        around = (
            F.pad(greatest, (0, 0, self.step, self.step))
            .unfold(1, 2 * self.step + 1, 1)[..., :: self.step]
            .amax(-1)
        )
        out: Tensor = h + self.leave(torch.cat([*convolved, around, x[..., -width:]], -1)).view(
            h.shape
        )
        return out


def _weights(number: int, width: int) -> nn.Parameter:
    # As one linear layer that reads all scales concatenated.
    return nn.Parameter(
        torch.empty(number, width, width).uniform_(-1, 1) * (1 / (number * width)) ** 0.5
    )
