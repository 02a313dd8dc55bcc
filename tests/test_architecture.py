"""The house's walls: who may import whom, what may happen at import, how large a file may grow."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ethoray", "pretrain", "finetune")
MAX_LINES = 400
RAY_FILES = {
    "pretrain.train.ray_checkpoints",
    "pretrain.cluster.resources",
    "pretrain.cluster.preflight",
    "pretrain.cluster.join",
    "pretrain.train.driver",
    "pretrain.train.loop",
    "pretrain.train.messages",
    "pretrain.data.ray_stream",
    "pretrain.data.ray_datasource",
    "finetune.paper.jobs",
    "finetune.search.ray_jobs",
    "finetune.search.ray_tune",
    "finetune.search.read_frames",
    "finetune.search.trial",
    "finetune.search.tune",
}
MLFLOW_FILES = {"pretrain.runs.mlflow_model", "pretrain.runs.mlflow_server"}
LABELS = "pretrain.readers.annotations"
TRAINS = {
    "pretrain.train.in_memory",
    "pretrain.cluster.join",
    "pretrain.train.messages",
    "pretrain.train.step",
    "pretrain.run",
    "pretrain.train.driver",
    "pretrain.train.loop",
    "pretrain.data.ray_stream",
    "pretrain.data.ray_datasource",
    "pretrain.train.learner",
    "pretrain.train.checkpoint",
}


@cache
def files() -> dict[str, Path]:
    """Module names to files."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(files()[module].read_text(encoding="utf-8"))


