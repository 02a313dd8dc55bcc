"""The benchmark paper's tables as data: which rows there are, with which settings, and what was
published for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from finetune.paper.baselines import NETWORKS, Baseline, published_network
from finetune.paper.fit import Phase
from finetune.paper.joint_model import JointSettings
from pretrain.config import make, parse_overrides, read
from pretrain.data.store import Store
from pretrain.errors import BadInput, refuse
from pretrain.readers.calms21.expected_counts import EXPECTED_FRAMES

PAPER = Path(__file__).parent
FIRST_SEED = 42


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table: a network trained, one that goes on from another row's weights, the joint
    model, or our encoder."""

    title: str
    tasks: Sequence[str]
    """Label sets it is scored on."""
    network: str = ""
    """A file of networks/."""
    features: str = ""
    """Features from elsewhere beside the coordinates."""
    start: str = ""
    """Row whose weights of the same seed it starts from."""
    probe: Phase = field(default_factory=Phase)
    """Of a row with a start: the last layer alone (and batch norms)."""
    tune: Phase = field(default_factory=Phase)
    """After that: all of it."""
    class_weight: Mapping[str, float] = field(default_factory=dict)
    joint: str = ""
    """A settings file of the joint model."""
    transductive: bool = False
    """Whether the joint model learns from the poses (never the labels) of test videos."""
    encoder: bool = False
    """Whether it is tuned on the encoder that the user names."""
    published: str = ""
    """Figures to compare with, a key of published.yaml."""
    asked: bool = False
    """Run only where it is named."""

    def phases(self, network: Baseline) -> list[tuple[Phase, bool]]:
        """What is trained for how long, and whether the last layer alone."""
        return (
            [(self.probe, True), (self.tune, False)]
            if self.start
            else [(Phase(epochs=network.epochs, lr=network.lr), False)]
        )


def read_rows(file: Path = PAPER / "table.yaml") -> dict[str, Row]:
    """The rows in the order of the table.

    Raises:
        BadInput: If the file is wrong.
    """
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    rows = {name: make(Row, held, about=f"{file}, row {name}") for name, held in values.items()}
    problems = [
        f"row {name} starts from {row.start!r}, which is no row"
        for name, row in rows.items()
        if row.start and row.start not in rows
    ]
    problems += [
        f"row {name}: give exactly one of network, joint and encoder"
        for name, row in rows.items()
        if bool(row.network) + bool(row.joint) + row.encoder != 1
    ]
    refuse(problems, about=str(file))
    return rows


