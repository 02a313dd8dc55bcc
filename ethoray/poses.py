"""Poses from a store or a tracker's file, and their features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.errors import BadInput

if TYPE_CHECKING:
    import numpy.typing as npt

    from pretrain.data.schema import Float, Schema
    from pretrain.data.store import Store
    from pretrain.readers.tracks import Tracks

# Imports stand in the functions, so that `import ethoray` and `ethoray --help` need not wait.


def open_store(address: str | Path) -> Store:
    """Opens a pose store.

    ``store.schema`` has the names of animals and keypoints, the frame rate and the image size;
    ``store.videos`` lists the videos; ``store.read_video(name)`` reads one: ``position_TMKX`` (T,
    M, K, X) in pixels, NaN = missing, ``confidence_TMK`` (T, M, K) from 0 to 1, both float32, and
    ``features``, the external features by name, each (T, D).

    Args:
        address: A folder, or an address such as ``s3://bucket/store``.

    Raises:
        BadInput: If there is no store, or it is damaged.
    """
    from pretrain.data.store import Store

    return Store(address if "://" in str(address) else Path(address).expanduser())


def read_tracks(
    path: str | Path,
    *,
    fps: float | None = None,
    keypoints: Mapping[str, str] | None = None,
    animals: Mapping[str, str] | None = None,
    scale: float = 1.0,
    like: Schema | None = None,
) -> Tracks:
    """Reads one tracker's file: DeepLabCut, SLEAP, NWB, JABS or npz, told apart by content.

    Args:
        path: The file.
        fps: Frames per second of the recording; left out: what the file says.
        keypoints: New names by old ones; the others keep theirs.
        animals: The same for animals.
        scale: Positions are multiplied by it.
        like: Schema of a store, encoder or model. Animals and keypoints are put into its order
            (others are dropped), and the frames are resampled to its rate.

    Returns:
        Tracks with ``position_TMKX`` (T, M, K, X) in pixels, NaN = missing, ``confidence_TMK`` (T,
        M, K) from 0 to 1, both float32, and ``animals``, ``keypoints``, ``fps``, ``name``.

    Raises:
        BadInput: If the file is of no known format or damaged, or lacks a name of ``like``.
    """
    from pretrain.readers import find_tracks, tracks

    recording = find_tracks.read_tracks(Path(path).expanduser())
    recording = tracks.rename(recording, keypoints or {}, of="keypoints")
    recording = tracks.rename(recording, animals or {}, of="animals")
    recording = tracks.scale(replace(recording, fps=fps or recording.fps), scale)
    if like is None:
        return recording
    recording = tracks.conform(recording, animals=like.animals, keypoints=like.keypoints)
    return tracks.resample(recording, like.fps)


def schema(
    *,
    animals: Sequence[str],
    keypoints: Sequence[str],
    fps: float,
    image_px: Sequence[float],
) -> Schema:
    """What arrays mean that come from no file: names in the order of axes M and K.

    Bones, left/right pairs and the body axis are read off the names of the keypoints.

    Args:
        animals: Names.
        keypoints: Names.
        fps: Frames per second.
        image_px: Width and height of the image in pixels.

    Raises:
        BadInput: If a name is empty or repeated, or a number is not positive.
    """
    from pretrain.data.schema import Schema

    return Schema.from_names(animals=animals, keypoints=keypoints, fps=fps, image_px=image_px)


def schema_of(tracks: Tracks) -> Schema:
    """The schema of tracks that were read from a file.

    Raises:
        BadInput: If neither the file nor ``read_tracks(…, fps=…)`` says the frame rate.
    """
    from pretrain.readers import tracks as readers

    if tracks.fps is None:
        raise BadInput(f"{tracks.path} does not say its frame rate: read_tracks(…, fps=30)")
    return readers.schema_of(tracks, fps=tracks.fps, extents=[readers.extent_px(tracks)])


def features(
    position_TMKX: npt.ArrayLike,
    confidence_TMK: npt.ArrayLike | None = None,
    *,
    schema: Schema,
    groups: Sequence[str] = ("posture", "motion", "relation", "distances", "confidence"),
    lags: Sequence[int] = (2, 8, 24),
) -> tuple[list[str], Float]:
    """The hand-made features that encoders read, before they are standardised.

    Args:
        position_TMKX: (T, M, K, X) in pixels, NaN = missing.
        confidence_TMK: (T, M, K) from 0 to 1; left out: 1 wherever there is a position.
        schema: Of a store, an encoder or tracks.
        groups: posture, motion, relation, distances, scene, place, interaction,
            social, confidence.
        lags: Even numbers of frames over which motion is measured.

    Returns:
        The names of the F features, and their values, (T, F) float32, NaN = unknown.

    Raises:
        BadInput: If the arrays do not fit the schema, a group or lag is unknown, or no animal is
            ever seen well enough to tell where its body points.
    """
    from pretrain.data.arrays import as_frames
    from pretrain.train.embed_video import as_pose
    from pretrain.transforms.feature_names import feature_names
    from pretrain.transforms.features import Features

    frames = as_frames(position_TMKX, confidence_TMK, schema=schema)
    pose = as_pose({name: values.unsqueeze(0) for name, values in frames.items()})
    compute = Features(schema, groups=groups, lags=lags)
    compute.fit(pose)
    return feature_names(compute), compute.raw(pose)[0].contiguous().numpy()
