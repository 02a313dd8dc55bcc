"""What a scientist asks of a store first: how much, of what, how well tracked, how labelled."""

from __future__ import annotations

from typing import Any

import numpy as np

from pretrain.pose.annotations import UNLABELLED, read_rows
from pretrain.pose.store import Store


def describe(store: Store) -> dict[str, Any]:
    """Counts, missing points, labels and integrity; every byte of the store is read.

    Returns:
        ``frames``, ``videos``, ``hours``, ``missing_share`` (of all points), ``missing_by_keypoint``, ``labels`` (task to
        frames per class and split, and videos), ``damage`` (a sentence for each damaged file).
    """
    damage = store.verify()
    missing = np.zeros(store.schema.shape[:2])
    if not damage:
        for part in range(len(store.parts)):
            position, confidence = store.decode(store.read_groups(part))
            missing += (np.isnan(position).any(-1) | (confidence == 0)).sum(0)
    share = missing / max(store.frames, 1)
    return {
        "store": store.uri, "origin": store.origin, "fingerprint": store.fingerprint,
        "frames": store.frames, "videos": len(store.videos), "hours": round(store.frames / store.schema.fps / 3600, 3),
        "animals": list(store.schema.animals), "keypoints": list(store.schema.keypoints), "fps": store.schema.fps,
        "image_px": list(store.schema.image_px),
        "missing_share": round(float(share.mean()), 6),
        "missing_by_keypoint": {
            animal: {point: round(float(share[m, k]), 4) for k, point in enumerate(store.schema.keypoints)}
            for m, animal in enumerate(store.schema.animals)
        },
        "labels": {} if damage else _labels(store),
        "damage": damage,
    }  # fmt: skip


def _labels(store: Store) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for held in store.labels:
        rows = read_rows(store, held["file"])
        task = found.setdefault(held["task"], {"videos": {"train": 0, "test": 0}, "frames": {}, "unlabelled": 0, "annotators": []})
        for row in rows:
            labels = np.frombuffer(row["labels"], np.int8)
            if row["overlapping"]:
                labels = labels.reshape(row["frames"], -1)
                counts = (labels == 1).sum(0)
                task["unlabelled"] += int((labels == UNLABELLED).all(1).sum())
            else:
                counts = np.bincount(labels[labels != UNLABELLED], minlength=len(row["classes"]))
                task["unlabelled"] += int((labels == UNLABELLED).sum())
            task["videos"][row["split"]] += 1
            if row["annotator"] and row["annotator"] not in task["annotators"]:
                task["annotators"].append(row["annotator"])
            for name, count in zip(row["classes"], counts.tolist(), strict=True):
                task["frames"].setdefault(name, {"train": 0, "test": 0})[row["split"]] += count
    return found


def report(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [
        f"{found['store']}  ({found['origin']})",
        f"{found['frames']:,} frames, {found['hours']:.2f} hours at {found['fps']:g} frames/s, {found['videos']} videos",
        f"fingerprint {found['fingerprint']}",
        f"{', '.join(found['animals'])}: {', '.join(found['keypoints'])}",
        f"missing points: {found['missing_share']:.1%}",
    ]
    for animal, points in found["missing_by_keypoint"].items():
        lines.append(f"  {animal}: " + ", ".join(f"{point} {share:.1%}" for point, share in points.items()))
    for name, task in found["labels"].items():
        who = f", annotators {', '.join(task['annotators'])}" if len(task["annotators"]) > 1 else ""
        sides = f"{task['videos']['train']} videos to train, {task['videos']['test']} to test"
        lines.append(f"labels {name}: {sides}{who}; {task['unlabelled']:,} frames unlabelled")
        lines += [f"  {label:24} {sides['train']:>10,} {sides['test']:>10,}" for label, sides in task["frames"].items()]
    lines.append("whole: every checksum is right" if not found["damage"] else "DAMAGED: " + "; ".join(found["damage"]))
    return "\n".join(lines)
