"""From an encoder and a task to a scored model: budget, embeddings, search, seeds, report. Needs a
Ray that is up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import ray

from finetune.fit.fit import score_problems
from finetune.fit.frames import Frames, recordings
from finetune.labels.clips import CLIP_S, draw_minutes, labelled_minutes
from finetune.labels.folds import cross_validation
from finetune.labels.frame_labels import looked_at
from finetune.labels.hold_out import in_training_and_test
from finetune.labels.problems import Problem, draw_budget
from finetune.labels.refine import with_videos_of_children
from finetune.metrics.frame_metrics import over_seeds
from finetune.report.annotator_styles import annotators_figure
from finetune.report.controls import find_controls
from finetune.report.extended_scores import extended_scores
from finetune.report.figures import confusion_figure, ethogram_figure, png
from finetune.report.model_card import model_card
from finetune.report.model_folder import save_model
from finetune.report.predictions import write_predictions
from finetune.report.run_log import log_result
from finetune.report.scores_text import scores_text
from finetune.search.final_fits import FinalFit, FitKey, run_fits
from finetune.search.ray_tune import search
from finetune.search.read_frames import read_frames
from finetune.settings import Tuning
from pretrain.config import Scale, plain
from pretrain.data.store import Store
from pretrain.encoders import Embedder
from pretrain.redact import write_json
from pretrain.runs.tracked_run import TrackedRun

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TuningJob:
    """What is tuned: these problems, these frames, this encoder."""

    task: str
    problems: Sequence[Problem]
    store: Store
    test_store: Store
    embedder: Embedder
    encoder: Mapping[str, Any]
    """What the result says of the encoder."""
    videos: int | None
    """Label budget."""
    minutes: float | None = None
    """Label budget, too: minutes in clips."""
    folds: int | None = None
    """Cross-validation, in so many folds; the problems then have no test videos."""
    refines: str | None = None
    """``LABELSET:CLASS`` that the task tells the kinds of; the problems then have the parent."""
    notes: Sequence[str] = ()
    """What a reader of the scores should know."""


def tune(
    job: TuningJob, tuning: Tuning, scale: Scale, *, out: Path, run: TrackedRun | None
) -> dict[str, Any]:
    """Searches, fits over seeds, scores once on test; leaves model, predictions, pictures and
    ``result.json`` in ``out``.

    The search sees the budget of the first seed, and every other seed draws its own videos; with
    ``search_each_seed`` it searches on them, too. In a cross-validation the same is done for each
    fold on the others, what they predict is pooled and scored as a test set is, and the model
    learns from all labels.

    Returns:
        What is in ``result.json``.
    """

    def within_budget(problems: Sequence[Problem], seed: int) -> list[Problem]:
        if job.minutes is not None:
            return draw_minutes(
                problems,
                minutes=job.minutes,
                fps=job.store.schema.fps,
                seed=seed,
                permute=tuning.permute_labels,
            )
        drawn = draw_budget(
            list(problems), videos=job.videos, seed=seed, permute=tuning.permute_labels
        )
        return drawn if job.videos is None else with_videos_of_children(drawn)

    first = tuning.first_seed
    budgeted = job.videos is not None or job.minutes is not None
    drawn: dict[FitKey, list[Problem]] = {
        (seed, None): within_budget(job.problems, seed) for seed in tuning.seed_list
    }
    read = [job.problems] if job.folds else list(drawn.values())
    shared_frames = ray.put(read_frames(job, read, scale, tuning))
    frames = ray.get(shared_frames)  # a view of Ray's copy; ours goes
    scored: Sequence[int | None] = [None]
    if job.folds:
        folds = cross_validation(
            job.problems,
            folds=job.folds,
            share=tuning.validation,
            seed=first,
            recording=recordings(frames),
        )
        scored = range(1, len(folds) + 1)
        drawn |= {
            (seed, fold): within_budget(problems, seed)
            for fold, problems in enumerate(folds, 1)
            for seed in tuning.seed_list
        }
    embedder = None if tuning.frozen else job.embedder
    searches: dict[FitKey, dict[str, Any]] = {}
    for seed, fold in drawn:
        if seed != first and not (tuning.search_each_seed and budgeted):
            searches[seed, fold] = searches[first, fold]
            continue
        words = [f"fold {fold}"] * bool(fold) + [f"seed {seed}"] * (seed != first)
        folder = out / "-".join(["search", *words]).replace(" ", "-") if words else out
        folder.mkdir(exist_ok=True)
        searches[seed, fold] = search(
            shared_frames,
            drawn[seed, fold],
            replace(tuning, first_seed=seed),
            scale,
            embedder=embedder,
            out=folder,
            run=run,
            name="".join(f"{word}, " for word in words),
        )
    best = searches[first, None]
    fits = run_fits(
        shared_frames,
        frames,
        {
            fit: FinalFit(
                problems=drawn[fit], tuning=tuning.with_choice(one["choice"]), steps=one["steps"]
            )
            for fit, one in searches.items()
        },
        embedder=embedder,
        scale=scale,
    )
    finals = {seed: fits[seed, None] for seed in tuning.seed_list}
    models = {seed: one.model for seed, one in finals.items()}
    learned = {key: one.postprocessing for key, one in fits.items() if one.postprocessing}
    chosen = finals[first].tuning
    budgets, predicted, steps = {}, {}, {}
    for seed in models:
        predicted[seed] = _pooled(fits[seed, fold].probabilities for fold in scored)
        tests = _pooled([p.test for p in drawn[seed, fold]] for fold in scored)
        budgets[seed] = [
            replace(p, test=test) for p, test in zip(drawn[seed, None], tests, strict=True)
        ]
        if learned:
            steps[seed] = _pooled(
                [
                    dict.fromkeys(p.test, one.postprocessing)
                    for p, one in zip(drawn[seed, fold], learned[seed, fold], strict=True)
                ]
                for fold in scored
            )
    by_seed = {
        seed: score_problems(budgets[seed], probabilities, [p.test for p in budgets[seed]])
        for seed, probabilities in predicted.items()
    }
    scores = over_seeds(by_seed)
    more, decided = extended_scores(
        budgets,
        predicted,
        {
            f"{seed}, fold {fold}" if fold else seed: learned[seed, fold]
            for seed, fold in learned
            if fold in scored
        },
        frames,
        fps=job.store.schema.fps,
        steps=steps,
    )
    result = {
        "task": job.task,
        "refines": job.refines,
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
        "notes": [
            *job.notes,
            *_leaks(job, frames),
            *settings_of_first_seed(
                {seed: searches[seed, None] for seed in models}, budgets, first
            ),
            *scores.notes,
            *more.pop("notes"),
        ],
        "encoder": dict(job.encoder),
        "encoder_saw_test": job.encoder.get("saw_test"),
        "frozen": tuning.frozen,
        "videos": job.videos,
        "videos_drawn": {
            seed: {p.name: sorted(p.train) for p in budget} for seed, budget in budgets.items()
        }
        if budgeted
        else None,
        "budget": {
            "videos": job.videos,
            "minutes": job.minutes,
            "clip_s": None if job.minutes is None else CLIP_S,
            "labelled_minutes": {
                seed: {p.name: labelled_minutes(p.train, job.store.schema.fps) for p in budget}
                for seed, budget in budgets.items()
            },
        },
        "folds": {
            fold: {
                "videos": {p.name: sorted(p.test) for p in drawn[first, fold] if p.test},
                "search": searches[first, fold],
            }
            for fold in scored
            if fold
        }
        or None,
        "search": {**best, "seed": first},
        "searches": {seed: searches[seed, None] for seed in models}
        if searches[max(models), None] is not best
        else None,
        "settings": {"tuning": plain(tuning), "chosen": plain(chosen), "scale": plain(scale)},
        "data": job.store.uri,
        "fingerprint": job.store.fingerprint,
        "test_data": job.test_store.uri,
        **more,
    }
    for seed, budget in budgets.items():
        write_predictions(
            out / "predictions", budget, predicted[seed], seed=seed, decided=decided.get(seed)
        )
        tuned_embedder = models[seed].embedder
        save_model(
            out / "model" / f"seed-{seed}",
            models[seed].head,
            job.embedder if tuned_embedder is None else tuned_embedder,
            budget,
            head_settings=plain(finals[seed].tuning)["head"],
            made_by=job.encoder,
            postprocessing=[one.postprocessing for one in learned[seed, None]] if learned else None,
        )
    pictures = {
        "confusion.png": confusion_figure(by_seed[first]),
        "ethogram.png": ethogram_figure(
            budgets[first][0], predicted[first][0], fps=job.store.schema.fps
        ),
    }
    if models[first].head.annotators is not None:
        pictures["annotators.png"] = annotators_figure(models[first], frames, budgets[first])
    for name, figure in pictures.items():
        (out / name).write_bytes(png(figure))
    write_json(out / "result.json", result)
    card = model_card(
        out.name,
        result,
        job.store.schema,
        origin=job.store.origin,
        controls=find_controls(out, result),
    )
    (out / "model" / "README.md").write_text(card, encoding="utf-8")
    (out / "scores.txt").write_text(scores_text(scores, result), encoding="utf-8")
    if run is not None:
        names = {seed: [one.name for one in learned[seed, None]] for seed in models if learned}
        chosen_of = {seed: one.tuning for seed, one in finals.items()}
        log_result(run, result, by_seed, chosen_of, postprocessing=names)
        for name in (*pictures, "result.json", "scores.txt"):
            run.log_artifact(out / name)
    return result


def _pooled(folds: Iterable[Sequence[Mapping[str, T]]]) -> list[dict[str, T]]:
    """For each problem what the folds have of their videos, together."""
    return [
        {video: value for fold in problem for video, value in fold.items()}
        for problem in zip(*folds, strict=True)
    ]


def _leaks(job: TuningJob, frames: Frames) -> list[str]:
    shared = in_training_and_test(job.problems, recordings(frames))
    if not shared:
        return []
    return [
        f"{len(shared)} test videos are recordings that are also in training, under the labels of "
        f"another annotator or another name ({', '.join(shared[:3])}…): their scores say little "
        "about other animals"
    ]


def settings_of_first_seed(
    searches: Mapping[int, Mapping[str, Any]],
    budgets: Mapping[int, Sequence[Problem]],
    first: int,
) -> list[str]:
    """What a reader should know where a choice made on the labelled videos of the first seed scores
    seeds that drew others.

    Args:
        searches: For each seed the search whose choice it is scored with.
        budgets: Its labelled videos.
        first: The seed on whose videos the one search was made.
    """
    drawn = {
        seed: [
            {video: looked_at(labels).tobytes() for video, labels in problem.train.items()}
            for problem in budget
        ]
        for seed, budget in budgets.items()
    }
    others = [
        seed
        for seed, one in searches.items()
        if seed != first and one is searches[first] and drawn[seed] != drawn[first]
    ]
    if not others or not searches[first]["trials"]:
        return []
    return [
        f"settings were chosen on the labelled videos of seed {first}; seeds "
        f"{', '.join(map(str, others))} drew other videos or clips, so their scores rest on "
        "more labels than the budget (--set search_each_seed=true searches for each seed)"
    ]
