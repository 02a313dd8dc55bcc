"""The JSON files of CalMS21's release: what that format can say of a store of its two mice.

A recording with several label sets is in the file of each, and comes back once for each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from pretrain.data.schema import CALMS21, Video
from pretrain.data.store import Store
from pretrain.errors import refuse
from pretrain.readers.annotations import Labels, labels_by_video
from pretrain.readers.calms21.features import FEATURES
from pretrain.readers.calms21.write import TASKS, write_official
from pretrain.readers.export_formats import AbstractExport

log = logging.getLogger(__name__)


class Calms21Json(AbstractExport):
    """Folders and files as the release's archives have them."""

    description = "as CalMS21's release has them"
    can_zip = True

    def write(
        self, store: Store, folder: Path, *, zipped: bool, on_progress: Callable[[int], None]
    ) -> list[str]:
        """Skeleton and labels must be of CalMS21's kind."""
        labels = labels_by_video(store)
        refuse(
            _errors(store, labels),
            about=f"the store {store.uri} cannot be written as CalMS21 (--as npz writes any store)",
        )
        _warn_of_losses(store)
        write_official(
            folder,
            _recordings(store, labels),
            origin=store.origin,
            zipped=zipped,
            on_progress=on_progress,
        )
        return ["calms21", "--source", str(folder)]


def _errors(store: Store, labels: dict[str, list[Labels]]) -> list[str]:
    schema = store.schema
    same_names = (set(schema.animals), set(schema.keypoints), schema.coordinates) == (
        set(CALMS21.animals),
        set(CALMS21.keypoints),
        CALMS21.coordinates,
    )
    errors = [] if same_names else list(schema.differences(CALMS21))
    everything = [each for of_video in labels.values() for each in of_video]
    errors += [
        f"labels under {each.task!r} overlap or leave frames unlabelled; that format gives each "
        "frame one class"
        for each in everything
        if each.overlapping or (each.frames < 0).any()
    ]
    errors += [
        f"it has labels under {each.task!r}; that format has {', '.join(TASKS)}"
        for each in everything
        if each.task not in TASKS
    ]
    return errors


def _warn_of_losses(store: Store) -> None:
    schema = store.schema
    if (schema.fps, schema.image_px) != (CALMS21.fps, CALMS21.image_px):
        log.warning(
            "CalMS21's files do not say rate and image: read back, 30 frames/s and 1024x570 px are "
            "taken for %g and %s",
            schema.fps,
            "x".join(f"{extent:g}" for extent in schema.image_px),
        )
    left_out = sorted(set(store.features) - {FEATURES})
    if left_out:
        log.warning(
            "features %s are left out: that format has none but %s", ", ".join(left_out), FEATURES
        )


def _recordings(
    store: Store, labels: dict[str, list[Labels]]
) -> Iterator[tuple[Video, list[Labels]]]:
    """In CalMS21's order of animals and keypoints."""
    m = [store.schema.animals.index(name) for name in CALMS21.animals]
    k = [store.schema.keypoints.index(name) for name in CALMS21.keypoints]
    for record in store.videos:
        video = store.read_video(record["name"])
        features = {name: values for name, values in video.features.items() if name == FEATURES}
        reordered = replace(
            video,
            position_TMKX=video.position_TMKX[:, m][:, :, k],
            confidence_TMK=video.confidence_TMK[:, m][:, :, k],
            features=features,
        )
        yield reordered, labels.get(video.name, [])
