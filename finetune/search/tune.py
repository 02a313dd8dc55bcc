"""From an encoder and a task to a scored model: budget, embeddings, search, seeds, report. Needs a
Ray that is up."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from tqdm import tqdm

from finetune.fit.fit import Model, Probabilities, score_problems
from finetune.fit.frames import Frames, gather_poses
from finetune.labels.problems import ELSEWHERE, Problem, draw_budget
from finetune.metrics.frame_metrics import Scores, SeedScores, over_seeds
from finetune.postprocess.learn import Learned
from finetune.report.annotator_styles import annotators_figure
from finetune.report.extended_scores import extended_metrics, extended_scores
from finetune.report.figures import confusion_figure, ethogram_figure, png
from finetune.report.model_folder import save_model
from finetune.report.predictions import Decisions, write_predictions
from finetune.report.scores_text import scores_text
from finetune.search.ray_tune import each_seed, embedded, search
from finetune.search.trial import after, final
from finetune.settings import Tuning
from pretrain.config import Scale, plain
from pretrain.data.store import Store
from pretrain.encoders import Embedder
from pretrain.runs.mlflow_server import TrackedRun

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TuningJob:
    """What is asked: these problems, these frames, this encoder."""

    task: str
    problems: Sequence[Problem]
    store: Store
    test_store: Store
    embedder: Embedder
    encoder: Mapping[str, Any]
    """What to say of the encoder."""
    videos: int | None
    """Label budget."""
    notes: Sequence[str] = ()
    """What a reader of the scores should know."""


def tune(
    question: TuningJob, tuning: Tuning, scale: Scale, *, out: Path, run: TrackedRun | None
) -> dict[str, Any]:
    """Searches, fits over seeds, scores once on test; leaves model, predictions, pictures and
    ``result.json`` in ``out``.

    The search sees the budget of the first seed; every other seed draws its own videos.

    Returns:
        What is in ``result.json``.
    """
    budgets = {
        seed: draw_budget(
            list(question.problems),
            videos=question.videos,
            seed=seed,
            permute=tuning.permute_labels,
        )
        for seed in tuning.seed_list
    }
    material = _material(question, budgets, scale, frozen=tuning.frozen)
    held = ray.put(material)
    material = ray.get(held)  # a view of Ray's copy; ours goes
    trained = None if tuning.frozen else question.embedder
    best = search(
        held, budgets[tuning.first_seed], tuning, scale, embedder=trained, out=out, run=run
    )
    chosen = tuning.with_choice(best["choice"])
    done = each_seed(
        final,
        held,
        budgets,
        chosen,
        scale,
        embedder=trained,
        steps=best["steps"],
        says="seeds on test",
    )
    by_seed = {
        seed: score_problems(budgets[seed], found, [p.test for p in budgets[seed]])
        for seed, (_, found) in done.items()
    }
    learned: dict[int, list[Learned]] = {}
    if chosen.after:
        learned = each_seed(
            after,
            held,
            budgets,
            chosen,
            scale,
            embedder=trained,
            steps=best["steps"],
            says="seeds, what comes after",
        )
    scores = over_seeds(by_seed)
    result = {
        "task": question.task,
        "macro_f1": scores.macro_f1,
        "macro_f1_std": scores.macro_f1_std,
        "map": scores.map,
        "map_std": scores.map_std,
        "chance_map": scores.chance_map,
        **{
            key: value
            for key, value in scores.to_dict().items()
            if key in ("per_class", "per_seed", "problems")
        },
        "notes": [*question.notes, *scores.notes],
        "encoder": dict(question.encoder),
        "frozen": tuning.frozen,
        "videos": question.videos,
        "videos_drawn": {
            seed: {p.name: sorted(p.train) for p in budget} for seed, budget in budgets.items()
        }
        if question.videos
        else None,
        "search": best,
        "settings": {"tuning": plain(tuning), "chosen": plain(chosen), "scale": plain(scale)},
        "data": question.store.uri,
        "fingerprint": question.store.fingerprint,
        "test_data": question.test_store.uri,
    }
    found = {seed: predicted for seed, (_, predicted) in done.items()}
    more, decided = extended_scores(
        budgets, found, learned, material, fps=question.store.schema.fps
    )
    result["notes"] += more.pop("notes")
    result |= more
    first = done[tuning.first_seed][0]
    pictures = {}
    if first.head.annotators is not None:
        pictures["annotators.png"] = png(
            annotators_figure(first, material, budgets[tuning.first_seed])
        )
    _leave(
        question,
        tuning,
        budgets,
        done,
        by_seed,
        scores,
        learned,
        decided,
        result,
        pictures=pictures,
        out=out,
        run=run,
    )
    return result


def _material(
    question: TuningJob, budgets: Mapping[int, Sequence[Problem]], scale: Scale, *, frozen: bool
) -> Frames:
    train = sorted(
        {video for budget in budgets.values() for problem in budget for video in problem.train}
    )
    test = sorted({video for problem in question.problems for video in problem.test})
    elsewhere = question.test_store is not question.store
    here = sorted({*train, *([] if elsewhere else test)})
    frames = sum(question.store.videos[question.store.place(name)]["frames"] for name in here)
    what = "embedding" if frozen else "reading"
    with tqdm(
        total=frames * (2 if frozen else 1),
        desc=f"{what} labelled videos",
        unit="frame",
        unit_scale=True,
    ) as bar:
        features = tuple(question.embedder.external)
        poses = gather_poses(question.store, here, features=features, on_progress=bar.update)
        if elsewhere:
            poses = poses.joined(
                gather_poses(question.test_store, test, features=features, suffix=ELSEWHERE)
            )
        return (
            embedded(poses, question.embedder, scale, on_progress=bar.update) if frozen else poses
        )


def _leave(
    question: TuningJob,
    tuning: Tuning,
    budgets: Mapping[int, Sequence[Problem]],
    done: Mapping[int, tuple[Model, Sequence[Probabilities]]],
    by_seed: Mapping[int, Scores],
    scores: SeedScores,
    learned: Mapping[int, Sequence[Learned]],
    decided: Mapping[int, Sequence[Decisions]],
    result: dict[str, Any],
    *,
    pictures: dict[str, bytes],
    out: Path,
    run: TrackedRun | None,
) -> None:
    first = tuning.first_seed
    for seed, (model, found) in done.items():
        write_predictions(
            out / "predictions", budgets[seed], found, seed=seed, decided=decided.get(seed)
        )
        network = question.embedder if model.embedder is None else model.embedder
        save_model(
            out / "model" / f"seed-{seed}",
            model.head,
            network,
            budgets[seed],
            head_settings=result["settings"]["chosen"]["head"],
            made_by=question.encoder,
            postprocessing=[one.after for one in learned[seed]] if seed in learned else None,
        )
    shown = budgets[first][0]
    pictures |= {
        "confusion.png": png(confusion_figure(by_seed[first])),
        "ethogram.png": png(
            ethogram_figure(shown, done[first][1][0], fps=question.store.schema.fps)
        ),
    }
    for name, data in pictures.items():
        (out / name).write_bytes(data)
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (out / "scores.txt").write_text(scores_text(scores, result), encoding="utf-8")
    if run is not None:
        run.log_metrics(
            {
                key: result[key]
                for key in ("macro_f1", "macro_f1_std", "map", "map_std", "chance_map")
            },
            step=0,
        )
        run.log_metrics(
            {f"f1/{name}": held["f1"] for name, held in scores.per_class.items()}, step=0
        )
        run.log_metrics(extended_metrics(result), step=0)
        if learned:
            run.log_params(
                {
                    "after": {
                        p.name: one.name
                        for p, one in zip(budgets[first], learned[first], strict=True)
                    }
                }
            )
        run.log_params(
            {"chosen": result["search"]["choice"], "chosen_steps": result["search"]["steps"]}
        )
        for name in (*pictures, "result.json", "scores.txt"):
            run.log_artifact(out / name)
