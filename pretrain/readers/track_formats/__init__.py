"""Formats of tracks: a file each, found by being in this folder.

A file holds one subclass of :class:`AbstractTrackFormat`; files that begin with an underscore are
shared by several. ``tests/test_trackers.py`` and ``tests/test_reader_mutations.py`` list the folder
and ask for an example of each format (``tests/reader_files.py``).
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from pretrain.readers.detect import AbstractFormat
from pretrain.readers.tracks import Tracks


class AbstractTrackFormat(AbstractFormat):
    """A kind of file with the tracks of one recording."""

    @abstractmethod
    def read(self, path: Path, *, names_only: bool = False) -> Tracks:
        """Reads one file.

        Args:
            path: A file that :meth:`recognise` recognised.
            names_only: Read animals, keypoints and rate, and no frames
                (:func:`pretrain.readers.tracks.no_frames`): all files of a folder are looked
                through so before any is read.

        Returns:
            What the file says, numbers checked by :func:`pretrain.readers.tracks.clean_points`.

        Raises:
            BadInput: If the file is damaged or ambiguous, with line or frame. Files come from
                strangers: nothing in them may be run, and no size that they state be believed.
            OSError: If it cannot be read.
        """
