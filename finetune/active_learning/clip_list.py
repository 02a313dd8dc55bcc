"""The list of clips that a command writes, and where it goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pretrain.errors import BadInput
from pretrain.runs import paths


def free_path(out: str | None, kind: str, *endings: str) -> Path:
    """Where the list goes: ``out``, or a name of the kind and the time.

    Raises:
        BadInput: If it, or what is written next to it with one of ``endings``, is there.
    """
    path = paths.run_folder(out or None, kind=kind)
    path = path if path.suffix == ".csv" else path.with_name(f"{path.name}.csv")
    for one in (path, *(path.with_name(path.stem + ending) for ending in endings)):
        if one.exists():
            raise BadInput(f"{one} is there already: choose another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def frame_columns(start: int, stop: int, fps: float) -> dict[str, Any]:
    """The columns that say where in its video a clip lies, ``stop`` being the frame after it."""
    return {
        "first_frame": start,
        "last_frame": stop - 1,
        "start_s": f"{start / fps:.3f}",
        "stop_s": f"{stop / fps:.3f}",
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the list, whole or not at all."""
    from finetune.report.tables import write_csv

    unfinished = path.with_name(f".{path.name}.unfinished")
    write_csv(unfinished, rows)
    unfinished.replace(path)
