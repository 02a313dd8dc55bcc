"""The table of formats names every format there is, and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

from pretrain.components import names

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "own_recordings.md").read_text(encoding="utf-8")
_, TRACKS, LABELS, WRITTEN = re.split(r"^What is .*?(?=\n\n|:)", PAGE, flags=re.S | re.M)[:4]


def test_every_format_has_a_row() -> None:
    for table, folder in ((TRACKS, "track_formats"), (LABELS, "label_formats")):
        rows = re.findall(r"^\| `(\w+)` \|", table, flags=re.M)
        assert sorted(rows) == sorted(names(f"pretrain.readers.{folder}"))
    for folder in ("finetune.inference.prediction_formats", "pretrain.readers.export_formats"):
        assert set(names(folder)) <= set(re.findall(r"`(\w+)`", WRITTEN))


def test_every_test_that_is_named_is_there() -> None:
    there = "\n".join(path.read_text(encoding="utf-8") for path in TESTS.glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert named
    assert [name for name in named if f"def {name}(" not in there] == []
