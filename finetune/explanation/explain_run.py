"""Explains every problem of a run, and keeps what was found as arrays in its folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from finetune.explanation.gradients import (
    CLIP_S,
    Exciting,
    RealPoses,
    ascend,
    integrated_gradients,
    is_differentiable,
    real_clips,
)
from finetune.explanation.sensitivity import Sensitivity, sensitivities
from finetune.explanation.stretches import Stretch, shown_of
from finetune.inference.model import LoadedModel
from finetune.labels.frame_labels import Reals
from pretrain.data.recording_file import file_name

FOLDER = "explanation"


def explain(
    out: Path,
    model: LoadedModel,
    stretches: Sequence[Stretch],
    *,
    on_progress: Callable[[], object] = lambda: None,
) -> list[Path]:
    """Writes ``explanation/PROBLEM.npz`` for each problem, in place of what was there.

    Args:
        out: Of the run.
        model: Of one network.
        stretches: What it is explained on.
        on_progress: As of :func:`sensitivities`.

    Returns:
        The files; docs/explanations.md names their arrays.
    """
    base = [model.predict(stretch.arrays) for stretch in stretches]
    found = sensitivities(model, stretches, base, on_progress=on_progress)
    (network,) = model.models
    fps, by_gradient = model.schema.fps, is_differentiable(network)
    minutes = sum(map(len, stretches)) / fps / 60
    notes = [
        f"Explained on {minutes:.1f} minutes of {len(stretches)} videos, the network of the first "
        "seed.",
        "Gradients reach the poses: integrated gradients were taken, and the poses that excite a "
        "behaviour most were found by gradient ascent from real clips, within the range of real "
        "ones."
        if by_gradient
        else "This head has no gradients (trees, or ranks): what it depends on was found by "
        "changing only what it reads, and the poses that excite a behaviour most are those of "
        "real clips.",
    ]
    real = RealPoses(network, stretches, fps=fps) if by_gradient else None
    unfinished = out / f".{FOLDER}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    files = []
    for i, (p, problem) in enumerate(zip(model.selected, model.problems, strict=True)):
        probabilities = [predictions[i].probabilities_TC for predictions in base]
        most = [
            real_clips(stretches, probabilities, c, fps=fps) for c in range(len(problem.classes))
        ]
        arrays = _of_sensitivity(found[i])
        if real is not None:
            shown = [
                shown_of(problem, stretch.labels[i], predictions[i].labels)
                for stretch, predictions in zip(stretches, base, strict=True)
            ]
            saliency = integrated_gradients(network, problem, p, stretches, shown, fps=fps)
            arrays["saliency_CLMK"] = saliency.attribution_CLMK
            arrays["saliency_lag_s"] = saliency.lag_s
            most = [
                ascend(network, problem, p, c, real, one, stretches)
                if one.videos and real.known
                else one
                for c, one in enumerate(most)
            ]
        arrays |= _of_clips(most, length=round(CLIP_S * fps))
        files.append(unfinished / f"{file_name(problem.name)}.npz")
        np.savez_compressed(
            files[-1],
            problem=np.array(problem.name),
            classes=np.array(problem.classes),
            notes=np.array(notes),
            **arrays,  # type: ignore[arg-type]
        )
    folder = out / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.replace(folder)
    return [folder / file.name for file in files]


def _of_sensitivity(found: Sensitivity) -> dict[str, Reals]:
    return {
        "row_R": np.array(found.rows),
        "kind_R": np.array(found.kinds),
        "change_RC": np.stack(found.change_RC),
        "ap_lost_RC": np.stack(found.ap_lost_RC),
        "point_P": np.array(found.points),
        "lag_s": found.lag_s,
        "change_PCL": np.stack(found.change_PCL),
    }


def _of_clips(most: Sequence[Exciting], *, length: int) -> dict[str, Reals]:
    """Of each class as many clips as there are; NaN and an empty name where there are fewer."""
    number = max(len(one.videos) for one in most)
    shape = most[0].real_NTMKX.shape[1:]
    position = np.full((len(most), number, *shape), np.nan, np.float32)
    p = np.full((len(most), number), np.nan)
    first = np.zeros((len(most), number), np.int64)
    for c, one in enumerate(most):
        position[c, : len(one.videos)] = one.real_NTMKX
        p[c, : len(one.videos)], first[c, : len(one.videos)] = one.real_p, one.start
    arrays: dict[str, Reals] = {
        "clip_position_CNTMKX": position,
        "clip_p_CN": p,
        "clip_first_frame_CN": first,
        "clip_video_CN": np.array([one.videos + [""] * (number - len(one.videos)) for one in most]),
    }
    if any(one.ascended_TMKX is not None for one in most):
        none = np.full(shape, np.nan, np.float32)
        arrays["ascended_position_CTMKX"] = np.stack(
            [none if one.ascended_TMKX is None else one.ascended_TMKX for one in most]
        )
        arrays["ascended_p_C"] = np.array([one.ascended_p for one in most])
        arrays["ascent_start_p_C"] = np.array([one.start_p for one in most])
    return arrays
