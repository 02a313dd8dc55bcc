"""How far a run is: a line now and then for people, curves for the tracker, a summary in the
end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pretrain import distributed

log = logging.getLogger(__name__)

_CURVE_POINTS = 400
_LINES = 40


class Progress:
    """Keeps time, logs lines and curves. Every worker makes one; rank 0 logs.

    Args:
        steps: Steps of the whole run.
        frames: Frames of the whole run, over all workers and epochs.
        epochs: Epochs of the whole run.
        state: What :meth:`state` returned, when a run goes on.
        send_metrics: Takes the values of a step, and the step.
    """

    def __init__(
        self,
        *,
        steps: int,
        frames: int,
        epochs: int,
        state: Mapping[str, Any] | None,
        send_metrics: Callable[[Mapping[str, float], int], None],
    ) -> None:
        self._steps, self._frames, self._send_metrics = steps, frames, send_metrics
        self._steps_per_epoch = steps // epochs
        self._earlier_seconds = state["seconds"] if state else 0.0
        self._losses: list[float] = list(state["losses"]) if state else []
        self._started = time.monotonic()
        self._first_step: int | None = None
        self._steps_per_point = max(1, steps // _CURVE_POINTS)
        self._steps_per_line = max(1, steps // _LINES)

    @property
    def seconds(self) -> float:
        """Spent on training, earlier starts included."""
        return self._earlier_seconds + time.monotonic() - self._started

    def is_logged(self, step: int) -> bool:
        """Whether the values of a step are logged."""
        return step % self._steps_per_point == 0 or step + 1 == self._steps

    def step(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """Takes the values of a step; tensors are averaged over the workers, so every worker must
        call it."""
        if self._first_step is None:
            self._first_step, self._first_step_ended = step, time.monotonic()
        if step % self._steps_per_epoch == 0:
            self._losses = []
        if not self.is_logged(step):
            return
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        means = distributed.mean(torch.stack([value.float() for value in tensors.values()]))
        metrics = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        metrics |= dict(zip(tensors, means.tolist(), strict=True))
        self._losses.append(metrics["loss"])
        if distributed.rank() > 0:
            return
        steps, seconds = step - self._first_step, time.monotonic() - self._first_step_ended
        if steps:
            metrics["frames_per_s"] = steps / self._steps * self._frames / seconds
        self._send_metrics(metrics, step)
        if step % self._steps_per_line == 0 or step + 1 == self._steps:
            log.info(
                "step %d of %d  loss %.4f  %s frames/s  %s left",
                step + 1,
                self._steps,
                metrics["loss"],
                f"{metrics.get('frames_per_s', 0):,.0f}",
                _clock((self._steps - step - 1) * seconds / max(1, steps)),
            )

    def state(self) -> dict[str, Any]:
        """What a run that goes on needs to report as if it had not stopped."""
        return {"seconds": self.seconds, "losses": self._losses}

    def result(self) -> dict[str, Any]:
        """Mean loss of the last epoch, frames, seconds, frames per second."""
        seconds = self.seconds
        loss = sum(self._losses) / len(self._losses) if self._losses else None
        return {
            "loss": loss,
            "frames": self._frames,
            "seconds": round(seconds, 2),
            "frames_per_s": round(self._frames / max(seconds, 1e-9), 1),
        }


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
