"""A search of heads on cached embeddings of a frozen encoder: 32 trials of Ray Tune, beside a
process a trial and beside no Ray.

    python benchmarks/tune.py                                        the embedded default, an
    encoder with random weights
    python benchmarks/tune.py --data STORE --task S1 --encoder RUN   real embeddings
    python benchmarks/tune.py --trials 8 --turns 1                   a glance

Each search is `finetune.search.ray_tune.search` with the task's own settings and search space, one
Ray for all of them, MLflow's store and its logging included; embedding and the start of Ray are
timed apart. Below, the same trials with the same stops one after another in this process: what is
left to a search is the rest.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import ray
import ray.tune
from measure import Report, new_parser, parse, ratios, seconds, take_turns

from finetune.fit.frames import Frames, embed, gather_poses
from finetune.fit.open_encoder import RANDOM, open_encoder
from finetune.labels.problems import draw_budget, problems, with_some_test
from finetune.search.ray_tune import SuccessiveHalving, search
from finetune.search.study import SearchStudy
from finetune.search.trial import run_trial
from finetune.settings import TASKS, Tuning, task_file
from pretrain.cluster.join import cluster
from pretrain.config import SCALES, Scale, parse_overrides, read
from pretrain.data.store import Store
from pretrain.errors import exit_status
from pretrain.runs import paths
from pretrain.runs.tracked_run import open_tracking


class _Stopped(Exception):
    """A trial is not to go on."""


def main(words: Sequence[str] | None = None) -> None:
    """Runs the command line ``words``."""
    parser = new_parser(__doc__, turns=2)
    parser.add_argument("--data", help="pose store with labels; left out: a small simulated arena")
    parser.add_argument("--task", default="classic_classification", help="label set (%(default)s)")
    parser.add_argument(
        "--encoder",
        default=RANDOM,
        help="pretraining run or encoder folder; left out: the recipe's network, random",
    )
    parser.add_argument("--videos", type=int, help="label budget; left out: all")
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument(
        "--scale", default="laptop", help="a name from ray_configs/ or a file (%(default)s)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one key of the task or the scale",
    )
    given = parse(parser, words)
    for_tuning, for_scale = parse_overrides(given.set, Tuning, Scale)
    tuning = read(Tuning, task_file(given.task), TASKS, for_tuning | {"trials": given.trials})
    scale = read(Scale, given.scale, SCALES, for_scale)

    store = Store(paths.absolute_address(given.data) if given.data else paths.default_store())
    found, _ = with_some_test(problems(store, given.task), fps=store.schema.fps)
    found = draw_budget(found, videos=given.videos, seed=tuning.first_seed)
    embedder, about = open_encoder(
        given.encoder, store, recipe=tuning.recipe, seed=tuning.first_seed
    )
    poses = gather_poses(
        store,
        sorted({name for problem in found for name in problem.train}),
        features=tuple(embedder.features.external),
    )
    report = Report(
        "tune",
        f"{given.trials} head trials on cached embeddings of a frozen encoder",
        {
            "data": given.data or "arena",
            "task": given.task,
            "encoder": about["kind"],
            "trials": given.trials,
            "at_once": scale.concurrent_trials,
            "steps": tuning.steps,
            "frames": len(poses.arrays["position"]),
        },
    )

    made: list[Frames] = []
    embedding = seconds(lambda: made.append(embed(poses, embedder)))
    alone = _fits_alone(made[0], found, tuning)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        start = seconds(lambda: stack.enter_context(cluster(scale, cpus_wanted=1)))
        held = ray.put(made[0])
        tracking = open_tracking(None, runs_folder=folder)
        numbers = itertools.count()
        rows: dict[str, list[dict[str, Any]]] = {}

        def searched(way: str) -> None:
            out = Path(folder) / f"{way}-{next(numbers)}"
            with tracking.start("benchmark", out.name, folder=out) as run:
                rows[way] = search(held, found, tuning, scale, embedder=None, out=out, run=run)[
                    "trials"
                ]

        def apart() -> None:
            with _a_process_a_trial():
                searched("apart")

        cpu: dict[str, list[float]] = {"search": [], "apart": [], "alone": []}
        ways = {
            "search": lambda: searched("search"),
            "apart": apart,
            "alone": lambda: alone(Path(folder)),
        }
        works = {
            way: lambda way=way, work=work: cpu[way].append(_core_seconds(work))
            for way, work in ways.items()
        }
        spent = take_turns(works, turns=given.turns, warm=0)
    report.add(
        f"search of {given.trials} trials, {scale.concurrent_trials} at a time",
        spent["search"],
        "s",
        at_most=120.0,
    )
    report.add("the same, a process a trial", spent["apart"], "s")
    report.add("the same fits in one process, no Ray, no MLflow", spent["alone"], "s")
    report.add(
        "a process a trial takes, of the search's time",
        ratios(spent["apart"], spent["search"]),
        "x",
    )
    report.add("processor time of the search", cpu["search"], "core-s")
    report.add("processor time, a process a trial", cpu["apart"], "core-s")
    report.add("processor time of the fits in one process", cpu["alone"], "core-s")
    report.add(
        "share of the search's processor time that is fits", ratios(cpu["alone"], cpu["search"]), ""
    )
    report.add("embedding, once a search", embedding, "s")
    report.add("starting Ray, once a search", start, "s")
    fitted = sum(row["fitted"] for row in rows["search"])
    report.note(
        f"{fitted:,} of {tuning.steps * given.trials:,} steps were fitted, the others saved by "
        "stopping early"
    )
    report.finish(given.json)


def _core_seconds(work: Callable[[], object]) -> float:
    """Processor time of this process and all below it, those included that end meanwhile; others'
    work does not count."""
    used: dict[int, float] = {}
    over = threading.Event()

    def look() -> None:
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                used[process.pid] = sum(process.cpu_times()[:2])

    def watch() -> None:
        while not over.wait(0.25):
            look()

    look()
    before = dict(used)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    work()
    over.set()
    thread.join()
    look()
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in used.items())


def _fits_alone(frames: Frames, found: Sequence[Any], tuning: Tuning) -> Any:
    numbers = itertools.count()

    def work(folder: Path) -> None:
        study = SearchStudy(
            folder / f"alone-{next(numbers)}.journal",
            tuning,
            stop_rule=SuccessiveHalving(tuning),
            run=None,
        )
        for _ in range(study.remaining):
            number, choice = study.ask()

            def on_progress(values: Mapping[str, float], number: int = number) -> None:
                if study.report(number, values):
                    raise _Stopped

            with mock.patch.object(ray.tune, "report", on_progress), contextlib.suppress(_Stopped):
                run_trial(
                    {"choice": choice},
                    frames=frames,
                    problems=found,
                    tuning=tuning,
                    embedder=None,
                    seed=tuning.first_seed,
                )
            study.end(number)

    return work


@contextlib.contextmanager
def _a_process_a_trial() -> Iterator[None]:
    real = ray.tune.TuneConfig
    with mock.patch.object(
        ray.tune, "TuneConfig", lambda **settings: real(**settings | {"reuse_actors": False})
    ):
        yield


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.exit(exit_status(main))
