"""Runs that are resumed with other settings, and commands under a locale of ASCII."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain.errors import BadInput
from pretrain.runs.folder import is_whole, open_run_folder
from pretrain.runs.json_lines import JsonLines


def test_resuming_names_each_setting_that_changed(tmp_path: Path) -> None:
    def settings(lr: float, encoder: dict[str, Any], **others: Any) -> dict[str, Any]:
        optimiser = {"lr": lr, "weight_decay": 0.01}
        recipe = {"batch": 8, "optimiser": optimiser, "augment": {"padding": "x" * 300}}
        return {"recipe": {**recipe, "encoder": encoder}, "fingerprint": "ab", **others}

    out = tmp_path / "run"
    before = settings(0.001, {"name": "tcn", "width": 64}, leave_out=["m1"])
    with open_run_folder(out, before, resume=False):
        (out / "weights").touch()
    with open_run_folder(out, before, resume=True):
        pass
    changed = settings(0.002, {"name": "tcn", "depth": None})
    with pytest.raises(BadInput) as refused, open_run_folder(out, changed, resume=True):
        pass
    head, *lines = str(refused.value).splitlines()
    assert "begun with other settings" in head
    assert lines == [
        "  - recipe.optimiser.lr: 0.001 then, 0.002 now",
        "  - recipe.encoder.width: 64 then, not set now",
        "  - recipe.encoder.depth: not set then, null now",
        '  - leave_out: ["m1"] then, not set now',
    ]


@pytest.mark.parametrize("module", ["pretrain.prepare", "ethoray"])
def test_paths_beyond_ascii_work_under_the_c_locale(tmp_path: Path, module: str) -> None:
    """With UTF-8 mode switched off by hand, too."""
    poses, store = tmp_path / "Mäuse" / "m é.npz", tmp_path / "Käfig"
    poses.parent.mkdir()
    x = np.random.default_rng(0).uniform(0, 100, (40, 1, 3, 2)).astype(np.float32)
    np.savez(poses, position=x, animals=["a"], keypoints=["nose", "neck", "tail"])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONIOENCODING"}
    words = ["tracks", "--poses", str(poses), "--fps", "30", "--out", str(store)]
    finished = subprocess.run(
        [sys.executable, "-m", module, *(["prepare"] if module == "ethoray" else []), *words],
        env=environment | {"LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert finished.returncode == 0, finished.stderr.decode("utf-8", "replace")
    assert '"name": "m \\u00e9"' in (store / "store.json").read_text(encoding="utf-8")
    assert "Käfig" in finished.stdout.decode("utf-8") + finished.stderr.decode("utf-8")


@pytest.mark.parametrize(
    ("ends", "whole"), [([], False), (["KILLED"], False), (["KILLED", "FINISHED"], True)]
)
def test_a_run_is_whole_when_its_log_says_so(tmp_path: Path, ends: list[str], whole: bool) -> None:
    """A kill after the result leaves a run without its model, report and end in MLflow."""
    assert not is_whole(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    assert is_whole(tmp_path), "a run whose log could not be written"
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.append({"kind": "start", "run": "a", "parent": None})
    log.append({"kind": "start", "run": "b", "parent": "a"})
    log.append({"kind": "status", "run": "b", "status": "FINISHED"})
    for end in ends:
        log.append({"kind": "status", "run": "a", "status": end})
    assert is_whole(tmp_path) == whole
