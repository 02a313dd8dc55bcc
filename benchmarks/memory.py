"""Memory of a piece of work: this process, and it together with all processes it started."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

PAUSE_S = 0.1


class Memory:
    """Watches memory while its block runs. Memory that processes share is divided among them, so
    that sums are right (Linux).

    Attributes:
        own_mib: Peak of this process (MiB).
        all_mib: Peak of this process and all that it started, Ray's among them (MiB).
        before_mib: This process when the block began (MiB).
    """

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self.before_mib = self.own_mib = _mib(psutil.Process())
        self.all_mib = self.own_mib
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(PAUSE_S):
            self._look()

    def _look(self) -> None:
        me = psutil.Process()
        own = _mib(me)
        self.own_mib = max(self.own_mib, own)
        self.all_mib = max(
            self.all_mib, own + sum(_mib(child) for child in me.children(recursive=True))
        )


def _mib(process: psutil.Process) -> float:
    try:
        for line in (
            Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        ):
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
        return float(process.memory_info().rss) / 2**20
    except FileNotFoundError:
        try:
            return float(process.memory_info().rss) / 2**20
        except psutil.Error:
            return 0.0
    except (OSError, psutil.Error):  # it ended meanwhile, or belongs to somebody else
        return 0.0
