"""The benchmarks: their figures are honest, what they compare is the same work, and each runs
small."""

from __future__ import annotations

import importlib
import json
import mmap
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pretrain.data.schema import CALMS21
from pretrain.data.store import Store
from pretrain.data.windows import BatchPlan, FrameBuffer, chunk_offset
from pretrain.errors import BadInput
from pretrain.transforms import programs

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks_are_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Beside each other they import by name, as they do when one is run. Torch keeps its
    threads."""
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def bench(name: str) -> Any:
    return importlib.import_module(name)


def figures(file: Path) -> dict[str, dict[str, Any]]:
    held = json.loads(file.read_text())
    assert {"benchmark", "what", "command", "settings", "machine", "figures", "notes"} == set(held)
    return {one["what"]: one for one in held["figures"]}


# -- figures ---------------------------------------------------------------------------------------


def test_works_take_turns_and_the_first_turn_does_not_count() -> None:
    said: list[str] = []
    spent = bench("measure").take_turns(
        {"a": lambda: said.append("a"), "b": lambda: said.append("b")}, turns=2, warm=1
    )
    assert said == ["a", "b"] * 3
    assert [len(values) for values in spent.values()] == [2, 2]


def test_a_figure_is_the_median_with_its_spread_and_says_whether_the_goal_is_reached(
    tmp_path: Path,
) -> None:
    measure = bench("measure")
    report = measure.Report("example", "something beside something")
    ratio = measure.ratios([2.0, 9.0, 4.0], [1.0, 3.0, 1.0])
    report.add("ratio", ratio, "x", at_least=3.5)
    report.add("share", 3.0, "%", at_most=2)
    report.add("both", 3.0, "", at_least=1, at_most=3)
    report.finish(tmp_path / "deep" / "example.json")
    found = figures(tmp_path / "deep" / "example.json")
    assert (
        found["ratio"]["median"],
        found["ratio"]["least"],
        found["ratio"]["most"],
        found["ratio"]["turns"],
    ) == (3.0, 2.0, 4.0, 3)
    assert found["ratio"]["goal"] == "at least 3.5: missed"
    assert found["share"]["goal"] == "at most 2: missed"
    assert found["both"]["goal"] == "at least 1 and at most 3: reached"
    assert "one turn" in report.text()
    assert {"processor", "cores", "torch", "load", "warning"} <= set(report.machine)


def test_a_busy_machine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = bench("measure")
    monkeypatch.setattr(measure.os, "getloadavg", lambda: (50.0, 0.0, 0.0))
    assert "busy" in measure.describe_machine()["warning"]
    monkeypatch.setattr(measure.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    assert not measure.describe_machine()["warning"]


@pytest.mark.parametrize("name", ["stream", "embed", "programs", "train_step"])
def test_numbers_below_one_are_refused(name: str) -> None:
    with pytest.raises(BadInput, match="--turns is 0"):
        bench(name).main(["--turns", "0"])


def test_memory_is_seen(tmp_path: Path) -> None:
    with bench("memory").Memory() as memory:
        block = mmap.mmap(-1, 64 * 2**20)  # new pages, whatever was freed before
        block.write(b"1" * len(block))
    assert 60 < memory.own_mib - memory.before_mib < 100
    assert memory.all_mib >= memory.own_mib
    block.close()


# -- what is compared is the same ------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """21,000 frames: two videos, the second short, so that windows are cut short as well."""
    made: Store = bench("walks").write_store(tmp_path / "store", 21_000)
    assert len(made.videos) == 2
    return made


def test_the_mapped_loop_delivers_what_the_stream_cuts(store: Store, tmp_path: Path) -> None:
    mapped = bench("mapped")
    mapped.write_arrays(store, tmp_path)
    lanes = BatchPlan.from_chunks(store.chunks, window=100, batch=8, seed=3)
    windows = mapped.MappedWindows(tmp_path, mapped.windows_of(store, lanes), window=100)
    buffer = FrameBuffer(store.frames, store.schema.shape, window=100)
    for part in range(len(store.parts)):
        buffer.put(*(torch.tensor(x) for x in store.decode(store.read_groups(part))))
    groups = np.bincount(store.chunks.group_id, weights=store.chunks.frames).astype(np.int64)
    tiles = lanes.tiles(np.arange(len(lanes)))
    begin = (
        (np.cumsum(groups) - groups)[tiles.group]
        + chunk_offset(store.chunks)[tiles.chunk]
        + tiles.start
    )
    seen = 0
    for batch in mapped.batches_of(lanes, epoch=1):
        position, confidence = windows.__getitems__(batch)
        cut = buffer.cut(begin[batch], tiles.frames[batch], lanes.key(batch, 1))
        whole = torch.from_numpy(tiles.frames[batch] == 100)
        torch.testing.assert_close(
            position[whole],
            cut.pose.position_BTMKX.flatten(2)[whole],
            atol=0,
            rtol=0,
            equal_nan=True,
        )
        torch.testing.assert_close(
            confidence[whole], cut.pose.confidence_BTMK.flatten(2)[whole], atol=0, rtol=0
        )
        seen += len(position)
    assert seen == len(lanes)


def test_resident_frames_are_each_cut_once_an_epoch() -> None:
    walks = bench("walks")
    held = walks.Resident(3_000, window=64, batch=4)
    batches = [held.windows(step) for step in range(held.plan.steps - 1)]
    rows = sum(int(windows.valid_BT.sum()) for windows in batches)
    last = held._grid[held.plan.steps - 1]
    assert rows + int(held.plan.tiles(last[last >= 0]).frames.sum()) == 3_000
    truth = torch.from_numpy(walks.walk(3_000)[0])
    first = batches[0].pose.position_BTMKX[0]
    begin = int(held._begin[held._grid[0, 0]])
    length = int(batches[0].valid_BT[0].sum())
    torch.testing.assert_close(
        first[:length], truth[begin : begin + length], atol=0, rtol=0, equal_nan=True
    )


def test_embedding_once_equals_one_window_a_frame_and_the_test_would_notice() -> None:
    embed, steps, walks = bench("embed"), bench("steps"), bench("walks")
    embedder = steps.learner_of(
        steps.recipe_of("contrastive", {"encoder.width": 16, "encoder.layers": 4})
    ).embedder.eval()
    position, confidence = (torch.from_numpy(x) for x in walks.walk(2_500))
    frames = range(1_000, 1_100)  # over the seam between two stretches of 1,024
    dense = embed.embed_video(embedder, {"position": position, "confidence": confidence})[
        1_000:1_100
    ]
    loop = embed.one_window_a_frame(embedder, position, confidence, frames, batch=32)
    assert (dense - loop).abs().max() <= 1e-5
    shifted = embed.one_window_a_frame(
        embedder, position, confidence, range(1_001, 1_101), batch=32
    )
    assert (dense - shifted).abs().max() > 1e-3


def test_operations_are_counted_as_a_closed_form_says() -> None:
    width, batch, window = 24, 4, 32
    changes = {
        "encoder.width": width,
        "encoder.layers": 2,
        "batch": batch,
        "window": window,
        "objective.anchors": 2,
    }
    step = bench("train_step").Step("contrastive", changes, frames=1_024)
    rows, inputs, projection = 2 * batch * window, step.learner.embedder.features.width, 64
    enter = (
        2 * rows * inputs * width * 2
    )  # forward, and backward to the weights: nothing asks for the gradient of the features
    blocks = 2 * rows * (3 * width**2 + width**2) * 3 * 2
    anchors, views = 2, 2 * batch
    # Both the anchors and the frames where their positives lie; each anchor is a group of its own.
    head = 2 * (2 * anchors * views) * (width**2 + width * projection) * 3
    similarity = 2 * anchors * views**2 * projection * 3
    # The middle tap of a dilated convolution always meets a frame, the others not at the ends;
    # torch counts them there as well.
    assert step.operations() == enter + blocks + head + similarity
    assert step.windows == 2 * batch


# -- each runs small -------------------------------------------------------------------------------


def test_the_training_step_is_measured_beside_a_lisbet_that_answers(tmp_path: Path) -> None:
    lisbet = tmp_path / "python"
    answers = '{"parameters": 75620, "windows": 512, "window": 200, "version": "0"}'
    lisbet.write_text(
        f"#!/bin/sh\necho '{answers}'\nwhile read line; do echo '{{\"seconds\": 2.0}}'; done\n"
    )
    lisbet.chmod(0o755)
    tiny = "{name: tcn, width: 8, layers: 2}"
    bench("train_step").main(
        [
            "--frames",
            "2048",
            "--batch",
            "2",
            "--window",
            "32",
            "--matrix",
            "32",
            "--wide",
            tiny,
            "--small",
            tiny,
            "--turns",
            "1",
            "--threads",
            "1",
            "--lisbet",
            str(lisbet),
            "--treba-batch",
            "4",
            "--json",
            str(tmp_path / "found.json"),
        ]
    )
    found = figures(tmp_path / "found.json")
    theirs = next(one for what, one in found.items() if what.startswith("LISBET"))
    assert theirs["median"] == 256
    ours = next(one for what, one in found.items() if what.startswith("ours, "))
    assert found["ours against LISBET"]["median"] == pytest.approx(ours["median"] / 256)
    programmed = next(
        one for what, one in found.items() if what.startswith("task programming, differentiable")
    )
    published = next(
        one
        for what, one in found.items()
        if what.startswith("the published model, 7,568,130 parameters, float32")
    )
    ratio = found["ours against the published model, same machine"]
    assert ratio["median"] == pytest.approx(programmed["median"] / published["median"])
    assert ratio["goal"].startswith("at least 20")


def test_the_published_model_learns_and_leaves_its_approximators() -> None:
    torch.manual_seed(0)
    training = bench("rivals.treba_steps").Training(2_048, batch=16)
    fixed = [weight.clone() for weight in training.model.approximate.parameters()]
    losses = [training().item() / 16 for _ in range(24)]
    assert sum(losses[-4:]) < sum(losses[:4]) - 4 * 50  # nats a trajectory
    assert all(
        torch.equal(a, b)
        for a, b in zip(fixed, training.model.approximate.parameters(), strict=True)
    )


def test_the_published_model_sees_a_trajectory_and_a_copy_that_is_moved_as_one() -> None:
    treba = bench("rivals.treba_steps")
    training = treba.Training(4_096, batch=64)
    assert training.windows == 2 * training.batch
    recorded = training._position[:64]
    states = training.states(recorded)
    assert states.shape == (64, 21, 18)
    half = torch.tensor([512.0, 285.0])
    torch.testing.assert_close(states[:, :, 9:11], recorded[:, :, 1, 3] / half - 1)
    sin, cos = states[:, :, 11:13].unbind(-1)
    x, y = ((recorded[:, :, 1, 3] - recorded[:, :, 1, 6]) / half).unbind(-1)
    torch.testing.assert_close(torch.atan2(sin, cos), torch.atan2(x, y))
    torch.manual_seed(1)
    copy = treba.changed(recorded)

    def distances(x: torch.Tensor) -> torch.Tensor:
        return torch.cdist(
            x.flatten(1, 3), x.flatten(1, 3), compute_mode="donot_use_mm_for_euclid_dist"
        )

    rigid = ((distances(copy) - distances(recorded)).abs().amax((1, 2)) < 0.1).double().mean()
    assert 0.5 < rigid < 0.95  # three in four on average; the others are shaken
    assert not torch.isclose(copy, recorded).all((1, 2, 3, 4)).any()


def test_a_lisbet_that_is_not_there_is_named() -> None:
    train_step = bench("train_step")
    with (
        pytest.raises(BadInput, match="--lisbet nowhere/python"),
        train_step.lisbet("nowhere/python", batches=1, threads=1),
    ):
        pass


def probed(tmp_path: Path, *words: str) -> dict[str, dict[str, Any]]:
    made = tmp_path / "arena"
    if not made.exists():
        command = [
            sys.executable,
            str(ROOT / "pretrain" / "prepare.py"),
            "arena",
            "--out",
            str(made),
            "--frames",
            "20000",
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    tiny = [
        "--minutes",
        "0.02",
        "--threads",
        "1",
        "--every",
        "5",
        "--videos",
        "2",
        "--turns",
        "2",
        "--json",
        str(tmp_path / "found.json"),
    ]
    network = "{name: two_rate, width: 8, narrow: 8, dim: 8, layers: 2}"
    bench("lisbet_probe").main(
        [
            "--data",
            str(made),
            "--task",
            "classic_classification",
            "--encoder",
            network,
            *tiny,
            *words,
        ]
    )
    return figures(tmp_path / "found.json")


def test_our_side_of_the_probe_runs_small_and_beats_chance(tmp_path: Path) -> None:
    found = probed(tmp_path)
    rows = ("hand-made features", "ours, two_rate: random weights", "ours, two_rate: trained")
    scores = {
        f"{budget}: {row}": found[f"{budget}: {row}: MAP"]["median"]
        for budget in ("2 videos", "all 6")
        for row in rows
    }
    assert min(scores.values()) > found["chance: MAP"]["median"] + 0.05, scores
    assert found["2 videos: hand-made features: MAP"]["turns"] == 2
    assert found["all 6: hand-made features: MAP"]["turns"] == 1, "nothing is drawn from all videos"
    assert 1.2 <= found["ours, two_rate: processor time"]["median"] < 6
    assert found["ours, two_rate: windows of 200 learned from"]["median"] > 0


STANDS_IN = """#!{python}
import json, sys
import numpy as np
words = dict(zip(sys.argv[2::2], sys.argv[3::2]))
held = np.load(words["--poses"])
say = lambda **what: print(json.dumps(what), flush=True)
say(parameters=7, with_heads=9, window=200, epoch_windows=1000, version="0")
for turn in range(15):
    sys.stdin.readline()
    say(core_seconds=float(words["--core-seconds"]) * (turn + 1), steps=1, windows=128)
