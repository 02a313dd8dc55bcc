"""The command `ethoray`, the help of every command, and what the wheel has in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ethoray.__main__ import COMMANDS, main
from pretrain.components import names

ROOT = Path(__file__).parent.parent
SCRIPTS = {name: f"{module.replace('.', '/')}.py" for name, (module, _) in COMMANDS.items()}
PARTS = {"prepare": ["arena", "calms21", "tracks", "check", "export"]}
"""Commands that have commands of their own."""
HEAVY = ["matplotlib", "mlflow", "optuna", "pyarrow", "ray", "scipy", "sklearn", "torch"]

RUN = """
import json, runpy, sys
script, heavy, words = json.loads(sys.argv[1])
sys.argv = [script, *words]
try:
    runpy.run_path(script, run_name="__main__")
except SystemExit as ended:
    status = ended.code
print(json.dumps([status, sorted(set(heavy) & set(sys.modules))]))
"""


def run(script: str, *words: str) -> tuple[int, list[str], str]:
    """Exit status of a script, the heavy libraries that it imported, and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([str(ROOT / script), HEAVY, words])],
        env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *printed, last = done.stdout.splitlines()
    status, imported = json.loads(last)
    return status, imported, "\n".join(printed) + done.stderr


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("installed", [True, False], ids=["ethoray", "script"])
def test_help_and_mistyped_options_import_nothing_heavy(name: str, installed: bool) -> None:
    script = "ethoray/__main__.py" if installed else SCRIPTS[name]
    first = [name] if installed else []
    prog = f"ethoray {name}" if installed else f"python {SCRIPTS[name]}"
    for part in ([], *([part] for part in PARTS.get(name, []))):
        called = " ".join([prog, *part])
        status, imported, said = run(script, *first, *part, "--help")
        assert (status, imported) == (0, [])
        assert said.startswith(f"usage: {called} [-h]")
        assert "%(prog)" not in said
        assert not [line for line in said.splitlines() if line.strip() == ":"]
        status, imported, said = run(script, *first, *part, "--no-such-option")
        assert (status, imported) == (2, [])
        assert f"{called}: error:" in said


def test_the_help_of_each_command_shows_how_to_call_it() -> None:
    for name in COMMANDS:
        _, _, said = run("ethoray/__main__.py", name, "--help")
        examples = [line for line in said.splitlines() if line.startswith(f"    ethoray {name}")]
        assert examples, name
        assert all(len(line) <= 100 for line in said.splitlines() if "ethoray" in line), said


def test_the_command_lists_every_door(capsys: pytest.CaptureFixture[str]) -> None:
    doors = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("pretrain", "finetune")
        for path in (ROOT / package).glob("*.py")
        if "__main__" in path.read_text(encoding="utf-8")
    }
    assert {module for module, _ in COMMANDS.values()} == doors
    status, imported, said = run("ethoray/__main__.py", "--help")
    assert (status, imported) == (0, [])
    for name, (_, does) in COMMANDS.items():
        assert f"  {name} " in said
        assert does in said
    for words in ([], ["pretran"]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert "pretrain" in capsys.readouterr().err


def test_exit_statuses_are_those_of_the_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "check", str(tmp_path / "nowhere")]) == 2
    assert "there is no store at" in capsys.readouterr().err
    assert main(["reproduce", "--list"]) == 0
    assert "task1_conv1d" in capsys.readouterr().out


def test_choices_are_listed_and_checked_without_importing_them() -> None:
    words = ("--model", "run", "--poses", "store", "--format", "csv", "paper")
    status, imported, said = run("finetune/predict.py", *words)
    assert (status, imported) == (2, [])
    for name in ("csv", "boris", "annot", "nwb"):
        assert name in said.rpartition("choose from")[2]


def test_components_are_listed_without_importing_them() -> None:
    assert {"tcn", "lstm"} <= set(names("pretrain.encoders"))
    assert not [name for name in names("finetune.heads") if name.startswith("_")]
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pretrain.components import names; print(names('finetune.heads')); "
            "assert 'torch' not in sys.modules",
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert found.strip() == str(names("finetune.heads"))


# -- the wheel -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked, as an installation has it."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in (name for name in files.split("\0") if name and (ROOT / name).is_file()):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    subprocess.run(
        [sys.executable, "-c", build],
        cwd=folder / "source",
        capture_output=True,
        timeout=300,
        check=True,
    )
    (built,) = folder.glob("*.whl")
    zipfile.ZipFile(built).extractall(folder / "installed")
    return folder / "installed"


def test_every_module_and_every_settings_file_is_in_the_wheel(wheel: Path) -> None:
    packages = ("ethoray", "pretrain", "finetune", "ray_configs")
    here = {
        path.relative_to(ROOT)
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".yaml", ".typed", ".j2", ".sh")
    }
    there = {path.relative_to(wheel) for path in wheel.rglob("*") if path.is_file()}
    about = {path for path in there if path.parts[0].endswith(".dist-info")}
    assert {path.parts[0] for path in here} == set(packages)
    assert there - about == here
    assert any(path.name == "LICENSE" for path in about)
    (entry,) = (path for path in about if path.name == "entry_points.txt")
    assert "ethoray = ethoray.__main__:main" in (wheel / entry).read_text()


READ_ALL = """
import json
from finetune.paper.table import read_published, read_rows
from finetune.settings import TASKS, Tuning
from pretrain.config import RECIPES, SCALES, Recipe, Scale, read

found = {}
for kind, folder in ((Recipe, RECIPES), (Scale, SCALES), (Tuning, TASKS)):
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    for name in names:
        read(kind, name, folder, {})
    found[str(folder)] = names
print(json.dumps([found, len(read_rows()), len(read_published())]))
"""


def test_settings_files_are_found_where_the_wheel_is_installed(wheel: Path, tmp_path: Path) -> None:
    """With the libraries of this environment; tests/check_wheel.sh installs it in a clean one."""
    printed = subprocess.run(
        [sys.executable, "-c", READ_ALL],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    found, rows, published = json.loads(printed)
    folders = ("pretrain/recipes", "ray_configs", "finetune/tasks")
    assert found == {
        str(wheel / folder): sorted(path.stem for path in (ROOT / folder).glob("*.yaml"))
        for folder in folders
    }
    assert rows > 10
    assert published
