"""Figures of the real CalMS21 that the arena imitates, from statistics.yaml: nothing here is drawn
or fitted at run time."""

from __future__ import annotations

from pathlib import Path

import yaml

_FIGURES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))

QUANTILES: list[float] = _FIGURES["quantiles"]
BOUT_FRAMES: dict[str, dict[str, list[float]]] = _FIGURES["bout_frames"]
TRANSITIONS: dict[str, list[list[int]]] = _FIGURES["transitions"]
SEQUENCE_FRAMES: dict[str, list[float]] = _FIGURES["sequence_frames"]
SEQUENCES: dict[str, int] = _FIGURES["sequences"]
SEQUENCES_WITH: dict[str, dict[str, int]] = _FIGURES["sequences_with"]
UNLABELLED_VIDEOS: int = _FIGURES["unlabelled_videos"]
SHAPE_PX = {
    animal: [complex(x, y) for x, y in points] for animal, points in _FIGURES["shape_px"].items()
}
"""Points of the plane as x + iy."""