sys.stdin.readline()
z = []
for number in range(len(held["videos"])):
    position, frames = held[f"position{{number}}"], held[f"frames{{number}}"]
    z.append(np.nan_to_num(position.reshape(len(position), -1))[frames])
    say(embedded=2 * len(frames))
import os
os.makedirs(words["--out"])
embedded = np.concatenate(z).astype(np.float32)
np.savez(words["--out"] + "/embedded.npz", **{{"trained, as it comes": embedded}})
say(done=True)
"""


def test_what_lisbet_embeds_is_probed_frame_by_frame(tmp_path: Path) -> None:
    """The process that stands in embeds the coordinates themselves: the score must be that of the
    coordinates."""
    lisbet = tmp_path / "python"
    lisbet.write_text(STANDS_IN.format(python=sys.executable))
    lisbet.chmod(0o755)
    found = probed(tmp_path, "--lisbet", str(lisbet))
    assert found["LISBET, rate 0.0001: windows of 200 learned from"]["median"] == 15 * 128
    assert found["LISBET, rate 0.0001: processor time"]["median"] == pytest.approx(1.2), (
        "0.02 minutes of one thread"
    )
    probe_of, linear = bench("lisbet_probe"), bench("linear_probe")
    store = Store(tmp_path / "arena")
    problem, frames = probe_of.every_nth(probe_of.problems(store, "classic_classification")[0], 5)
    z = {
        name: np.nan_to_num(store.read_video(name).position_TMKX.reshape(-1, 28))[rows]
        for name, rows in frames.items()
    }
    scores, _ = linear.probe(z, problem)
    assert found["all 6: LISBET, rate 0.0001: trained, as it comes: MAP"][
        "median"
    ] == pytest.approx(scores.map, abs=1e-6)


def test_the_probe_refuses_what_one_regression_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--minutes is 0"):
        bench("lisbet_probe").main(["--data", str(tmp_path), "--task", "S1", "--minutes", "0"])


def test_programs_run_small(tmp_path: Path) -> None:
    bench("programs").main(
        ["--frames", "4096", "--turns", "1", "--json", str(tmp_path / "found.json")]
    )
    assert figures(tmp_path / "found.json")["programs"]["median"] > 0


def test_programs_in_blocks_are_those_of_the_whole_recording() -> None:
    position = torch.randn(100, 2, 7, 2).cumsum(0) + 300
    with ThreadPoolExecutor(2) as pool:
        found = bench("programs").measured(position, 24, pool)
    torch.testing.assert_close(
        found, programs.measure(position[None], CALMS21)[0], atol=1e-3, rtol=1e-5, equal_nan=True
    )


GPU = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ray", "mlflow"):
            raise ModuleNotFoundError(f"{name} is not here")
sys.meta_path.insert(0, Block())
sys.path.insert(0, sys.argv[1])
import gpu
small = "--cpu --frames 2048 --window 32 --batch 4 --turns 1 --threads 1"
gpu.main([*small.split(), "--json", sys.argv[2]])
"""


