"""Labelling new recordings: what is written reads back, at the recording's own rate; what does not
fit is refused before anything."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reader_files import World, write_npz
from worlds import MICE, embedder_of, wander, wander_store

from finetune.heads import build_head
from finetune.inference.ethograms import Ethogram, picture, summary, summary_table
from finetune.inference.model import as_tensors, open_model
from finetune.inference.prediction_formats import AbstractPredictionFormat, prediction_formats
from finetune.inference.prediction_formats.csv import FrameTable
from finetune.labels.problems import Problem
from finetune.postprocess.calibrations.temperature import Temperature
from finetune.postprocess.decision_rules.thresholds import Thresholds
from finetune.postprocess.postprocessing import Postprocessing
from finetune.postprocess.smoothers.minimum_bout import MinimumBout
from finetune.postprocess.smoothers.moving import Moving
from finetune.predict import main
from finetune.report.model_folder import load_model, load_postprocessing, save_model
from pretrain.components import find, names
from pretrain.data.windows import Pose
from pretrain.errors import BadInput, exit_status
from pretrain.readers.annotations import UNLABELLED
from pretrain.readers.find_labels import read_label_files
from pretrain.readers.score_sheets import CLIP
from pretrain.readers.tracks import Tracks
from pretrain.train.embed_video import embed_video

PLAIN: dict[str, object] = {"edges": None, "mirror_pairs": None, "axis": None}
"""Of a file that says nothing of bones."""
MOUSE = Problem(
    name="task",
    task="task",
    classes=("attack", "sniff face", "other"),
    annotator="",
    overlapping=False,
    train={},
    test={},
)
BOTH = Problem(
    name="acts",
    task="acts",
    classes=("sniff", "groom"),
    annotator="",
    overlapping=True,
    train={},
    test={},
)
STEPS = Postprocessing(
    calibration=Temperature(temperature=2.0),
    decision_rule=Thresholds(values=(1.0, 0.8, 0.9)),
    smoother=Moving(frames=3),
)
ACTS_STEPS = Postprocessing(smoother=MinimumBout(frames=(2, 2), overlapping=True), overlapping=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with two seeds of a model whose decisions vary."""
    out = tmp_path_factory.mktemp("run")
    position, confidence = wander(MICE, 400, seed=9)
    pose = Pose(torch.from_numpy(position)[None], torch.from_numpy(confidence)[None])
    embedder = embedder_of(MICE, "tcn", pose)
    z = embed_video(embedder, as_tensors({"position": position, "confidence": confidence}))
    for seed in (42, 43):
        torch.manual_seed(seed)
        head = build_head({"name": "linear"}, embedder.dim, [3, 2])
        head.standardise(z)
        for out_layer in head.out:
            torch.nn.init.normal_(out_layer.weight, std=1.0)
        save_model(
            out / "model" / f"seed-{seed}",
            head,
            embedder,
            [MOUSE, BOTH],
            head_settings={"name": "linear"},
            made_by={},
            postprocessing=[STEPS, ACTS_STEPS],
        )
    return out


def tracks(
    folder: Path,
    name: str = "m1",
    /,
    *,
    frames: int = 300,
    fps: float = 30.0,
    seed: int = 0,
    **more: object,
) -> Path:
    position, confidence = wander(MICE, frames, seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        "keypoints": np.array(MICE.keypoints),
        "animals": np.array(MICE.animals),
        "fps": fps,
        **PLAIN,
    }
    return write_npz(
        folder / f"{name}.npz",
        World(position.astype(float), confidence.astype(float)),
        **(names | more),
    )


def ethogram(problem: Problem, *, fps: float = 30.0, seed: int = 0) -> Ethogram:
    draw = np.random.default_rng(seed)
    if problem.overlapping:
        labels = np.repeat(draw.random((40, 2)) < 0.4, 7, axis=0).astype(np.int8)
    else:
        labels = np.repeat(draw.integers(3, size=40), 7)
    p = np.where(
        np.eye(len(problem.classes))[labels] == 1 if labels.ndim == 1 else labels == 1, 1.0, 0.0
    )  # saturated
    return Ethogram(video="m1", problem=problem, labels=labels, probabilities_TC=p, fps=fps)


