"""Neurodata Without Borders: bouts as time intervals, probabilities as a time series."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finetune.inference.prediction_formats import AbstractPredictionFormat

if TYPE_CHECKING:
    from finetune.inference.ethograms import Ethogram


class NeurodataWithoutBorders(AbstractPredictionFormat):
    """Intervals and series are in the behavior module."""

    ending = ".nwb"
    requires = "pynwb"

    def write(self, path: Path, ethogram: Ethogram) -> None:
        """The time of the recording is not known: it begins at the epoch."""
        pynwb = importlib.import_module(self.requires)
        file = pynwb.NWBFile(
            session_description=(
                f"behaviours predicted from tracks of {ethogram.video}; the time of the recording "
                "is not known"
            ),
            identifier=ethogram.video,
            session_start_time=datetime(1970, 1, 1, tzinfo=UTC),
        )
        problem, p_TC, fps = ethogram.problem, ethogram.probabilities_TC, ethogram.fps
        module = file.create_processing_module(name="behavior", description="predicted behaviours")
        table = pynwb.epoch.TimeIntervals(name="ethogram", description=f"bouts of {problem.name}")
        table.add_column(name="behavior", description="what is shown")
        table.add_column(name="mean_probability", description="mean over the frames of the bout")
        for start, stop, name in ethogram.events():
            table.add_row(
                start_time=start / fps,
                stop_time=stop / fps,
                behavior=name,
                mean_probability=float(p_TC[start:stop, problem.classes.index(name)].mean()),
            )
        module.add(table)
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
