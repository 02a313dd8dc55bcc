"""One step of the optimiser, the same in every loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretrain.config import Optimiser
from pretrain.data.windows import Windows
from pretrain.errors import RunFailed
from pretrain.objectives import Loss


class OptimiserStep:
    """Loss, gradient, clipping, AdamW.

    Args:
        model: Windows in, loss out: a learner, compiled or wrapped for several workers or neither.
        settings: Of the optimiser.

    Attributes:
        optimiser: To be saved and loaded with checkpoints.
    """

    def __init__(self, model: nn.Module, settings: Optimiser) -> None:
        self._model, self._settings = model, settings
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )

    def __call__(self, windows: Windows, *, lr: float | None = None) -> tuple[Loss, Tensor]:
        """Makes a step.

        Args:
            windows: This worker's rows of a global batch.
            lr: Learning rate; None for that of the settings.

        Returns:
            The loss before the step, without gradient, and the norm of the gradient before
            clipping.

        Raises:
            RunFailed: If the loss or the gradient is not finite; nothing was updated.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self._settings.lr if lr is None else lr
        loss: Loss = self._model(windows)
        self.optimiser.zero_grad(set_to_none=True)
        loss.total.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.clip or torch.inf)
        if not norm.isfinite():
            done = max((int(state["step"]) for state in self.optimiser.state.values()), default=0)
            what = "gradient" if loss.total.isfinite() else "loss"
            raise RunFailed(
                f"the {what} is not finite at step {done + 1}, nothing was updated: lower "
                "optimiser.lr, set optimiser.clip, or set precision=float32"
            )
        self.optimiser.step()
        return Loss(loss.total.detach(), loss.parts), norm
