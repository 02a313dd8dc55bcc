"""Writes ``report.html`` from what lies in a run's folder, so that it can be written again."""

from __future__ import annotations

import logging
from pathlib import Path

from finetune.report.page.of_predictions import prediction_sections
from finetune.report.page.of_scores import score_sections
from finetune.report.page.section import render
from pretrain.errors import BadInput

log = logging.getLogger(__name__)


def try_report(out: Path) -> Path | None:
    """As :func:`write_report`, at the end of a run, which is whole without it: an error is a
    warning."""
    try:
        return write_report(out)
    except Exception as error:
        log.warning("report.html cannot be written: %s: %s", type(error).__name__, error)
        return None


def write_report(out: Path) -> Path:
    """Writes ``report.html`` of a run of ``finetune`` or ``predict``, and returns its path.

    Raises:
        BadInput: If the folder holds no such run.
    """
    if (out / "predict.json").is_file():
        sections = prediction_sections(out)
    elif (out / "predictions").is_dir() and (out / "result.json").is_file():
        sections = score_sections(out)
    else:
        raise BadInput(f"{out} is no finished run: give the --out folder of finetune or predict")
    path = out / "report.html"
    path.write_text(render(out.name, sections), encoding="utf-8")
    return path
