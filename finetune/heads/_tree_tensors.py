"""LightGBM's trees as tensors: what an exporter can follow, and gives what LightGBM gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class TreeTensors(nn.Module):
    """(N, D) to probabilities in double precision: (N,) of two classes, (N, K) of several.

    All rows go down all trees at once, a level a step; leaves lead to themselves.

    Args:
        booster: ``lightgbm.Booster``, fitted to finite numbers.
    """

    root_I: Tensor
    """Its node of each tree."""
    feature_V: Tensor
    threshold_V: Tensor
    child_V2: Tensor
    """Where a number that is at most the threshold goes, and where others do."""
    value_V: Tensor

    def __init__(self, booster: Any) -> None:
        super().__init__()
        self._nodes: list[tuple[int, float, tuple[int, int], float]] = []
        trees = booster.dump_model()["tree_info"]
        added = [self._add(tree["tree_structure"]) for tree in trees]
        self._outputs, self._depth = booster.num_model_per_iteration(), max(d for _, d in added)
        feature, threshold, child, value = zip(*self._nodes, strict=True)
        exact = np.asarray(threshold)
        near = exact.astype(np.float32)  # the same decision for every 32-bit number
        near = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)
        self.register_buffer("root_I", torch.tensor([root for root, _ in added]))
        self.register_buffer("feature_V", torch.tensor(feature))
        self.register_buffer("threshold_V", torch.from_numpy(near))
        self.register_buffer("child_V2", torch.tensor(child))
        self.register_buffer("value_V", torch.tensor(value, dtype=torch.float64))

    def _add(self, node: dict[str, Any]) -> tuple[int, int]:
        """Index of the node, and the levels below it."""
        at = len(self._nodes)
        if "leaf_value" in node:
            self._nodes.append((0, np.inf, (at, at), node["leaf_value"]))
            return at, 0
        self._nodes.append((0, 0.0, (0, 0), 0.0))  # its place, before its children's
        (left, low), (right, high) = (
            self._add(node[f"{side}_child"]) for side in ("left", "right")
        )
        self._nodes[at] = (node["split_feature"], node["threshold"], (left, right), 0.0)
        return at, 1 + max(low, high)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Sums of leaves, then softmax or sigmoid."""
        at_NI = self.root_I.expand(x_ND.shape[0], -1)
        for _ in range(self._depth):
            below_NI = x_ND.gather(1, self.feature_V[at_NI]) <= self.threshold_V[at_NI]
            left_NI, right_NI = self.child_V2[at_NI].unbind(-1)
            at_NI = torch.where(below_NI, left_NI, right_NI)
        score_NK = self.value_V[at_NI].view(x_ND.shape[0], -1, self._outputs).sum(1)
        p: Tensor = score_NK.softmax(-1) if self._outputs > 1 else score_NK[:, 0].sigmoid()
        return p
