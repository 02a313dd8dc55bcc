"""Neurodata Without Borders: bouts as ndx-ethogram has them, probabilities, poses by ndx-pose."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune.inference.prediction_formats import AbstractPredictionFormat
from finetune.metrics.bouts import bouts
from pretrain.readers.score_sheets import LABEL_SET

if TYPE_CHECKING:
    from finetune.inference.ethograms import Ethogram
    from pretrain.readers.tracks import Tracks


class NeurodataWithoutBorders(AbstractPredictionFormat):
    """All is in the behavior module; what no pose supports lies outside the observed intervals."""

    ending = ".nwb"
    requires = ("pynwb", "ndx_pose", "ndx_ethogram")

    def write(self, path: Path, ethogram: Ethogram) -> None:
        """The time of the recording is not known: it begins at the epoch."""
        pynwb, ndx_pose, ndx_ethogram = map(importlib.import_module, self.requires)
        video = ethogram.video.replace("\0", "\N{REPLACEMENT CHARACTER}")  # HDF5 ends text there
        file = pynwb.NWBFile(
            session_description=(
                f"behaviours predicted from tracks of {video}; the time of the recording "
                "is not known"
            ),
            identifier=video,
            session_start_time=datetime(1970, 1, 1, tzinfo=UTC),
        )
        problem, p_TC, fps = ethogram.problem, ethogram.probabilities_TC, ethogram.fps
        module = file.create_processing_module(name="behavior", description="predicted behaviours")
        catalogue = ndx_ethogram.Ethogram(
            name="behaviors",
            description=f"classes of {problem.name}",
            exclusive=not problem.overlapping,
            **_columns(
                pynwb,
                behavior=np.array(problem.classes, "U"),
                definition=np.array(
                    ["none of the others" * (c == problem.rest) for c in problem.classes], "U"
                ),
                behavior_type=np.full(len(problem.classes), "state"),
            ),
        )
        module.add(catalogue)
        links: dict[str, Any] = {"ethogram": catalogue}
        if not ethogram.labelled_T.all():
            runs = bouts(ethogram.labelled_T.astype(np.int8))
            spans = runs[runs[:, 2] == 1, :2] / fps
            links["observation_intervals"] = pynwb.epoch.TimeIntervals(
                name="observed",
                description="where poses support a label",
                **_columns(pynwb, start_time=spans[:, 0], stop_time=spans[:, 1]),
            )
            module.add(links["observation_intervals"])
        if ethogram.tracks is not None:
            animals = _add_poses(module, ethogram.tracks(), fps, ndx_pose)
            if len(animals) == 1:  # there is one such link
                links["source_pose"] = animals[0]
        events = ethogram.events()
        module.add(
            ndx_ethogram.EthogramBouts(
                name="ethogram",
                description=f"bouts of {problem.name}; {LABEL_SET}{problem.task}",
                labeling_method="automated",
                source_software="ethoray",
                **links,
                **_columns(  # typed, so that a recording without a bout has a table too
                    pynwb,
                    start_time=np.array([start / fps for start, _, _ in events], float),
                    stop_time=np.array([stop / fps for _, stop, _ in events], float),
                    label=np.array([name for _, _, name in events], "U"),
                    mean_probability=np.array(
                        [p_TC[a:b, problem.classes.index(name)].mean() for a, b, name in events],
                        float,
                    ),
                ),
            )
        )
        module.add(
            pynwb.TimeSeries(
                name="probabilities",
                data=p_TC.astype(np.float32),
                unit="probability",
                rate=float(fps),
                starting_time=0.0,
                description="columns: " + ", ".join(problem.classes),
            )
        )
        with pynwb.NWBHDF5IO(str(path), "w") as sink:
            sink.write(file)


def _columns(pynwb: Any, **values: Any) -> dict[str, Any]:
    """Columns of a table, by name."""
    columns = [
        pynwb.core.VectorData(name=name, description=name.replace("_", " "), data=data)
        for name, data in values.items()
    ]
    return {"columns": columns, "colnames": list(values)}


def _add_poses(module: Any, tracks: Tracks, fps: float, ndx_pose: Any) -> list[Any]:
    """The tracks as their file has them, an object for each animal."""
    animals, nodes = (
        [_object_name(n) for n in names] for names in (tracks.animals, tracks.keypoints)
    )
    skeleton = ndx_pose.Skeleton(
        name="skeleton",
        nodes=nodes,
        edges=np.array(
            [[tracks.keypoints.index(end) for end in edge] for edge in tracks.edges], np.uint8
        ).reshape(-1, 2),
    )
    module.add(ndx_pose.Skeletons(skeletons=[skeleton]))
    poses = []
    for m, animal in enumerate(animals):
        series = [
            ndx_pose.PoseEstimationSeries(
                name=node,
                description=f"{node} of {animal}",
                data=tracks.position_TMKX[:, m, k],
                unit="pixels",
                reference_frame="the image's upper left corner",
                rate=float(fps),
                starting_time=0.0,
                confidence=tracks.confidence_TMK[:, m, k],
                confidence_definition="as the tracker gives it; 0: missing",
            )
            for k, node in enumerate(nodes)
        ]
        poses.append(
            ndx_pose.PoseEstimation(
                name=animal,
                pose_estimation_series=series,
                description=f"read from {tracks.path.name}",
                skeleton=skeleton,
            )
        )
        module.add(poses[-1])
    return poses


def _object_name(name: str) -> str:
    return name.replace("/", "_").replace(":", "_")
