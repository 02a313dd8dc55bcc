"""The folder of a run: begun once, gone on with after an interruption, never overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pretrain.errors import BadInput, refuse

_ABOUT = "run.json"


@contextmanager
def begun(out: Path, settings: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """A run's folder for as long as the run lasts; if it ends with nothing to keep, no folder
    stays.

    Raises:
        BadInput: As :func:`begin`.
    """
    begin(out, settings, resume=resume)
    try:
        yield
    except BaseException:
        if not resume:
            discard_if_empty(out)
        raise


def begin(out: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Begins a run in a folder, or finds the one that was interrupted there.

    Args:
        out: The run's folder.
        settings: What decides its result; kept as ``run.json``.
        resume: Go on with a run that is there.

    Raises:
        BadInput: If something is there and ``resume`` is false, or nothing is there and it is true,
            or the settings differ.
    """
    about = out / _ABOUT
    if not resume:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            what, way = (
                ("a run", "pass --resume to go on with it, or ")
                if about.is_file()
                else ("something", "")
            )
            raise BadInput(f"{out} already holds {what}: {way}choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        about.write_text(
            json.dumps({"settings": dict(settings)}, indent=1) + "\n", encoding="utf-8"
        )
        return
    try:
        before = json.loads(about.read_text(encoding="utf-8"))["settings"]
    except FileNotFoundError:
        raise BadInput(f"--resume: there is no run at {out}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"--resume: {about} is damaged: {error!r}") from error
    now = json.loads(json.dumps(dict(settings)))
    refuse(
        [
            f"{key}: {_short(before.get(key))} then, {_short(now.get(key))} now"
            for key in {**before, **now}
            if before.get(key) != now.get(key)
        ],
        about=f"--resume: the run at {out} was begun with other settings",
    )


def discard_if_empty(out: Path) -> None:
    """Removes the folder of a run that failed before it had anything to keep."""
    if out.is_dir() and {path.name for path in out.iterdir()} <= {_ABOUT}:
        (out / _ABOUT).unlink(missing_ok=True)
        out.rmdir()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "…"
