"""Recipe and scale: what is learned, and where. They own different keys, so neither overrides the
other."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from pretrain.components import fits, type_name
from pretrain.errors import BadInput, refuse
from pretrain.runs.addresses import full_address
from pretrain.transforms.augment import Augment

T = TypeVar("T")
Precision = Literal["auto", "float32", "bf16"]

RECIPES = Path(__file__).parent / "recipes"
SCALES = Path(__file__).parent.parent / "ray_configs"


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """AdamW (Loshchilov & Hutter 2019) under a cosine schedule with linear warm-up."""

    lr: float = 1e-3
    """Peak learning rate; per global batch, whatever the number of workers."""
    weight_decay: float = 0.01
    warmup: float = 0.05
    """Share of all steps during which the rate rises from 0."""
    clip: float = 1.0
    """Gradient norm above which a step is shortened; 0 = never."""

    def __post_init__(self) -> None:
        refuse(
            ([f"lr is {self.lr}; it must be above 0"] if not self.lr > 0 else [])
            + (
                [f"warmup is {self.warmup}; it must lie in 0…1"]
                if not 0 <= self.warmup <= 1
                else []
            )
            + [
                f"{name} is negative"
                for name in ("weight_decay", "clip")
                if getattr(self, name) < 0
            ],
            about="optimiser",
        )

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step (counted from 0) as a share of ``lr``."""
        warm = max(1, round(self.warmup * steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is learned. The same recipe gives the same result at any scale."""

    encoder: Mapping[str, Any]
    """``name`` (a file in pretrain/encoders/) and its settings."""
    objective: Mapping[str, Any]
    """``name`` (a file in pretrain/objectives/) and its settings."""
    features: Mapping[str, Any] = field(default_factory=dict)
    """Settings of pretrain/transforms/features.py: groups, lags."""
    augment: Augment = field(default_factory=Augment)
    optimiser: Optimiser = field(default_factory=Optimiser)
    batch: int = 64
    """Windows of a global batch, over all workers."""
    window: int = 128
    """Frames of a window, at most a chunk's 1,024."""
    epochs: int = 10
    """Passes over every frame of the store."""
    seed: int = 0
    precision: Precision = "auto"
    """bf16: matrix products in bfloat16; weights, features and losses in float32. auto: bf16 where
    the processor multiplies it faster."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {value}; it must be at least 1"
            for name, value in (("batch", self.batch), ("epochs", self.epochs))
            if value < 1
        ]
        if not 2 <= self.window <= 1024:
            problems.append(f"window is {self.window} frames; it must lie in 2…1024")
        problems += [
            f"{name} needs a `name`"
            for name in ("encoder", "objective")
            if not isinstance(getattr(self, name).get("name"), str)
        ]
        refuse(problems, about="the recipe")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where it runs, and nothing else."""

    address: str | None = None
    """Ray head to join. null: the cluster a submitted job runs on, else a Ray of our own on this
    machine."""
    cpus: int | None = None
    """CPUs a Ray of our own may use; null: all there are."""
    workers: int = 1
    """Ray Train workers; the global batch must divide by them."""
    gpu: bool = False
    """Whether each worker (and each tuning trial) gets a GPU."""
    cpus_per_worker: float = 1.0
    """CPUs reserved for each worker. Ray Data needs at least one more beside them."""
    gpus_per_trial: float = 1.0
    """Share of a GPU for a tuning trial, where ``gpu`` is true."""
    concurrent_trials: int = 2
    """Tuning trials at a time."""
    resident_gb: float = 4.0
    """Memory (GB, of the device) in which a worker may keep its share of the frames after the first
    pass; above it they stream."""
    retries: int = 1
    """Times a failed run goes on from its last checkpoint by itself."""
    checkpoint_steps: int = 0
    """Steps between checkpoints; 0: at the end of every epoch."""
    storage: str | None = None
    """Where checkpoints go (a folder every machine sees, or s3://…); null: into the run's own
    folder."""
    tracking: str | None = None
    """MLflow server (http://…) or store (sqlite:///…); null: a sqlite store beside the runs."""

    def __post_init__(self) -> None:
        least = {
            "workers": 1,
            "concurrent_trials": 1,
            "retries": 0,
            "checkpoint_steps": 0,
            "resident_gb": 0,
        }
        problems = [
            f"{name} is {getattr(self, name)}; it must be at least {low}"
            for name, low in least.items()
            if getattr(self, name) < low
        ]
        problems += [
            f"{name} must be above 0"
            for name in ("cpus_per_worker", "gpus_per_trial")
            if getattr(self, name) <= 0
        ]
        if self.cpus is not None and self.cpus < 1:
            problems.append(f"cpus is {self.cpus}; it must be at least 1, or null")
        refuse(problems, about="the scale")
        if self.tracking is not None:
            full_address(self.tracking, runs_folder=".")


def read(kind: type[T], source: str, folder: Path, overrides: Mapping[str, Any]) -> T:
    """Reads a settings file, by name from its folder or by path, and lays ``--set`` values over it.

    Args:
        kind: The dataclass it becomes.
        source: A name (``laptop``) or a path (``my/laptop.yaml``).
        folder: Where names are looked up.
        overrides: Dotted keys to values; only those whose first word is a key of ``kind``.

    Raises:
        BadInput: If there is no such file, or a key is unknown, or a value has the wrong type.
    """
    path = (
        Path(source)
        if source.endswith((".yaml", ".yml")) or "/" in source
        else folder / f"{source}.yaml"
    )
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise BadInput(
            f"there is no {kind.__name__.lower()} {source!r} (looked at {path}); there are: {known}"
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise BadInput(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise BadInput(f"{path} must hold keys and values; it holds a {type(values).__name__}")
    for dotted, value in overrides.items():
        _put(values, dotted.split("."), value, dotted)
    return make(kind, values, about=str(path) + (" with --set" if overrides else ""))


def make(kind: type[T], values: Mapping[str, Any], *, about: str) -> T:
    """Plain values to a settings dataclass, nested ones included.

    Raises:
        BadInput: If a key is unknown or missing, or a value has the wrong type: all problems at
            once.
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    problems: list[str] = []
    made: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            problems.append(
                _renamed(kind, key) or f"unknown key {key!r}; allowed: {', '.join(fields)}"
            )
        elif dataclasses.is_dataclass(hints[key]):
            if isinstance(value, Mapping):
                try:
                    made[key] = make(typing.cast(type, hints[key]), value, about=key)
                except BadInput as error:
                    problems.append(str(error).replace("\n  - ", " "))
            else:
                problems.append(f"{key} is {value!r}; it must hold keys and values")
        elif fits(value, hints[key]):
            made[key] = value
        else:
            problems.append(f"{key} is {value!r}; it must be {type_name(hints[key])}")
    problems += [
        f"{name} is required"
        for name, f in fields.items()
        if name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    refuse(problems, about=about)
    return kind(**made)


def _renamed(kind: type, key: str) -> str | None:
    """What to say of a key that earlier versions of a settings dataclass had."""
    new = getattr(kind, "RENAMED", {}).get(key)
    return new and f"the key {key!r} has been renamed: write {new}"


def plain(settings: Any) -> dict[str, Any]:
    """A settings dataclass as plain JSON values."""
    return dataclasses.asdict(settings)


def parse_overrides(pairs: Sequence[str], *kinds: type) -> list[dict[str, Any]]:
    """Sorts ``--set a.b=c`` among settings dataclasses by their first word.

    Returns:
        One dictionary for each of ``kinds``, dotted key to value (read as YAML, so 3 is a number
        and null is None).

    Raises:
        BadInput: If a pair has no ``=`` or its first word is a key of none of them.
    """
    owned = [{f.name for f in dataclasses.fields(kind)} for kind in kinds]
    sorted_out: list[dict[str, Any]] = [{} for _ in kinds]
    problems = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        owner = [place for place, keys in enumerate(owned) if key.split(".")[0] in keys]
        renamed = [said for kind in kinds if (said := _renamed(kind, key.split(".")[0]))]
        if not equals:
            problems.append(f"--set {pair}: write it as key=value")
        elif renamed:
            problems.append(f"--set {pair}: {renamed[0]}")
        elif not owner:
            allowed = "; ".join(
                f"{kind.__name__.lower()}: {', '.join(sorted(keys))}"
                for kind, keys in zip(kinds, owned, strict=True)
            )
            problems.append(f"--set {pair}: unknown key {key.split('.')[0]!r}; allowed: {allowed}")
        else:
            try:
                sorted_out[owner[0]][key] = _number(yaml.safe_load(text))
            except yaml.YAMLError as error:
                problems.append(f"--set {pair}: cannot read the value: {error}")
    refuse(problems, about="--set")
    return sorted_out


def _number(value: Any) -> Any:
    """On a command line 1e-3 can only mean a number, though YAML reads it as text."""
    if isinstance(value, str):
        try:
            return (
                float(value) if value.lower() not in ("nan", "inf", "-inf", "infinity") else value
            )
        except ValueError:
            return value
    return value


def _put(values: dict[str, Any], path: list[str], value: Any, dotted: str) -> None:
    for word in path[:-1]:
        values = values.setdefault(word, {})
        if not isinstance(values, dict):
            raise BadInput(f"--set {dotted}: {word!r} holds a value, not keys")
    values[path[-1]] = value
