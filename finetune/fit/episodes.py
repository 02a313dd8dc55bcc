"""Settings of learning to learn (`ethoray meta-learn`)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """How starts are learned."""

    meta_steps: int = 300
    """Steps of the outer loop."""
    behaviours: int = 2
    """Behaviours of a step."""
    windows: int = 4
    """Windows that a behaviour is fitted on; as many measure it."""
    inner_steps: int = 5
    inner_lr: float = 0.1
    """Step length to begin with; it is learned along (Li et al. 2017)."""
    outer_lr: float = 0.003
    """Peak rate of Adam."""
    first_order: bool = False
    """Whether the outer gradient passes by the inner steps: cheaper, nearly as good (Finn et al.
    2017)."""