def test_the_gpu_benchmark_runs_small_on_a_cpu_without_ray_and_mlflow(tmp_path: Path) -> None:
    command = [sys.executable, "-c", GPU, str(FOLDER), str(tmp_path / "found.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "not measured on a GPU" in done.stdout
    found = figures(tmp_path / "found.json")
    assert {
        "float32, eager: step",
        "bf16, eager: share of the product",
        "batch 8, width 32: step",
    } <= set(found)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_here")
def test_the_stream_is_measured_beside_the_mapped_loop(tmp_path: Path) -> None:
    tiny = [
        "--frames",
        "21000",
        "--turns",
        "1",
        "--threads",
        "1",
        "--json",
        str(tmp_path / "found.json"),
    ]
    bench("stream").main([*tiny, "--steps", "2", "--window", "32", "--batch", "8"])
    found = figures(tmp_path / "found.json")
    assert {"streaming against a loader process", "staying against the mapped loop"} <= set(found)
    assert 0 <= found["staying: training waits for data, first batch apart"]["median"] < 100

    bench("ideas").main(
        [*tiny, "--window", "32", "--batch", "8", "--video-frames", "600", "--loop-frames", "8"]
    )
    found = figures(tmp_path / "found.json")
    assert [mark for mark in "1234" if any(what.startswith(mark) for what in found)] == list("1234")


@pytest.mark.ray
@pytest.mark.slow
def test_growth_measures_in_a_process_of_its_own(store: Store) -> None:
    growth = bench("growth")
    args = growth.measure.new_parser("", turns=1).parse_args([])
    args.window, args.batch = 32, 8
    found = growth.in_a_process(store.uri, stays=True, args=args)
    assert found["seconds_1"] > found["first_1"] > 0
    assert found["all_mib"] > found["own_mib"]


def test_growth_leaves_out_what_every_process_needs() -> None:
    growth = bench("growth")
    report = growth.measure.Report("growth", "")
    small, large = 1_000_000, 11_000_000
    poses_mib = 10_000_000 * growth.FRAME_BYTES / 2**20
    found = {
        frames: {
            name: [{"seconds_1": frames * 2e-6, "own_mib": 500.0 + extra, "all_mib": 900.0}]
            for name in ("streaming", "staying")
        }
        for frames, extra in ((small, 0.0), (large, 1.1 * poses_mib))
    }
    growth.compare(report, found)
    medians = {one.what.split(",")[0]: one.median for one in report.figures}
    assert medians["streaming: time of a frame in epoch 2"] == pytest.approx(1)
    assert medians["staying: memory of the process grows / poses grow"] == pytest.approx(1.1)
    assert medians["streaming: memory of all processes grows"] == 0


def test_ingesting_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    ingest = bench("ingest")
    ingest.write_official(tmp_path / "official", ingest.recordings(3_000), zipped=False)
    found = ingest.measured(ingest.WHOLE, tmp_path / "official", tmp_path / "store")
    assert found["frames"] == 3_000
    assert found["peak_mib"] > found["imports_mib"] > 0


# -- all of them -----------------------------------------------------------------------------------


def test_all_are_run_and_one_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_all = bench("run_all")
    here = tmp_path / "benchmarks"
    here.mkdir()
    good = f"""
        import sys
        sys.path.insert(0, {str(FOLDER)!r})
        import measure
        from pathlib import Path
        report = measure.Report("good", "good beside bad")
        report.add("goodness", [1.0, 2.0], "x", at_least=1)
        report.finish(Path(sys.argv[-1]))
    """
    (here / "good.py").write_text(textwrap.dedent(good))
    (here / "bad.py").write_text("raise SystemExit('it broke')\n")
    monkeypatch.setattr(run_all, "HERE", here)
    with pytest.raises(RuntimeError, match="failed: bad"):
        run_all.main(["--out", str(tmp_path / "out")])
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "**Failed**: it broke" in summary
    assert "| goodness | 1.5 | 1 to 2 | x | at least 1: reached |" in summary
    held = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert [(one["benchmark"], bool(one["failed"])) for one in held["benchmarks"]] == [
        ("bad", True),
        ("good", False),
    ]
    with pytest.raises(BadInput, match="there is no worse; there are: bad, good"):
        run_all.main(["--only", "worse"])


def test_every_benchmark_says_what_it_measures_and_is_in_the_documents() -> None:
    names = bench("run_all").names()
    assert {
        "stream",
        "ideas",
        "train_step",
        "embed",
        "growth",
        "gpu",
        "programs",
        "ingest",
        "tune",
    } <= set(names)
    document = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name in names:
        text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        assert f"python benchmarks/{name}.py" in text.split('"""')[1], (
            f"{name}.py does not say how it is run"
        )
        assert f"python benchmarks/{name}.py" in document, (
            f"docs/benchmarks.md does not name {name}.py"
        )
        assert len(text.splitlines()) <= 400


@pytest.mark.slow
def test_scaling_counts_what_workers_send(tmp_path: Path) -> None:
    small = ["--turns", "1", "--steps", "2", "--batch", "4", "--json", str(tmp_path / "s.json")]
    bench("scaling").main(small)
    found = figures(tmp_path / "s.json")
    steps = bench("steps")
    learner = steps.learner_of(steps.recipe_of("contrastive", {}))
    gradients = sum(4 * p.numel() for p in learner.parameters())
    assert found["strong, 2 workers: gradients"]["median"] == pytest.approx(gradients / 1e6)
    assert found["strong, 1 workers: gradients"]["median"] == 0
    weak, strong = (found[f"{kind}, 2 workers: other"]["median"] for kind in ("weak", "strong"))
    assert weak == pytest.approx(2 * strong, rel=0.01), "the objective's grows with the batch"
