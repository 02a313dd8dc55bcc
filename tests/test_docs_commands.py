"""Every command of README.md and docs/ is read out of the page and run.

The guides are walked from top to bottom in a folder that has what their reader would have (tracks,
labels, archives), so that what one command leaves the next one finds; further settings make each
command small. Pages of results and benchmarks hold commands that take hours: of these the program
and every option must exist.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache, partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from worlds import wander

from ethoray.__main__ import COMMANDS
from pretrain import prepare
from pretrain.data.schema import CALMS21
from pretrain.errors import exit_status

ROOT = Path(__file__).parent.parent
GUIDES = ("ten_minutes", "getting_started", "own_recordings", "calms21", "cluster")
INSTALLED = {name: f"{module.replace('.', '/')}.py" for name, (module, _) in COMMANDS.items()}
SMALL = {
    "pretrain/run.py": "--set epochs=1 --set batch=64 --set window=64",
    "finetune/run.py": "--trials 1 --seeds 1 --set steps=4 --set evaluations=1 "
    "--set postprocess_folds=1 --set search={}",
    "finetune/compare.py": "--frozen-set trials=1 seeds=1 steps=4 evaluations=1 "
    "postprocess_folds=0",
    "finetune/reproduce.py": "--rows task1_single_frame --seeds 1 --epochs-share 0.0001",
}
ONLINE = " --download"  # the archives cannot be fetched in a test; the reader's folder has them


def pages() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """What a reader would type: the lines of fenced blocks and of tables' code, joined where they
    go on."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:\w*)\n(.*?)^```", text, flags=re.S | re.M)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`((?:python|ethoray|ray job) [^`…]+)`", text)
    begins = ("python ", "ethoray ", "ray job", "ray start", "make ")
    found = [re.sub(r"\s{2,}# .*| # .*", "", line).strip() for line in lines]
    return [
        line
        for line in found
        if line.startswith(begins) and not {"COMMAND", "->"} & set(line.split())
    ]


def program(command: str) -> tuple[str, list[str]]:
    """The file of a command and its arguments: `ethoray pretrain …` is `pretrain/run.py …`."""
    if command.startswith("ray job submit"):
        command = command.partition(" -- ")[2]
    words = shlex.split(command)
    if words[0] == "ethoray":
        assert words[1] in INSTALLED, f"`{command}`: there is no such command"
        return INSTALLED[words[1]], words[2:]
    assert words[0] == "python", command
    return words[1], words[2:]


@cache
def help_of(file: str) -> str:
    """What a program says of its options; a benchmark's are read in its source."""
    if file.startswith("benchmarks/"):
        sources = [ROOT / file, ROOT / "benchmarks" / "measure.py"]
        return "\n".join(path.read_text(encoding="utf-8") for path in sources)
    prepare_parts = ("arena", "calms21", "tracks", "check", "unscored", "export")
    parts = prepare_parts if "prepare" in file else ("",)
    asked = [[sys.executable, str(ROOT / file), *part.split(), "--help"] for part in parts]
    return "\n".join(
        subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
        for words in asked
    )


@pytest.mark.parametrize("page", [page.name for page in pages()])
def test_programs_and_options_that_a_page_names_exist(page: str) -> None:
    path = next(path for path in pages() if path.name == page)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    errors = []
    for command in commands(path):
        if command.startswith("make "):
            if f"\n{command.split()[1]}:" not in makefile:
                errors.append(f"`{command}`: no such target")
            continue
        if command.startswith(("ray start", "python -")):
            continue
        file, words = program(command)
        if not (ROOT / file).is_file():
            errors.append(f"`{command}`: there is no {file}")
            continue
        known = help_of(file)
        options = {word.split("=")[0] for word in words if word.startswith("--")}
        errors += [f"`{command}`: no option {one}" for one in sorted(options) if one not in known]
    assert not errors, "\n".join(errors)


@pytest.fixture(scope="module")
def readers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader has before the first command: recordings with labels, CalMS21's archives."""
    folder = tmp_path_factory.mktemp("reader")
    for kind in ("tracks", "labels"):
        (folder / "my" / kind).mkdir(parents=True)
    for number in range(5):
        position, confidence = wander(CALMS21, 400, seed=number, missing=0.02)
        np.savez(
            folder / "my" / "tracks" / f"mouse{number}.npz",
            position=position,
            confidence=confidence,
            animals=np.array(CALMS21.animals),
            keypoints=np.array(CALMS21.keypoints),
        )
        rows = ["start_s,stop_s,behavior"] + [f"{t},{t + 1.5},interact" for t in range(1, 12, 3)]
        if number < 4:  # one is not labelled yet
            (folder / "my" / "labels" / f"mouse{number}.csv").write_text("\n".join(rows) + "\n")
    archives = ["--frames", "15000", "--as", "calms21-json", "--out", str(folder / "calms21")]
    prepare.main(["arena", *archives])
    return folder


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_works_from_top_to_bottom(
    guide: str, readers_folder: Path, ray_here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(readers_folder)
    run = 0
    for command in commands(ROOT / "docs" / f"{guide}.md"):
        if command.startswith(("make ", "ray ", "python -")) or "s3://" in command:
            continue  # test_job.py, test_store_s3.py and test_tracking.py run these
        file, words = program(command.replace(ONLINE, "").replace("60000", "15000"))
        if not words:
            continue  # a table names the program
        main = import_module(file.removesuffix(".py").replace("/", ".")).main
        small = shlex.split(SMALL.get(file, "")) if "--list" not in words else []
        if not any(Path(word).exists() for word in out_of(words)):  # two pages may make the same
            assert exit_status(partial(main, [*words, *small])) == 0, command
            run += 1
    assert run, f"{guide}.md names no command"


@pytest.mark.ray
@pytest.mark.slow
def test_real_mice_from_files_to_an_ethogram_by_the_page_alone(
    real_data: Path, ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As typed, without settings that make it small."""
    monkeypatch.chdir(tmp_path)
    for kind, ending in (("tracks", "DLC.csv"), ("labels", "boris.csv")):
        (tmp_path / "my" / kind).mkdir(parents=True)
        for file in (real_data / "mice").glob(f"*{ending}"):
            (
                tmp_path / "my" / kind / file.name.replace("_DLC", "").replace("_boris", "")
            ).symlink_to(file)
    for command in commands(ROOT / "docs" / "ten_minutes.md"):
        file, words = program(command)
        main = import_module(file.removesuffix(".py").replace("/", ".")).main
        assert exit_status(partial(main, words)) == 0, command
    result = json.loads((tmp_path / "runs" / "interact" / "result.json").read_text("utf-8"))
    assert result["map"] > 2 * result["chance_map"]
    (summary,) = (tmp_path / "labelled").glob("summary.csv")
    assert "interact" in summary.read_text("utf-8")
    assert list((tmp_path / "labelled" / "ethograms").glob("*.png"))


def out_of(words: list[str]) -> Iterator[str]:
    yield from (words[n + 1] for n, word in enumerate(words[:-1]) if word == "--out")
