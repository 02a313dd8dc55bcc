"""Takes the pictures of docs/: MLflow's pages and a report, of small runs on simulated mice.

    python docs/screenshots.py [--runs FOLDER]

Needs Chromium. Makes a small arena, an encoder and three classifiers (some minutes), unless FOLDER
has them from an earlier call.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pretrain.runs.quiet_environment import MLFLOW

HERE = Path(__file__).parent
QUIET = MLFLOW | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
TASK, ENCODERS = "classic_classification", ("pretrained", "none", "handmade")
SMALL = ("steps=80", "evaluations=2", "postprocess_folds=0", "search={}")
MOST_BYTES = 150_000


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(words: Sequence[str], health: str, log: Path) -> Iterator[None]:
    """Runs a command of the environment's MLflow from when ``health`` answers to the end."""
    programs = Path(sys.executable).parent
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"  # as in an activated environment
    with log.open("wb") as output:
        server = subprocess.Popen(
            [str(programs / "mlflow"), *words],
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=os.environ | QUIET | {"PATH": path},
        )
    try:
        until = time.monotonic() + 900
        while not answers(health):
            waiting = server.poll() is None and time.monotonic() < until
            assert waiting, log.read_text(encoding="utf-8")[-2000:]
            time.sleep(0.1)
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(10)


def answers(address: str) -> bool:
    """Whether a server is there."""
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def serving(printed: str, log: Path) -> Iterator[str]:
    """Runs the line with which commands end, on a free port; the address of the page it names."""
    line, page = printed.split("\nthen open:")
    program, *words = shlex.split(line)
    assert (program, words[-2:]) == ("mlflow", ["--port", "5000"])
    port = str(free_port())
    with running([*words[:-1], port, "--workers", "1"], f"http://127.0.0.1:{port}/health", log):
        yield page.strip().replace(":5000/", f":{port}/")


def side_by_side(page: str, database: Path, experiment: str) -> str:
    """Of the server of a runs page the page that compares an experiment's runs."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    found = client.get_experiment_by_name(experiment)
    ids = [
        run.info.run_id
        for run in client.search_runs([found.experiment_id])
        if "mlflow.parentRunId" not in run.data.tags
    ]
    runs, of = (urllib.parse.quote(json.dumps(each)) for each in (ids, [found.experiment_id]))
    fragment = f"#/compare-runs?runs={runs}&experiments={of}&workflowType=machine_learning"
    return f"{page.partition('#')[0]}{fragment}"


def browse(page: str, profile: Path, *options: str) -> str:
    """What a browser that knows nothing of MLflow prints of a page.

    Raises:
        FileNotFoundError: If there is no browser.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError(f"no browser (looked for {', '.join(BROWSERS)})")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
        "--no-proxy-server",
        "--virtual-time-budget=30000",
        *options,
        page,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout


def picture(
    path: Path, page: str, *, window: tuple[int, int], box: tuple[int, int, int, int] | None = None
) -> None:
    """Writes what a browser shows of a page, small: of a window of some size (px) all, or a box
    (left, top, right, bottom) of it."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder) / "taken.png"
        size = "--window-size={},{}".format(*window)
        browse(page, Path(folder) / "profile", f"--screenshot={taken}", size)
        image = Image.open(io.BytesIO(taken.read_bytes())).convert("RGB").crop(box)
    image.save(path, quality=60, method=6)
    assert path.stat().st_size < MOST_BYTES, f"{path} is too large: {path.stat().st_size:,}"


def make_runs(folder: Path) -> None:
    """An arena, an encoder, and a classifier with it and with each control."""
    import finetune.make_report
    import finetune.run
    import pretrain.prepare
    import pretrain.run
    from pretrain.cluster.join import cluster
    from pretrain.config import SCALES, Scale, read

    store, encoder = folder / "mice", folder / "encoder"
    if not store.exists():
        pretrain.prepare.main(["arena", "--out", str(store), "--frames", "15000"])
    with cluster(read(Scale, "laptop", SCALES, {})):
        if not encoder.exists():
            words = ["--recipe", "quickstart", "--data", str(store), "--out", str(encoder)]
            pretrain.run.main([*words, "--set", "epochs=2"])
        for name in ENCODERS:
            if not (folder / name).exists():
                words = ["--encoder", str(encoder) if name == "pretrained" else name]
                words += ["--data", str(store), "--task", TASK, "--out", str(folder / name)]
                words += ["--trials", "1", "--seeds", "2"]
                finetune.run.main([*words, *(w for pair in SMALL for w in ("--set", pair))])
    finetune.make_report.main([str(folder / ENCODERS[0])])  # again, now that there are controls


def main() -> None:
    """Takes them all."""
    from mlflow import MlflowClient

    from pretrain.runs.tracked_run import open_tracking

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, help="where the runs are kept; left out: nowhere")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.runs or Path(scratch) / "runs").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / ENCODERS[-1] / "result.json").exists():
            make_runs(folder)
        experiment, database = f"finetune {TASK}", folder / "mlflow.db"
        client = MlflowClient(f"sqlite:///{database}")
        # without the assistant of MLflow, which opens at the right of a new user's window
        printed = open_tracking(None, runs_folder=folder).ui_command(experiment)
        with serving(printed, Path(scratch) / "server.log") as page:
            runs, box = HERE / "mlflow_runs.webp", (0, 0, 1305, 400)
            picture(runs, page, window=(1760, 560), box=box)
            compared, both = HERE / "mlflow_compare.webp", side_by_side(page, database, experiment)
            picture(compared, both, window=(1560, 2100), box=(200, 1375, 1160, 2040))
            of = client.get_experiment_by_name(experiment).experiment_id
            run = next(r for r in client.search_runs([of]) if "test/macro_f1_std" in r.data.metrics)
            artifact = f"/runs/{run.info.run_id}/artifacts/confusion.png?"
            figure, box = HERE / "mlflow_figure.webp", (0, 0, 1160, 700)
            picture(figure, page.replace("/runs?", artifact), window=(1560, 740), box=box)
        report = (folder / ENCODERS[0] / "report.html").as_uri()
        picture(HERE / "report.webp", report, window=(1100, 1500))


if __name__ == "__main__":
    main()
