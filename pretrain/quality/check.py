"""What a scientist asks of a store first: how much, of what, how well tracked, how labelled."""

from __future__ import annotations

import shlex
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt

from pretrain.data.store import Store
from pretrain.quality.jumps_and_swaps import JumpsAndSwaps, body_lengths_px, store_chunks
from pretrain.quality.unscored import UnscoredMargins
from pretrain.readers.annotations import UNLABELLED, read_labels


def describe(store: Store) -> dict[str, Any]:
    """Counts, missing points, jumps, suspected swaps, labels and integrity; every byte is read, in
    memory that does not grow.

    Returns:
        ``frames``, ``videos``, ``hours``, ``missing_share`` (of all points),
        ``missing_by_keypoint``, ``jumps``, ``swaps``, ``features`` (name to numbers a frame),
        ``labels`` (task to frames per class and split, bouts, videos, and classes that are probably
        unscored), ``damage`` (a sentence for each damaged file; what needs whole files is then left
        out).
    """
    damage = store.verify()
    schema = store.schema
    facts: dict[str, Any] = {
        "store": store.uri,
        "origin": store.origin,
        "fingerprint": store.fingerprint,
        "frames": store.frames,
        "videos": len(store.videos),
        "hours": round(store.frames / schema.fps / 3600, 3),
        "video_minutes": _quartiles(
            np.array([video["frames"] for video in store.videos]) / schema.fps / 60
        ),
        "animals": list(schema.animals),
        "keypoints": list(schema.keypoints),
        "fps": schema.fps,
        "image_px": list(schema.image_px),
        "px_per_cm": schema.px_per_cm,
        "features": {name: record["dim"] for name, record in store.features.items()},
    }
    measured = {"labels": {}} if damage else _of_frames(store) | {"labels": _labels(store)}
    return {**facts, **measured, "damage": damage}


def _of_frames(store: Store) -> dict[str, Any]:
    schema = store.schema
    missing = np.zeros(schema.shape[:2])
    jumps_and_swaps = JumpsAndSwaps(store, body_lengths_px(store))
    for video, first_frame, position, confidence in store_chunks(store):
        gone = np.isnan(position).any(-1) | (confidence == 0)
        missing += gone.sum(0)
        jumps_and_swaps.add(
            video, first_frame, np.where(gone[..., None], np.float32(np.nan), position)
        )
    share = missing / max(store.frames, 1)
    by_keypoint = {
        animal: {point: round(float(share[m, k]), 4) for k, point in enumerate(schema.keypoints)}
        for m, animal in enumerate(schema.animals)
    }
    return {
        "missing_share": round(float(share.mean()), 6),
        "missing_by_keypoint": by_keypoint,
        **jumps_and_swaps.summary(),
    }


def _labels(store: Store) -> dict[str, Any]:
    tasks: dict[str, Any] = {}
    bouts: dict[tuple[str, str], list[npt.NDArray[np.int64]]] = {}
    margins = defaultdict[str, UnscoredMargins](UnscoredMargins)
    for labels in read_labels(store):
        if labels.task not in tasks:
            empty = {"frames": {}, "scored": {}, "unlabelled": 0, "annotators": []}
            tasks[labels.task] = {"videos": {"train": 0, "test": 0}, **empty}
        task = tasks[labels.task]
        margins[labels.task].add(labels)
        marks = labels.marks
        task["unlabelled"] += int((marks == UNLABELLED).all(1).sum())
        task["videos"][labels.split] += 1
        if labels.annotator and labels.annotator not in task["annotators"]:
            task["annotators"].append(labels.annotator)
        for name, shown_T, scored_T in zip(
            labels.classes, (marks == 1).T, (marks != UNLABELLED).T, strict=True
        ):
            for count, marked_T in (("frames", shown_T), ("scored", scored_T)):
                sides = task[count].setdefault(name, {"train": 0, "test": 0})
                sides[labels.split] += int(marked_T.sum())
            bouts.setdefault((labels.task, name), []).append(_bout_frames(shown_T))
    for name, task in tasks.items():
        task["unscored"] = margins[name].summary()
        task["bouts"] = {
            label: _bouts(np.concatenate(bouts[name, label]), store.schema.fps)
            for label in task["frames"]
        }
    return tasks


def _bout_frames(shown_T: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(shown_T.astype(np.int8), prepend=0, append=0))
    return np.asarray(edges[1::2] - edges[::2])


def _bouts(frames: npt.NDArray[np.int64], fps: float) -> dict[str, Any]:
    return {"count": len(frames), "seconds": _quartiles(frames / fps)}


def _quartiles(values: npt.NDArray[np.float64]) -> dict[str, float] | None:
    """Quartiles and ends; None of nothing."""
    if not len(values):
        return None
    names = ("shortest", "lower_quartile", "median", "upper_quartile", "longest")
    return {
        name: round(float(value), 4)
        for name, value in zip(names, np.quantile(values, (0, 0.25, 0.5, 0.75, 1)), strict=True)
    }


