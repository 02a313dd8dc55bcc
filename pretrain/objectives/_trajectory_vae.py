"""The trajectory variational autoencoder of task programming: an embedding to a code, a code to
what the animals do next."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pretrain.objectives._trajectory_state import TrajectoryState

_LOG_VARIANCES = -16.0, 16.0  # least and greatest, as published


class Posterior(NamedTuple):
    """A Gaussian over codes, (N, Z) each."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, noise_NZ: Tensor) -> Tensor:
        """A code, given standard normal noise."""
        return self.mean + (self.log_variance / 2).exp() * noise_NZ

    def divergence(self, free: float) -> Tensor:
        """(N,) KL divergence to N(0, I) in nats, summed over the code; a dimension that spends less
        than ``free`` costs ``free``."""
        each = 0.5 * (self.log_variance.exp() + self.mean.square() - 1 - self.log_variance)
        return each.clamp(min=free).sum(-1)


def _perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    first, second = nn.Linear(inputs, width), nn.Linear(width, width)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(width, outputs))


class Encode(nn.Module):
    """An embedding to a posterior: two hidden layers, then mean and log-variance."""

    def __init__(self, dim: int, *, width: int, code: int) -> None:
        super().__init__()
        self.layers = _perceptron(dim, width, 2 * code)

    def forward(self, z_ND: Tensor) -> Posterior:
        """(N, D) to a posterior."""
        mean, log_variance = self.layers(z_ND).float().chunk(2, -1)
        return Posterior(mean, log_variance.clamp(*_LOG_VARIANCES))


class Memory(nn.Module):
    """A gated recurrent unit (Cho et al. 2014) that runs over a recording, or step by step over its
    own output."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.cell = nn.GRU(inputs, width)

    def forward(self, x_TNI: Tensor) -> Tensor:
        """Its hidden state before each input, (T, N, H)."""
        h_TNH: Tensor = self.cell(x_TNI[:-1])[0]
        return F.pad(h_TNH, (0, 0, 0, 0, 1, 0))

    def step(self, x_NI: Tensor, h_NH: Tensor) -> Tensor:
        """Its hidden state after one more input, (N, H)."""
        enter, recur, enter_bias, recur_bias = self.cell.parameters()
        reset_in, keep_in, new_in = F.linear(x_NI, enter, enter_bias).chunk(3, -1)
        reset_h, keep_h, new_h = F.linear(h_NH, recur, recur_bias).chunk(3, -1)
        new = (new_in + (reset_in + reset_h).sigmoid() * new_h).tanh()
        return torch.lerp(new, h_NH.to(new.dtype), (keep_in + keep_h).sigmoid())


class Policy(nn.Module):
    """What comes next, given state, code and memory of the past: a Gaussian over actions.

    Args:
        state: How poses become states.
        code: Z.
        width: Of the memory and of the two hidden layers.
    """

    def __init__(self, state: TrajectoryState, *, code: int, width: int) -> None:
        super().__init__()
        self.state, self.width = state, width
        self.memory = Memory(2 * state.size, width)
        self.from_state = nn.Linear(state.size, width)
        self.from_code = nn.Linear(code, width, bias=False)
        self.from_memory = nn.Linear(width, width, bias=False)
        self.act = nn.Sequential(
            nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2 * state.size)
        )

    def _action(self, inputs: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.act(inputs + self.from_memory(h)).float().chunk(2, -1)
        return mean, log_variance.clamp(*_LOG_VARIANCES)

    def surprise(
        self, state_NTS: Tensor, action_NAS: Tensor, known_NAS: Tensor, code_NZ: Tensor
    ) -> Tensor:
        """Teacher forcing: (N,) negative log-likelihood of the known actions in nats, summed over
        frames and dimensions."""
        action_ANS = action_NAS.transpose(0, 1)
        before_ANS = state_NTS.transpose(0, 1)[: len(action_ANS)]
        h_ANH = self.memory(torch.cat([before_ANS, action_ANS], -1))
        mean, log_variance = self._action(
            self.from_state(before_ANS) + self.from_code(code_NZ), h_ANH
        )
        each = 0.5 * (
            (action_ANS - mean).square() * (-log_variance).exp()
            + log_variance
            + math.log(2 * math.pi)
        )
        return torch.where(known_NAS.transpose(0, 1), each, 0.0).sum((0, 2))

    def roll_out(
        self, first_NS: Tensor, code_NZ: Tensor, noise_NAS: Tensor, *, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """Lets the policy act on its own states.

        Args:
            first_NS: Where it begins.
            code_NZ: The code.
            noise_NAS: Standard normal noise; its length is the number of steps.
            temperature: Standard deviations of the actions are multiplied by it.

        Returns:
            States (N, A + 1, S) and actions (N, A, S).
        """
        from_code = self.from_code(code_NZ)
        state, h = first_NS, first_NS.new_zeros(len(first_NS), self.width)
        states, actions = [state], []
        for noise in noise_NAS.unbind(1):
            mean, log_variance = self._action(from_code + self.from_state(state), h)
            action = mean + temperature * (log_variance / 2).exp() * noise
            h = self.memory.step(torch.cat([state, action], -1), h)
            state = self.state.advance(state, action)
            states.append(state)
            actions.append(action)
        return torch.stack(states, 1), torch.stack(actions, 1)


class Approximators(nn.Module):
    """Learned stand-ins for the programs: for each a recurrent network that reads a trajectory both
    ways and predicts its class.

    Args:
        size: S.
        classes: Classes of each program.
        width: Of the networks.
    """

    def __init__(self, size: int, classes: list[int], *, width: int) -> None:
        super().__init__()
        self.read = nn.ModuleList(
            nn.GRU(2 * size, width, batch_first=True, bidirectional=True) for _ in classes
        )
        self.predict = nn.ModuleList(_perceptron(2 * width, width, number) for number in classes)
        self.outputs = max(classes)

    def forward(self, state_NTS: Tensor, action_NAS: Tensor) -> Tensor:
        """(N, P, C) log-probabilities; classes that a program does not have come last, at minus
        infinity."""
        x = torch.cat([state_NTS[:, : action_NAS.shape[1]], action_NAS], -1)
        log_shares = [
            F.log_softmax(predict(read(x)[0].mean(1)).float(), -1)
            for read, predict in zip(self.read, self.predict, strict=True)
        ]
        return torch.stack(
            [F.pad(x, (0, self.outputs - x.shape[-1]), value=-torch.inf) for x in log_shares], 1
        )
