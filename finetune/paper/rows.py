"""What a reproduction keeps on disk, piece by piece, so that an interrupted one goes on where it
was. No Ray.

OUT/rows/ROW/seed-42/part-0.safetensors   weights of a network of the paper
OUT/rows/ROW/seed-42/part-0.npz           its test probabilities, until its seed is whole
OUT/rows/ROW/TASK/predictions/, seed-42.json   predictions and scores of a seed
OUT/rows/ROW/result.json                  the row, once all its seeds are there
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from finetune.fit.fit import Probabilities, score_problems
from finetune.metrics.frame_metrics import over_seeds
from finetune.paper.work import Piece, PieceResult, Work, restored, together
from finetune.report.predictions import write_predictions


class RowFolder:
    """The folder of a row.

    Args:
        out: Folder of the reproduction.
        name: Of the row.
    """

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
        """Whether a piece was done before."""
        return self._part(piece.seed, piece.part, ".npz").is_file() or self._whole(
            piece.seed, tasks
        )

    def keep(self, piece: Piece, done: PieceResult) -> None:
        """Puts down what a piece left; the file that says so comes last."""
        file = self._part(piece.seed, piece.part, ".npz")
        file.parent.mkdir(parents=True, exist_ok=True)
        if done.weights:
            _into(
                file.with_suffix(".safetensors"),
                safetensors.numpy.save({key: x.copy(order="C") for key, x in done.weights.items()}),
            )
        _into(file.with_suffix(".json"), json.dumps(done.about).encode())
        index = [(place, video) for place, found in done.probabilities.items() for video in found]
        arrays = {
            f"a{number}": done.probabilities[place][video]
            for number, (place, video) in enumerate(index)
        }
        making = file.with_suffix(".making.npz")
        np.savez(making, **{"index": np.array(json.dumps(index)), **arrays})  # type: ignore[arg-type]
        making.replace(file)

    def finish_seed(self, work: Work, tasks: Sequence[str], seed: int) -> bool:
        """Once all pieces of a seed are there: predictions and scores of every task."""
        files = [self._part(seed, part, ".npz") for part in range(work.parts)]
        if self._whole(seed, tasks):
            return True
        if not all(file.is_file() for file in files):
            return False
        found = together(work, [_read(file) for file in files])
        for task in tasks:
            places = [place for place, problem in enumerate(work.problems) if problem.task == task]
            problems, mine = (
                [work.problems[place] for place in places],
                [found[place] for place in places],
            )
            write_predictions(self.path / task / "predictions", problems, mine, seed=seed)
            scores = score_problems(problems, mine, [problem.test for problem in problems])
            _into(self._scores(task, seed), json.dumps(scores.to_dict()).encode())
        for file in files:
            file.unlink()
        return True

    def finish(
        self, work: Work, tasks: Sequence[str], seeds: Sequence[int], about: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """The row's result, once all seeds are there."""
        if not all(self._whole(seed, tasks) for seed in seeds):
            return None
        scored = {}
        for task in tasks:
            held = {
                seed: restored(json.loads(self._scores(task, seed).read_text(encoding="utf-8")))
                for seed in seeds
            }
            scored[task] = over_seeds(held).to_dict()
        pieces = {
            f"seed-{seed}/part-{part}": json.loads(
                self._part(seed, part, ".json").read_text(encoding="utf-8")
            )
            for seed in seeds
            for part in range(work.parts)
        }
        return self.leave({"title": work.row.title, "tasks": scored, "pieces": pieces, **about})

    def leave(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Writes result.json."""
        self.path.mkdir(parents=True, exist_ok=True)
        whole = {"row": self.name, "folder": f"rows/{self.name}", **result}
        _into(self.path / "result.json", (json.dumps(whole, indent=1) + "\n").encode())
        return whole

    def _part(self, seed: int, part: int, suffix: str) -> Path:
        return self.path / f"seed-{seed}" / f"part-{part}{suffix}"

    def _scores(self, task: str, seed: int) -> Path:
        return self.path / task / f"seed-{seed}.json"

    def _whole(self, seed: int, tasks: Sequence[str]) -> bool:
        return all(self._scores(task, seed).is_file() for task in tasks)


def _into(file: Path, data: bytes) -> None:
    making = file.with_name(file.name + ".making")
    making.write_bytes(data)
    making.replace(file)


def _read(file: Path) -> dict[int, Probabilities]:
    found: dict[int, dict[str, npt.NDArray[np.float32]]] = {}
    with np.load(file, allow_pickle=False) as held:
        for number, (place, video) in enumerate(json.loads(str(held["index"]))):
            found.setdefault(place, {})[video] = held[f"a{number}"]
    return dict(found)
