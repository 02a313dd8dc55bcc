"""The folder of a run: made once, resumed after an interruption, never overwritten."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pretrain.errors import BadInput, refuse
from pretrain.redact import redacted, write_json
from pretrain.runs.json_lines import JsonLines

_SETTINGS_FILE, _LOCK_FILE = "run.json", ".lock"
_NOT_SET = object()


@contextmanager
def open_run_folder(out: Path, settings: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
    """A run's folder for as long as the run lasts, locked against a second process; if the run
    leaves nothing in it, it is removed.

    Args:
        out: The run's folder.
        settings: What decides its result; written to ``run.json``.
        resume: Go on with the run that is there.

    Raises:
        BadInput: If something is there and ``resume`` is false, or nothing is there and it is true,
            or the settings differ, or a process that is alive works in it.
    """
    if resume:
        _check_settings(out, settings)
    else:
        _make(out, settings)
    with _locked(out):
        try:
            yield
        except BaseException:
            if not resume and {path.name for path in out.iterdir()} <= {_SETTINGS_FILE, _LOCK_FILE}:
                shutil.rmtree(out)
            raise


def is_locked(out: Path) -> bool:
    """Whether a process that is alive works in a run's folder."""
    if not (out / _LOCK_FILE).exists():
        return False
    try:
        with FileLock(out / _LOCK_FILE, timeout=0):
            return False
    except Timeout:
        return True


def is_whole(out: Path) -> bool:
    """Whether a run came to its end: it has a result, and its log does not leave it open. One that
    was killed after its result may lack its model, its report and what MLflow was to be sent."""
    if not (out / "result.json").is_file():
        return False
    left_open: set[str] = set()
    with suppress(OSError):  # the result of a run that could not write its log counts
        for record in JsonLines(out / "metrics.jsonl").read():
            if record["kind"] == "start" and record["parent"] is None:
                left_open.add(record["run"])
            elif record["kind"] == "status" and record["status"] == "FINISHED":
                left_open.discard(record["run"])
    return not left_open


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """The system frees the lock when the process ends, however it ends."""
    lock = FileLock(out / _LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise BadInput(
            f"another process is at work in {out}: wait until it ends, or stop it, and then pass "
            "--resume"
        ) from None
    try:
        yield
    finally:
        lock.release()


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
        _differences(before, now),
        about=f"--resume: the run at {out} was begun with other settings",
    )


def _differences(before: Any, now: Any, key: str = "") -> list[str]:
    """A sentence for each setting that differs, by its dotted key."""
    if before == now:
        return []
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return [f"{key}: {_short(before)} then, {_short(now)} now"]
    return [
        sentence
        for name in {**before, **now}
        for sentence in _differences(
            before.get(name, _NOT_SET), now.get(name, _NOT_SET), f"{key}.{name}" if key else name
        )
    ]


def _short(value: Any) -> str:
    if value is _NOT_SET:
        return "not set"
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "…"
