"""The card of a model: what it is of, how well it does, and what it is not for. Markdown with the
front matter that the Hugging Face Hub reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from finetune.fit.open_encoder import seen_in_words
from finetune.report.scores_text import extended_lines
from finetune.report.tables import Cell, Score, f1_and_map, markdown
from pretrain.data.schema import Schema

LICENCE = "unknown"


def model_card(
    name: str,
    result: Mapping[str, Any],
    schema: Schema,
    *,
    origin: str,
    controls: Mapping[str, Mapping[str, Any]],
) -> str:
    """The text of a card.

    Args:
        name: Of the model.
        result: As in ``result.json``.
        schema: Of the poses it was fitted on.
        origin: Where the recordings came from, in words.
        controls: As of :func:`finetune.report.controls.find_controls`.
    """
    encoder, tuning = result["encoder"], result["settings"]["chosen"]
    metrics = [
        {"type": kind, "name": f"{title} (mean over {len(result['per_seed'])} seeds)", "value": v}
        for kind, title, v in (
            ("f1", "macro F1", result["macro_f1"]),
            ("mean_average_precision", "MAP", result["map"]),
        )
        if v is not None
    ]
    dataset = {"name": origin or "unnamed recordings", "type": "pose-tracks"}
    task = {"type": "other", "name": f"behaviour of every frame: {result['task']}"}
    front = {
        "library_name": "ethoray",
        "license": LICENCE,
        "tags": ["animal-behavior", "pose-estimation", "time-series"],
        "model-index": [
            {"name": name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}
        ],
    }
    facts: list[tuple[str, str]] = [
        ("data", f"{dataset['name']} (fingerprint {result['fingerprint']})"),
        ("labels", f"{result['task']}, {_budget(result)}"),
        ("animals", ", ".join(schema.animals)),
        ("keypoints", ", ".join(schema.keypoints)),
        ("bones", ", ".join("–".join(edge) for edge in schema.edges) or "none"),
        ("frame rate", f"{schema.fps:g} frames a second; `predict` resamples others"),
        (
            "units",
            f"px of an image of {' x '.join(f'{x:g}' for x in schema.image_px)}, y down; NaN = "
            "missing, confidence 0 to 1",
        ),
        ("encoder", f"{encoder['kind']}, {'frozen' if result['frozen'] else 'trained along'}"),
        ("head", str(tuning["head"]["name"])),
    ]
    columns = ["", "macro F1", "MAP"]
    scores: list[list[Cell]] = [["this model", *f1_and_map(result)]]
    scores += [[kind, *f1_and_map(other)] for kind, other in controls.items()]
    scores.append(["chance", None, result["chance_map"]])
    classes: list[list[Cell]] = [
        [
            cls,
            *(Score.of(v, key) for key in ("f1", "ap", "precision", "recall")),
            v["prevalence"],
            f"{v['frames']:,.0f}",
        ]
        for cls, v in result["per_class"].items()
    ]
    limits = [
        seen_in_words(result["encoder_saw_test"])
        or "inductive: the encoder never saw the test videos",
        *(note for note in result["notes"] if not note.startswith("transductive")),
        "what other laboratories, cameras, strains or trackers give was not tested: label a few "
        "minutes of your own and compare",
        "where no pose supports a label, none is given",
    ]
    if not controls:
        limits.append("no run with random weights or hand-made features is in the same folder")
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n",
            f"# {name}\n",
            f"Tells {', '.join(result['per_class'])} in every frame of tracked video. Made with "
            "Ethoray.\n",
            markdown(["", ""], facts),
            f"\n## Scores {'of a cross-validation' if result['folds'] else 'on test videos'}\n",
            "Mean and standard deviation over seeds. MAP of a random scorer is the chance level.\n",
            markdown(columns, scores),
            "",
            markdown(["", "F1", "AP", "precision", "recall", "chance AP", "frames"], classes),
            "",
            *(f"- {line}" for line in extended_lines(result)),
            "\n## Limits\n",
            *(f"- {line}" for line in limits),
            "\n## Licence\n",
            "None was chosen for these weights; it may not be wider than that of the recordings. "
            "Write it into `license` above before you share them.\n",
            "## Use\n",
            "```\nethoray predict --model FOLDER --poses new/*.csv\n```\n",
        ]
    )


def _budget(result: Mapping[str, Any]) -> str:
    if minutes := result["budget"]["minutes"]:
        return f"{minutes:g} labelled minutes as clips"
    videos = result["videos"]
    if videos is None:
        return "all labelled videos" if result["folds"] else "all labelled training videos"
    return f"{videos} labelled videos"
