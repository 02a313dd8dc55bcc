"""Default folders, and paths that mean the same in every process."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from pretrain.errors import BadInput

log = logging.getLogger(__name__)

DEFAULT_FRAMES = 60_000


def is_submitted_job() -> bool:
    """Whether this is the driver of a submitted Ray job, whose working folder is thrown away."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def base() -> Path:
    """The folder that relative paths start from: the current one; in a submitted job
    ``$ETHORAY_HOME`` or ~/ethoray."""
    if home := os.environ.get("ETHORAY_HOME"):
        return Path(home).expanduser().absolute()
    return Path.home() / "ethoray" if is_submitted_job() else Path.cwd()


def run_folder(out: str | None, *, kind: str) -> Path:
    """The folder of a run.

    Args:
        out: What ``--out`` says; None makes a name of the kind and the time, under runs/.
        kind: Names the run.
    """
    folder = base() / (out or f"runs/{kind}-{datetime.now():%Y%m%d-%H%M%S}")
    if is_submitted_job():
        log.info(
            "this is a submitted job, its working folder is thrown away: results go to %s", folder
        )
    return folder


def absolute_address(address: str) -> str:
    """A folder or address that means the same in every process."""
    return address if "://" in address else str(base() / Path(address).expanduser())


def default_store() -> str:
    """The embedded default: a small simulated arena, made on first use and cached."""
    cache = Path(
        os.environ.get("ETHORAY_CACHE")
        or os.environ.get("XDG_CACHE_HOME")
        or Path.home() / ".cache"
    )
    store = cache / "ethoray" / f"arena-{DEFAULT_FRAMES}"
    if (store / "store.json").is_file():
        return str(store)
    log.info(
        "no --data: making the default, %s frames of simulated mice, in %s",
        f"{DEFAULT_FRAMES:,}",
        store,
    )
    unfinished = store.with_name(f"{store.name}.{os.getpid()}")
    # Another process, so that nothing which trains ever has the labels' code in reach.
    command = [
        sys.executable,
        str(Path(__file__).parents[1] / "prepare.py"),
        "arena",
        "--out",
        str(unfinished),
        "--frames",
        str(DEFAULT_FRAMES),
    ]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise BadInput(
            f"the default store could not be made in {store}: {process.stderr.strip()[-500:]}"
        )
    try:
        unfinished.replace(store)
    except OSError:  # somebody else was first
        shutil.rmtree(unfinished, ignore_errors=True)
    return str(store)
