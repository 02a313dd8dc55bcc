"""Pages of the documentation site that are made when it is built: the front page of README.md, and
the commands as their ``--help`` describes them. A hook of MkDocs."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from ethoray.__main__ import COMMANDS

ROOT = Path(__file__).parent.parent
PARTS = {"prepare": ("arena", "calms21", "tracks", "check", "unscored", "export")}


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that no file holds."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    pages = {"index.md": readme, "commands.md": commands_page()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to files of the checkout, which the site does not have, become plain words."""
    outside = r"(?:\.\./|pretrain/|finetune/|ray_configs/|[A-Z]+\.md|LICENSE)[^)]*"
    return re.sub(rf"\[([^\]]+)\]\({outside}\)", r"\1", markdown)


def commands_page() -> str:
    """Every command and what its help says."""
    lines = [
        "# Commands",
        "",
        "Each as `ethoray NAME` or, from a checkout, as the file that it is.",
        "",
    ]
    for name, (module, does) in COMMANDS.items():
        file = f"{module.replace('.', '/')}.py"
        lines += [f"## {name}", "", f"{does[0].upper()}{does[1:]}: `{file}`.", ""]
        for part in ("", *PARTS.get(name, ())):
            lines += [f"### {name} {part}", ""] if part else []
            lines += ["```text", help_of(module, part, prog=f"ethoray {name}").strip(), "```", ""]
    return "\n".join(lines)


def help_of(module: str, part: str, *, prog: str) -> str:
    """What a command prints with ``--help``."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        importlib.import_module(module).main([*part.split(), "--help"], prog=prog)
    return said.getvalue()
