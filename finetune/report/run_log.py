"""What a fine-tuning run and its children (trials, seeds) log: one key for each fact, whatever the
encoder, the budget or the kind of run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.fit.open_encoder import HANDMADE, RANDOM
from finetune.metrics.frame_metrics import Scores
from finetune.report.extended_scores import extended_metrics
from finetune.settings import Tuning
from pretrain.config import plain
from pretrain.encoders import Embedder
from pretrain.runs.tracked_run import TrackedRun

PER_CLASS = ("f1", "ap", "precision", "recall")
KINDS = {"random weights": RANDOM, "hand-made features": HANDMADE}


def encoder_params(about: Mapping[str, Any], embedder: Embedder) -> dict[str, Any]:
    """``encoder.name`` and the settings of the network, trained or not; how it was trained."""
    made_by = about.get("made_by") or {}
    objective = ((made_by.get("recipe") or {}).get("objective") or {}).get("name")
    return {
        **embedder.settings["encoder"],
        "kind": about["kind"],
        "objective": objective,
        "folder": about.get("folder"),
        "saw_test": about["saw_test"],
    }


def run_name(encoder: Mapping[str, Any], budget: int | str | None, folder: str) -> str:
    """``tcn contrastive, 3 videos, FOLDER``; controls say ``tcn none``, ``handmade``.

    Args:
        encoder: As of :func:`encoder_params`.
        budget: Labelled videos, or minutes of clips; None: all.
        folder: Name of the run's folder.
    """
    words = [encoder["name"], encoder["objective"] or KINDS.get(encoder["kind"], "pretrained")]
    if budget is None or isinstance(budget, int):
        budget = "all videos" if budget is None else f"{budget} video{'s' * (budget != 1)}"
    return f"{' '.join(dict.fromkeys(words))}, {budget}, {folder}"


def fit_params(tuning: Tuning) -> dict[str, Any]:
    """The settings of one fit: of a trial, of a seed, of the run (then those that were chosen)."""
    values = plain(tuning)
    del values["search"]
    loss = values["loss"]
    return values | {"loss": {"name": loss} if isinstance(loss, str) else loss}


def log_result(
    run: TrackedRun,
    result: Mapping[str, Any],
    by_seed: Mapping[int, Scores],
    settings: Mapping[int, Tuning],
    *,
    postprocessing: Mapping[int, Sequence[str]],
) -> None:
    """Logs a run that is scored, and a child for each seed.

    Args:
        run: The parent.
        result: As in ``result.json``.
        by_seed: Scores on test.
        settings: What each seed was fitted with; the first one's are the run's.
        postprocessing: For each seed the name of what was learned, problem by problem.
    """
    first = next(iter(by_seed))
    searches = result["searches"] or {first: result["search"]}
    keys = ("macro_f1", "macro_f1_std", "map", "map_std", "chance_map")
    run.log_metrics(_test({key: result[key] for key in keys}, result["per_class"]), step=0)
    run.log_metrics({f"test/{k}": v for k, v in extended_metrics(result).items()}, step=0)
    for seed, scores in by_seed.items():
        child = run.tracking.start(
            run.experiment,
            f"seed {seed}, {run.name}",
            parent=run,
            params={"seed": seed},
            resume=True,
        )
        values = scores.to_dict()
        child.log_metrics(
            _test({key: values[key] for key in keys[::2]}, values["per_class"]), step=0
        )
        for one in (child, run) if seed == first else (child,):
            one.log_params(fit_params(settings[seed]))
            if search := searches.get(seed):
                one.log_metrics(_validation(search), step=search["steps"])
            if names := postprocessing.get(seed):
                one.log_params({"after": "; ".join(dict.fromkeys(names))})
        child.finish()


def _test(means: Mapping[str, Any], per_class: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    values = {f"test/{key}": value for key, value in means.items()}
    for name, scores in per_class.items():
        values |= {f"test/{key}/{name}": scores[key] for key in PER_CLASS}
    return {key: value for key, value in values.items() if value is not None}


def _validation(search: Mapping[str, Any]) -> dict[str, Any]:
    """What the search scored best with, by the names that trials log it under."""
    if search["score"] is None:
        return {}
    values = search.get("validation") or {}
    return {
        **{f"validation/{key}": value for key, value in values.items() if value is not None},
        "validation/score": search["score"],
        "validation/best_score": search["score"],
        "validation/best_steps": search["steps"],
    }
