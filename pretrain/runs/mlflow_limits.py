"""Names and values in the shape that MLflow accepts: it refuses a whole batch for one odd
character."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from pretrain.errors import BadInput
from pretrain.redact import redact

NAME_CHARACTERS = 250
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 5000
"""MLflow takes 8,000; MySQL and older servers less."""


def plain_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags as MLflow takes them, without passwords."""
    return {
        plain_name(name): shorten(redact(str(value)), TAG_CHARACTERS)
        for name, value in tags.items()
    }


def check_registered_name(text: str | None) -> None:
    """Refuses what is no ``NAME`` or ``NAME@ALIAS`` of MLflow's registry.

    Raises:
        BadInput: If it is not.
    """
    if text is not None and not re.fullmatch(r"[^/:@'\s]+(@(?!v\d+$)(?!latest$)[\w-]+)?", text):
        raise BadInput(
            f"--register {text!r}: give NAME or NAME@ALIAS; a name has no /, :, quote or space, an "
            "alias letters, digits, - and _ (not v1, latest)"
        )


def plain_name(name: str) -> str:
    """The nearest name that MLflow allows; a name it already allows stays."""
    text = re.sub(r"[^\w.\- :/]", "_", name)
    # MLflow: must not look like another path
    if posixpath.normpath(text) != text or text.startswith(("/", "..")) or text == ".":
        text = text.replace("/", "_").replace("..", "_").strip() or "_"
        text = "_" if text == "." else text
    return text if len(text) <= NAME_CHARACTERS else _with_hash(text, name)


def free_name(name: str, taken: Mapping[str, Any]) -> str:
    """The nearest allowed name that is not taken: two names must not become one."""
    plain = plain_name(name)
    return plain if plain not in taken else _with_hash(plain, name)


def _with_hash(text: str, name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{text[: NAME_CHARACTERS - 9]}_{digest}"


def shorten(text: str, characters: int) -> str:
    """The text, or its beginning and a sign that there is more."""
    return text if len(text) <= characters else text[: characters - 1] + "…"


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings, dataclasses and lists of them, with dotted names."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping) and (value or not name):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple) and any(
        isinstance(inner, Mapping) or is_dataclass(inner) for inner in value
    ):
        for index, inner in enumerate(value):
            yield from flat(inner, f"{name}.{index}")
    else:
        yield name, value
