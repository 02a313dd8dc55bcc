"""Sends the records of a run from a background thread, so that whoever logs never waits.

Every record is written to a file first and then queued. What a server missed is sent when it is
back, or by sending the whole file again: MLflow keeps one copy of what it is sent twice.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice

from pretrain.redact import redact
from pretrain.runs.json_lines import JsonLines, Record

log = logging.getLogger(__name__)

BATCHED = ("metrics", "params", "tags")
BATCH_RECORDS = 500
UPLOADS, UPLOAD_PATIENCE = ("artifact", "model"), 12
"""Records that are files, a model hundreds of them: how many times as long they are waited for."""
LINGER_S = 0.5
FIRST_RETRY_S, LAST_RETRY_S = 0.2, 30.0


class ServerUnavailable(Exception):
    """The server cannot take the record now; try again later."""


class RecordRejected(Exception):
    """The server will never take this record; trying again is no use."""


def batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Neighbours of one run that one request can carry, in order; every other record by itself."""
    for _, group in groupby(records, lambda r: (r["run"], r["kind"] in BATCHED or id(r))):
        while batch := list(islice(group, BATCH_RECORDS)):
            yield batch


class BackgroundSender:
    """Writes records to a file and sends them to a server.

    Args:
        send: Sends one batch; raises :class:`ServerUnavailable` or :class:`RecordRejected`.
        file: Where records are kept.
        address: The server's address without password.
    """

    def __init__(
        self, send: Callable[[list[Record]], None], *, file: JsonLines, address: str
    ) -> None:
        self.file, self._send, self._address = file, send, address
        self._queue: deque[Record] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._failures = self._draining = 0
        self._away_since = 0.0  # of the first failure in a row
        self._unavailable = self._file_failed = False
        self._rejected: set[tuple[str, str]] = set()

    def put(self, record: Record) -> None:
        """Writes and queues one record; returns at once. A file that cannot be written is reported
        once."""
        with self._changed:
            try:
                self.file.append(record)
            except OSError as error:
                if not self._file_failed:
                    log.warning(
                        "cannot write %s (%s): what cannot be sent while this process runs will be "
                        "lost",
                        self.file.path,
                        error,
                    )
                self._file_failed = True
            self.send_again([record])

    def send_again(self, records: Iterable[Record]) -> None:
        """Queues records that the file holds already."""
        with self._changed:
            self._queue.extend(records)
            if self._queue and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drain(self, seconds: float) -> int:
        """Sends what is queued now.

        Gives up on a server that has been away for ``seconds`` (after two more failures), when
        nothing was taken for as long, or when all of it takes six times as long; files are waited
        for longer.

        Returns:
            How many records are left.
        """
        with self._changed:
            failures, deadline = self._failures + 2, time.monotonic() + 6 * seconds
            self._draining += 1
            self._changed.notify_all()

            def gone() -> bool:
                away = self._failures and time.monotonic() - self._away_since >= seconds
                return bool(away and self._failures >= failures)

            while self._queue and not gone() and time.monotonic() < deadline:
                left, patience = len(self._queue), seconds
                if self._queue[0]["kind"] in UPLOADS:
                    patience = UPLOAD_PATIENCE * seconds
                    deadline = max(deadline, time.monotonic() + patience)

                def moved(left: int = left) -> bool:
                    return len(self._queue) < left or gone()

                if not self._changed.wait_for(moved, patience):
                    self._report_unavailable("it does not answer")
                    break
            self._draining -= 1
            return len(self._queue)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                # so that one request carries many records
                self._changed.wait_for(lambda: self._draining, LINGER_S)
                batch = next(batches(islice(self._queue, BATCH_RECORDS)))
            try:
                self._send(batch)
            except ServerUnavailable as error:
                self._pause(redact(str(error)))
                continue
            # our own mistake must not end the thread: training would fill a queue nobody empties
            except Exception as error:
                self._report_rejected(batch[0], error)
            with self._changed:
                if self._unavailable:
                    log.warning("MLflow at %s is back; what was kept is being sent", self._address)
                self._unavailable, self._failures = False, 0
                for _ in batch:
                    self._queue.popleft()
                self._changed.notify_all()

    def _pause(self, reason: str) -> None:
        """Waits after a failure: longer each time, but not while somebody waits for the queue."""
        with self._changed:
            if not self._failures:
                self._away_since = time.monotonic()
            self._failures += 1
            if self._failures > 1:  # one failure may be a connection that idled too long
                self._report_unavailable(reason)
            self._changed.notify_all()
            if self._draining:
                self._changed.wait(FIRST_RETRY_S)
            else:
                pause = min(FIRST_RETRY_S * 2 ** min(self._failures - 1, 10), LAST_RETRY_S)
                self._changed.wait_for(lambda: self._draining, pause)

    def _report_unavailable(self, reason: str) -> None:
        """Warns once until the server is back."""
        if not self._unavailable:
            log.warning(
                "MLflow at %s cannot be used now: %s. The run goes on: what it logs is kept in %s "
                "and sent as soon as the server answers. Start the server again, or check the "
                "address.",
                self._address,
                reason,
                self.file.path,
            )
        self._unavailable = True

    def _report_rejected(self, record: Record, error: Exception) -> None:
        kind = record["run"], record["kind"]
        reason = str(error) if isinstance(error, RecordRejected) else f"{error!r}"
        level = logging.INFO if kind in self._rejected else logging.WARNING
        self._rejected.add(kind)
        log.log(level, "MLflow at %s refused %s: %s", self._address, record["kind"], redact(reason))
