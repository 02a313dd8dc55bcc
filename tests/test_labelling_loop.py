"""The labelling loop of docs/labelling_loop.md: train, suggest, label, give back, train again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import finetune.run
import finetune.suggest
from finetune.labels.frame_labels import Ints
from finetune.labels.problems import problems
from finetune.metrics.bouts import bouts
from pretrain import prepare
from pretrain.arena.plan import recordings
from pretrain.arena.write import write_arena
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.readers.annotations import UNLABELLED, labels_by_video, write_labels
from pretrain.readers.score_sheets import CLIP

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TASK = "classic_classification"
CLASSES = ("attack", "investigation", "mount", "other")


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Ints]]:
    """A store in which one training video is labelled, and what its mice really do."""
    folder = tmp_path_factory.mktemp("arena")
    write_arena(str(folder / "whole"), plan=recordings(20_000, 0))
    whole = Store(folder / "whole")
    labels = [one for each in labels_by_video(whole).values() for one in each if one.task == TASK]
    first = next(one.video for one in labels if one.split == "train")
    with StoreWriter(folder / "store", whole.schema, origin="simulated mice") as writer:
        for one in labels:
            writer.add(whole.read_video(one.video))
        write_labels(writer, [one for one in labels if one.split == "test" or one.video == first])
    return folder, {one.video: one.frames for one in labels}


def train(store: Path, out: Path) -> float:
    settings = ["--set", "head={name: logistic}", "--set", "postprocess_folds=0"]
    given = ["--task", TASK, "--data", str(store), "--out", str(out)]
    finetune.run.main([*given, "--trials", "1", "--seeds", "1", *settings])
    result = json.loads((out / "result.json").read_text())
    return float(result["macro_f1"] + result["map"]) / 2


def label(project: Path, truth: dict[str, Ints]) -> int:
    """Does what a person does in BORIS: takes the guesses out of the clips and marks what is there;
    returns the frames looked at."""
    content = json.loads(project.read_text())
    frames = 0
    for video, observation in content["observations"].items():
        clips = [event for event in observation["events"] if event[2] == CLIP]
        marked = list(clips)
        for start, stop in zip(clips[::2], clips[1::2], strict=True):
            frames += stop[5] - start[5]
            for begin, end, c in bouts(truth[video][start[5] : stop[5]]).tolist():
                if CLASSES[c] != "other":
                    edges = [(start[5] + edge) / 30 for edge in (begin, end)]
                    marked += [[time, "", CLASSES[c], "", "", 0] for time in edges]
        observation["events"] = marked
    project.write_text(json.dumps(content))
    return frames


def test_two_rounds_raise_the_score(
    ray_here: None, truth: tuple[Path, dict[str, Ints]], tmp_path: Path
) -> None:
    folder, shown = truth
    store = folder / "store"
    scores = [train(store, tmp_path / "round0")]
    for turn in (1, 2):
        out = tmp_path / f"next{turn}.csv"
        before = labelled(store)
        words = ["--model", str(tmp_path / f"round{turn - 1}"), "--data", str(store)]
        finetune.suggest.main([*words, "--number", "12", "--out", str(out)])
        looked_at = label(out.with_suffix(".boris"), shown)
        prepare.main(
            ["tracks", "--append", "--labels", str(out.with_suffix(".boris")), "--out", str(store)]
        )
        assert labelled(store) == before + looked_at
        scores.append(train(store, tmp_path / f"round{turn}"))
    (problem,) = problems(Store(store), TASK)
    for video, frames in {**problem.train, **problem.test}.items():
        known = frames != UNLABELLED
        assert np.array_equal(frames[known], shown[video][known])
    assert len(problem.test) == 3, "what is suggested trains"
    assert scores[2] > scores[0] + 0.02, scores


def labelled(store: Path) -> int:
    (problem,) = problems(Store(store), TASK)
    return sum(int((frames != UNLABELLED).sum()) for frames in problem.train.values())
