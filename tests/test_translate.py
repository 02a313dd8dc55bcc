"""One annotator's labels in another's style: habits that are known are learned."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score
from test_prepare import lines, recording, tracks

from finetune import translate
from finetune.labels.frame_labels import UNLABELLED, Ints
from finetune.labels.problems import problems
from finetune.labels.translate import Translator, out_of_fold
from pretrain import prepare
from pretrain.arena.annotators import ANNOTATORS, annotate
from pretrain.arena.plan import recordings
from pretrain.arena.write import _random_sources, draw_scene, truth
from pretrain.data.store import Store
from pretrain.errors import BadInput
from pretrain.readers.calms21.expected_counts import CLASSES

FRAMES, FPS = 600, 30.0


def bouts(seed: int) -> list[tuple[int, int]]:
    """From, until; some gaps are short."""
    rng, at, found = np.random.default_rng(seed), 20, []
    while at < FRAMES - 80:
        end = at + int(rng.integers(10, 40))
        found.append((at, end))
        at = end + int(rng.choice([3, 30, 60]))
    return found


def first(seed: int) -> Ints:
    labels = np.zeros(FRAMES, np.int8)
    for begin, end in bouts(seed):
        labels[begin:end] = 1
    return labels


def second(seed: int) -> Ints:
    """Begins 6 frames later."""
    labels = np.zeros(FRAMES, np.int8)
    for begin, end in bouts(seed):
        labels[begin + 6 : end] = 1
    return labels


@pytest.mark.parametrize("overlapping", [False, True])
def test_a_habit_is_learned_from_other_recordings(overlapping: bool) -> None:
    def both(seed: int) -> tuple[Ints, Ints]:
        a, b = first(seed), second(seed)
        return (np.stack([a, 1 - a], 1), np.stack([b, 1 - b], 1)) if overlapping else (a, b)

    pairs = [both(seed) for seed in range(4)]
    found = out_of_fold(pairs, classes=2, fps=FPS)
    wrong = sum(int((f != b).sum()) for f, (_, b) in zip(found, pairs, strict=True))
    as_they_are = sum(int((a != b).sum()) for a, b in pairs)
    assert wrong < as_they_are / 3


def test_what_nobody_labelled_stays_so_and_what_was_never_seen_is_kept() -> None:
    source = np.repeat(np.array([0, 1, UNLABELLED, 1], np.int8), 90)
    translator = Translator(3, FPS)
    translator.fit([(source, np.where(source == 1, 0, source))])  # the other never marks 1
    assert set(translator(source)) == {0, UNLABELLED}
    third = np.repeat(np.array([0, 2, 0], np.int8), 90)
    assert (translator(third) == third).mean() > 0.9


def test_translated_labels_come_back_as_an_annotator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("one", 0), ("two", 1), ("three", 2)):
        recording(tmp_path / f"poses/{name}.npz", lines(FRAMES) + seed)
        for who, labels in (("ann", first(seed)), ("bob", second(seed))):
            folder = tmp_path / "labels" / who
            folder.mkdir(parents=True, exist_ok=True)
            if (name, who) != ("three", "bob"):
                np.savez(folder / f"{name}.npz", labels=labels, classes=["rest", "run"])
    store = tracks(
        tmp_path, "--labels", str(tmp_path / "labels"), "--annotator", "folder", "--test-share", 0
    )
    (task,) = {file["task"] for file in store.labels}
    out = tmp_path / "translated"
    data = ("--data", str(store.address), "--task", task)
    translate.main([*data, "--source", "ann", "--target", "bob", "--out", str(out)])
    assert "| ann | bob | 2 |" in capsys.readouterr().out
    result = json.loads((out / "result.json").read_text())
    assert result["translated"]["kappa"] > result["raw"]["kappa"]
    prepare.main(["tracks", "--append", "--labels", str(out), "--out", str(store.address)])
    store = Store(store.address)
    by = {problem.annotator: problem for problem in problems(store, task)}
    assert set(by) == {"ann", "bob", "ann as bob"}
    assert (by["ann as bob"].train["three"] == second(2)).mean() > 0.98
    with pytest.raises(BadInput, match=r"no annotator 'eve' of .*; there are ann, "):
        translate.main([*data, "--source", "eve"])


@pytest.mark.slow
def test_simulated_annotators_are_turned_into_each_other() -> None:
    """The five of the arena write down the same mice, each with errors of their own."""
    made = [
        r for r in recordings(40_000) if (r.task, r.split) == ("classic_classification", "train")
    ]
    noted: dict[str, list[Ints]] = {name: [] for name in "12345"}
    for number, one in enumerate(made):
        timeline = truth(one)
        scene = draw_scene(_random_sources(one)[1], timeline)
        for name, labels in noted.items():
            rng = np.random.default_rng((number, int(name), 0))
            labels.append(annotate(rng, ANNOTATORS[name], timeline, scene.reach_T))
    kappas = []
    for source, target in permutations(noted, 2):
        pairs = list(zip(noted[source], noted[target], strict=True))
        found = np.concatenate(out_of_fold(pairs, classes=len(CLASSES), fps=FPS))
        a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
        kappas.append((cohen_kappa_score(a, b), cohen_kappa_score(found, b)))
    raw, translated = np.mean(kappas, 0)
    assert translated > raw + 0.03
    assert sum(after > before for before, after in kappas) > len(kappas) / 2
