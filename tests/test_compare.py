"""The comparison's command line; encoders side by side: one table of runs as `finetune/run.py`
makes them, never computed twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import finetune.compare
import finetune.run
from finetune.compare_objectives import finished_encoders
from pretrain.errors import BadInput
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
    assert (out / "table.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(
        finetune.run,
        "main",
        lambda words: pytest.fail("what is there already is not computed again"),
    )
    finetune.compare.main(words)
    assert (out / "table.md").read_text(encoding="utf-8") == table


SCORES = {
    "macro_f1": 0.5,
    "macro_f1_std": 0.01,
    "map": 0.6,
    "map_std": 0.02,
    "chance_map": 0.25,
}


def test_a_table_has_a_line_an_encoder_and_a_column_a_budget(tmp_path: Path) -> None:
    rows = [
        {
            "task": task,
            "videos": videos,
            "encoder": encoder,
            "mode": "frozen",
            "folder": "f",
            **SCORES,
            "encoder_saw_test": {("mine", "S1"): 0.5, ("mine", "S2"): None}.get(
                (encoder, task), 0.0
            ),
        }
        for task in ("S1", "S2")
        for videos in ("1", "all")
        for encoder in ("mine", "random weights")
    ]
    finished_encoders.write_table(tmp_path, rows[:-1])
    lines = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[5::2] == [""] * 2
    assert lines[6].startswith("mine, S1: transductive: ")
    assert "50% of the test videos" in lines[6]
    assert lines[8].startswith("mine, S2: ")
    assert "may be transductive" in lines[8]
    assert [line.split("|")[1].strip() for line in lines[:5]] == [
        "encoder",
        "---",
        "mine",
        "random weights",
        "chance",
    ]
    assert "| S1, 1 video | S1, all videos | S2, 1 video |" in lines[0]
    assert lines[2].count("0.500 ± 0.010 / 0.600 ± 0.020") == 4
    assert lines[3].count("0.500 ± 0.010 / 0.600 ± 0.020") == 3
    assert lines[4].count("- / 0.250") == 4


@pytest.mark.ray
def test_encoders_of_one_name_are_told_by_their_folders_and_never_taken_for_each_other(
    ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuned = []

    def run(words: list[str]) -> None:
        options = dict(zip(words[::2], words[1::2], strict=True))
        tuned.append(options["--encoder"])
        folder = Path(options["--out"])
        folder.mkdir(parents=True)
        about = {"kind": "pretrained", "folder": paths.absolute_address(options["--encoder"])}
        score = 0.1 * len(tuned)
        result = {**SCORES, "map": score, "encoder": about}
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")

    monkeypatch.setattr(finetune.run, "main", run)
    out = tmp_path / "out"
    words = ["--tasks", "S1", "--out", str(out), "--encoders"]
    finetune.compare.main([*words, "runs/a/final", "runs/b/final"])
    assert tuned == ["runs/a/final", "runs/b/final"]
    table = (out / "table.md").read_text(encoding="utf-8")
    assert "| a-final | frozen | 0.500 ± 0.010 / 0.100 ± 0.020 |" in table
    assert "| b-final | frozen | 0.500 ± 0.010 / 0.200 ± 0.020 |" in table

    finetune.compare.main([*words, "runs/a/final"])
    with pytest.raises(BadInput, match=r"holds the encoder .*runs/a/final, not runs/b/final"):
        finetune.compare.main([*words, "runs/b/final"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "give either --encoders"),
        ("--encoders none --recipes masked", "give either --encoders"),
        ("--encoders none --minutes 2", "--minutes goes with --recipes or --networks"),
        ("--encoders none --seeds 2 --set a.b=c", "--seeds goes with .*\n.*--set goes with"),
        ("--recipes masked --modes frozen", "--modes goes with --encoders"),
        ("--networks tcn --frozen-set steps=2", "--frozen-set goes with --encoders"),
        ("--encoders none --videos 0", "--videos 0: give a number"),
        ("--encoders none --videos some", "--videos some: give a number"),
        ("--encoders handmade --modes trained", "no weights to train"),
        ("--recipes masked --videos 1 3", "--videos 1 3: --recipes and --networks take one"),
        ("--networks tcn --tasks S1 S2", "--tasks S1 S2: --recipes and --networks take one"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        finetune.compare.parse(["--tasks", "S1", *words.split()])


def test_recipes_or_networks_alone_take_the_usual_ones_for_the_other() -> None:
    for words, recipes, networks in (
        (["--recipes", "masked"], ["masked"], finetune.compare.NETWORKS),
        (["--networks", "tcn"], finetune.compare.RECIPES, ["tcn"]),
        (["--recipes"], finetune.compare.RECIPES, finetune.compare.NETWORKS),
    ):
        args = finetune.compare.parse(["--task", "S1", *words])
        assert (args.recipes, args.networks) == (recipes, networks)
        assert (args.minutes, args.seeds, args.videos) == (1.0, 3, ["all"])
