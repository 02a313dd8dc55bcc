"""What a search asked for and what it was told, in order: a file that lets an interrupted search go
on where it stood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretrain.runs.json_lines import JsonLines


@dataclass
class Tried:
    """One trial so far."""

    number: int
    choice: Mapping[str, Any]
    """Searched keys and their values."""
    reports: list[Mapping[str, float]] = field(default_factory=list)
    """Scores on validation, by ``steps``."""
    ended: bool = False
    """Whether it was fitted as long as it was to be; a trial that failed or was interrupted was
    not."""

    @property
    def best(self) -> Mapping[str, float]:
        """The report with the highest score, the earliest of equals."""
        return max(self.reports, key=lambda report: (report["score"], -report["steps"]))

    @property
    def fitted(self) -> float:
        """Steps after which it was last scored; 0 if it never was."""
        return self.reports[-1]["steps"] if self.reports else 0


class History:
    """Trials in the order asked for, each event a line of a file (lines are whole whatever happens
    to the writer).

    Args:
        path: The file; what it holds already is taken up.
    """

    def __init__(self, path: Path) -> None:
        self._journal = JsonLines(path)
        self.trials: list[Tried] = []

    def replay(self) -> Iterator[Mapping[str, Any]]:
        """Takes up what the file holds, and hands out every event as it is taken."""
        for event in self._journal.read():
            self._take(event)
            yield event

    def asked(self, choice: Mapping[str, Any]) -> Tried:
        """A new trial."""
        self._add({"kind": "asked", "trial": len(self.trials), "choice": dict(choice)})
        return self.trials[-1]

    def scored(self, number: int, report: Mapping[str, float]) -> None:
        """A trial was scored on validation."""
        self._add({"kind": "scored", "trial": number, "report": dict(report)})

    def ended(self, number: int) -> None:
        """A trial is over; telling it twice does no harm."""
        if not self.trials[number].ended:
            self._add({"kind": "ended", "trial": number})

    def _add(self, event: dict[str, Any]) -> None:
        self._journal.append(event)
        self._take(event)

    def _take(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "asked":
            self.trials.append(Tried(event["trial"], event["choice"]))
            assert event["trial"] == len(self.trials) - 1, "the history of a search has a gap"
        elif event["kind"] == "scored":
            self.trials[event["trial"]].reports.append(event["report"])
        else:
            assert event["kind"] == "ended", event
            self.trials[event["trial"]].ended = True
