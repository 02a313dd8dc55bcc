"""What every run is tagged with: which code ran, on what kind of machine. Nothing here names a host
or a person."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import joblib


def _output(*command: str, seconds: float = 5.0) -> str | None:
    """What a command prints, or None if it cannot be run, fails or takes too long."""
    try:
        process = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip() if process.returncode == 0 else None


@cache
def code_tags(root: Path | None = None) -> dict[str, str]:
    """Release, and in a git checkout the commit and whether files differ from it.

    Args:
        root: The checkout; by default the one this file lies in. A folder that merely lies inside
            somebody else's repository has no commit.
    """
    root = root or Path(__file__).resolve().parents[2]
    tags = {"ethoray.version": "unknown"}
    # not installed where it runs from a copied folder, as in a submitted job
    with contextlib.suppress(PackageNotFoundError):
        tags["ethoray.version"] = version("ethoray")
    tags["ethoray.source_hash"] = source_hash(root)
    if not (root / ".git").exists():
        return tags
    commit = _output("git", "-C", str(root), "rev-parse", "--verify", "HEAD")
    if commit is not None:
        # MLflow shows the second name in its Version column.
        tags |= {"ethoray.git_commit": commit, "mlflow.source.git.commit": commit}
        changes = _output("git", "-C", str(root), "status", "--porcelain")
        tags["ethoray.git_dirty"] = "unknown" if changes is None else str(bool(changes)).lower()
    return tags


@cache
def source_hash(root: Path | None = None) -> str:
    """Twelve characters that differ when the project's sources do; for where there is no git."""
    root = root or Path(__file__).resolve().parents[2]
    total = hashlib.sha256()
    for package in ("pretrain", "finetune", "ethoray"):
        for file in sorted((root / package).rglob("*.py")):
            total.update(file.relative_to(root).as_posix().encode() + file.read_bytes())
    return total.hexdigest()[:12]


@cache
def machine_tags() -> dict[str, str]:
    """Cores, memory and accelerators of this machine."""
    cores = joblib.cpu_count()
    memory = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB"
    gpus = (
        _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
        if shutil.which("nvidia-smi")
        else None
    )
    names = [line.strip() for line in (gpus or "").splitlines() if line.strip()]
    accelerators = (
        ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
        or "no accelerator"
    )
    return {"ethoray.machine": f"{cores} cores, {memory} memory, {accelerators}"}
