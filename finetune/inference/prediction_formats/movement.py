"""netCDF of movement: poses, with labels and probabilities as coordinates on time (xarray)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from finetune.inference.prediction_formats import AbstractPredictionFormat
from finetune.inference.toolboxes import dataset_of

if TYPE_CHECKING:
    from finetune.inference.ethograms import Ethogram


class Movement(AbstractPredictionFormat):
    """Poses are as the recording's file has them."""

    ending = ".nc"
    requires = ("xarray", "h5netcdf")

    def write(self, path: Path, ethogram: Ethogram) -> None:
        """Missing points are NaN with confidence 0."""
        assert ethogram.tracks is not None
        dataset_of(
            ethogram.tracks(),
            fps=ethogram.fps,
            labels=ethogram.labels,
            probabilities_TC=ethogram.probabilities_TC,
            classes=ethogram.problem.classes,
        ).to_netcdf(path, engine="h5netcdf")
