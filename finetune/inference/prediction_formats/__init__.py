"""Formats that predictions are written in. One file each, found by being here; its name is its name
in ``predict.py --format`` and the folder that its files go to.

The rest class (``other``, ``base``) has no events in formats that mark only what they name.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pretrain.components import find
from pretrain.errors import BadInput

if TYPE_CHECKING:
    from finetune.inference.ethograms import Ethogram


class AbstractPredictionFormat(ABC):
    """A file (or folder) for each video. ``--help`` shows the first line of the docstring of the
    format's file.

    What ``ethoray prepare tracks --labels`` reads back must come back frame by frame, which a
    test holds.
    """

    ending: ClassVar[str]
    """Of the file's name, ``.csv``."""
    requires: ClassVar[tuple[str, ...]] = ()
    """Modules that it needs of the extra ``trackers``."""

    @abstractmethod
    def write(self, path: Path, ethogram: Ethogram) -> None:
        """Writes the labels of one video in one problem."""


def prediction_formats(chosen: Iterable[str]) -> dict[str, AbstractPredictionFormat]:
    """Formats by the names of their files.

    Raises:
        BadInput: If there is no such format (lists those there are), or a package that it needs is
            missing.
    """
    formats: dict[str, AbstractPredictionFormat] = {
        name: find(__name__, name, AbstractPredictionFormat)() for name in chosen
    }
    for name, one in formats.items():
        for module in one.requires:
            try:
                importlib.import_module(module)
            except ImportError as error:
                raise BadInput(
                    f"--format {name} needs {module}: pip install 'ethoray[trackers]'"
                ) from error
    return formats
