"""How far a run is: a line now and then for people, curves for the tracker, a summary in the
end."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pretrain import distributed
from pretrain.runs.mlflow_server import TrackedRun

log = logging.getLogger(__name__)

_CURVE_POINTS = 400
_LINES = 40


class Progress:
    """Keeps time and tells. Every worker makes one; rank 0 speaks.

    Args:
        steps: Steps of the whole run.
        frames: Frames of the whole run, over all workers and epochs.
        epochs: Epochs of the whole run.
        before: What :meth:`state` returned, when a run goes on.
        run: Where curves go.
    """

    def __init__(
        self,
        *,
        steps: int,
        frames: int,
        epochs: int,
        before: Mapping[str, Any] | None,
        run: TrackedRun | None,
    ) -> None:
        self._steps, self._frames, self._run = steps, frames, run
        self._epoch_steps = steps // epochs
        self._before = before["seconds"] if before else 0.0
        self._losses: list[float] = list(before["losses"]) if before else []
        self._began, self._first = time.monotonic(), -1
        self._every = max(1, steps // _CURVE_POINTS)
        self._line = max(1, steps // _LINES)
        self._last: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Spent on training, earlier starts included."""
        return self._before + time.monotonic() - self._began

    def logs(self, step: int) -> bool:
        """Whether the values of a step are logged."""
        return step % self._every == 0 or step + 1 == self._steps

    def step(self, step: int, values: Mapping[str, Tensor | float]) -> None:
        """Takes the values of a step; tensors are averaged over the workers, so every worker must
        call it."""
        if self._first < 0:
            self._first, self._began_steps = step, time.monotonic()
        last = step + 1 == self._steps
        if step % self._epoch_steps == 0:
            self._losses = []
        if not self.logs(step):
            return
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        shared = distributed.mean(
            torch.stack([value.detach().float() for value in tensors.values()])
        ).tolist()
        self._last = dict(zip(tensors, shared, strict=True)) | {
            n: v for n, v in values.items() if not isinstance(v, Tensor)
        }
        self._losses.append(self._last["loss"])
        if distributed.rank() > 0:
            return
        elapsed = time.monotonic() - self._began_steps
        rate = (
            (step - self._first) / self._steps * self._frames / elapsed
            if step > self._first
            else 0.0
        )
        if self._run is not None:
            self._run.log_metrics(self._last | ({"frames_per_s": rate} if rate else {}), step=step)
        if step % self._line == 0 or last:
            left = (self._steps - step - 1) * elapsed / max(1, step - self._first)
            log.info(
                "step %d of %d  loss %.4f  %s frames/s  %s left",
                step + 1,
                self._steps,
                self._last["loss"],
                f"{rate:,.0f}",
                _clock(left),
            )

        if last and self._run is not None:
            self._run.flush()

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
