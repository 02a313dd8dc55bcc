"""What a reproduction keeps on disk, piece by piece, so that an interrupted one goes on where it
was. No Ray.

OUT/rows/ROW/seed-42/part-0.safetensors   weights of a network of the paper
OUT/rows/ROW/seed-42/part-0.npz           its test probabilities, until its seed is whole
OUT/rows/ROW/TASK/predictions/, seed-42.json   predictions and scores of a seed
OUT/rows/ROW/result.json                  the row, once all its seeds are there
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from finetune.fit.fit import Probabilities, score_problems
from finetune.metrics.frame_metrics import ClassScores, Scores, over_seeds
from finetune.paper.pieces import Piece, PieceResult, ResolvedRow
from finetune.report.predictions import write_predictions


class RowFolder:
    """The folder of a row in that of a reproduction."""

    def __init__(self, out: Path, name: str) -> None:
        self.name, self.path = name, out / "rows" / name

    @property
    def result(self) -> dict[str, Any] | None:
        """The row's result.json, if it is finished."""
        file = self.path / "result.json"
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None

    def weights(self, seed: int) -> Mapping[str, npt.NDArray[Any]] | None:
        """Weights of a network that is finished."""
        file = self._part(seed, 0, ".safetensors")
        return safetensors.numpy.load_file(file) if file.is_file() else None

    def has(self, piece: Piece, tasks: Sequence[str]) -> bool:
        """Whether a piece was run before."""
        return self._part(piece.seed, piece.part, ".npz").is_file() or self._is_scored(
            piece.seed, tasks
        )

    def keep(self, piece: Piece, result: PieceResult) -> None:
        """Writes what a piece left; the file that :meth:`has` looks for comes last."""
        file = self._part(piece.seed, piece.part, ".npz")
        file.parent.mkdir(parents=True, exist_ok=True)
        if result.weights:
            weights = {key: x.copy(order="C") for key, x in result.weights.items()}
            _write(file.with_suffix(".safetensors"), safetensors.numpy.save(weights))
        _write(file.with_suffix(".json"), json.dumps(result.about).encode())
        index = [(problem, video) for problem, p in result.probabilities.items() for video in p]
        arrays = {
            f"a{number}": result.probabilities[problem][video]
            for number, (problem, video) in enumerate(index)
        }
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, **{"index": np.array(json.dumps(index)), **arrays})  # type: ignore[arg-type]
        partial.replace(file)

    def finish(
        self, row: ResolvedRow, seeds: Sequence[int], about: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Writes predictions and scores of every seed whose pieces are all there; the row's result,
        once all seeds are."""
        scored = [self._score_seed(row, seed) for seed in seeds]
        if not all(scored):
            return None
        scores = {}
        for task in row.tasks:
            by_seed = {
                seed: scores_from_dict(json.loads(self._scores(task, seed).read_text("utf-8")))
                for seed in seeds
            }
            scores[task] = over_seeds(by_seed).to_dict()
        pieces = {}
        for seed, part in itertools.product(seeds, range(row.parts)):
            text = self._part(seed, part, ".json").read_text("utf-8")
            pieces[f"seed-{seed}/part-{part}"] = json.loads(text)
        result = {"title": row.row.title, "tasks": scores, "pieces": pieces}
        return self.write_result({**result, **about})

    def write_result(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Writes result.json."""
        self.path.mkdir(parents=True, exist_ok=True)
        whole = {"row": self.name, "folder": f"rows/{self.name}", **result}
        _write(self.path / "result.json", (json.dumps(whole, indent=1) + "\n").encode())
        return whole

    def _score_seed(self, row: ResolvedRow, seed: int) -> bool:
        """Writes predictions and scores of a seed; whether all its pieces were there."""
        files = [self._part(seed, part, ".npz") for part in range(row.parts)]
        if self._is_scored(seed, row.tasks):
            return True
        if not all(file.is_file() for file in files):
            return False
        parts = [_read_probabilities(file) for file in files]
        for task in row.tasks:
            indices = [i for i, problem in enumerate(row.problems) if problem.task == task]
            problems = [row.problems[i] for i in indices]
            probabilities = [_mean_over_networks(parts, i) for i in indices]
            write_predictions(self.path / task / "predictions", problems, probabilities, seed=seed)
            scores = score_problems(problems, probabilities, [problem.test for problem in problems])
            _write(self._scores(task, seed), json.dumps(scores.to_dict()).encode())
        for file in files:
            file.unlink()
        return True

    def _part(self, seed: int, part: int, suffix: str) -> Path:
        return self.path / f"seed-{seed}" / f"part-{part}{suffix}"

    def _scores(self, task: str, seed: int) -> Path:
        return self.path / task / f"seed-{seed}.json"

    def _is_scored(self, seed: int, tasks: Sequence[str]) -> bool:
        return all(self._scores(task, seed).is_file() for task in tasks)


def _write(file: Path, data: bytes) -> None:
    partial = file.with_name(f"{file.name}.partial")
    partial.write_bytes(data)
    partial.replace(file)


def _read_probabilities(file: Path) -> dict[int, Probabilities]:
    by_problem: dict[int, dict[str, npt.NDArray[np.float32]]] = {}
    with np.load(file, allow_pickle=False) as arrays:
        for number, (problem, video) in enumerate(json.loads(str(arrays["index"]))):
            by_problem.setdefault(problem, {})[video] = arrays[f"a{number}"]
    return dict(by_problem)


def _mean_over_networks(
    parts: Sequence[Mapping[int, Probabilities]], problem: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Probabilities of a problem: the mean over the networks that labelled it."""
    networks = [part[problem] for part in parts if problem in part]
    if len(networks) == 1:
        return dict(networks[0])
    return {
        video: np.asarray(np.mean([one[video] for one in networks], 0, np.float64), np.float32)
        for video in networks[0]
    }


def scores_from_dict(values: Mapping[str, Any]) -> Scores:
    """Scores from what ``Scores.to_dict`` made of them."""
    confusion = values["confusion"]
    return Scores(
        **_with_nan(values)
        | {key: tuple(values[key]) for key in ("classes", "counted", "notes")}
        | {
            "confusion": None if confusion is None else np.array(confusion, np.int64),
            "problems": {name: scores_from_dict(one) for name, one in values["problems"].items()},
            "per_class": {
                name: ClassScores(**_with_nan(one)) for name, one in values["per_class"].items()
            },
        }
    )


def _with_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: math.nan if value is None else value for key, value in values.items()}
