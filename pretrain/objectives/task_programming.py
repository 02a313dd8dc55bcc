"""Task programming (TREBA): trajectories from codes, and codes that know what an expert's programs
measure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain import distributed
from pretrain.components import Count, NotNegative, Positive, Whole
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose, Windows
from pretrain.errors import BadInput, error_if, refuse
from pretrain.objectives import AbstractObjective, Loss, View
from pretrain.objectives._program_losses import Heads, class_surprise, supervised_contrastive
from pretrain.objectives._trajectory_state import TrajectoryState
from pretrain.objectives._trajectory_vae import Approximators, Encode, Policy
from pretrain.transforms.animal import SPAN
from pretrain.transforms.programs import (
    classes,
    log_soft_classes,
    measure,
    programs_named,
    quantile_thresholds,
    thresholds,
)


class TaskProgramming(AbstractObjective):
    r"""Trajectory VAE with programmed labels (TREBA, Sun et al. 2021).

    .. math:: L = \mathrm{NLL} + \mathrm{KL} + \lambda_c L_{consistency} + \lambda_s \sum_p
    L^p_{contrastive} + \lambda_d L_{decoding}

    Trajectories of ``frames`` frames lie in each window, the same ones in both views, at indices
    that are drawn once for the whole batch. The embedding at a trajectory's centre gives the
    posterior of its code. From a sample of it a recurrent policy predicts every action (NLL, with
    teacher forcing); on its own states it has to move so that the programs label its rollout as
    they labelled the recording (consistency). Codes whose programmed labels agree should lie
    together (contrastive). NLL and KL are nats a trajectory.

    The programs are differentiable here, with soft thresholds, so consistency is the cross-entropy
    of their labels of the rollout. ``mode: published`` learns an approximator of each program
    instead, at every step, on recorded trajectories; for the policy the approximators are fixed.
    Programs read each view's own poses, for a mirrored animal bends its head the other way, but
    before noise and dropped points, which would move labels that lie near a threshold.

    Args:
        mode: ``differentiable`` (ours) or ``published`` (learned approximators).
        frames: Of a trajectory, odd.
        trajectories: Of each window.
        code: Z, numbers of a code.
        width: Of the posterior's layers, the policy and the approximators.
        components: Principal components of a posture.
        programs: Names of the programs (pretrain/transforms/programs.py); where there are none, all
            but those that only repeat a release.
        quantiles: Cut programs at these quantiles of the data rather than at the published
            thresholds; (0.5, 0.9) say.
        softness: Width of a soft threshold, in distances between a program's thresholds.
        consistency: lambda_c.
        contrastive: lambda_s.
        decoding: lambda_d, of predicting the labels from the code directly.
        temperature: Of the contrastive loss.
        noise: Standard deviations of actions in a rollout are multiplied by it.
        free_bits: Nats a dimension of the code may spend for nothing.
        first_stage: Steps in which only the approximators learn, with ``mode: published``.
    """

    views = 2
    step: Tensor
    threshold_PH: Tensor

    def __init__(
        self,
        dim: int,
        schema: Schema,
        *,
        mode: Literal["differentiable", "published"] = "differentiable",
        frames: int = 21,
        trajectories: Count = 8,
        code: Count = 32,
        width: Count = 64,
        components: Count = 5,
        programs: Sequence[str] = (),
        quantiles: Sequence[float] = (),
        softness: Positive = 0.25,
        consistency: NotNegative = 1.0,
        contrastive: NotNegative = 10.0,
        decoding: NotNegative = 0.0,
        temperature: Positive = 0.07,
        noise: NotNegative = 0.1,
        free_bits: NotNegative = 1 / 32,
        first_stage: Whole = 0,
    ) -> None:
        super().__init__()
        shortest = 2 * SPAN + 1
        refuse(
            error_if(
                frames < shortest or frames % 2 == 0,
                f"frames is {frames}; it must be an odd number, at least {shortest}",
            )
            + error_if(
                any(not 0 < q < 1 for q in quantiles) or list(quantiles) != sorted(set(quantiles)),
                f"quantiles are {list(quantiles)}; they must rise and lie between 0 and 1",
            )
            + error_if(
                first_stage and (mode != "published" or not consistency),
                "first_stage is for mode: published, which has approximators to train first",
            ),
            about="objective task_programming",
        )
        self.schema, self.frames, self.trajectories, self.code = schema, frames, trajectories, code
        self.programs = programs_named(programs)
        self.quantiles, self.softness = tuple(quantiles), softness
        self.temperature, self.noise = temperature, noise
        names = ("consistency", "contrastive", "decoding")
        self.weights = dict(zip(names, (consistency, contrastive, decoding), strict=True))
        self.free_bits, self.first_stage = free_bits, first_stage
        self.register_buffer("threshold_PH", thresholds(schema, self.programs))
        if quantiles:
            self.threshold_PH = self.threshold_PH.new_full(
                (len(self.threshold_PH), len(quantiles)), torch.inf
            )
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        count, cuts = self.threshold_PH.shape
        self.state = TrajectoryState(schema, components=components)
        self.encode = Encode(dim, width=width, code=code)
        self.policy = Policy(self.state, code=code, width=width)
        # A part of weight 0 has no head: a parameter without gradient would stop workers from
        # agreeing.
        self.contrast = Heads(count, code, code) if contrastive else None
        self.decode = Heads(count, code, cuts + 1) if decoding else None
        self.approximate = None
        if mode == "published" and consistency:
            each = (self.threshold_PH.isfinite().sum(-1) + 1).tolist()
            each = [cuts + 1] * count if quantiles else each
            self.approximate = Approximators(self.state.size, each, width=width)

    def fit(self, pose: Pose) -> None:
        """Takes the mean body, its components and spreads; and thresholds, where they come from
        quantiles."""
        self.state.fit(pose)
        if self.quantiles:
            value_BTP = measure(pose.position_BTMKX, self.schema, self.programs)
            self.threshold_PH.copy_(quantile_thresholds(value_BTP, self.quantiles))

    def forward(self, views: tuple[View, ...], windows: Windows, rng: WindowRNG) -> Loss:
        """The sum of all parts over this worker's trajectories.

        Raises:
            BadInput: If windows are shorter than a trajectory.
        """
        total_frames, half = windows.valid_BT.shape[1], self.frames // 2
        if total_frames < self.frames:
            raise BadInput(
                f"objective task_programming: a trajectory of {self.frames} frames does not fit a "
                f"window of {total_frames}; "
                "raise window or lower objective.frames"
            )
        room_B1 = windows.valid_BT.sum(1, keepdim=True) - self.frames + 1
        # The same in windows of the same length: whether two codes belong to one moment is not to
        # be read off how far they lie from the ends of their windows.
        drawn_BR = windows.batch_rng().uniform("task/centre", self.trajectories)
        centre_BR = half + (drawn_BR * room_B1.clamp(min=0)).long()
        usable_N = (room_B1 > 0).expand_as(centre_BR).flatten()
        row_B1 = torch.arange(len(centre_BR), device=centre_BR.device)[:, None]
        frame_BRT = centre_BR.unsqueeze(-1) + torch.arange(-half, half + 1, device=centre_BR.device)

        sums: dict[str, Tensor] = {}
        counts: dict[str, Tensor] = {}
        codes, labels = [], []
        for index, view in enumerate(views[:2]):
            posterior = self.encode(view.z_BTD[row_B1, centre_BR].flatten(0, 1))
            with torch.autocast(usable_N.device.type, enabled=False):
                # Trajectories of a window share frames, so states and programs are computed once a
                # frame.
                state_NTS, known_NTS = (
                    x[row_B1.unsqueeze(-1), frame_BRT].flatten(0, 1) for x in self.state(view.pose)
                )
                action_NAS, acted_NAS = self.state.actions(state_NTS, known_NTS)
                exact = view.pose if view.exact is None else view.exact
                class_NP = self.labels(exact.position_BTMKX)[row_B1, centre_BR].flatten(0, 1)
            code_NZ = posterior.sample(
                rng.normal(f"task/code/{index}", self.trajectories, self.code).flatten(0, 1)
            )
            nll_N = self.policy.surprise(state_NTS, action_NAS, acted_NAS, code_NZ)
            for name, value_N in (("nll", nll_N), ("kl", posterior.divergence(self.free_bits))):
                sums[f"{name}_{index}"] = torch.where(usable_N, value_N, 0.0).sum()
                counts[f"{name}_{index}"] = usable_N.sum()
            codes.append(posterior.mean)
            labels.append(class_NP.masked_fill(~usable_N[:, None], -1))
            if index == 0 and self.weights["consistency"]:
                begins_N = usable_N & known_NTS[:, 0].all(-1)
                shape = (self.trajectories, self._steps(), self.state.size)
                noise = rng.normal("task/noise", *shape).flatten(0, 1)
                recorded = (state_NTS, action_NAS, labels[0], begins_N)
                self._consistency(sums, counts, code_NZ, noise, *recorded)
        self._from_codes(sums, counts, torch.cat(codes), torch.cat(labels))
        return self._sum(sums, counts)

    def labels(self, position_BTMKX: Tensor) -> Tensor:
        """The programs' labels of every frame: classes (B, T, P), -1 where unknown."""
        return classes(measure(position_BTMKX, self.schema, self.programs), self.threshold_PH)

    def _steps(self) -> int:
        """Steps of a rollout: as far as the programs read, or all that an approximator reads."""
        return self.frames - 1 if self.approximate is not None else self.frames // 2 + SPAN

    def _consistency(
        self,
        sums: dict[str, Tensor],
        counts: dict[str, Tensor],
        code_NZ: Tensor,
        noise_NAS: Tensor,
        state_NTS: Tensor,
        action_NAS: Tensor,
        class_NP: Tensor,
        begins_N: Tensor,
    ) -> None:
        rolled_NTS, acted_NAS = self.policy.roll_out(
            state_NTS[:, 0], code_NZ, noise_NAS, temperature=self.noise
        )
        with torch.autocast(begins_N.device.type, enabled=False):
            if self.approximate is None:
                middle = slice(self.frames // 2 - SPAN, self.frames // 2 + SPAN + 1)
                position = self.state.positions(rolled_NTS[:, middle].float())
                value_NTP = measure(position, self.schema, self.programs)[:, SPAN : SPAN + 1]
                log_share_NPC = log_soft_classes(
                    value_NTP, self.threshold_PH, softness=self.softness
                )[:, 0]
            else:
                fixed = {name: x.detach() for name, x in self.approximate.named_parameters()}
                log_share_NPC = torch.func.functional_call(
                    self.approximate, fixed, (rolled_NTS.float(), acted_NAS.float())
                )
                learned_NPC = self.approximate(state_NTS, action_NAS)
                # Each program's approximator learns from every recorded trajectory whose label is
                # known.
                total, number, _ = class_surprise(learned_NPC, class_NP, torch.ones_like(begins_N))
                sums["approximators"], counts["approximators"] = total, number
        total, number, hits = class_surprise(log_share_NPC, class_NP, begins_N)
        sums["consistency"], counts["consistency"] = total, number
        sums["agreement"], counts["agreement"] = hits, number

    def _from_codes(
        self, sums: dict[str, Tensor], counts: dict[str, Tensor], code_NZ: Tensor, class_NP: Tensor
    ) -> None:
        if self.contrast is not None:
            g_NPE = F.normalize(self.contrast(code_NZ), dim=-1)
            # Each window's first trajectories among themselves, its second ones…: groups in which
            # no two come from one moment but the two views of it. All against all would cost as
            # many times more as a window has trajectories.
            shape = (-1, self.trajectories, class_NP.shape[1])
            g_NRPE, class_NRP = g_NPE.view(*shape, g_NPE.shape[-1]), class_NP.view(shape)
            sums["contrastive"], counts["contrastive"] = supervised_contrastive(
                g_NRPE,
                class_NRP,
                classes=self.threshold_PH.shape[1] + 1,
                temperature=self.temperature,
            )
        if self.decode is not None:
            log_share_NPC = self.decode(code_NZ).log_softmax(-1)
            sums["decoding"], counts["decoding"], _ = class_surprise(
                log_share_NPC, class_NP, torch.ones_like(class_NP[:, 0], dtype=torch.bool)
            )

    def _sum(self, sums: dict[str, Tensor], counts: dict[str, Tensor]) -> Loss:
        """All means in one exchange between the workers; a program's terms are averaged over its
        labels, then added up."""
        flat = torch.cat([value.reshape(-1) for value in sums.values()])
        means = distributed.mean_over_workers(
            flat, torch.cat([value.reshape(-1) for value in counts.values()])
        )
        pieces = torch.split(means, [value.numel() for value in sums.values()])
        terms = {
            name: piece.mean() if name == "agreement" else piece.sum()
            for name, piece in zip(sums, pieces, strict=True)
        }
        parts = {name: terms.pop(f"{name}_0") + terms.pop(f"{name}_1") for name in ("nll", "kl")}
        parts |= terms
        total = parts["nll"] + parts["kl"]
        for name, weight in self.weights.items():
            if weight and name in parts:
                total = total + weight * parts[name]
        if self.approximate is not None:
            if self.training:
                self.step += 1
            total = total * (self.step > self.first_stage) + parts["approximators"]
        parts = {"task_programming": total, **parts}
        return Loss(total, {name: value.detach() for name, value in parts.items()})