def read_published() -> dict[str, dict[str, Any]]:
    """Published figures: entry, then label set."""
    values: dict[str, dict[str, Any]] = yaml.safe_load(
        (PAPER / "published.yaml").read_text(encoding="utf-8")
    )
    return values


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings files by name, with ``--set`` laid over them."""

    networks: Mapping[str, Baseline]
    joint: Mapping[str, JointSettings]


def read_settings(pairs: Sequence[str], rows: Mapping[str, Row]) -> Settings:
    """All networks and joint models of some rows, changed by ``--set FILE.KEY=VALUE``.

    Raises:
        BadInput: If a file or a key is unknown or a value has the wrong type.
    """
    joints = sorted({row.joint for row in rows.values() if row.joint})
    names = [*sorted(path.stem for path in NETWORKS.glob("*.yaml")), *joints]
    by_file: dict[str, list[str]] = {}
    problems = []
    for pair in pairs:
        file, _, rest = pair.partition(".")
        if file not in names or not rest:
            problems.append(
                f"--set {pair}: write it as FILE.KEY=VALUE; files are: {', '.join(names)}"
            )
        by_file.setdefault(file, []).append(rest)
    refuse(problems, about="--set")
    changed = {
        name: parse_overrides(by_file.get(name, []), JointSettings if name in joints else Baseline)[
            0
        ]
        for name in names
    }
    return Settings(
        networks={
            name: published_network(name, changed[name]) for name in names if name not in joints
        },
        joint={name: read(JointSettings, name, PAPER, changed[name]) for name in joints},
    )


def choose_rows(
    rows: Mapping[str, Row],
    wanted: Sequence[str] | None,
    *,
    has_tasks: Iterable[str],
    store: Store,
    encoder: bool,
) -> tuple[list[str], dict[str, str]]:
    """Which rows are run, and why others are not.

    Args:
        rows: All there are.
        wanted: Names; None: all but those that must be asked for.
        has_tasks: Label sets of the store.
        store: The store.
        encoder: Whether the user names an encoder.

    Returns:
        Rows in the order of the table, those that others start from included; and a reason for each
        wanted row that is left out.

    Raises:
        BadInput: If a name is unknown, or nothing can be run.
    """
    refuse(
        [
            f"there is no row {name!r}; there are: {', '.join(rows)}"
            for name in wanted or []
            if name not in rows
        ],
        about="--rows",
    )
    has = set(has_tasks)
    chosen, left_out = set[str](), dict[str, str]()
    for name in wanted or [name for name, row in rows.items() if not row.asked]:
        lineage = _lineage(rows, name)
        lacking = sorted({task for held in lineage for task in rows[held].tasks} - has)
        features = rows[name].features
        if lacking and not (rows[name].joint or rows[name].encoder):
            left_out[name] = f"the store has no labels for {', '.join(lacking)}"
        elif not has & set(rows[name].tasks):
            left_out[name] = f"the store has no labels for any of {', '.join(rows[name].tasks)}"
        elif features and features not in store.features:
            left_out[name] = f"the store has no features {features!r}"
        elif rows[name].encoder and not encoder:
            left_out[name] = "no --encoder was given"
        else:
            chosen |= set(lineage)
    if not chosen:
        raise BadInput(
            "nothing can be run:"
            + "".join(f"\n  - {name}: {why}" for name, why in left_out.items())
        )
    return [name for name in rows if name in chosen], left_out


def _lineage(rows: Mapping[str, Row], name: str) -> list[str]:
    found = [name]
    while start := rows[found[-1]].start:
        found.append(start)
    return found


def about_data(store: Store, problems: Iterable[Problem]) -> tuple[str, bool]:
    """What was run on, in words, and whether scores may be compared with the paper's: only if every
    label count is CalMS21's."""
    counts: dict[tuple[str, str, str], dict[str, int]] = {}
    for problem in problems:
        behaviours = [name for name in problem.classes if name != problem.rest]
        for side, held in (("train", problem.train), ("test", problem.test)):
            key = (problem.task, problem.annotator if len(behaviours) > 1 else behaviours[0], side)
            found = counts.setdefault(key, dict.fromkeys(problem.classes, 0))
            for labels in held.values():
                if labels.ndim == 1:
                    for place, number in enumerate(
                        np.bincount(labels[labels != UNLABELLED], minlength=len(problem.classes))
                    ):
                        found[problem.classes[place]] += int(number)
    unlike = [key for key, found in counts.items() if EXPECTED_FRAMES.get(key) != found]
    labelled = sum(sum(found.values()) for found in counts.values())
    what = (
        f"{store.origin or 'recordings of unknown origin'}; {store.frames:,} frames, "
        f"{labelled:,} of them labelled; {store.fingerprint}"
    )
    if not unlike:
        return f"{what}. Every label count is CalMS21's.", True
    if "simulated" in store.origin:
        return (
            f"{what}. SIMULATED MICE: NOT COMPARABLE to the paper; its figures stand beside for "
            "their scale only.",
            False,
        )
    return (
        f"{what}. Label counts are not those of CalMS21 in {len(unlike)} of {len(counts)} sets: "
        "NOT COMPARABLE to the paper; its figures "
        "stand beside for their scale only.",
        False,
    )
