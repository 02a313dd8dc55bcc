"""What to label first: clips of recordings that nobody labelled, for a budget; and back into the
store."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import finetune.suggest
from finetune.active_learning.plan import plan_clips
from finetune.fit.frames import embed, gather_poses
from finetune.fit.open_encoder import HANDMADE, open_encoder
from finetune.labels.clips import Clips, labelled_minutes
from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import problems
from pretrain import prepare
from pretrain.arena.plan import recordings
from pretrain.arena.write import write_arena
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import exit_status
from pretrain.readers.score_sheets import CLIP


@pytest.fixture(scope="module")
def mice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recordings of Task 1 without their labels; in the first no animal is seen for a while."""
    folder = tmp_path_factory.mktemp("arena")
    write_arena(str(folder / "whole"), plan=recordings(20_000, 0))
    whole = Store(folder / "whole")
    with StoreWriter(folder / "store", whole.schema, origin="simulated mice") as writer:
        names = [video["name"] for video in whole.videos if "task1" in video["name"]]
        for name in names:
            video = whole.read_video(name)
            if name == names[0]:
                video.position_TMKX[100:300] = np.nan
                video.confidence_TMK[100:300] = 0
            writer.add(video)
    return folder / "store"


def plan(mice: Path, out: Path, *words: str) -> list[dict[str, str]]:
    finetune.suggest.main(["--plan", "--data", str(mice), "--out", str(out), *words])
    with out.open() as file:
        return list(csv.DictReader(file))


def test_a_budget_is_spread_over_the_videos(mice: Path, tmp_path: Path) -> None:
    rows = plan(mice, tmp_path / "first.csv", "--budget", "45s", "--clip", "5")
    assert sum(float(row["stop_s"]) - float(row["start_s"]) for row in rows) == pytest.approx(45)
    assert len({row["video"] for row in rows}) == 9
    assert len(rows) <= 10, "a stretch in which animals are seen may be shorter than a clip"
    for row in rows:
        assert row["behaviour"] == CLIP
        if row["video"] == Store(mice).videos[0]["name"]:
            assert float(row["stop_s"]) <= 100 / 30 or float(row["start_s"]) >= 10
    again = plan(mice, tmp_path / "again.csv", "--budget", "45s", "--clip", "5")
    other = plan(mice, tmp_path / "other.csv", "--budget", "45s", "--clip", "5", "--seed", "1")
    assert rows == again
    assert rows != other


@pytest.mark.parametrize("form", ["first.csv", "first_boris.csv", "first.boris"])
def test_what_is_labelled_in_the_clips_comes_back(form: str, mice: Path, tmp_path: Path) -> None:

    store = shutil.copytree(mice, tmp_path / "store")
    rows = plan(store, tmp_path / "first.csv", "--budget", "45s", "--clip", "5", "--task", "S1")
    filled = tmp_path / form
    start = float(rows[0]["start_s"])
    if form.endswith(".boris"):
        project = json.loads(filled.read_text())
        for time in (start + 1, start + 2):
            project["observations"][rows[0]["video"]]["events"].append([time, "", "rear", "", ""])
        filled.write_text(json.dumps(project))
    elif form == "first.csv":
        with filled.open("a") as file:
            file.write(f"{rows[0]['video']},{start + 1},{start + 2},rear\n")
    else:
        lines = filled.read_text().splitlines()
        mine = next(line for line in lines if line.startswith(rows[0]["video"]))
        cells = next(csv.reader([mine]))
        for kind, time in (("START", start + 1), ("STOP", start + 2)):
            cells[10], cells[12], cells[13] = "rear", kind, f"{time:.3f}"
            lines.append(",".join(cells))
        filled.write_text("\n".join(lines) + "\n")
    words = ["--append", "--labels", str(filled), "--out", str(store)]
    prepare.main(["tracks", *words, *(["--task", "S1"] if form == "first.csv" else [])])
    (problem,) = problems(Store(store), "S1")
    assert problem.classes == ("other", "rear")
    labels = {**problem.train, **problem.test}
    assert len(labels) == 9
    assert labelled_minutes(labels, 30) == pytest.approx(0.75)
    assert sum(int((one == 1).sum()) for one in labels.values()) == 30
    assert all((one == UNLABELLED).any() for one in labels.values())
    assert problem.test, "labels of a new label set are divided"
    # what is labelled is not asked for again
    more = plan(store, tmp_path / "next.csv", "--budget", "45s", "--clip", "5", "--task", "S1")
    for row in more:
        span = slice(*(round(float(row[key]) * 30) for key in ("start_s", "stop_s")))
        assert (labels[row["video"]][span] == UNLABELLED).all()


def test_an_encoder_chooses_clips_that_cover_what_animals_do(mice: Path) -> None:
    store = Store(mice)
    embedder, _ = open_encoder(HANDMADE, store, recipe="contrastive", seed=0)
    frames = embed(gather_poses(store, [video["name"] for video in store.videos]), embedder)
    z = frames.arrays["z"]
    every = plan_clips(store, minutes=1e3, seconds=3)

    def means(clips: Clips) -> np.ndarray:
        whole = {name: z[slice(*frames.spans[name])] for name in clips}
        spans = [(name, *span) for name, of_video in clips.items() for span in of_video]
        pieces = [(n, b, min(b + 90, e)) for n, a, e in spans for b in range(a, e, 90)]
        return np.array([whole[n][b:e].mean(0) for n, b, e in pieces]) / (z.std(0) + 1e-6)

    def distance(clips: Clips) -> float:
        """From a piece of video to the nearest clip, in the mean."""
        gap = np.linalg.norm(means(every)[:, None] - means(clips)[None], axis=2)
        return float(gap.min(1).mean())

    by_chance = [
        distance(plan_clips(store, minutes=0.3, seconds=3, seed=seed)) for seed in range(5)
    ]
    chosen = [
        plan_clips(store, minutes=0.3, seconds=3, seed=seed, embedder=embedder) for seed in range(5)
    ]
    assert all(sum(map(len, clips.values())) == 6 for clips in chosen)
    assert np.mean([distance(clips) for clips in chosen]) < np.mean(by_chance)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "x"], "give --model RUN, or --plan"),
        (["--plan"], "--plan goes with --data"),
        (["--plan", "--data", "x", "--model", "y"], "give --model RUN, or --plan"),
        (["--plan", "--data", "x", "--simulate"], "without --simulate"),
        (["--model", "y", "--data", "x", "--clip", "3"], "go with --plan"),
        (["--plan", "--data", "x", "--clip", "0"], "seconds above 0"),
    ],
)
def test_what_does_not_go_together_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(lambda: finetune.suggest.main(words)) == 2
    assert message in capsys.readouterr().err


def test_a_budget_that_is_no_time_leaves_nothing(mice: Path, tmp_path: Path) -> None:
    words = ["--plan", "--data", str(mice), "--out", str(tmp_path / "o.csv"), "--budget", "ten"]
    assert exit_status(lambda: finetune.suggest.main(words)) == 2
    assert not list(tmp_path.iterdir())
