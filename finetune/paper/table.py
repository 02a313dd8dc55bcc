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
    """A row of the table: a network of the paper, perhaps one that starts from another row's
    weights; the joint model; or the user's encoder."""

    title: str
    tasks: Sequence[str]
    """Label sets it is scored on."""
    network: str = ""
    """A file of networks/."""
    features: str = ""
    """External features that it reads besides the coordinates."""
    start: str = ""
    """Row whose weights of the same seed it starts from."""
    first: Phase = field(default_factory=Phase)
    """First phase of a row with a start."""
    second: Phase = field(default_factory=Phase)
    """Second phase of a row with a start."""
    class_weight: Mapping[str, float] = field(default_factory=dict)
    joint: str = ""
    """A settings file of the joint model."""
    transductive: bool = False
    """Whether the joint model learns from the poses (never the labels) of test videos."""
    encoder: bool = False
    """Whether it is tuned on the encoder that the user names."""
    published: str = ""
    """Figures to compare with, a key of published.yaml."""
    only_by_name: bool = False
    """Run only where it is named."""

    def phases(self, network: Baseline) -> list[Phase]:
        """Phases of training."""
        if self.start:
            return [self.first, self.second]
        return [Phase(epochs=network.epochs, lr=network.lr)]


def read_rows(file: Path = PAPER / "table.yaml") -> dict[str, Row]:
    """The rows in the order of the table.

    Raises:
        BadInput: If the file is wrong.
    """
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    rows = {name: make(Row, row, about=f"{file}, row {name}") for name, row in values.items()}
    errors = [
        f"row {name} starts from {row.start!r}, which is no row"
        for name, row in rows.items()
        if row.start and row.start not in rows
    ]
    errors += [
        f"row {name}: give exactly one of network, joint and encoder"
        for name, row in rows.items()
        if bool(row.network) + bool(row.joint) + row.encoder != 1
    ]
    refuse(errors, about=str(file))
    return rows


def read_published() -> dict[str, dict[str, Any]]:
    """Published figures: entry, then label set."""
    out: dict[str, dict[str, Any]] = yaml.safe_load(
        (PAPER / "published.yaml").read_text(encoding="utf-8")
    )
    return out


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings files by name, changed by ``--set``."""

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
    errors = []
    for pair in pairs:
        file, _, rest = pair.partition(".")
        if file not in names or not rest:
            errors.append(
                f"--set {pair}: write it as FILE.KEY=VALUE; files are: {', '.join(names)}"
            )
        by_file.setdefault(file, []).append(rest)
    refuse(errors, about="--set")

    def changes(name: str, kind: type) -> dict[str, Any]:
        (changed,) = parse_overrides(by_file.get(name, []), kind)
        return changed

    return Settings(
        networks={
            name: published_network(name, changes(name, Baseline))
            for name in names
            if name not in joints
        },
        joint={
            name: read(JointSettings, name, PAPER, changes(name, JointSettings)) for name in joints
        },
    )


def choose_rows(
    rows: Mapping[str, Row],
    names: Sequence[str] | None,
    *,
    has_tasks: Iterable[str],
    store: Store,
    encoder: bool,
) -> tuple[list[str], dict[str, str]]:
    """Which rows are run, and why others are not; without names all but those that run only by
    name. ``encoder`` says whether the user names one.

    Returns:
        Rows in the order of the table, those that others start from included; and for each row that
        cannot be run the reason.

    Raises:
        BadInput: If a name is unknown, or nothing can be run.
    """
    refuse(
        [
            f"there is no row {name!r}; there are: {', '.join(rows)}"
            for name in names or []
            if name not in rows
        ],
        about="--rows",
    )
    has = set(has_tasks)
    chosen, left_out = set[str](), dict[str, str]()
    for name in names or [name for name, row in rows.items() if not row.only_by_name]:
        needed = _with_starts(rows, name)
        lacking = sorted({task for row in needed for task in rows[row].tasks} - has)
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
            chosen |= set(needed)
    if not chosen:
        raise BadInput(
            "nothing can be run:"
            + "".join(f"\n  - {name}: {why}" for name, why in left_out.items())
        )
    return [name for name in rows if name in chosen], left_out


def _with_starts(rows: Mapping[str, Row], name: str) -> list[str]:
    """A row, the one that it starts from, and so on."""
    names = [name]
    while start := rows[names[-1]].start:
        names.append(start)
    return names


def about_data(store: Store, problems: Iterable[Problem]) -> tuple[str, bool]:
    """A description of the data, and whether scores may be compared with the paper's: only if every
    label count is CalMS21's."""
    counts: dict[tuple[str, str, str], dict[str, int]] = {}
    for problem in problems:
        behaviours = [name for name in problem.classes if name != problem.rest]
        for split, videos in (("train", problem.train), ("test", problem.test)):
            key = (problem.task, problem.annotator if len(behaviours) > 1 else behaviours[0], split)
            frames = counts.setdefault(key, dict.fromkeys(problem.classes, 0))
            for labels in videos.values():
                if labels.ndim == 1:
                    known = labels[labels != UNLABELLED]
                    numbers = np.bincount(known, minlength=len(problem.classes)).tolist()
                    for name, number in zip(problem.classes, numbers, strict=True):
                        frames[name] += number
    different = [key for key, frames in counts.items() if EXPECTED_FRAMES.get(key) != frames]
    labelled = sum(sum(frames.values()) for frames in counts.values())
    what = (
        f"{store.origin or 'recordings of unknown origin'}; {store.frames:,} frames, "
        f"{labelled:,} of them labelled; {store.fingerprint}"
    )
    if not different:
        return f"{what}. Every label count is CalMS21's.", True
    why = "SIMULATED MICE"
    if "simulated" not in store.origin:
        why = f"Label counts are not those of CalMS21 in {len(different)} of {len(counts)} sets"
    caution = "NOT COMPARABLE to the paper; its figures stand beside for their scale only."
    return f"{what}. {why}: {caution}", False
