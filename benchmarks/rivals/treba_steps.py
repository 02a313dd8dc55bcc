"""Task programming as it was published (TREBA, Sun et al. 2021), second stage, to measure beside
ours; train_step.py lets it take turns.

The released program is no package and its licence does not allow copies. This is a model of our own
after its published description and settings for CalMS21: sizes, losses, batch, augmentation and
optimiser are those. Where something is left open, the faster way is taken: programs and
augmentation work on the whole batch where the released ones go through it window by window in
Python, the contrastive loss is the one that ours uses, and recurrent layers that know their input
beforehand run through it in one call. Its approximators are fixed, as in the second stage: nothing
is spent on their own gradient. Frames lie in memory, gaps filled.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from walks import VIDEO_FRAMES, walk

from pretrain.data.schema import CALMS21
from pretrain.objectives._program_losses import Heads, supervised_contrastive
from pretrain.objectives._trajectory_vae import Posterior
from pretrain.transforms import programs

FRAMES, CODE, WIDTH, BENDS = 21, 32, 256, 5
TEMPERATURE, NOISE, CONTRASTIVE, FREE_BITS = 0.07, 0.1, 10.0, 1 / 32
STATE = 2 * (4 + BENDS)
PROGRAMS, CLASSES = len(programs.names(CALMS21)), 3
NECK, TAIL_BASE = CALMS21.keypoint("neck"), CALMS21.keypoint("tail_base")


class States:
    """Poses to states: for each mouse its neck in half images, sine and cosine of its direction,
    five numbers of its bend."""

    def __init__(self, position_NMKX: Tensor) -> None:
        self.half_X = torch.tensor(CALMS21.image_px) / 2
        self.mean_Q, self.basis_QC = torch.zeros(14), torch.eye(14, BENDS)
        bent_RQ = self._own(position_NMKX)[2].flatten(0, 1)
        self.mean_Q = bent_RQ.mean(0)
        self.basis_QC = torch.linalg.svd(bent_RQ - self.mean_Q, full_matrices=False)[2][:BENDS].T

    def __call__(self, position_NTMKX: Tensor) -> Tensor:
        """(N, T, S)."""
        neck, direction, bent = self._own(position_NTMKX)
        return torch.cat([neck, direction, (bent - self.mean_Q) @ self.basis_QC], -1).flatten(2)

    def _own(self, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        at = position / self.half_X - 1
        neck = at[..., NECK, :]
        direction = F.normalize(neck - at[..., TAIL_BASE, :], dim=-1)
        sin, cos = direction.unbind(-1)
        x, y = (at - neck.unsqueeze(-2)).unbind(-1)
        sin, cos = sin.unsqueeze(-1), cos.unsqueeze(-1)
        return neck, direction, torch.cat([cos * x - sin * y, sin * x + cos * y], -1)


def changed(position_NTMKX: Tensor) -> Tensor:
    """Another copy of each window: turned, moved inside the image, mirrored; one in four shaken,
    with one mouse moved."""
    number, half = len(position_NTMKX), torch.tensor(CALMS21.image_px) / 2
    x, y = (position_NTMKX - half).unbind(-1)
    angle = (torch.rand(number, 1, 1, 1) * 2 - 1) * math.pi
    cos, sin = angle.cos(), angle.sin()
    at = torch.stack([cos * x - sin * y, sin * x + cos * y], -1)
    least, most = at.amin((1, 2, 3)), at.amax((1, 2, 3))
    fits = ((most - least) < 2 * half).all(1, keepdim=True)
    move = torch.where(fits, -half - least + torch.rand(number, 2) * (2 * half - most + least), 0.0)
    at = (at + move[:, None, None, None]) * torch.where(
        torch.rand(number, 1, 1, 1, 2) < 0.5, -1.0, 1.0
    )
    who = F.one_hot(torch.randint(2, (number,)), 2).view(number, 1, 2, 1, 1)
    moved = who * (torch.rand(number, 1, 1, 1, 2) * 2 - 1) * 20
    return (
        at
        + half
        + torch.where(torch.rand(number, 1, 1, 1, 1) < 0.25, torch.randn_like(at) * 2 + moved, 0.0)
    )


def layers(*sizes: int) -> nn.Sequential:
    """Fully connected layers with ReLU between them."""
    each = [[nn.Linear(a, b), nn.ReLU()] for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*[one for pair in each for one in pair][:-1])


class BothWays(nn.Module):
    """A recurrent layer that reads a trajectory both ways, its mean over time, fully connected
    layers; for encoder and approximators."""

    def __init__(self, beside: int, outputs: int) -> None:
        super().__init__()
        self.read = nn.GRU(2 * STATE, WIDTH, bidirectional=True)
        self.tell = layers(2 * WIDTH + beside, WIDTH, WIDTH, outputs)

    def forward(self, pair_ANS: Tensor, *beside_NL: Tensor) -> Tensor:
        """(A, N, 2 S) pairs of state and action to (N, outputs)."""
        told: Tensor = self.tell(torch.cat([self.read(pair_ANS)[0].mean(0), *beside_NL], -1))
        return told


class Model(nn.Module):
    """Encoder, policy, label approximators and contrastive heads; 7.6 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = BothWays(PROGRAMS * CLASSES, 2 * CODE)
        self.memory = nn.GRU(2 * STATE, WIDTH)
        self.act = layers(STATE + CODE + WIDTH, WIDTH, WIDTH, 2 * STATE)
        self.approximate = nn.ModuleList(BothWays(0, CLASSES) for _ in range(PROGRAMS))
        self.contrast = Heads(PROGRAMS, CODE, CODE)

    def action(self, *known: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the next action, given state, code and memory."""
        mean, log_variance = self.act(torch.cat(known, -1)).chunk(2, -1)
        return mean, log_variance.clamp(-16, 16)

    def surprise(self, state_ANS: Tensor, action_ANS: Tensor, code_NZ: Tensor) -> Tensor:
        """Negative log-likelihood of all actions, summed."""
        held = self.memory(torch.cat([state_ANS, action_ANS], -1)[:-1])[0]
        held_ANH = F.pad(held, (0, 0, 0, 0, 1, 0))
        mean, log_variance = self.action(
            state_ANS, code_NZ.expand(len(state_ANS), -1, -1), held_ANH
        )
        return F.gaussian_nll_loss(
            mean, action_ANS, log_variance.exp(), full=True, eps=1e-12, reduction="sum"
        )

    def roll_out(self, state_NS: Tensor, code_NZ: Tensor) -> Tensor:
        """Pairs (A, N, 2 S) of the policy's own."""
        pairs, h = [], state_NS.new_zeros(1, len(state_NS), WIDTH)
        for _ in range(FRAMES - 1):
            mean, log_variance = self.action(state_NS, code_NZ, h[0])
            action = mean + NOISE * (log_variance / 2).exp() * torch.randn_like(mean)
            pairs.append(torch.cat([state_NS, action], -1))
            h = self.memory(pairs[-1].unsqueeze(0), h)[1]
            state_NS = state_NS + action
        return torch.stack(pairs)

    def disagreement(self, pair_ANS: Tensor, class_NP: Tensor) -> Tensor:
        """Cross-entropy of what the approximators say with the labels, a mean over windows, summed
        over programs."""
        each = [
            F.cross_entropy(one(pair_ANS), labels, ignore_index=-1)
            for one, labels in zip(self.approximate, class_NP.T, strict=True)
        ]
        return torch.stack(each).sum()


class Training:
    """The training step, to be called again and again.

    Args:
        frames: Of the random walk that windows are cut from, 21 frames each, one behind the other.
        batch: Windows of a step.
        half: Whether it multiplies in bfloat16, which the released program does not.

    Attributes:
        windows: That go through the encoder in a step: each and its changed copy.
    """

    def __init__(self, frames: int, *, batch: int = 128, half: bool = False) -> None:
        self.batch, self.windows, self._half, self._done = batch, 2 * batch, half, 0
        position = torch.from_numpy(walk(min(frames, VIDEO_FRAMES))[0])
        self._position = _filled(position)[: len(position) // FRAMES * FRAMES].view(
            -1, FRAMES, *CALMS21.shape
        )
        self.states = States(self._position.flatten(0, 1))
        self.model = Model()
        self.model.approximate.requires_grad_(False)
        learned = [weight for weight in self.model.parameters() if weight.requires_grad]
        self._learned, self._optimiser = learned, torch.optim.Adam(learned, lr=2e-4, fused=True)

    @property
    def parameters(self) -> int:
        """Of everything."""
        return sum(weight.numel() for weight in self.model.parameters())

    def loss(self) -> Tensor:
        """Of the next batch."""
        rows = torch.arange(self._done * self.batch, (self._done + 1) * self.batch) % len(
            self._position
        )
        self._done += 1
        recorded = self._position[rows]
        position = torch.cat([recorded, changed(recorded)])
        middle = position[:, FRAMES // 2 - 2 : FRAMES // 2 + 3]
        class_NP = programs.classes(
            programs.measure(middle, CALMS21), programs.thresholds(CALMS21)
        )[:, 2]
        state_TNS = self.states(position).transpose(0, 1)
        state_ANS, action_ANS = state_TNS[:-1], state_TNS.diff(dim=0)
        labels = F.one_hot(class_NP.clamp(min=0), CLASSES).flatten(1).float()
        posterior = Posterior(
            *self.model.encode(torch.cat([state_ANS, action_ANS], -1), labels).chunk(2, -1)
        )
        posterior = posterior._replace(log_variance=posterior.log_variance.clamp(-16, 16))
        code_NZ = posterior.sample(torch.randn_like(posterior.mean))
        rolled = self.model.roll_out(state_ANS[0, : self.batch], code_NZ[: self.batch])
        g_NPE = F.normalize(self.model.contrast(posterior.mean), dim=-1)
        total_P, number_P = supervised_contrastive(
            g_NPE.unsqueeze(1), class_NP.unsqueeze(1), classes=CLASSES, temperature=TEMPERATURE
        )
        return (
            self.model.surprise(state_ANS, action_ANS, code_NZ)
            + posterior.divergence(FREE_BITS).sum()
            + self.model.disagreement(rolled, class_NP[: self.batch])
            + CONTRASTIVE * (total_P / number_P.clamp(min=1)).sum()
        )

    def __call__(self) -> Tensor:
        """The next step; its loss."""
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._half):
            loss = self.loss()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._learned, 10.0)
        self._optimiser.step()
        return loss.detach()


def _filled(position_TMKX: Tensor) -> Tensor:
    """Gaps hold the last point seen."""
    seen = position_TMKX[..., 0].isfinite()
    place = torch.arange(len(seen)).view(-1, 1, 1)
    last = torch.where(seen, place, 0).cummax(0).values
    return position_TMKX.gather(0, last.unsqueeze(-1).expand_as(position_TMKX)).nan_to_num(0.0)
