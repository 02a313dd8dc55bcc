"""Encoders side by side: one table of runs as `finetune/run.py` makes them, never computed
twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import finetune.compare
import finetune.run
from finetune.compare import write
from pretrain.runs import paths


@pytest.mark.ray
@pytest.mark.slow
def test_a_comparison_is_a_table_of_runs(
    ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "compared"
    words = [
        "--data",
        paths.default_store(),
        "--tasks",
        "classic_classification",
        "--encoders",
        "handmade",
        "--videos",
        "1",
        "--modes",
        "frozen",
        "permuted",
        "trained",
        "--out",
        str(out),
        "--frozen-set",
        "trials=1",
        "seeds=1",
        "steps=40",
        "postprocess_folds=0",
    ]
    finetune.compare.main(words)
    with (out / "table.csv").open(encoding="utf-8") as file:
        rows = {row["mode"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"frozen", "permuted"}, "hand-made features have no weights to train"
    for mode, row in rows.items():
        result = json.loads((out / row["folder"] / "result.json").read_text(encoding="utf-8"))
        assert float(row["map"]) == result["map"]
        assert result["settings"]["tuning"]["permute_labels"] is (mode == "permuted")
        assert result["videos"] == 1
    assert float(rows["permuted"]["map"]) < float(rows["frozen"]["map"])
    table = (out / "table.md").read_text(encoding="utf-8")
    assert f"{float(rows['frozen']['map']):.3f}" in table
    assert "chance" in table

    monkeypatch.setattr(
        finetune.run,
        "main",
        lambda words: pytest.fail("what is there already is not computed again"),
    )
    finetune.compare.main(words)
    assert (out / "table.md").read_text(encoding="utf-8") == table


def test_a_table_has_a_line_an_encoder_and_a_column_a_budget(tmp_path: Path) -> None:
    score = {
        "macro_f1": 0.5,
        "macro_f1_std": 0.01,
        "map": 0.6,
        "map_std": 0.02,
        "chance_map": 0.25,
        "folder": "f",
    }
    rows = [
        {"task": task, "videos": videos, "encoder": encoder, "mode": "frozen", **score}
        for task in ("S1", "S2")
        for videos in ("1", "all")
        for encoder in ("mine", "random weights")
    ]
    write(tmp_path, rows[:-1])
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert [line.split("|")[1].strip() for line in lines] == [
        "encoder",
        "---",
        "mine",
        "random weights",
        "chance",
    ]
    assert lines[2].count("0.500 ± 0.010 / 0.600 ± 0.020") == 4
    assert lines[3].count("0.500 ± 0.010 / 0.600 ± 0.020") == 3
    assert lines[4].count("0.250") == 4
