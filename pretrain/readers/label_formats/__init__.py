"""Formats of labels: a file each, found by being in this folder.

A file holds one subclass of :class:`AbstractLabelFormat`; files that begin with an underscore are
shared by several. What formats have in common happens after them, in ``readers/score_sheets.py``.
``tests/test_annotations.py`` and ``tests/test_reader_mutations.py`` list the folder and ask for an
example of each format (``tests/reader_files.py``). CONTRIBUTING.md shows a whole one.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from pretrain.readers.detect import AbstractFormat
from pretrain.readers.score_sheets import ScoreSheet


class AbstractLabelFormat(AbstractFormat):
    """A kind of file with what annotators scored, in one recording or in several."""

    unmistakable: tuple[str, ...] = ()
    """Those of its suffixes that no other kind of file has: such a file in a folder is refused
    where it cannot be read, not passed over."""

    beside_poses: bool = False
    """Whether its files may hold poses as well; others that do are a tracker's."""

    @abstractmethod
    def read(self, path: Path) -> list[ScoreSheet]:
        """What a file says.

        Args:
            path: A file that :meth:`recognise` recognised.

        Returns:
            A score sheet for each recording, and for each subject, channel and annotator in it;
            none where nothing was scored.

        Raises:
            BadInput: If the file is damaged, with the line.
            OSError: If it cannot be read.
        """
