"""What `accuracy.py --ablation` takes away, one by one: from hand-made features, from trees on
them, and from the default stack."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from finetune.fit.frames import Frames
from pretrain.encoders import Embedder
from pretrain.transforms.feature_names import feature_names

LEADING = 160
"""Leading columns of the features that networks read by default."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One ingredient that is left out."""

    drops: Callable[[str, str], bool] = lambda statistic, feature: False
    """Whether a column is left out, by its statistic and the name of its feature."""
    head: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the head gets."""
    member: str = ""
    """Of the default stack, which is what this is taken from; none: the trees are."""


def _of(pattern: str) -> Callable[[str, str], bool]:
    return lambda statistic, feature: re.search(pattern, feature) is not None


ABLATIONS: Mapping[str, Ablation] = {
    "nothing over 2 s": Ablation(drops=lambda statistic, _: statistic.endswith(" 8")),
    "only the frame and 0.27 s": Ablation(
        drops=lambda statistic, _: statistic not in ("frame", "mean 0.27")
    ),
    "no spreads": Ablation(drops=lambda statistic, _: statistic.startswith("spread")),
    "no extremes": Ablation(drops=lambda statistic, _: statistic[:5] in ("great", "least")),
    "no before and after": Ablation(drops=lambda statistic, _: statistic.startswith("shift")),
    "no speeds": Ablation(drops=_of("speed|acceleration|turn|change|velocit|towards")),
    "nothing between animals": Ablation(drops=_of("distance|headings|velocit|other")),
    "no posture": Ablation(drops=_of("^length|^bend")),
    "no extremes, no before and after": Ablation(
        drops=lambda statistic, _: statistic[:5] in ("great", "least", "shift")
    ),
    "no time in the recording": Ablation(head={"time": False}),
    "no class weights": Ablation(head={"class_weight": 0.0}),
    "every column for every tree": Ablation(head={"columns": 1.0}),
    "the stack without trees": Ablation(member="boosted"),
    "the stack without the linear model": Ablation(member="logistic"),
    "the stack without recurrent networks": Ablation(member="recurrent"),
}


def columns_of(embedder: Embedder) -> list[tuple[str, str]]:
    """Statistic and feature of each column of the hand-made features, in order.

    Raises:
        AssertionError: If they are not of one group with default stretches.
    """
    names = [name.partition(": ")[2] for name in feature_names(embedder.features)]
    statistics = ["frame"]
    statistics += [f"mean {s}" for s in ("0.27", "1", "2", "8")]
    statistics += [f"spread {s}" for s in ("1", "2", "8")]
    statistics += [f"{kind} {s}" for s in ("0.5", "2") for kind in ("greatest", "least")]
    statistics += [f"shift {s}" for s in ("-1", "+1", "-2", "+2")]
    columns = [(statistic, name) for statistic in statistics for name in names]
    assert len(columns) == embedder.dim, f"{len(columns)} names for {embedder.dim} columns"
    return columns


def without(frames: Frames, columns: Sequence[tuple[str, str]], name: str) -> tuple[Frames, int]:
    """The features without what an ablation leaves out, and how many of the columns that networks
    read are left."""
    drops = ABLATIONS[name].drops
    kept = np.array([not drops(*column) for column in columns])
    assert kept.any(), f"{name} leaves nothing"
    z = frames.arrays["z"]
    return replace(frames, arrays={"z": z[:, kept]}), int(kept[:LEADING].sum())
