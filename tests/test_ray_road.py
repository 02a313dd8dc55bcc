"""End to end through real Ray: every frame once an epoch, resume equals not stopping, two workers
equal one."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
import safetensors.torch
import torch
import yaml
from worlds import MICE, frames_seen, marked_store, wander_store

from pretrain import run as entry
from pretrain.data import ray_stream as streams
from pretrain.data import store_writer as stores
from pretrain.data.ray_stream import FrameStream
from pretrain.data.sample import sample
from pretrain.data.store import Store
from pretrain.data.windows import BatchPlan, Pose, Windows
from pretrain.errors import exit_status
from pretrain.train import learner as learners
from pretrain.train.checkpoint import load_state
from pretrain.train.messages import Messages

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_here")]

# -- the stream ------------------------------------------------------------------------------------

LENGTHS = [2100, 3, 900]
BATCH, WINDOW = 6, 6
KEPT, STREAMED = 1e9, 0.0


def joined(
    store: Store,
    plan: BatchPlan,
    *,
    workers: int,
    resident: float,
    epoch: int = 0,
    first_step: int = 0,
) -> list[Windows]:
    """The global batches that all workers together are given."""
    parts = []
    for rank in range(workers):
        stream = FrameStream(store, plan, rank=rank, workers=workers, resident_bytes=resident)
        assert stream.resident == (resident == KEPT)
        parts.append(list(stream.epoch(epoch, first_step)))
    found = []
    for step in zip(*parts, strict=True):
        position, confidence = (
            torch.cat(x) for x in zip(*(windows.pose[:2] for windows in step), strict=True)
        )
        valid, key = (
            torch.cat([windows.valid_BT for windows in step]),
            torch.cat([windows.key_B for windows in step]),
        )
        batch_key = torch.cat([w.batch_key_B for w in step if w.batch_key_B is not None])
        assert len(batch_key.unique()) == 1, "a batch has one seed, on every worker"
        found.append(Windows(Pose(position, confidence), valid, key, batch_key))
    return found


def assert_same(found: list[Windows], truth: list[Windows]) -> None:
    assert len(found) == len(truth)
    for mine, other in zip(found, truth, strict=True):
        torch.testing.assert_close(mine, other, atol=0, rtol=0, equal_nan=True)


@pytest.fixture(scope="class")
def marks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Marked frames in many small chunks, row groups of several chunks, several parts and several
    reads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "CHUNK_FRAMES", 8)
        patch.setattr(stores, "PART_BYTES", 150_000)
        patch.setattr(streams, "READ_BYTES", 60_000)
        patch.setattr(streams, "RESIDENT_READ_BYTES", 60_000)
        store = marked_store(tmp_path_factory.mktemp("marks") / "store", LENGTHS)
        assert len(store.parts) > 1
        assert len(np.unique(store.chunks.group_id)) < len(store.chunks)
        yield store


@pytest.fixture(scope="class")
def plan(marks: Store) -> BatchPlan:
    return BatchPlan.from_chunks(marks.chunks, window=WINDOW, batch=BATCH, seed=5)


@pytest.fixture(scope="class")
def truth(marks: Store, plan: BatchPlan) -> list[Windows]:
    return joined(marks, plan, workers=1, resident=KEPT)


class TestStream:
    """In many small chunks: row groups of several chunks, several parts, several reads."""

    def test_every_frame_is_seen_exactly_once_an_epoch(self, truth: list[Windows]) -> None:
        rows = [row for windows in truth for row in frames_seen(windows)]
        assert sorted(frame for row in rows for frame in row) == [
            (v, f) for v, frames in enumerate(LENGTHS) for f in range(frames)
        ]
        for row in rows:
            if row:
                assert row == [(row[0][0], row[0][1] + place) for place in range(len(row))], (
                    "a window crosses a video or skips a frame"
                )
        second = torch.cat([windows.pose.confidence_BTMK[windows.valid_BT] for windows in truth])
        assert ((second == 0) | (second == 1)).all()
        assert (second == 0).any(), "the world has missing points"

    @pytest.mark.parametrize(("workers", "resident"), [(1, STREAMED), (2, STREAMED), (3, KEPT)])
    def test_workers_and_memory_do_not_change_the_batches(
        self, marks: Store, plan: BatchPlan, truth: list[Windows], workers: int, resident: float
    ) -> None:
        assert_same(joined(marks, plan, workers=workers, resident=resident), truth)

    @pytest.mark.parametrize("resident", [KEPT, STREAMED])
    def test_starting_at_a_later_step_gives_the_rest(
        self, marks: Store, plan: BatchPlan, truth: list[Windows], resident: float
    ) -> None:
        step = plan.steps * 2 // 3
        assert_same(
            joined(marks, plan, workers=1, resident=resident, first_step=step), truth[step:]
        )

    def test_later_epochs_hold_the_same_frames_in_another_order(
        self, marks: Store, plan: BatchPlan, truth: list[Windows]
    ) -> None:
        """In one stream, begun in the middle of an epoch, as a run that goes on does."""
        kept, streamed = (
            FrameStream(marks, plan, resident_bytes=room) for room in (KEPT, STREAMED)
        )
        for stream in (kept, streamed):
            assert_same(list(stream.epoch(0, plan.steps - 2)), truth[-2:])
        first, second = list(kept.epoch(1)), list(streamed.epoch(1))
        assert_same(first, second)
        frames = [frame for windows in first for row in frames_seen(windows) for frame in row]
        assert sorted(frames) == [(v, f) for v, frames in enumerate(LENGTHS) for f in range(frames)]
        assert frames != [
            frame for windows in truth for row in frames_seen(windows) for frame in row
        ]
        assert_same(list(kept.epoch(0)), truth)


# -- training --------------------------------------------------------------------------------------

EPOCHS = 2
RECIPE = {
    "encoder": {"name": "tcn", "width": 8, "layers": 2},
    "objective": {"name": "contrastive", "projection": 8},
    "augment": {"mirror": 0.5, "jitter_px": 1.0, "drop_points": 0.1},
    "optimiser": {"lr": 0.01},
    "batch": 4,
    "window": 32,
    "epochs": EPOCHS,
    "seed": 3,
    "precision": "float32",
}
SCALE = {"workers": 1, "cpus_per_worker": 0.5, "retries": 0}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, a recipe and a scale; runs go beside them, so that they share one
    tracking database."""
    folder = tmp_path_factory.mktemp("lab")
    wander_store(folder / "store", [300, 500, 64, 150])
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (folder / "scale.yaml").write_text(yaml.safe_dump(SCALE))
    return folder