@cache
def imports(module: str, *, lazy: bool = True) -> frozenset[str]:
    """Everything a module imports, our own modules by their full name; ``lazy`` counts imports
    inside functions too."""
    found: set[str] = set()
    walked = ast.walk(tree(module)) if lazy else _at_import(tree(module))
    package = module if files()[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in walked:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            inside = {f"{base}.{alias.name}" for alias in node.names}
            # Of a library nobody knows from here which of the names are modules.
            found |= (
                {name if name in files() else base for name in inside}
                if top(base) in PACKAGES
                else {base, *inside}
            )
    # Importing a.b.c also runs a and a.b.
    ours = {name for name in found if name in files()}
    return frozenset(
        found
        | {".".join(name.split(".")[:n]) for name in ours for n in range(1, name.count(".") + 1)}
    )


def _at_import(node: ast.AST) -> list[ast.AST]:
    """Nodes that run when the module is imported: not the bodies of functions, nor what only the
    type checker reads."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        found += [child, *_at_import(child)]
    return found


def reached(starts: set[str], *, lazy: bool = True) -> dict[str, str]:
    """Our modules that are reached from some, and from where each was first reached."""
    came_from = {start: "" for start in starts}
    waiting = sorted(starts)
    while waiting:
        module = waiting.pop()
        for other in sorted(imports(module, lazy=lazy) & set(files())):
            if other not in came_from:
                came_from[other] = module
                waiting.append(other)
    return came_from


def path_to(module: str, came_from: dict[str, str]) -> str:
    steps = [module]
    while came_from[steps[-1]]:
        steps.append(came_from[steps[-1]])
    return " -> ".join(reversed(steps))


def top(name: str) -> str:
    return name.split(".")[0]


def label_modules() -> set[str]:
    """The annotations, everything that reaches them, and every reader of label files."""
    named = {
        m
        for m in files()
        if m in (LABELS, "pretrain.readers.find_labels", "pretrain.readers.detect")
        or m.startswith("pretrain.readers.label_formats")
    }
    return named | {module for module in files() if LABELS in reached({module})}


# -- imports ---------------------------------------------------------------------------------------


def test_the_map_of_imports_sees_what_it_should() -> None:
    assert set(files()) >= TRAINS
    assert LABELS in imports("pretrain.prepare")
    assert "pretrain.readers.calms21.read" in imports("pretrain.prepare") - imports(
        "pretrain.prepare", lazy=False
    ), "lazy imports count"
    assert "ray" in {top(name) for name in imports("pretrain.train.loop")}
    assert {"pretrain.prepare", "pretrain.readers.find_labels"} <= label_modules()


def test_nothing_that_trains_can_reach_an_annotation() -> None:
    components = {m for m in files() if m.startswith(("pretrain.encoders", "pretrain.objectives"))}
    came_from = reached(TRAINS | components)
    leaks = [
        path_to(module, came_from) for module in sorted(label_modules()) if module in came_from
    ]
    assert not leaks
    assert "pretrain.data.store" in came_from, "the road from a start to the store was not seen"


def test_only_prepare_and_the_readers_of_labels_know_the_annotations() -> None:
    importers = {module for module in files() if LABELS in imports(module)}
    allowed = {
        m
        for m in files()
        if m.startswith(("pretrain.readers.", "pretrain.arena.", "pretrain.quality."))
    } | {"pretrain.prepare", "finetune.labels.problems"}
    assert importers <= allowed, sorted(importers - allowed)


def test_one_arrow() -> None:
    above = {"pretrain": {"finetune", "ethoray"}, "finetune": {"ethoray"}, "ethoray": set()}
    back = {
        module for module in files() if above[top(module)] & {top(name) for name in imports(module)}
    }
    assert not back
    assert any(
        top(name) == "pretrain"
        for module in files()
        if module.startswith("finetune")
        for name in imports(module)
    )


@pytest.mark.parametrize(("library", "allowed"), [("ray", RAY_FILES), ("mlflow", MLFLOW_FILES)])
def test_ray_and_mlflow_stay_in_their_rooms(library: str, allowed: set[str]) -> None:
    users = {module for module in files() if library in {top(name) for name in imports(module)}}
    assert users, f"nobody imports {library}?"
    assert users <= allowed, f"{library} is imported by {sorted(users - allowed)}"


def test_no_module_hides_the_standard_library_or_a_dependency() -> None:
    taken = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions()) - set(
        PACKAGES
    )
    direct = {
        path.stem if path.is_file() else path.name
        for package in PACKAGES
        for path in (ROOT / package).iterdir()
        if path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__")
    }
    assert {"run", "data", "tasks"} <= direct
    assert not (direct - {"__init__"}) & taken


def test_names_say_what_is_inside() -> None:
    empty = {"utils", "util", "core", "common", "manager", "helper", "helpers", "misc", "base"}
    assert not [module for module in files() if set(module.split(".")[-1].split("_")) & empty]


def test_no_module_imports_itself_in_a_circle() -> None:
    ours = {module: imports(module, lazy=False) & set(files()) - {module} for module in files()}
    while leaves := {module for module, others in ours.items() if not others & set(ours)}:
        ours = {module: others for module, others in ours.items() if module not in leaves}
    assert not ours, f"a circle runs through {sorted(ours)}"


def test_dependencies_are_met_by_their_public_names() -> None:
    private = []
    for module in files():
        for name in imports(module):
            if top(name) not in (*PACKAGES, "__future__") and "._" in name:
                private.append(f"{module} imports {name}")
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                owner = ast.unparse(node.value).split(".")[0]
                if owner in ("torch", "ray", "mlflow", "optuna", "pa", "pq", "np", "sklearn"):
                    private.append(f"{module}: {ast.unparse(node)}")
    assert not private


# -- size, print -----------------------------------------------------------------------------------


@pytest.mark.parametrize("module", sorted(files()))
def test_a_file_is_read_in_one_sitting(module: str) -> None:
    lines = len(files()[module].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, (
        f"{files()[module].relative_to(ROOT)} has {lines} lines: ask what second thing moved in"
    )


def test_a_room_holds_what_one_looks_through_at_once() -> None:
    families = {"pretrain/encoders", "pretrain/objectives"}  # one kind of thing, a file each
    rooms = Counter(str(path.parent.relative_to(ROOT)) for path in files().values())
    assert not {room: n for room, n in rooms.items() if n > 14 and room not in families}


def test_the_formatter_has_the_last_word() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    paths = [ROOT / name for name in listed] or list(files().values())  # no git: the packages
    mark = "# fmt: " + "skip"
    assert sum(path.read_text(encoding="utf-8").count(mark) for path in paths) <= 10


def test_the_loop_is_one_screen() -> None:
    assert len(files()["pretrain.train.loop"].read_text(encoding="utf-8").splitlines()) < 120


def is_entry(module: str) -> bool:
    return any(
        isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
        for node in tree(module).body
    )


def test_only_entry_files_print() -> None:
    def prints(module: str) -> bool:
        return any(
            isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "print"
            for n in ast.walk(tree(module))
        )

    # errors.exit_status is the end of every entry file.
    assert {module for module in files() if prints(module) and not is_entry(module)} <= {
        "pretrain.errors"
    }
    assert {"pretrain.run", "pretrain.prepare", "finetune.run"} <= {
        module for module in files() if is_entry(module)
    }


# -- what happens at import ------------------------------------------------------------------------

IMPORT_ALL = """
import importlib, json, logging, os, random, signal, sys, threading, warnings
modules, libraries, blocked = json.loads(sys.argv[1])

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not to be imported here")

sys.meta_path.insert(0, Block())
for library in libraries:
    try:
        importlib.import_module(library)
    except ImportError:
        pass  # an optional extra; whoever needs it at import shows below
import numpy, torch

def state():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "threads": [t.name for t in threading.enumerate()],
        "handlers": [repr(h) for h in logging.getLogger().handlers],
        "level": logging.getLogger().level,
        "filters": len(warnings.filters),
        "random": hash(random.getstate()),
        "numpy": repr(numpy.random.get_state()),
        "torch": torch.random.get_rng_state().sum().item(),
        "torch threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()),
        "signals": [repr(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
    }

WATCHED = {"subprocess.Popen", "socket.connect", "socket.bind", "os.mkdir", "os.remove"}
WATCHED |= {"os.rename", "os.fork", "os.system"}
events = []
def hook(event, args):
    if event in WATCHED:
        events.append((event, repr(args)[:200]))
    elif event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        events.append((event, repr(args)[:200]))
before = state()
sys.addaudithook(hook)
failed = {}
for module in modules:
    try:
        importlib.import_module(module)
    except BaseException as error:
        failed[module] = repr(error)
after = state()
changed = {key: [before[key], after[key]] for key in before if before[key] != after[key]}
loaded = sorted({"ray", "mlflow"} & set(sys.modules))
print(json.dumps({"failed": failed, "events": events, "changed": changed, "ray": loaded}))
"""


def import_all(modules: set[str], blocked: tuple[str, ...], folder: Path) -> dict[str, object]:
    needed = {
        name for module in reached(modules, lazy=False) for name in imports(module, lazy=False)
    }
    libraries = sorted(
        name for name in needed if top(name) not in (*PACKAGES, *blocked, "__future__")
    )
    command = [
        sys.executable,
        "-B",
        "-c",
        IMPORT_ALL,
        json.dumps([sorted(modules), libraries, blocked]),
    ]
    environment = {"PATH": "", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    assert said == [], "an import printed something"
    assert done.stderr == "", "an import printed something"
    assert list(folder.iterdir()) == []
    return dict(json.loads(last))


def plain_modules() -> set[str]:
    """All that is to work on a machine without Ray and MLflow: what reaches none of the files that
    may import Ray."""
    return {
        module
        for module in files()
        if not set(reached({module}, lazy=False)) & (RAY_FILES | MLFLOW_FILES)
    }


def test_all_the_rest_works_without_ray_and_mlflow_and_nothing_happens_at_import(
    tmp_path: Path,
) -> None:
    plain = plain_modules()
    held = {
        "train.learner",
        "encoders.tcn",
        "objectives.contrastive",
        "data.store",
        "data.windows",
        "transforms.features",
        "train.checkpoint",
        "config",
        "prepare",
    }
    assert {f"pretrain.{name}" for name in held} | {
        "finetune.heads",
        "finetune.metrics.frame_metrics",
        "finetune.labels.problems",
        "ethoray",
        "pretrain.data.arrays",
    } <= plain
    found = import_all(plain, ("ray", "mlflow"), tmp_path)
    assert found == {"failed": {}, "events": [], "changed": {}, "ray": []}


def test_nothing_happens_when_the_rest_is_imported(tmp_path: Path) -> None:
    found = import_all(set(files()) - plain_modules(), (), tmp_path)
    assert (found["failed"], found["events"], found["changed"]) == ({}, [], {})
