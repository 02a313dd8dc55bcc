"""Recipe and scale: what is learned, and where. They own different keys, so neither overrides the
other."""

from __future__ import annotations

import dataclasses
import logging
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from pretrain.components import (
    Count,
    NotNegative,
    Positive,
    Seed,
    Share,
    Whole,
    field_errors,
    type_errors,
)
from pretrain.encoders import with_needed_groups
from pretrain.errors import BadInput, error_if, refuse
from pretrain.runs.addresses import full_address
from pretrain.transforms.augment import Augment, augment_errors

log = logging.getLogger(__name__)

T = TypeVar("T")
Precision = Literal["auto", "float32", "bf16"]

RECIPES = Path(__file__).parent / "recipes"
SCALES = Path(__file__).parent.parent / "ray_configs"


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """AdamW (Loshchilov & Hutter 2019) under a cosine schedule with linear warm-up."""

    lr: Positive = 1e-3
    """Peak learning rate; per global batch, whatever the number of workers."""
    weight_decay: NotNegative = 0.01
    warmup: Share = 0.05
    """Share of all steps during which the rate rises from 0."""
    clip: NotNegative = 1.0
    """Gradient norm above which a step is shortened; 0 = never."""

    def __post_init__(self) -> None:
        refuse(field_errors(self), about="optimiser")

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
    """Settings of pretrain/transforms/features.py: groups, lags, external; completed by the groups
    that the encoder needs."""
    augment: Mapping[str, Any] = field(default_factory=dict)
    """Settings of pretrain/transforms/augment.py."""
    optimiser: Optimiser = field(default_factory=Optimiser)
    batch: Count = 64
    """Windows of a global batch, over all workers."""
    window: int = 128
    """Frames of a window, at most a chunk's 1,024."""
    epochs: Count = 10
    """Passes over every frame of the store."""
    seed: Seed = 0
    precision: Precision = "auto"
    """bf16: matrix products in bfloat16; weights, features and losses in float32. auto: bf16 where
    the processor multiplies it faster."""

    def __post_init__(self) -> None:
        errors = field_errors(self) + error_if(
            not 2 <= self.window <= 1024, f"window is {self.window} frames; it must lie in 2…1024"
        )
        errors += [
            f"{name} needs a `name`"
            for name in ("encoder", "objective")
            if not isinstance(getattr(self, name).get("name"), str)
        ]
        errors += [f"augment: {error}" for error in augment_errors(self.augment)]
        refuse(errors, about="the recipe")
        object.__setattr__(self, "augment", Augment(**self.augment).settings)
        object.__setattr__(self, "features", with_needed_groups(self.features, self.encoder))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Where it runs, and nothing else."""

    address: str | None = None
    """Ray head to join. null: the cluster a submitted job runs on, else a Ray of our own on this
    machine."""
    cpus: Count | None = None
    """CPUs a Ray of our own may use; null: all there are."""
    workers: Count | list[int] = 1
    """Ray Train workers; the global batch must divide by them. ``[least, most]``: as many as the
    machines have room for, which may come and go."""
    gpu: bool = False
    """Whether each worker (and each tuning trial) gets a GPU."""
    cpus_per_worker: Positive | None = None
    """CPUs reserved for each worker; null: as many as there is room for, up to 4."""
    gpus_per_trial: Positive = 1.0
    """Share of a GPU for a tuning trial, where ``gpu`` is true."""
    concurrent_trials: Count = 2
    """Tuning trials at a time."""
    resident_gb: NotNegative = 4.0
    """Memory (GB, of the device) in which a worker may keep its share of the frames after the first
    pass; above it they stream."""
    retries: Whole = 1
    """Times a failed run goes on from its last checkpoint by itself."""
    checkpoint_steps: Whole = 0
    """Steps between checkpoints; 0: at the end of every epoch."""
    storage: str | None = None
    """Where checkpoints go (a folder every machine sees, or s3://…); null: into the run's own
    folder."""
    tracking: str | None = None
    """MLflow server (http://…) or store (sqlite:///…); null: a sqlite store in the runs' folder."""

    def __post_init__(self) -> None:
        errors = field_errors(self)
        if isinstance(self.workers, list):
            errors += error_if(
                len(self.workers) != 2 or not 1 <= self.workers[0] <= self.workers[1],
                f"workers is {self.workers}; it must be a number or [least, most]",
            )
        refuse(errors, about="the scale")
        if self.tracking is not None:
            full_address(self.tracking, runs_folder=".")

    @property
    def least_workers(self) -> int:
        """Fewer than this do not train."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def most_workers(self) -> int:
        """As many as may train."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


def read(kind: type[T], source: str, folder: Path, overrides: Mapping[str, Any]) -> T:
    """Reads a settings file, by name (``laptop``) from its folder or by path (``my/laptop.yaml``),
    and lays ``--set`` values over it: dotted keys to values, whose first words are keys of
    ``kind``.

    Raises:
        BadInput: If there is no such file, or a key is unknown, or a value has the wrong type.
    """
    is_path = source.endswith((".yaml", ".yml")) or "/" in source
    path = Path(source) if is_path else folder / f"{source}.yaml"
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
    for sentence in override(values, overrides, about="--set"):
        log.info("%s", sentence)
    return make(kind, values, about=str(path) + (" with --set" if overrides else ""))


def make(kind: type[T], values: Mapping[str, Any], *, about: str) -> T:
    """Plain values to a settings dataclass, nested ones included.

    Raises:
        BadInput: If a key is unknown or missing, or a value has the wrong type: all errors at once.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    errors: list[str] = []
    settings: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            errors.append(
                _renamed(kind, key) or f"unknown key {key!r}; allowed: {', '.join(fields)}"
            )
        elif dataclasses.is_dataclass(hints[key]):
            if isinstance(value, Mapping):
                try:
                    settings[key] = make(typing.cast(type, hints[key]), value, about=key)
                except BadInput as error:
                    errors.append(str(error).replace("\n  - ", " "))
            else:
                errors.append(f"{key} is {value!r}; it must hold keys and values")
        else:
            errors += type_errors(key, value, hints[key])
            settings[key] = value
    errors += [
        f"{name} is required"
        for name, f in fields.items()
        if name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    refuse(errors, about=about)
    return kind(**settings)


def _renamed(kind: type, key: str) -> str | None:
    """The error for a key that earlier versions of a settings dataclass had."""
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
    keys = [{f.name for f in dataclasses.fields(kind)} for kind in kinds]
    overrides: list[dict[str, Any]] = [{} for _ in kinds]
    errors = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        owners = [index for index, allowed in enumerate(keys) if key.split(".")[0] in allowed]
        renamed = [error for kind in kinds if (error := _renamed(kind, key.split(".")[0]))]
        if not equals:
            errors.append(f"--set {pair}: write it as key=value")
        elif renamed:
            errors.append(f"--set {pair}: {renamed[0]}")
        elif not owners:
            listed = "; ".join(
                f"{kind.__name__.lower()}: {', '.join(sorted(allowed))}"
                for kind, allowed in zip(kinds, keys, strict=True)
            )
            errors.append(f"--set {pair}: unknown key {key.split('.')[0]!r}; allowed: {listed}")
        else:
            try:
                overrides[owners[0]][key] = _number(yaml.safe_load(text))
            except yaml.YAMLError as error:
                errors.append(f"--set {pair}: cannot read the value: {error}")
    refuse(errors, about="--set")
    return overrides


def override(values: dict[str, Any], changes: Mapping[str, Any], *, about: str) -> list[str]:
    """Lays values over nested settings, in place: dotted keys to values.

    The settings of a component (``encoder``, ``objective``, ``head``) belong to the one that
    ``name`` names: another name drops them. The order of the changes does not matter: a whole
    mapping comes before its keys, and a name before the settings of what it names.

    Returns:
        A sentence for each component whose settings were dropped.

    Raises:
        BadInput: If a key leads through something that holds no keys.
    """
    dropped = []
    for dotted in sorted(changes, key=lambda key: (key.count("."), not key.endswith(".name"))):
        *path, last = dotted.split(".")
        inside = values
        for word in path:
            inside = inside.setdefault(word, {})
            if not isinstance(inside, dict):
                raise BadInput(f"{about} {dotted}: {word!r} holds a value, not keys")
        before = inside.get("name")
        if path and last == "name" and isinstance(before, str) and before != changes[dotted]:
            settings = [f"{key}={value}" for key, value in inside.items() if key != "name"]
            inside.clear()
            if settings:
                dropped.append(
                    f"{'.'.join(path)} is {changes[dotted]}: the settings of {before} are dropped "
                    f"({', '.join(settings)})"
                )
        inside[last] = changes[dotted]
    return dropped


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
