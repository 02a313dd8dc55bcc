"""What a model's card says is what its run measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from worlds import MICE

from finetune.report.controls import find_controls
from finetune.report.model_card import model_card


def result(kind: str = "pretrained", **changes: Any) -> dict[str, Any]:
    scores = {"macro_f1": 0.7512, "macro_f1_std": 0.0123, "map": 0.8, "map_std": 0.02}
    one = {
        **{
            f"{key}{end}": 0.5
            for key in ("f1", "ap", "precision", "recall")
            for end in ("", "_std")
        },
        "prevalence": 0.1,
        "frames": 12,
    }
    values = {
        "task": "S1",
        "refines": None,
        **scores,
        "chance_map": 0.0987,
        "per_class": {"sniff": one},
        "per_seed": [{"seed": 1}, {"seed": 2}],
        "notes": ["few labels"],
        "encoder": {"kind": kind},
        "encoder_saw_test": 0.0,
        "frozen": True,
        "videos": 3,
        "budget": {"videos": 3, "minutes": None},
        "folds": None,
        "fingerprint": "abc",
        "test_data": "store",
        "settings": {
            "chosen": {"head": {"name": "linear"}},
            "tuning": {"permute_labels": False},
        },
    }
    return values | changes


def card(values: dict[str, Any], **controls: dict[str, Any]) -> str:
    return model_card("mine", values, MICE, origin="our cage", controls=controls)


def test_the_front_matter_and_the_tables_hold_the_scores_beside_their_controls() -> None:
    text = card(result(), random=result("random weights", macro_f1=0.4321))
    front = yaml.safe_load(text.split("---\n")[1])
    (model,) = front["model-index"]
    assert [m["value"] for m in model["results"][0]["metrics"]] == [0.7512, 0.8]
    assert model["results"][0]["dataset"]["name"] == "our cage"
    assert front["license"] == "unknown"
    for said in ("0.751 ± 0.012", "0.432", "0.099", "30 frames", "3 labelled videos", "few labels"):
        assert said in text, said
    assert all(name in text for name in (*MICE.animals, *MICE.keypoints))


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "inductive"), (0.5, "transductive: the encoder was pretrained on the poses (not the "
    "labels) of 50%"), (None, "may be transductive")],
)  # fmt: skip
def test_it_says_whether_the_encoder_saw_the_test_videos(share: float | None, said: str) -> None:
    text = card(result(encoder_saw_test=share))
    assert said in text
    assert ("inductive: the encoder never" in text) == (share == 0.0)
    assert "no run with random weights" in text


def test_controls_are_the_latest_runs_alike_in_all_but_one_thing(tmp_path: Path) -> None:
    shifted = {"chosen": {}, "tuning": {"permute_labels": True}}
    runs = {
        "mine": result(),
        "again": result(map=0.1),
        "old": result("random weights", map=0.2),
        "new": result("random weights", map=0.3),
        "shifted": result(settings=shifted, map=0.4),
        "other budget": result("hand-made features", videos=9),
        "minutes": result("hand-made features", budget={"videos": 3, "minutes": 10.0}),
        "folds": result("hand-made features", folds={"1": {}, "2": {}}),
        "other data": result("hand-made features", fingerprint="xyz"),
        "no finetune": {"loss": 1},
    }
    for age, (name, values) in enumerate(runs.items()):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "result.json"
        file.write_text(json.dumps(values))
        os.utime(file, (age, age))
    found = find_controls(tmp_path / "mine", runs["mine"])
    assert {kind: one["map"] for kind, one in found.items()} == {
        "random weights": 0.3,
        "labels shifted in time": 0.4,
    }


def test_it_says_what_was_labelled_and_how_scores_came_about() -> None:
    minutes = {"videos": None, "minutes": 10.0}
    assert "10 labelled minutes as clips" in card(result(videos=None, budget=minutes))
    everything = {"videos": None, "budget": {"videos": None, "minutes": None}}
    assert "all labelled training videos" in card(result(**everything))
    folds = card(result(**everything, folds={"1": {}, "2": {}}))
    assert "all labelled videos" in folds
    assert "Scores of a cross-validation" in folds
