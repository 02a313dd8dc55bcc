"""Runs that a run's scores should be read against: the same task, data and labels, other encoders
or shifted labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def find_controls(out: Path, result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Results of the runs in the same folder as ``out`` that differ in nothing else: of the same
    task, data, label budget and folds.

    Args:
        out: The run's folder.
        result: Its ``result.json``.

    Returns:
        What each is (``random weights``, ``hand-made features``, ``labels shifted in time``) and
        its ``result.json``; of several alike the latest.
    """
    found: dict[str, dict[str, Any]] = {}
    files = [path for path in out.parent.glob("*/result.json") if path.parent != out]
    for path in sorted(files, key=lambda path: path.stat().st_mtime):
        try:
            other = json.loads(path.read_text(encoding="utf-8"))
            if _setting(other) == _setting(result) and _kind(other) != _kind(result):
                found[_kind(other)] = other
        except (ValueError, KeyError, TypeError):
            continue  # of another command, or not finished
    return found


def _setting(result: Mapping[str, Any]) -> list[Any]:
    """What scores must share to be compared."""
    same = [result[key] for key in ("task", "fingerprint", "test_data", "videos", "refines")]
    minutes = (result.get("budget") or {}).get("minutes")  # earlier versions had none
    return [*same, minutes, len(result.get("folds") or ())]


def _kind(result: Mapping[str, Any]) -> str:
    if result["settings"]["tuning"]["permute_labels"]:
        return "labels shifted in time"
    return str(result["encoder"]["kind"])