def pretrain(lab: Path, out: str, *more: str, data: str = "store") -> int:
    words = [
        "--recipe",
        str(lab / "recipe.yaml"),
        "--scale",
        str(lab / "scale.yaml"),
        "--data",
        str(lab / data),
    ]
    words += ["--out", str(lab / out), *more]
    return exit_status(lambda: entry.main(words))


def weights(lab: Path, out: str) -> dict[str, torch.Tensor]:
    return dict(safetensors.torch.load_file(lab / out / "encoder" / "encoder.safetensors"))


@pytest.fixture(scope="module")
def whole(lab: Path) -> str:
    """A run that nobody interrupted."""
    assert pretrain(lab, "whole") == 0
    return "whole"


class Killer(threading.Thread):
    """Kills the training worker of this test's own Ray once a run has left some checkpoints."""

    def __init__(self, checkpoints: Path, after: int) -> None:
        super().__init__(daemon=True)
        self.checkpoints, self.after, self.killed = checkpoints, after, 0
        self.stop = threading.Event()

    def run(self) -> None:
        seen: set[str] = set()
        while not self.killed and not self.stop.wait(0.02):
            seen |= {path.parent.name for path in self.checkpoints.glob("checkpoint_*/complete")}
            if len(seen) >= self.after:
                self.kill()

    def kill(self) -> None:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)
                    self.killed += 1


def test_a_run_leaves_what_was_promised(lab: Path, whole: str) -> None:
    result = json.loads((lab / whole / "result.json").read_text())
    store = Store(lab / "store")
    assert result["frames"] == store.frames * EPOCHS
    assert result["fingerprint"] == store.fingerprint
    assert np.isfinite(result["loss"])
    assert result["seconds"] > 0
    assert result["frames_per_s"] == pytest.approx(result["frames"] / result["seconds"], rel=0.01)
    about = json.loads((lab / whole / "encoder" / "encoder.json").read_text())
    steps = EPOCHS * BatchPlan.from_chunks(store.chunks, window=32, batch=4, seed=3).steps
    assert (about["made_by"]["step"], about["made_by"]["steps"]) == (steps, steps)
    assert about["made_by"]["data"] == store.fingerprint
    assert about["schema"]["keypoints"] == list(MICE.keypoints)
    log = (lab / whole / "train.log").read_text().splitlines()
    assert log
    *steps_done, last = log
    assert all(line.startswith("step ") for line in steps_done), "lines of other libraries"
    assert last.startswith("hand-made features read from the frozen embedding")


def test_resume_equals_not_stopping(lab: Path, whole: str) -> None:
    killer = Killer(lab / "halted" / "checkpoints", after=5)
    killer.start()
    status = pretrain(lab, "halted", "--set", "checkpoint_steps=1")
    killer.stop.set()
    killer.join()
    assert killer.killed, "no training worker was found to kill"
    assert status == 1, "the run came to an end before it was killed"
    assert not (lab / "halted" / "result.json").exists()
    last = sorted((lab / "halted" / "checkpoints").glob("checkpoint_*/complete"))[-1].parent
    at = load_state(last)["at"]
    assert (at["epoch"], at["step"] > 0) == (0, True), (
        "it was to be killed in the middle of the first epoch"
    )

    assert pretrain(lab, "halted", "--resume", "--set", "epochs=5") == 2, (
        "another recipe is no resumption"
    )
    assert pretrain(lab, "halted", "--resume") == 0
    log = (lab / "halted" / "train.log").read_text()
    assert log.count("step 1 of ") == 1, "it began anew instead of going on"
    one, other = weights(lab, whole), weights(lab, "halted")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    for key in ("loss", "probe"):
        assert (
            json.loads((lab / "halted" / "result.json").read_text())[key]
            == json.loads((lab / whole / "result.json").read_text())[key]
        )


