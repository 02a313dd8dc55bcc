"""Parts of the page, and the page of them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from finetune.report.figures import png
from finetune.report.tables import Cell, cell_text


@dataclass(kw_only=True)
class Section:
    """A part of the page."""

    title: str
    lines: list[str] = field(default_factory=list)
    tables: list[dict[str, Any]] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Adds a table."""
        cells = [[cell_text(cell) for cell in row] for row in rows]
        self.tables.append({"header": header, "rows": cells})

    def figure(self, figure: Figure, caption: str) -> None:
        """Adds a figure."""
        self.figures.append((caption, base64.b64encode(png(figure, dpi=90)).decode()))


def render(title: str, sections: Sequence[Section]) -> str:
    """The page as HTML."""
    template = (Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True).from_string(template)
    return page.render(title=title, sections=sections)
