"""No network at all: features, and what becomes of them in the seconds around a frame. What a
learned encoder must beat, and the best there is to begin with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.encoders import AbstractEncoder
from pretrain.encoders._over_time import zero_invalid
from pretrain.errors import refuse
from pretrain.transforms.features import Features
from pretrain.transforms.interaction import GROUPS

MAX_COLUMNS = 8192
_LONGEST_S = 30.0
_DEFAULTS: Mapping[str, Sequence[float]] = {
    "means": (0.27, 1.0, 2.0, 8.0),
    "spreads": (1.0, 2.0, 8.0),
    "extremes": (0.5, 2.0),
    "shifts": (1.0, 2.0),
}
_EARLIER_MEANS = (15, 60)  # frames; models of earlier versions still load


class Handmade(AbstractEncoder):
    """Features of a frame and their statistics over centred stretches of time; nothing is learned.

    All stretches are in seconds to either side; frames that do not exist do not count. Each column
    costs the same whatever the stretch: means and spreads are differences of running sums, extremes
    are taken over stretches that double.

    The defaults are for the groups ``interaction``, ``social`` and ``social_roles``: means over
    0.27, 1, 2 and 8 s, spreads over 1, 2 and 8 s, extremes over 0.5 and 2 s, shifts of 1 and 2 s.
    Without any of them they are what earlier versions had: means over 15 and 60 frames.

    Args:
        features: What it passes on; the visibility of points is left out where the features are
            those of the group ``interaction``, which has its own, or ``social`` or
            ``social_roles``, which have none.
        means: Stretches of means.
        spreads: Stretches of standard deviations.
        extremes: Stretches of the greatest and the least.
        shifts: How far the shortest mean is looked at before and after.
    """

    def __init__(
        self,
        features: Features,
        *,
        means: Sequence[float] | None = None,
        spreads: Sequence[float] | None = None,
        extremes: Sequence[float] | None = None,
        shifts: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        fps = features.schema.fps
        defaults = dict(_DEFAULTS)
        if not set(GROUPS) & set(features.groups):
            defaults = {"means": [frames / fps for frames in _EARLIER_MEANS]}
        settings = {"means": means, "spreads": spreads, "extremes": extremes, "shifts": shifts}
        stretches = {
            name: defaults.get(name, ()) if values is None else values
            for name, values in settings.items()
        }
        refuse(
            [
                f"{name} has {seconds:g}; a stretch is in seconds, above 0, at most {_LONGEST_S:g} "
                "(earlier versions counted frames)"
                for name, values in settings.items()
                for seconds in values or ()
                if not 0 < seconds <= _LONGEST_S
            ],
            about="the encoder handmade",
        )
        self._means, self._spreads, self._extremes, self._shifts = (
            [max(1, round(seconds * fps)) for seconds in values] for values in stretches.values()
        )
        symmetric = len(features.groups) == 1 and features.groups[0] in GROUPS
        self._width = features.columns["visible"].start if symmetric else features.width
        if not self._means:
            self._shifts = []
        pieces = 1 + len(self._means) + len(self._spreads)
        self.dim = self._width * (pieces + 2 * len(self._extremes) + 2 * len(self._shifts))
        refuse(
            [
                f"{self.dim:,} columns a frame from {self._width:,} features; at most "
                f"{MAX_COLUMNS:,}: ask for features.groups=[social], whose number does not "
                "grow with points and animals, or for fewer groups or stretches"
            ]
            * (self.dim > MAX_COLUMNS),
            about="the encoder handmade",
        )
        shifted = max(self._shifts, default=0) + min(self._means, default=0)
        reach = max([shifted, *self._means, *self._spreads, *self._extremes])
        self.context = (reach, reach)

    def forward(self, x_BTF: Tensor, valid_BT: Tensor) -> Tensor:
        """(B, T, F) to (B, T, D)."""
        x_BTF = x_BTF[..., : self._width]
        x_BFT = zero_invalid(x_BTF, valid_BT).transpose(1, 2).contiguous()
        exists_B1T = valid_BT.unsqueeze(1)
        sums = _running(x_BFT)
        numbers = _running(exists_B1T.to(x_BFT.dtype))
        count = {reach: _within(numbers, reach).clamp(min=1) for reach in self._stretches}
        mean = {reach: _within(sums, reach).div_(count[reach]) for reach in self._stretches}
        columns = [x_BFT, *(mean[reach].to(x_BFT.dtype) for reach in self._means)]
        squares = _running(x_BFT.double().square_()) if self._spreads else sums
        for reach in self._spreads:
            square = _within(squares, reach).div_(count[reach])
            variance = square.sub_(mean[reach].square()).clamp_(min=0)
            columns.append(variance.sqrt_().to(x_BFT.dtype))
        for reach in self._extremes:
            for sign in (1, -1):
                filled = (sign * x_BFT).masked_fill_(~exists_B1T, -torch.inf)
                greatest = _greatest(filled, reach).masked_fill_(~exists_B1T, 0.0)
                columns.append(sign * greatest)
        if self._shifts:
            shortest = mean[min(self._means)].to(x_BFT.dtype).masked_fill(~exists_B1T, 0.0)
            last_B1 = valid_BT.sum(1, keepdim=True).clamp(min=1) - 1
            index_T = torch.arange(x_BFT.shape[2], device=x_BFT.device)
            for frames in self._shifts:
                for step in (-frames, frames):
                    at_BT = torch.minimum(
                        (index_T + step).clamp(min=0).expand_as(valid_BT), last_B1
                    )
                    columns.append(shortest.gather(2, at_BT.unsqueeze(1).expand_as(shortest)))
        return torch.cat(columns, 1).transpose(1, 2)

    @property
    def _stretches(self) -> set[int]:
        return {*self._means, *self._spreads}


def _running(x_BFT: Tensor) -> Tensor:
    """Sums of the first 0, 1, 2, … frames, (B, F, T + 1), exact enough to be subtracted."""
    return F.pad(x_BFT.double().cumsum(-1), (1, 0))


def _within(running_BFT: Tensor, reach: int) -> Tensor:
    """Sums over centred stretches, from running sums."""
    frames = running_BFT.shape[2] - 1
    padded = F.pad(running_BFT, (reach, reach), mode="replicate")
    return padded[:, :, 2 * reach + 1 :][:, :, :frames] - padded[:, :, :frames]


def _greatest(x_BFT: Tensor, reach: int) -> Tensor:
    """The greatest over centred stretches; frames outside do not count."""
    frames, width = x_BFT.shape[2], 2 * reach + 1
    x = F.pad(x_BFT, (reach, reach), value=-torch.inf)
    span = 1
    while 2 * span <= width:  # x[t] is the greatest of span frames from t on
        x = torch.maximum(x[:, :, : x.shape[2] - span], x[:, :, span:])
        span *= 2
    rest = width - span
    return torch.maximum(x[:, :, :frames], x[:, :, rest : rest + frames])