def report(facts: dict[str, Any]) -> str:
    """The same for people."""
    minutes = facts["video_minutes"]
    lines = [
        f"{facts['store']}  ({facts['origin']})",
        f"{facts['frames']:,} frames, {facts['hours']:.2f} hours at {facts['fps']:g} frames/s, "
        f"{facts['videos']} videos "
        f"of {minutes['shortest']:.1f} to {minutes['longest']:.1f} minutes, image "
        f"{'x'.join(f'{v:g}' for v in facts['image_px'])} px"
        + (f", {facts['px_per_cm']:g} px a cm" if facts["px_per_cm"] else ""),
        f"fingerprint {facts['fingerprint']}",
        f"{', '.join(facts['animals'])}: {', '.join(facts['keypoints'])}",
    ]
    if facts["features"]:
        lines.append(
            "external features: "
            + ", ".join(f"{name} ({dim} a frame)" for name, dim in facts["features"].items())
        )
    if facts["damage"]:
        return "\n".join([*lines, "DAMAGED: " + "; ".join(facts["damage"])])
    lines += _report_frames(facts)
    for name, task in facts["labels"].items():
        lines += _report_task(name, task)
        lines += _report_unscored(name, task, facts["store"], facts["fps"])
    return "\n".join([*lines, "whole: every checksum is right"])


def _report_frames(facts: dict[str, Any]) -> list[str]:
    lines = [f"missing points: {facts['missing_share']:.1%}"]
    for animal, points in facts["missing_by_keypoint"].items():
        lines.append(
            f"  {animal}: " + ", ".join(f"{point} {share:.1%}" for point, share in points.items())
        )
    jumps, swaps = facts["jumps"], facts["swaps"]
    limits = ", ".join(
        f"{animal} {px:g} px a frame"
        for animal, px in jumps["limit_px_per_frame"].items()
        if px is not None
    )
    lines.append(
        f"jumps: {jumps['frames']:,} frames ({jumps['share_of_frames']:.2%}); {jumps['rule']} "
        f"({limits or 'no body length: not counted'})"
    )
    for animal, points in jumps["by_keypoint"].items():
        lines.append(
            f"  {animal}: " + ", ".join(f"{point} {share:.2%}" for point, share in points.items())
        )
    if len(facts["animals"]) > 1:
        lines.append(
            f"suspected swaps of animals: {swaps['frames']:,} frames "
            f"({swaps['share_of_frames']:.3%}); {swaps['rule']}"
        )
    lines += [
        f"  first {kind}: {'; '.join(frames)}"
        for kind, frames in (("jumps", jumps["first"]), ("swaps", swaps["first"]))
        if frames
    ]
    return lines


def _report_task(name: str, task: dict[str, Any]) -> list[str]:
    who = f", annotators {', '.join(task['annotators'])}" if len(task["annotators"]) > 1 else ""
    lines = [
        f"labels {name}: {task['videos']['train']} videos to train, {task['videos']['test']} to "
        f"test{who}; "
        f"{task['unlabelled']:,} frames unlabelled",
        f"  {'class':24} {'train frames':>14} {'':>6} {'test frames':>14} {'':>6} {'bouts':>7}   "
        "seconds: median (quartiles)",
    ]
    for label, sides in task["frames"].items():
        bouts = task["bouts"][label]
        seconds = bouts["seconds"]
        lengths = "{median:.2f} ({lower_quartile:.2f} to {upper_quartile:.2f})"
        lengths = lengths.format(**seconds) if seconds else ""
        shares = [
            # of the frames scored for it: behaviours may overlap, or be scored in some videos only
            f"{sides[side]:>14,} {sides[side] / max(1, task['scored'][label][side]):>6.1%}"
            for side in ("train", "test")
        ]
        lines.append(f"  {label:24} {shares[0]} {shares[1]} {bouts['count']:>7,}   {lengths}")
    return lines


def _report_unscored(name: str, task: dict[str, Any], store: str, fps: float) -> list[str]:
    lines = []
    for label, margin in task["unscored"].items():
        length = ""
        if (frames := margin["stretch_frames"]) is not None:
            length = (
                f"; the stretch has {frames:,} frames ({frames / fps:g} s) in "
                f"{margin['stretch_videos']} of {margin['videos']} videos"
            )
        lines.append(
            f"  probably unscored: {label!r} lies only before and after one stretch in "
            f"{margin['at_ends']} of {margin['videos']} videos ({margin['frames']:,} "
            f"frames){length}. Nobody scored these frames: make them unlabelled with "
            f"ethoray prepare unscored {shlex.quote(store)} {shlex.quote(f'{name}:{label}')}"
        )
    return lines
