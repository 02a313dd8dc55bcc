"""What workers tell the process that started the command: lines of the log and metrics, by rank 0,
and an error that no retry would mend; and what it tells them: to stop.

``ray.train.report`` could carry them, but a report is a barrier of all workers, of which Ray Train
takes one every two seconds.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import ray
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pretrain.errors import BadInput, RunFailed
from pretrain.runs.tracked_run import TrackedRun

log = logging.getLogger(__name__)


class Messages:
    """Queues between the workers and the driver, which makes them and hands them to the workers.

    A queue that broke down costs log lines and metrics, not the run.
    """

    def __init__(self) -> None:
        # where the driver is: another machine may go away
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._queue, self._errors, self._stop = (
            Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here}) for _ in range(3)
        )

    def send_log(self) -> None:
        """From now on, sends what this process logs; of other libraries, warnings alone."""
        handler = logging.handlers.QueueHandler(self)  # type: ignore[arg-type]
        logging.basicConfig(
            level=logging.WARNING, format="%(message)s", handlers=[handler], force=True
        )
        logging.getLogger("pretrain").setLevel(logging.INFO)

    def send_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Sends the values of a step."""
        self.put_nowait((metrics, step))

    def send_final_error(self, error: BadInput | RunFailed) -> None:
        """Sends an error that would come again in the next attempt."""
        self._errors.put(error)

    def has_final_error(self) -> bool:
        """Whether an earlier attempt of this run met such an error."""
        return not self._errors.empty()

    def raise_final_error(self) -> None:
        """Raises the first such error, if there was one."""
        if self.has_final_error():
            raise self._errors.get()

    def stop(self) -> None:
        """From the driver to the workers: write a checkpoint and end."""
        self._stop.put(True)

    def must_stop(self) -> bool:
        """Whether :meth:`stop` was called."""
        try:
            return not self._stop.empty()
        except ray.exceptions.RayError:
            return False

    def put_nowait(self, message: object) -> None:
        """Sends a message; for the handler of the log."""
        with contextlib.suppress(ray.exceptions.RayError):
            self._queue.put(message)

    @contextlib.contextmanager
    def received(self, run: TrackedRun | None, log_file: Path) -> Iterator[None]:
        """Repeats here what is logged there, in a file as well, and tracks the metrics, until the
        block ends."""
        file = logging.FileHandler(log_file, encoding="utf-8")
        thread = threading.Thread(target=self._receive, args=(run, file), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.put_nowait(None)
            thread.join()
            file.close()
            for queue in (self._queue, self._errors, self._stop):
                queue.shutdown(force=True)

    def _receive(self, run: TrackedRun | None, file: logging.Handler) -> None:
        try:
            while (message := self._queue.get()) is not None:
                if isinstance(message, logging.LogRecord):
                    file.handle(message)
                    logging.getLogger(message.name).handle(message)
                elif run is not None:
                    run.log_metrics(message[0], step=message[1])
        except ray.exceptions.RayError as error:
            log.warning("what the workers log from now on is lost: %s", error)
