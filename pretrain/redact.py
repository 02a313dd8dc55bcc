"""Addresses as people and files may see them: without the secrets in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_USER = re.compile(r"://[^\s/'\"]*@")
_SETTING = re.compile(
    r"([?&;][\w.-]*(?:password|passwd|pwd|secret|token|signature|credential|access_?key)[\w.-]*=)"
    r"[^\s&;'\"]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The text without the ``user:password@`` and the ``?password=…`` of any address in it."""
    return _SETTING.sub(r"\1***", _USER.sub("://***@", text))


def redacted(value: Any) -> Any:
    """Settings, nested as they may be, with every text in them redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redacted(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(one) for one in value]
    return value


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Writes settings or results for people to read and to pass on: no secret stays in them."""
    file.write_text(json.dumps(redacted(value), indent=1) + "\n", encoding="utf-8")
