"""Settings of meta-learning."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """How initial weights are learned."""

    meta_steps: int = 300
    """Steps of the outer loop."""
    behaviours: int = 2
    """Behaviours of a step."""
    windows: int = 4
    """Windows that a behaviour is fitted on; the loss is measured on as many others."""
    inner_steps: int = 5
    inner_lr: float = 0.1
    """Step length at the beginning; it is learned too (Li et al. 2017)."""
    outer_lr: float = 0.003
    """Peak rate of Adam."""
    first_order: bool = False
    """Whether the outer gradient ignores the inner steps: cheaper, nearly as good (Finn et al.
    2017)."""
