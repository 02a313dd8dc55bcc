"""Several objectives on one pass of the encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pretrain.components import Positive, build, misfits
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose, Windows
from pretrain.errors import error_if, refuse
from pretrain.objectives import AbstractObjective, Loss, View

DEFAULT: tuple[Mapping[str, Any], ...] = (
    {"name": "contrastive", "weight": 1.0},
    {"name": "masked", "weight": 1.0},
)


class Combined(AbstractObjective):
    r"""A weighted sum, :math:`L = \sum_o w_o L_o`.

    All objectives share the same views, as many as the most demanding of them needs; those that
    mask long stretches of theirs (``shares_views`` false) get views of their own behind these. All
    views go through the encoder together.

    Args:
        parts: For each objective its ``name``, its ``weight`` (1.0 where left out) and its
            settings.
    """

    def __init__(
        self, dim: int, schema: Schema, *, parts: Sequence[Mapping[str, Any]] = DEFAULT
    ) -> None:
        super().__init__()
        names = [str(part.get("name")) for part in parts]
        weights = [part.get("weight", 1.0) for part in parts]
        refuse(
            error_if(not parts, "parts is empty; list at least one objective")
            + [f"{name!r} is listed twice" for name, n in Counter(names).items() if n > 1]
            + error_if("combined" in names, "'combined' cannot contain itself")
            + [
                error
                for name, weight in zip(names, weights, strict=True)
                for error in misfits(f"weight of {name!r}", weight, Positive)
            ],
            about="objective combined",
        )
        self.weights = [float(weight) for weight in weights]
        specs = [{key: value for key, value in part.items() if key != "weight"} for part in parts]
        built: list[AbstractObjective] = [
            build("pretrain.objectives", spec, AbstractObjective, dim, schema) for spec in specs
        ]
        self.parts = nn.ModuleDict(dict(zip(names, built, strict=True)))
        shared = max((one.views for one in built if one.shares_views), default=0)
        self.view_ranges: list[range] = []
        self.views = shared
        for one in built:
            first = 0 if one.shares_views else self.views
            self.view_ranges.append(range(first, first + one.views))
            self.views = max(self.views, first + one.views)
        self.shares_views = all(one.shares_views for one in built)

    def _each(self) -> list[tuple[str, AbstractObjective, range]]:
        named = zip(self.parts.items(), self.view_ranges, strict=True)
        return [(name, one, views) for (name, one), views in named]  # type: ignore[misc]

    def fit(self, pose: Pose) -> None:
        """Lets each objective take what it needs."""
        for _, one, _ in self._each():
            one.fit(pose)

    def mask(self, pose: Pose, windows: Windows, rng: WindowRNG, *, view: int) -> Pose:
        """Without the points that any of the objectives which use this view masks."""
        for _, one, own_views in self._each():
            if view in own_views:
                pose = one.mask(pose, windows, rng, view=own_views.index(view))
        return pose

    def forward(self, views: tuple[View, ...], windows: Windows, rng: WindowRNG) -> Loss:
        """The sum; of each objective its loss, its parts under its name, and as ``weighted_<name>``
        what it adds to the sum."""
        terms: list[Tensor] = []
        parts: dict[str, Tensor] = {}
        for (name, one, own_views), weight in zip(self._each(), self.weights, strict=True):
            loss: Loss = one(tuple(views[view] for view in own_views), windows, rng)
            terms.append(weight * loss.total)
            parts |= {name: loss.total.detach(), f"weighted_{name}": terms[-1].detach()}
            parts |= {
                key if key.startswith(name) else f"{name}_{key}": value
                for key, value in loss.parts.items()
            }
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return Loss(total, parts)
