"""A journal of what a run logs, and the courier that carries it to a server that may be away.

Every record is written to the journal first (one JSON line, appended by whichever process logged
it) and then queued. One background thread sends the queue in order and writes down how far it got,
so that after any interruption the journal says what is still owed. Sending a record twice does no
harm; that is what makes this simple.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import logging
import os
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pretrain.runs.addresses import redact

log = logging.getLogger(__name__)

Record = dict[str, Any]

BATCHED = ("metrics", "params", "tags")
BATCH_RECORDS = 500
LINGER_S = 0.5
FIRST_RETRY_S = 0.2
LAST_RETRY_S = 30.0


class ServerUnavailable(Exception):
    """The server cannot take the record now; try again later."""


class RecordRejected(Exception):
    """The server will never take this record; trying again is no use."""


def reason(error: BaseException) -> str:
    """The heart of an error, without the wrapping of three libraries, without passwords."""
    text = redact(str(error)).strip()
    heart = re.search(r"\[Errno -?\d+\] [^'\")<>]+", text) or re.search(
        r"(?:Read|Connect)? ?timed out", text
    )
    first_line = (text.splitlines() or [type(error).__name__])[0]
    return heart.group().strip() if heart else first_line[:300]


@contextlib.contextmanager
def locked(path: Path, *, seconds: float = 60.0) -> Iterator[None]:
    """Holds a lock among processes through a small file that stays behind.

    Raises:
        TimeoutError: If another process holds it for too long.
        OSError: If the file cannot be made.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        until = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(
                        f"another process has held {path} for {seconds:.0f} s"
                    ) from None
                time.sleep(0.05)
        yield
    finally:
        os.close(file)


@dataclass(frozen=True)
class Journal:
    """A JSON-lines file that several processes append to."""

    path: Path

    def append(self, record: Record) -> None:
        """Adds one line, whole, after whatever others wrote.

        Raises:
            OSError: If the file cannot be written.
        """
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(
                file, fcntl.LOCK_EX
            )  # appending is atomic on a local disk, not on a network one
            size = os.fstat(file).st_size
            torn = (
                size > 0 and os.pread(file, 1, size - 1) != b"\n"
            )  # a writer was killed, or the disk was full
            line = (
                b"\n" * torn
                + json.dumps(record, ensure_ascii=False).encode("utf-8", "replace")
                + b"\n"
            )
            while line:
                line = line[os.write(file, line) :]
        finally:
            os.close(file)

    def read(self) -> list[Record]:
        """All records in the order written; lines cut short by a crash are left out and counted in
        a warning."""
        records, damaged = [], 0
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as file:
            for line in file:
                try:
                    record = json.loads(line)
                    record["kind"]
                    records.append(record)
                except (ValueError, KeyError, TypeError):
                    damaged += bool(line.strip())
        if damaged:
            log.warning("%s: %d damaged lines are left out", self.path, damaged)
        return records

    def owed(self, *, to: str) -> list[Record]:
        """The records that a server (its address without password) has not been sent."""
        records = self.read()
        sent: dict[str, int] = {}
        for record in records:
            if record["kind"] == "sent" and record["to"] == to:
                sent[record["by"]] = max(record["upto"], sent.get(record["by"], -1))
        return [r for r in records if r["kind"] != "sent" and r["n"] > sent.get(r["by"], -1)]

    def started(self, *, experiment: str, name: str) -> Record | None:
        """How the latest run of that name was started, if it was."""
        found = [
            r
            for r in self.read()
            if r["kind"] == "start" and (r["experiment"], r["name"]) == (experiment, name)
        ]
        return found[-1] if found else None

    def open_children(self, parent: str) -> list[Record]:
        """The start records of a run's children that were never finished."""
        still_open: dict[str, Record] = {}
        for record in self.read():
            if record["kind"] == "start" and (record["parent"] or {}).get("run") == parent:
                still_open[record["run"]] = record
            elif record["kind"] == "status":
                still_open.pop(record["run"], None)
        return list(still_open.values())

    def sent(self, record: Record, *, to: str) -> None:
        """Notes that a record, and all before it by the same writer, were sent.

        Raises:
            OSError: If the file cannot be written.
        """
        self.append({"kind": "sent", "by": record["by"], "upto": record["n"], "to": to})


def batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Neighbours of one run that one request can carry, in order; everything else alone."""
    batch: list[Record] = []
    for record in records:
        fits = (
            batch
            and record["run"] == batch[0]["run"]
            and record["by"] == batch[0]["by"]
            and len(batch) < BATCH_RECORDS
        )
        if batch and not (fits and record["kind"] in BATCHED and batch[0]["kind"] in BATCHED):
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


class BackgroundSender:
    """Carries records to a server in a background thread, so that whoever logs never waits.

    Args:
        send: Sends one batch; raises :class:`ServerUnavailable` or :class:`RecordRejected`.
        where: The server's address as people may see it.
    """

    def __init__(self, *, send: Callable[[Journal, list[Record]], None], where: str) -> None:
        self.where = where
        self._send = send
        self._warned: set[tuple[str, str]] = set()
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._writer = uuid.uuid4().hex[:12]
        self._numbered = 0
        self._queue: deque[tuple[Journal, Record]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._hurry = 0
        self.away = False

    @property
    def writer(self) -> str:
        """The name of this process in journals."""
        return self._writer

    def put(self, journal: Journal, record: Record) -> None:
        """Journals and queues one record; returns at once. A journal that cannot be written is told
        once."""
        if os.getpid() != self._process:
            # A forked process: queue and thread belong to the one it was forked from.
            self._begin()
        with self._changed:
            if "n" not in record:  # else it was journalled before, by another process
                self._numbered += 1
                record |= {"n": self._numbered, "by": self._writer}
                self._write(journal, lambda: journal.append(record))
            self._queue.append((journal, record))
            if self._thread is None:
                self._thread = threading.Thread(target=self._carry, name="tracking", daemon=True)
                self._thread.start()
                atexit.register(lambda: None if self.away else self.drain(5.0))
            self._changed.notify_all()

    def drain(self, seconds: float) -> int:
        """Sends what is queued now, and gives up when nothing arrived for that long (or all of it
        took six times as long).

        A server that is known away gets two quick tries.

        Returns:
            How many records are left.
        """
        if os.getpid() != self._process:
            return 0
        with self._changed:
            tries, longest = self._failures + 2, time.monotonic() + 6 * seconds
            self._hurry += 1
            self._changed.notify_all()
            while self._queue and self._failures < tries and time.monotonic() < longest:
                left = len(self._queue)

                def moved(left: int = left) -> bool:
                    return len(self._queue) < left or self._failures >= tries

                if not self._changed.wait_for(moved, seconds):
                    break
            self._hurry -= 1
            return len(self._queue)

    def say_away(self, reason: str, journal: Journal) -> None:
        """Warns that the server is away, once until it is back."""
        if not self.away:
            self.away = True
            log.warning(
                "MLflow at %s cannot be used now: %s. The run goes on: what it logs is kept in %s "
                "and is sent as soon as "
                "the server answers. Start the server again, or check the address.",
                self.where,
                reason,
                journal.path,
            )

    def _carry(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                self._changed.wait_for(
                    lambda: self._hurry, LINGER_S
                )  # so that one request carries many records
                journal = self._queue[0][0]
                batch = next(
                    batches(
                        [
                            record
                            for held, record in islice(self._queue, BATCH_RECORDS)
                            if held == journal
                        ]
                    )
                )
            try:
                self._send(journal, batch)
            except ServerUnavailable as error:
                self._fail(redact(str(error)), journal)
                continue
            except RecordRejected as error:
                self._tell_refused(redact(str(error)), batch[0])
            # our own mistake must not end the thread: training would fill a queue nobody empties
            except Exception as error:
                self._tell_refused(f"{type(error).__name__}: {redact(str(error))}", batch[0])
            if self.away:
                log.warning("MLflow at %s is back; what was kept is being sent", self.where)
                self.away = False
            self._write(journal, lambda: journal.sent(batch[-1], to=self.where))  # noqa: B023
            with self._changed:
                self._failures = 0
                for _ in batch:
                    self._queue.popleft()
                self._changed.notify_all()

    def _fail(self, reason: str, journal: Journal) -> None:
        with self._changed:
            self._failures += 1
            pause = min(FIRST_RETRY_S * 2 ** min(self._failures - 1, 10), LAST_RETRY_S)
            if self._failures > 1:  # one failure alone is a connection that idled too long
                self.say_away(reason, journal)
            self._changed.notify_all()
            if not self._hurry:
                self._changed.wait_for(lambda: self._hurry, pause)
            else:
                self._changed.wait(FIRST_RETRY_S)

    def _tell_refused(self, reason: str, record: Record) -> None:
        first = (record["run"], record["kind"]) not in self._warned
        self._warned.add((record["run"], record["kind"]))
        log.log(
            logging.WARNING if first else logging.INFO,
            "MLflow at %s refused %s: %s",
            self.where,
            record["kind"],
            reason,
        )

    def _write(self, journal: Journal, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if ("", "journal") not in self._warned:
                self._warned.add(("", "journal"))
                log.warning(
                    "cannot write the journal %s (%s): what cannot be sent while this process runs "
                    "will be lost",
                    journal.path,
                    error,
                )
