"""The documentation as a site: it builds with every link checked, and what it quotes is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ethoray.__main__ import COMMANDS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there_and_the_front_page_is_the_readme(site: Path) -> None:
    pages = {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")}
    assert pages | {"index.html", "commands.html"} <= {path.name for path in site.iterdir()}
    front = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="getting_started.html"' in front
    assert "](" not in re.sub(r"<(pre|code)[^>]*>.*?</\1>", "", front, flags=re.S)
    assert "fonts.googleapis" not in front, "the site asks another machine for something"


def test_every_command_is_described(site: Path) -> None:
    page = (site / "commands.html").read_text(encoding="utf-8")
    for name in COMMANDS:
        assert f'id="{name}"' in page
        assert f"usage: ethoray {name}" in page
    assert "--keypoints" in page, "the parts of prepare"


def test_messages_that_the_troubleshooting_page_explains_exist() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| `([^`]+)` \|", page, flags=re.M)
    assert len(quoted) > 20
    sources = [
        path for part in ("pretrain", "finetune", "ethoray") for path in (ROOT / part).rglob("*.py")
    ]
    source = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    joined = re.sub(r'"\s*\n\s*f?"', "", source)
    assert [message for message in quoted if message not in joined] == []