def poses(frames: int) -> Tracks:
    position, confidence = wander(MICE, frames, seed=0)
    return Tracks(
        name="m1",
        animals=MICE.animals,
        keypoints=MICE.keypoints,
        position_TMKX=position,
        confidence_TMK=confidence,
    )


FOLDER = "finetune.inference.prediction_formats"
FORMATS = names(FOLDER)
LABELS = ("annot", "boris", "boris_events", "csv", "nwb")
"""Formats that ``prepare.py --labels`` reads."""


def written(name: str, ethogram: Ethogram, folder: Path) -> Path:
    """The file of a format."""
    for module in find(FOLDER, name, AbstractPredictionFormat).requires:
        pytest.importorskip(module)
    (form,) = prediction_formats([name]).values()
    path = folder / f"m1{form.ending}"
    form.write(path, ethogram)
    return path


@pytest.mark.parametrize("problem", [MOUSE, BOTH], ids=["exclusive", "overlapping"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_writes_one_file_with_every_behaviour(
    name: str, problem: Problem, tmp_path: Path
) -> None:
    form = find("finetune.inference.prediction_formats", name, AbstractPredictionFormat)
    for module in form.requires:
        pytest.importorskip(module)
    path = written(name, replace(ethogram(problem), tracks=lambda: poses(280)), tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.suffix == form.ending
    files = list(path.iterdir()) if path.is_dir() else [path]
    data = b"".join(file.name.encode() + file.read_bytes() for file in files)
    for behaviour in problem.classes:
        if behaviour != problem.rest:
            assert behaviour.encode() in data


def test_a_format_is_a_file_that_the_command_offers(
    run: Path,
    tmp_path: Path,
    add_component: Callable[[str, str, str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    add_component(
        "finetune.inference.prediction_formats",
        "starts",
        '''"""First frames of bouts."""
from finetune.inference.prediction_formats import AbstractPredictionFormat

class Starts(AbstractPredictionFormat):
    ending = ".txt"

    def write(self, path, ethogram):
        path.write_text("".join(f"{start} {name}\\n" for start, _, name in ethogram.events()))
''',
    )
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "starts: First frames of bouts." in " ".join(capsys.readouterr().out.split())
    words = ["--model", str(run), "--poses", str(tracks(tmp_path / "new")), "--labels-of", "task"]
    main([*words, "--out", str(tmp_path / "out"), "--format", "starts"])
    assert (tmp_path / "out" / "starts" / "m1.txt").read_text().count("\n") > 3
    with pytest.raises(
        BadInput, match="there is no 'magic'; there are: annot, boris, boris_events"
    ):
        prediction_formats(["starts", "magic"])


def test_a_missing_library_is_named_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pynwb", None)
    words = ["--model", "nowhere", "--poses", "nowhere", "--format", "nwb"]
    with pytest.raises(BadInput, match=r"--format nwb needs pynwb: pip install 'ethoray"):
        main(words)


@pytest.mark.parametrize("problem", [MOUSE, BOTH], ids=["exclusive", "overlapping"])
@pytest.mark.parametrize("fps", [30.0, 29.97, 250.0])
@pytest.mark.parametrize("name", LABELS)
def test_the_label_readers_read_back_every_frame(
    name: str, fps: float, problem: Problem, tmp_path: Path
) -> None:
    shown = ethogram(problem, fps=fps)
    written(name, shown, tmp_path)
    (found,), mismatches = read_label_files(tmp_path, {"m1": len(shown.labels)}, fps)
    assert not mismatches
    assert found.overlapping == problem.overlapping
    assert set(found.classes) == set(problem.classes)
    for c, behaviour in enumerate(problem.classes):
        at = found.classes.index(behaviour)
        again = found.frames[:, at] == 1 if found.overlapping else found.frames == at
        assert np.array_equal(again, shown.shown_TC[:, c] == 1)
    assert not (found.frames == UNLABELLED).any()


@pytest.mark.parametrize("form", ["exclusive", "overlapping"])
def test_behaviours_of_any_name_survive_the_csv(form: str, tmp_path: Path) -> None:
    """Named as columns are, as probabilities are, and as those of other tables; with a pose in few
    of the first frames."""
    classes = ("frame", "time_s", "label", "p_x", "x", "start", "stop", "nose_x", 'a "b", c', "p_")
    rng = np.random.default_rng(0)
    problem = replace(MOUSE, classes=classes, overlapping=form == "overlapping")
    labels = rng.integers(0, 2, (700, len(classes))).astype(np.int8)
    if form == "exclusive":
        labels = rng.integers(0, len(classes), 700).astype(np.int8)
    labels[:400] = UNLABELLED
    p_TC = rng.integers(0, 2, (700, len(classes))).astype(np.float32)
    shown = Ethogram(video="m1", problem=problem, labels=labels, probabilities_TC=p_TC, fps=30.0)
    written("csv", shown, tmp_path)
    (again,), mismatches = read_label_files(tmp_path, {"m1": 700}, 30.0)
    assert not mismatches
    assert (again.classes, again.overlapping) == (classes, problem.overlapping)
    assert np.array_equal(again.frames, labels)


def test_nwb_holds_the_bouts_and_the_probabilities(tmp_path: Path) -> None:
    pynwb = pytest.importorskip("pynwb")
    pytest.importorskip("ndx_ethogram")
    shown = ethogram(MOUSE)
    with pynwb.NWBHDF5IO(str(written("nwb", shown, tmp_path)), "r") as file:
        module = file.read().processing["behavior"]
        table = module["ethogram"].to_dataframe()
        assert [
            (round(row.start_time * 30), round(row.stop_time * 30), row.label)
            for row in table.itertuples()
        ] == shown.events()
        assert np.array_equal(
            module["probabilities"].data[:], shown.probabilities_TC.astype(np.float32)
        )


def test_summaries_count_time_and_bouts() -> None:
    labels = np.array([0] * 30 + [2] * 30 + [0] * 90 + [2] * 150)
    table = Ethogram(
        video="v", problem=MOUSE, labels=labels, probabilities_TC=np.full((300, 3), 1 / 3), fps=30.0
    )
    attack, sniff, other = summary(table)
    assert (
        attack["seconds"],
        attack["share"],
        attack["bouts"],
        attack["mean_bout_s"],
        attack["bouts_per_min"],
    ) == (4, 0.4, 2, 2, 12)
    assert (sniff["bouts"], sniff["mean_bout_s"], other["seconds"]) == (0, None, 6)
    assert "attack" in summary_table([attack, sniff, other])
    assert len(picture(table).axes) == 2, "a row for each class but the rest"


def test_models_are_read_back_with_their_postprocessing(run: Path, tmp_path: Path) -> None:
    assert load_postprocessing(run / "model" / "seed-42", 2) == [STEPS, ACTS_STEPS]
    with pytest.raises(BadInput, match="2 entries for 3 problems"):
        load_postprocessing(run / "model" / "seed-42", 3)
    position, confidence = wander(MICE, 200, seed=1)
    frames = as_tensors({"position": position, "confidence": confidence})
    parts: list[torch.Tensor] = []
    mouse, both = open_model(str(run)).predict(frames, on_embeddings=parts.append)
    z = torch.cat(parts)
    model, _ = load_model(run / "model" / "seed-42")
    torch.testing.assert_close(z, embed_video(model.embedder, frames))
    raw = (
        torch.softmax(model.head(z[None], torch.ones(1, 200, dtype=torch.bool))[0][0], -1)
        .detach()
        .numpy()
    )
    np.testing.assert_allclose(mouse.probabilities_TC, STEPS.calibrated(raw), atol=1e-6)
    assert np.array_equal(mouse.labels, STEPS.decide(raw))
    assert both.labels.shape == (200, 2)
    (one,) = open_model(str(run), seed=43, labels_of="acts").predict(frames)
    (other,) = open_model(str(run / "model" / "seed-42"), labels_of="acts").predict(frames)
    (mean,) = open_model(str(run), ensemble=True, labels_of="acts").predict(frames)
    np.testing.assert_allclose(
        mean.probabilities_TC, (one.probabilities_TC + other.probabilities_TC) / 2
    )


def test_what_names_no_model_is_refused_with_what_there_is(run: Path, tmp_path: Path) -> None:
    for words, message in (
        ({"path": str(tmp_path)}, "no model at"),
        ({"path": str(run), "seed": 7}, "it has: 42, 43"),
        ({"path": str(run), "labels_of": "x"}, "the model has task, acts"),
    ):
        with pytest.raises(BadInput, match=message):
            open_model(**words)


def test_recordings_are_labelled_in_every_format(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks(tmp_path / "new" / "monday", seed=1)
    tracks(tmp_path / "new" / "tuesday", seed=2, frames=120)
    out = tmp_path / "out"
    main(
        [
            "--model",
            str(run),
            "--poses",
            str(tmp_path / "new"),
            "--out",
            str(out),
            "--format",
            "csv",
            "boris",
            "annot",
            "--labels-of",
            "task",
        ]
    )
    assert "2 recordings" in capsys.readouterr().out
    frames = {"monday/m1": 300, "tuesday/m1": 120}
    with (out / "csv" / "monday" / "m1.csv").open() as file:
        rows = list(csv.DictReader(file))
    shown = [row["label"] for row in rows]
    assert len(shown) == 300
    assert len(set(shown)) > 1, "a world in which nothing varies tests nothing"
    assert all(
        float(row["p_attack"]) + float(row["p_sniff face"]) + float(row["p_other"])
        == pytest.approx(1, abs=1e-5)
        for row in rows
    )
    for name in ("csv", "boris", "annot"):
        labels, mismatches = read_label_files(out / name, frames, 30.0)
        assert not mismatches
        (mine,) = [one for one in labels if one.video == "monday/m1"]
        assert [mine.classes[c] for c in mine.frames] == shown
    with (out / "summary.csv").open() as file:
        budget = {
            (row["video"], row["behaviour"]): float(row["seconds"]) for row in csv.DictReader(file)
        }
    assert budget["monday/m1", "attack"] == pytest.approx(shown.count("attack") / 30, abs=1e-3)
    assert (out / "ethograms" / "tuesday" / "m1.png").stat().st_size > 1000
    assert json.loads((out / "predict.json").read_text())["recordings"] == 2
    with pytest.raises(BadInput, match="there already"):
        main(["--model", str(run), "--poses", str(tmp_path / "new"), "--out", str(out)])


def test_a_store_and_its_files_are_labelled_alike_and_problems_get_folders(
    run: Path, tmp_path: Path
) -> None:
    store = wander_store(tmp_path / "store", [150], seed=4)
    position, confidence = wander(MICE, 150, seed=4)
    confidence = np.round(confidence * 255) / 255  # as a store keeps it
    write_npz(
        tmp_path / "video 0.npz",
        World(position.astype(float), confidence.astype(float)),
        keypoints=np.array(MICE.keypoints),
        animals=np.array(MICE.animals),
        fps=30.0,
        **PLAIN,
    )
    tables = []
    for poses in (store.uri, str(tmp_path / "video 0.npz")):
        out = tmp_path / f"out {len(tables)}"
        main(["--model", str(run), "--poses", poses, "--out", str(out), "--ensemble"])
        tables.append((out / "csv" / "task" / "video 0.csv").read_text())
        assert (out / "csv" / "acts" / "video 0.csv").is_file()
    assert tables[0] == tables[1]


def test_labels_come_at_the_recordings_own_rate(run: Path, tmp_path: Path) -> None:
    """The model looks at 30 frames/s; 60 frames/s of the same movement must get the same labels,
    each twice."""
    position, confidence = wander(MICE, 100, seed=5, missing=0)
    twice = np.repeat(position, 2, axis=0)
    twice[1:-1:2] = (position[:-1] + position[1:]) / 2
    names = {
        "keypoints": np.array(MICE.keypoints),
        "animals": np.array(MICE.animals),
        "fps": None,
        **PLAIN,
    }
    labels = []
    for name, poses, sure, fps in (
        ("a", position, confidence, 30),
        ("b", twice, np.repeat(confidence, 2, axis=0), 60),
    ):
        write_npz(tmp_path / f"{name}.npz", World(poses.astype(float), sure.astype(float)), **names)
        out = tmp_path / f"out-{name}"
        main(
            [
                "--model",
                str(run),
                "--poses",
                str(tmp_path / f"{name}.npz"),
                "--fps",
                str(fps),
                "--out",
                str(out),
                "--labels-of",
                "task",
            ]
        )
        with (out / "csv" / f"{name}.csv").open() as file:
            labels.append([row["label"] for row in csv.DictReader(file)])
    assert (len(labels[0]), len(labels[1])) == (100, 200)
    assert labels[1][::2] == labels[0]


def test_other_names_are_translated_or_both_lists_are_shown(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = [{"nose": "snout", "tail_base": "rump"}.get(name, name) for name in MICE.keypoints]
    path = tracks(tmp_path / "x", keypoints=np.array(strange), animals=np.array(["black", "white"]))
    words = [
        "--model",
        str(run),
        "--poses",
        str(path),
        "--out",
        str(tmp_path / "out"),
        "--labels-of",
        "task",
    ]
    assert exit_status(lambda: main(words)) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    for part in (
        *strange,
        *MICE.keypoints,
        "black, white",
        "resident, intruder",
        "--keypoints",
        "--animals",
    ):
        assert part in message
    assert not (tmp_path / "out").exists()
    main(
        [
            *words,
            "--keypoints",
            "snout=nose,rump=tail_base",
            "--animals",
            "black=resident,white=intruder",
        ]
    )
    plain = tracks(tmp_path / "y")
    main(
        [
            "--model",
            str(run),
            "--poses",
            str(plain),
            "--out",
            str(tmp_path / "plain"),
            "--labels-of",
            "task",
        ]
    )
    assert (tmp_path / "out" / "csv" / "m1.csv").read_text() == (
        tmp_path / "plain" / "csv" / "m1.csv"
    ).read_text()


def test_bad_input_leaves_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tracks(tmp_path / "good")
    cut = tmp_path / "cut" / "m2.npz"
    cut.parent.mkdir()
    cut.write_bytes(good.read_bytes()[:2000])
    out = tmp_path / "out"
    for poses in ([str(tmp_path / "nowhere")], [str(cut)]):
        assert (
            exit_status(
                lambda p=poses: main(["--model", str(run), "--poses", *p, "--out", str(out)])
            )
            == 2
        )  # type: ignore[misc]
        assert "Traceback" not in capsys.readouterr().err

    def full(self: FrameTable, path: Path, shown: Ethogram) -> None:
        raise BadInput("full disk")

    monkeypatch.setattr(FrameTable, "write", full)
    assert (
        exit_status(lambda: main(["--model", str(run), "--poses", str(good), "--out", str(out)]))
        == 2
    )
    assert not list(tmp_path.glob("*out*")) + list(tmp_path.glob(".*out*"))


def test_a_recording_that_fails_costs_itself_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("m1", "m2", "m3"):
        tracks(tmp_path / "poses", name)
    original = FrameTable.write

    def of_m2(self: FrameTable, path: Path, shown: Ethogram) -> None:
        original(self, path, shown)
        if shown.video == "m2":
            raise OSError("no space left")

    monkeypatch.setattr(FrameTable, "write", of_m2)
    out = tmp_path / "out"
    words = ["--model", str(run), "--poses", str(tmp_path / "poses"), "--out", str(out)]
    words += ["--labels-of", "task"]
    assert exit_status(lambda: main(words)) == 1
    said = capsys.readouterr().err
    assert "1 of 3 recordings could not be labelled" in said
    assert "m2: OSError: no space left" in said
    assert sorted(path.name for path in (out / "csv").iterdir()) == ["m1.csv", "m3.csv"]
    assert {row["video"] for row in csv.DictReader((out / "summary.csv").open())} == {"m1", "m3"}


def with_gap(folder: Path, gap: slice, animals: slice) -> Path:
    position, confidence = wander(MICE, 601, seed=0)
    position, confidence = np.nan_to_num(position, nan=50.0), np.ones_like(confidence)
    position[gap, animals], confidence[gap, animals] = np.nan, 0
    folder.mkdir(parents=True, exist_ok=True)
    head = {"keypoints": np.array(MICE.keypoints), "animals": np.array(MICE.animals), "fps": 30.0}
    world = World(position.astype(float), confidence.astype(float))
    return write_npz(folder / "m1.npz", world, **head, **PLAIN)


EVERY = slice(None)


@pytest.mark.parametrize(
    ("gap", "animals", "options", "unlabelled"),
    [
        (slice(200, 400), EVERY, (), (200, 400)),
        (slice(200, 220), EVERY, (), (0, 0)),
        (slice(200, 220), EVERY, ("--bridge", "0.5"), (200, 220)),
        (EVERY, EVERY, (), (0, 601)),
        (EVERY, slice(1, 2), (), (0, 0)),
        (slice(100, 400), slice(1, 2), ("--every-animal",), (100, 400)),
    ],
)
def test_no_pose_no_behaviour(
    run: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    gap: slice,
    animals: slice,
    options: tuple[str, ...],
    unlabelled: tuple[int, int],
) -> None:
    """In every format."""
    pynwb = pytest.importorskip("pynwb")
    pytest.importorskip("ndx_ethogram")
    pytest.importorskip("h5netcdf")
    poses = with_gap(tmp_path / "poses", gap, animals)
    out = tmp_path / "out"
    words = ["--model", str(run), "--poses", str(poses), "--out", str(out), *options]
    words += ["--labels-of", "task", "--format", *FORMATS]
    main(words)
    first, last = unlabelled
    rows = list(csv.DictReader((out / "csv" / "m1.csv").open()))
    empty = [int(row["frame"]) for row in rows if not row["label"]]
    assert empty == list(range(first, last))
    assert all(row["p_attack"] == "" for row in rows[first:last])
    assert all(float(row["p_attack"]) >= 0 for row in [*rows[:first], *rows[last:]])
    (summed,) = {row["unlabelled_s"] for row in csv.DictReader((out / "summary.csv").open())}
    assert float(summed) == pytest.approx((last - first) / 30, abs=1e-3)
    assert ("m1 (" in caplog.text) == (last > first)
    events = list(csv.DictReader((out / "boris_events" / "m1.csv").open()))
    clips = [e for e in events if e["Behavior"] == CLIP]
    assert bool(clips) == (0 < last - first < 601)
    times = [float(e["Time"]) for e in events if e not in clips]
    assert not [t for t in times if first / 30 < t < last / 30]
    with pynwb.NWBHDF5IO(str(out / "nwb" / "m1.nwb"), "r") as file:
        read = file.read()
        p = read.processing["behavior"]["probabilities"].data[:]
        assert np.isnan(p[first:last]).all()
        assert np.isfinite(np.delete(p, np.s_[first:last], 0)).all()
        table = read.processing["behavior"]["ethogram"]
        observed = table.observation_intervals
        assert (observed is not None) == (last > first)
        if observed is not None:
            spans = [
                (round(a * 30), round(b * 30))
                for a, b in zip(observed.start_time, observed.stop_time, strict=True)
            ]
            assert spans == [span for span in ((0, first), (last, 601)) if span[0] < span[1]]
        assert len(table) * 2 == len(times)
        if last == 601 and first == 0:
            assert len(table) == 0
    assert (out / "ethograms" / "m1.png").stat().st_size > 1000
    assert (out / "annot" / "m1.annot").is_file()
