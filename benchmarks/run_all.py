"""All benchmarks at their default sizes, one after the other: a table of each, a summary and all
figures as JSON.

    python benchmarks/run_all.py                         into bench/ ; what `make bench` does
    python benchmarks/run_all.py --only stream embed --out bench/today

Each runs in a process of its own. One that fails is named in the summary and the rest go on; the
exit status is then 1. Where the machine was busy when a benchmark began, the summary says so: trust
ratios then, not rates.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure

from pretrain.errors import BadInput, exit_status

HERE = Path(__file__).parent
SHARED = {
    "accuracy_ablation",
    "accuracy_protocol",
    "accuracy_report",
    "accuracy_split",
    "beside",
    "linear_probe",
    "mapped",
    "measure",
    "memory",
    "steps",
    "walks",
}
NOT_ALONE = SHARED | {
    "accuracy",
    "lisbet_probe",
    "run_all",
}  # both need a store of real recordings, lisbet_probe an interpreter that has LISBET as well


def names() -> list[str]:
    """All benchmarks there are."""
    return sorted(path.stem for path in HERE.glob("*.py") if path.stem not in NOT_ALONE)


def run(name: str, words: Sequence[str], out: Path) -> dict[str, Any]:
    """One benchmark; what it found, or what went wrong."""
    file = out / f"{name}.json"
    file.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / f"{name}.py"), *words, "--json", str(file)]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - begin
    (out / f"{name}.txt").write_text(done.stdout, encoding="utf-8")
    print(
        done.stdout if done.returncode == 0 else f"{name} failed:\n{done.stderr[-2000:]}",
        f"({name}: {spent:.0f} s)\n",
        sep="\n",
    )
    found: dict[str, Any] = {"benchmark": name, "seconds": round(spent, 1), "failed": ""}
    if done.returncode or not file.is_file():
        return found | {
            "failed": (done.stderr.strip().splitlines() or ["no figures were written"])[-1]
        }
    held = json.loads(file.read_text(encoding="utf-8"))
    # A benchmark that is not in the common form is kept as it is.
    return found | (held if isinstance(held, dict) and "figures" in held else {"held": held})


def summary(found: Sequence[dict[str, Any]], machine: dict[str, Any]) -> str:
    """Markdown: the machine, then a table for each benchmark."""
    lines = [
        "# Benchmarks",
        "",
        f"{machine['time']}, commit {machine['commit'] or 'unknown'}. "
        f"{measure.machine_line(machine)}.",
        "",
    ]
    lines += [f"**Note: {machine['warning']}.**", ""] if machine["warning"] else []
    for one in found:
        lines += [f"## {one['benchmark']}", ""]
        if one["failed"]:
            lines += [f"**Failed**: {one['failed']}", ""]
            continue
        if "figures" not in one:
            lines += [f"See {one['benchmark']}.txt.", ""]
            continue
        lines += [
            f"{one['what']}. `{one['command']}`, {one['seconds']:.0f} s.",
            "",
            "| | median | least to most | | goal |",
            "|---|---|---|---|---|",
        ]
        for figure in one["figures"]:
            spread = (
                "one turn"
                if figure["turns"] == 1
                else f"{measure.short(figure['least'])} to {measure.short(figure['most'])}"
            )
            lines.append(
                f"| {figure['what']} | {measure.short(figure['median'])} | {spread} | "
                f"{figure['unit']} | {figure['goal']} |"
            )
        notes = [*one["notes"], *([one["machine"]["warning"]] if one["machine"]["warning"] else [])]
        lines += ["", *(f"- {sentence}" for sentence in notes), ""]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Runs them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("bench"),
        metavar="FOLDER",
        help="where tables, JSON and summary go (%(default)s)",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of: {', '.join(names())}")
    parser.add_argument(
        "--lisbet", metavar="PYTHON", help="interpreter that has the package lisbet, for train_step"
    )
    parser.add_argument("--turns", type=int, help="turns of each, instead of its own number")
    args = parser.parse_args(words)
    unknown = sorted(set(args.only or []) - set(names()))
    if unknown:
        raise BadInput(f"--only: there is no {', '.join(unknown)}; there are: {', '.join(names())}")
    args.out.mkdir(parents=True, exist_ok=True)
    machine = measure.describe_machine()
    print(
        measure.machine_line(machine),
        *([machine["warning"]] if machine["warning"] else []),
        "",
        sep="\n",
    )
    found = []
    for name in args.only or names():
        told = ["--turns", str(args.turns)] if args.turns else []
        told += ["--lisbet", args.lisbet] if name == "train_step" and args.lisbet else []
        found.append(run(name, told, args.out))
    (args.out / "figures.json").write_text(
        json.dumps({"machine": machine, "benchmarks": found}, indent=1) + "\n", encoding="utf-8"
    )
    (args.out / "summary.md").write_text(summary(found, machine), encoding="utf-8")
    print(f"summary: {args.out / 'summary.md'}\nfigures: {args.out / 'figures.json'}")
    failed = [one["benchmark"] for one in found if one["failed"]]
    if failed:
        raise RuntimeError(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    sys.exit(exit_status(main))
