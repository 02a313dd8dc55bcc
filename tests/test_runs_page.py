"""The line that a command ends with opens a page on which runs can be compared, in a real browser
where there is one; the pictures of docs/ are taken in the same way."""

from __future__ import annotations

import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import screenshots

from pretrain.runs.tracked_run import open_tracking

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
EXPERIMENT = "finetune S1"
NAMES = ("a search on rats", "a search on mice")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The page that the line names, and the one that shows two runs side by side; the server ends
    with the tests."""
    folder = tmp_path_factory.mktemp("runs")
    tracking = open_tracking(None, runs_folder=folder)
    for index, name in enumerate(NAMES):
        with tracking.start(
            EXPERIMENT,
            name,
            params={"head": {"name": "linear"}, "lr": 0.01 * index},
            folder=folder / name,
        ) as run:
            run.log_metrics({"validation/score": 0.5 + 0.1 * index}, step=10)
    with screenshots.serving(tracking.ui_command(EXPERIMENT), folder / "server.log") as page:
        yield page, screenshots.side_by_side(page, folder / "mlflow.db", EXPERIMENT)


def test_the_page_is_served(pages: tuple[str, str]) -> None:
    with urllib.request.urlopen(pages[0].split("#")[0], timeout=10) as answer:
        assert b"<title>MLflow</title>" in answer.read()


def test_the_line_opens_on_the_runs(pages: tuple[str, str], tmp_path: Path) -> None:
    shown = _browse(pages[0], tmp_path)
    for word in (*NAMES, EXPERIMENT):
        assert word in shown, f"{word!r} is not on the page"


def test_a_browser_shows_two_runs_side_by_side(pages: tuple[str, str], tmp_path: Path) -> None:
    shown = _browse(pages[1], tmp_path)
    for word in (*NAMES, "validation/score", "0.6", "head.name"):
        assert word in shown, f"{word!r} is not on the page"


def _browse(page: str, profile: Path) -> str:
    """What a browser that knows nothing of MLflow makes of a page."""
    if not any(map(shutil.which, screenshots.BROWSERS)):
        pytest.skip(f"no browser on this machine (looked for {', '.join(screenshots.BROWSERS)})")
    return screenshots.browse(page, profile, "--dump-dom")


def test_a_picture_is_what_a_browser_shows(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    if not any(map(shutil.which, screenshots.BROWSERS)):
        pytest.skip("no browser on this machine")
    page = tmp_path / "page.html"
    page.write_text('<body style="margin: 0; background: rgb(0, 114, 178)">')
    screenshots.picture(tmp_path / "it.webp", page.as_uri(), window=(640, 480))
    with image.open(tmp_path / "it.webp") as taken:
        assert taken.size == (640, 480)
        assert max(map(abs, np.subtract(taken.getpixel((300, 200)), (0, 114, 178)))) < 8


def test_the_pictures_of_docs_are_those_of_the_script_and_stand_in_a_page() -> None:
    docs = ROOT / "docs"
    taken = set(re.findall(r'HERE / "(\S+)"', (docs / "screenshots.py").read_text()))
    assert len(taken) == 4
    shown = {path.name for path in docs.glob("*.webp")}
    assert {"mlflow_runs.webp", "mlflow_compare.webp", "report.webp"} <= shown <= taken
    text = "".join(path.read_text(encoding="utf-8") for path in docs.glob("*.md"))
    for name in shown:
        assert 0 < (docs / name).stat().st_size < screenshots.MOST_BYTES
        assert re.search(rf"!\[[^\]]*simulated mice[^\]]*\]\({name}\)", text), name
