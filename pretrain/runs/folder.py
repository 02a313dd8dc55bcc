"""The folder of a run: made once, resumed after an interruption, never overwritten."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pretrain.errors import BadInput, refuse
from pretrain.redact import redacted, write_json

_SETTINGS_FILE = "run.json"


@contextmanager
def open_run_folder(out: Path, settings: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """A run's folder for as long as the run lasts; if the run leaves nothing in it, it is removed.

    Args:
        out: The run's folder.
        settings: What decides its result; written to ``run.json``.
        resume: Go on with the run that is there.

    Raises:
        BadInput: If something is there and ``resume`` is false, or nothing is there and it is true,
            or the settings differ.
    """
    if resume:
        _check_settings(out, settings)
        yield
        return
    _make(out, settings)
    try:
        yield
    except BaseException:
        if out.is_dir() and {path.name for path in out.iterdir()} <= {_SETTINGS_FILE}:
            (out / _SETTINGS_FILE).unlink(missing_ok=True)
            out.rmdir()
        raise


def _make(out: Path, settings: Mapping[str, Any]) -> None:
    file = out / _SETTINGS_FILE
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if file.is_file():
            raise BadInput(
                f"{out} already holds a run: pass --resume to go on with it, or choose another "
                "--out"
            )
        raise BadInput(f"{out} already holds something: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(file, {"settings": settings})


def _check_settings(out: Path, settings: Mapping[str, Any]) -> None:
    file = out / _SETTINGS_FILE
    try:
        before = json.loads(file.read_text(encoding="utf-8"))["settings"]
    except FileNotFoundError:
        raise BadInput(f"--resume: there is no run at {out}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"--resume: {file} is damaged: {error!r}") from error
    now = json.loads(json.dumps(redacted(settings)))
    refuse(
        [
            f"{key}: {_short(before.get(key))} then, {_short(now.get(key))} now"
            for key in {**before, **now}
            if before.get(key) != now.get(key)
        ],
        about=f"--resume: the run at {out} was begun with other settings",
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "…"
