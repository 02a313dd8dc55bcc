"""Forms in which a store leaves, so that nobody's data is locked in: a file each, found by being in
this folder. The file's name, with ``-`` for ``_``, is its name in
``ethoray prepare export --as``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from pretrain.components import find, names
from pretrain.data.store import Store


class AbstractExport(ABC):
    """A kind of files that a store can be written as."""

    description: str
    """A few words for people, in ``--help``."""
    can_zip: bool = False
    """Whether it can write archives instead of folders (``--zipped``)."""

    @abstractmethod
    def write(
        self, store: Store, folder: Path, *, zipped: bool, on_progress: Callable[[int], None]
    ) -> list[str]:
        """Writes the files, all of them or none.

        Args:
            store: What to write.
            folder: Where; new, or without files of this kind.
            zipped: Write archives, where it can.
            on_progress: Called with the frames written since the last call.

        Returns:
            The words of ``ethoray prepare`` that make a store of them again, without ``--out``.

        Raises:
            BadInput: If something is there already, the files cannot be written, or cannot hold
                what is in the store.
        """


def export_formats() -> dict[str, AbstractExport]:
    """All of them by their names in the command."""
    return {
        name.replace("_", "-"): find(__name__, name, AbstractExport)() for name in names(__name__)
    }
