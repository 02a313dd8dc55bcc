"""Steps of the postprocessing as JSON: the name of their class, and what they learned."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, TypeVar

from finetune.labels.frame_labels import plain
from pretrain.errors import BadInput

T = TypeVar("T")


class AbstractStep(ABC):
    """A frozen dataclass whose fields, numbers, texts and tuples of them, are what was learned. A
    saved model names it by its class."""

    overlapping: bool
    key: ClassVar[str] = "step"
    """Of the class in JSON."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {self.key: type(self).__name__, **plain(asdict(self))}  # type: ignore[call-overload]


def from_json(values: Mapping[str, Any], key: str, kinds: Sequence[type[T]]) -> T:
    """The step that :meth:`AbstractStep.to_dict` described.

    Raises:
        BadInput: If it is none of ``kinds``, or does not have their fields.
    """
    by_name = {kind.__name__: kind for kind in kinds}
    try:
        kind = by_name[values[key]]
        return kind(**{name: _frozen(value) for name, value in values.items() if name != key})
    except (KeyError, TypeError) as error:
        raise BadInput(f"no {key}: {values}; allowed: {', '.join(by_name)}") from error


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
