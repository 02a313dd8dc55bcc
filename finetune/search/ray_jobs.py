"""Independent jobs as Ray tasks, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import ray
from tqdm import tqdm

from pretrain.config import Scale
from pretrain.errors import BadInput

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[..., Result],
    jobs: Iterable[Job],
    arguments: Callable[[Job], Mapping[str, Any]],
    *,
    shared: Mapping[str, Any],
    scale: Scale,
    description: str,
    unit: str,
    name: Callable[[Job], str] = str,
    ready: Callable[[Job], bool] = lambda job: True,
    steps: int | None = None,
    steps_so_far: Callable[[], int] | None = None,
) -> Iterator[tuple[Job, Result]]:
    """Calls a function once for every job, in as many processes at a time as the scale has trials.

    Args:
        function: Called with a job's ``arguments`` and those that are ``shared``.
        jobs: In the order in which they are started.
        arguments: Asked when a job is started.
        shared: Arguments of every job; a machine holds one copy.
        scale: Jobs at a time, their share of a GPU, how often a lost process is replaced.
        description: Of the progress bar.
        unit: What the bar counts.
        name: What the bar calls a job that is running.
        ready: Whether a job can be started; asked again after every result.
        steps: What the bar counts to; left out: the number of jobs.
        steps_so_far: Asked every second; left out: the bar counts jobs.

    Yields:
        A job and its result, as they come.

    Raises:
        BadInput: If a job raised it.
    """
    remote = ray.remote(
        num_cpus=1,
        num_gpus=scale.gpus_per_trial if scale.gpu else 0,
        max_retries=scale.retries,
    )(function)
    shared = {key: ray.put(value) for key, value in shared.items()}
    waiting, running = list(jobs), dict[Any, Job]()
    total = steps or len(waiting)
    with tqdm(total=total, desc=description, unit=unit, unit_scale=bool(steps)) as bar:
        while waiting or running:
            while len(running) < scale.concurrent_trials and any(map(ready, waiting)):
                job = next(filter(ready, waiting))
                waiting.remove(job)
                running[remote.remote(**arguments(job), **shared)] = job
            assert running, f"no job is ready, and none is running that {waiting} could wait for"
            bar.set_postfix_str(", ".join(dict.fromkeys(map(name, running.values()))))
            finished, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
            for reference in finished:
                yield running.pop(reference), _result(reference)
            bar.update(min(steps_so_far(), total) - bar.n if steps_so_far else len(finished))


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, BadInput):
            raise error.cause from error
        raise
