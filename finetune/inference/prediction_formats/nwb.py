"""Neurodata Without Borders: bouts as time intervals, probabilities as a time series."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.inference.prediction_formats import AbstractPredictionFormat
from finetune.metrics.bouts import bouts
from pretrain.readers.score_sheets import LABEL_SET

if TYPE_CHECKING:
    from finetune.inference.ethograms import Ethogram


class NeurodataWithoutBorders(AbstractPredictionFormat):
    """Intervals and series are in the behavior module; what no pose supports is invalid time."""

    ending = ".nwb"
    requires = "pynwb"

    def write(self, path: Path, ethogram: Ethogram) -> None:
        """The time of the recording is not known: it begins at the epoch."""
        pynwb = importlib.import_module(self.requires)
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
        events = ethogram.events()
        columns = {  # typed, so that a recording without a bout has a table too
            "start_time": np.array([start / fps for start, _, _ in events], float),
            "stop_time": np.array([stop / fps for _, stop, _ in events], float),
            "behavior": np.array([name for _, _, name in events], "U"),
            "mean_probability": np.array(
                [p_TC[a:b, problem.classes.index(name)].mean() for a, b, name in events], float
            ),
        }
        table = pynwb.epoch.TimeIntervals(
            name="ethogram",
            description=f"bouts of {problem.name}; {LABEL_SET}{problem.task}",
            columns=[
                pynwb.core.VectorData(name=name, description=name.replace("_", " "), data=values)
                for name, values in columns.items()
            ],
            colnames=list(columns),
        )
        module.add(table)
        for start, stop, labelled in bouts(ethogram.labelled_T.astype(np.int8)):
            if not labelled:
                file.add_invalid_time_interval(
                    start_time=start / fps, stop_time=stop / fps, tags=["no pose"]
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
