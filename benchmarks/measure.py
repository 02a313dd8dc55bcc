"""What all benchmarks share: work that takes turns, figures with their spread and goal, tables,
JSON, and which machine it was.

Times on a machine that others use mean little, so what is compared takes turns (A B A B …) and is
given as the median ratio of the turns, with the least and the greatest. Needs the standard library
and torch alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pretrain.errors import BadInput
from pretrain.train.torch_setup import configure_torch

BUSY = 0.3
"""Other work per core above which a machine counts as busy."""


@dataclass(frozen=True)
class Figure:
    """One measured quantity, once a turn."""

    what: str
    values: Sequence[float]
    unit: str
    at_least: float | None = None
    """The goal, where there is one."""
    at_most: float | None = None

    @property
    def median(self) -> float:
        """Of the turns."""
        return statistics.median(self.values)

    @property
    def goal(self) -> str:
        """The goal and whether the median reaches it."""
        if self.at_least is None and self.at_most is None:
            return ""
        reached = (self.at_least is None or self.median >= self.at_least) and (
            self.at_most is None or self.median <= self.at_most
        )
        bounds = [f"at least {short(self.at_least)}"] if self.at_least is not None else []
        bounds += [f"at most {short(self.at_most)}"] if self.at_most is not None else []
        return f"{' and '.join(bounds)}: {'reached' if reached else 'missed'}"

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "what": self.what,
            "unit": self.unit,
            "median": self.median,
            "least": min(self.values),
            "most": max(self.values),
            "turns": len(self.values),
            "goal": self.goal,
        }


@dataclass
class Report:
    """What one benchmark found.

    Args:
        name: Of the benchmark.
        what: One sentence: what is measured, against what.
        settings: What it was measured with.
    """

    name: str
    what: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=lambda: describe_machine())

    def add(self, what: str, values: Sequence[float] | float, unit: str, **goal: float) -> None:
        """Adds a figure; ``goal`` is ``at_least`` or ``at_most``."""
        held = (
            [float(values)]
            if isinstance(values, int | float)
            else [float(value) for value in values]
        )
        self.figures.append(Figure(what, held, unit, **goal))

    def note(self, sentence: str) -> None:
        """Adds a sentence that stands under the table."""
        self.notes.append(sentence)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "benchmark": self.name,
            "what": self.what,
            "command": command(),
            "settings": dict(self.settings),
            "machine": self.machine,
            "figures": [figure.plain() for figure in self.figures],
            "notes": self.notes,
        }

    def text(self) -> str:
        """As a table for people."""
        rows = [("", "median", "least to most", "", "goal")]
        for figure in self.figures:
            one = len(figure.values) == 1
            spread = (
                "one turn" if one else f"{short(min(figure.values))} to {short(max(figure.values))}"
            )
            rows.append((figure.what, short(figure.median), spread, figure.unit, figure.goal))
        wide = [max(len(row[column]) for row in rows) for column in range(5)]
        lines = [_line(row, wide) for row in rows]
        warning = [f"note: {self.machine['warning']}"] if self.machine["warning"] else []
        return "\n".join(
            [
                f"{self.name}: {self.what}",
                machine_line(self.machine),
                *lines,
                *(f"note: {s}" for s in self.notes),
                *warning,
            ]
        )

    def finish(self, json_file: Path | None) -> None:
        """Prints the table, and the JSON below it or into a file."""
        print(self.text())
        if json_file is None:
            print(json.dumps(self.plain()))
            return
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(self.plain(), indent=1) + "\n", encoding="utf-8")


def take_turns(
    works: Mapping[str, Callable[[], object]], *, turns: int, warm: int = 1
) -> dict[str, list[float]]:
    """Runs every work once a turn, A B A B …, after ``warm`` turns that do not count.

    Returns:
        Seconds of each turn, by name.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(-warm, turns):
        for name, work in works.items():
            spent = seconds(work)
            if turn >= 0:
                found[name].append(spent)
    return found


def seconds(work: Callable[[], object]) -> float:
    """How long a work takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Turn by turn, one divided by the other."""
    return [a / b for a, b in zip(over, under, strict=True)]


def rates(amount: float, spent: Sequence[float]) -> list[float]:
    """An amount a second, turn by turn."""
    return [amount / value for value in spent]


def short(value: float | None) -> str:
    """Three digits, thousands apart."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def command() -> str:
    """What was typed."""
    program = Path(sys.argv[0])
    return shlex.join(
        [
            "python",
            f"benchmarks/{program.name}" if program.suffix == ".py" else str(program),
            *sys.argv[1:],
        ]
    )


def describe_machine() -> dict[str, Any]:
    """Processor, instructions that matter, versions, and how busy the machine is at this moment."""
    info = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    )
    pairs = [line.split(":", 1) for line in info.splitlines() if ":" in line]
    lines = {name.strip(): value.strip() for name, value in pairs}
    flags = set(lines.get("flags", lines.get("Features", "")).split())
    cores, load = os.cpu_count() or 1, os.getloadavg()[0]
    warning = ""
    if load / cores > BUSY:
        warning = (
            f"the machine is busy (load {load:.1f} on {cores} cores at the start): trust "
            "ratios, not rates"
        )
    return {
        "processor": lines.get("model name") or platform.processor() or platform.machine(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "instructions": sorted(
            flags & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16"}
        ),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": round(load, 2),
        "warning": warning,
        "commit": _commit(),
        "time": time.strftime("%Y-%m-%d %H:%M"),
    }


def _line(row: Sequence[str], wide: Sequence[int]) -> str:
    cells = [
        cell.rjust(w) if place in (1, 2) else cell.ljust(w)
        for place, (cell, w) in enumerate(zip(row, wide, strict=True))
    ]
    return "  ".join(cells).rstrip()


def machine_line(machine: Mapping[str, Any]) -> str:
    """The machine in one line."""
    parts = [
        f"{machine['cores']} cores {machine['processor']} ({', '.join(machine['instructions'])})",
        machine["gpu"] or "no GPU",
        f"{machine['memory_gb']:g} GB",
        f"torch {machine['torch']}, {machine['threads']} threads",
        f"load {machine['load']} at the start",
    ]
    return "; ".join(parts)


def _commit() -> str:
    try:
        asked = ["git", "describe", "--always", "--dirty"]
        return subprocess.run(
            asked, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def new_parser(doc: str | None, *, turns: int) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--turns", type=int, default=turns, help="times that each work runs, in turn (%(default)s)"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count(), help="threads of torch (%(default)s)"
    )
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write the figures there instead of printing them as JSON",
    )
    return parser


def parse(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> argparse.Namespace:
    """Parses, refuses numbers below 1 and sets torch's threads.

    Raises:
        BadInput: If a number is below 1.
    """
    args = parser.parse_args(words)
    small = [
        f"--{name.replace('_', '-')} is {value}; it must be at least 1"
        for name, value in vars(args).items()
        if isinstance(value, int) and not isinstance(value, bool) and value < 1
    ]
    if small:
        raise BadInput("; ".join(small))
    configure_torch(args.threads)
    return args


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, as JSON."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name != "json"
    }