@pytest.mark.parametrize("out", ["whole", "halted"])
def test_the_curves_are_in_the_file_and_in_mlflow(lab: Path, whole: str, out: str) -> None:
    """In one run, also where it was killed and went on."""
    from mlflow import MlflowClient

    records = [json.loads(line) for line in (lab / out / "metrics.jsonl").read_text().splitlines()]
    logged = {r["step"]: r["metrics"] for r in records if r["kind"] == "metrics"}
    steps = (
        EPOCHS
        * BatchPlan.from_chunks(Store(lab / "store").chunks, window=32, batch=4, seed=3).steps
    )
    assert set(range(steps)) <= set(logged)
    assert {"loss", "gradient_norm", "lr", "effective_rank"} <= set(logged[0])
    probed = {r["step"] for r in records if "probe/2_s" in r.get("metrics", {})}
    assert probed == {steps // EPOCHS * epoch for epoch in range(EPOCHS + 1)}
    client = MlflowClient(f"sqlite:///{lab / 'mlflow.db'}")
    (run,) = client.search_runs(
        [client.get_experiment_by_name("pretrain").experiment_id],
        f"attributes.run_name = '{out}'",
    )
    assert run.info.status == "FINISHED"
    curve = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "lr")}
    assert curve == {step: logged[step]["lr"] for step in range(steps)}


def test_resuming_a_finished_run_changes_nothing(lab: Path, whole: str) -> None:
    before = weights(lab, whole)
    loss = json.loads((lab / whole / "result.json").read_text())["loss"]
    assert pretrain(lab, whole, "--resume") == 0
    assert all(torch.equal(before[name], after) for name, after in weights(lab, whole).items())
    assert json.loads((lab / whole / "result.json").read_text())["loss"] == loss


def test_two_workers_learn_the_same_as_one(lab: Path, whole: str) -> None:
    """And streaming the frames the same as keeping them."""
    assert pretrain(lab, "two", "--set", "workers=2", "--set", "resident_gb=0") == 0
    one, other = weights(lab, whole), weights(lab, "two")
    for name, value in one.items():
        torch.testing.assert_close(
            other[name], value, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )
    loss = [json.loads((lab / out / "result.json").read_text())["loss"] for out in (whole, "two")]
    assert loss[0] == pytest.approx(loss[1], rel=1e-4)


def test_a_queue_that_breaks_down_stops_nobody(lab: Path, caplog: pytest.LogCaptureFixture) -> None:
    messages = Messages()
    with messages.received(None, lab / "broken.log"):
        ray.kill(messages._queue.actor)
        for step in range(3):
            messages.send_metrics({"loss": 1.0}, step)
    assert "is lost" in caplog.text


def test_a_flipped_byte_is_named_and_is_the_users_matter(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = wander_store(lab / "flipped", [300, 500])
    part = lab / "flipped" / store.parts[0]["file"]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 4
    part.write_bytes(bytes(data))
    assert pretrain(lab, "of flipped", data="flipped") == 2
    said = capsys.readouterr().err
    assert "part-00000.parquet is damaged" in said
    assert "Traceback" not in said
    assert not (lab / "of flipped").exists()


def test_damage_that_a_worker_meets_is_the_users_matter_too(
    lab: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a large store the driver reads but a sample; here it reads nothing."""
    undamaged = sample(Store(lab / "store"), seed=0)
    monkeypatch.setattr(learners, "sample", lambda store, **settings: undamaged)
    assert pretrain(lab, "met", data="flipped") == 2
    said = capsys.readouterr().err
    assert "part-00000.parquet is damaged" in said
    assert "Traceback" not in said


def test_a_loss_that_explodes_ends_the_run_with_its_own_sentence_and_is_not_tried_again(
    lab: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = RECIPE | {"optimiser": {"lr": 1e30, "clip": 0, "warmup": 0}}
    (lab / "wild.yaml").write_text(yaml.safe_dump(recipe))
    words = ["--recipe", str(lab / "wild.yaml"), "--set", "retries=3"]
    assert pretrain(lab, "exploded", *words) == 1
    said = capsys.readouterr().err
    assert "the run failed: the " in said
    assert "is not finite at step" in said
    assert "Traceback" not in said
    assert "LinAlgError" not in said
    log = (lab / "exploded" / "train.log").read_text()
    assert log.count("step 1 of ") == 1, "it was tried again"
