"""Bad input through the real command lines: exit status 2, one clear message, no traceback, nothing
half-written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import MICE, RATS, embedder_of, marked_store, wander_store, windows_of

from finetune import run as tuning
from pretrain import prepare
from pretrain import run as pretraining
from pretrain.cluster import join as clusters
from pretrain.cluster.resources import Machine
from pretrain.config import Recipe, Scale
from pretrain.data.store import Store
from pretrain.data.store_writer import StoreWriter
from pretrain.errors import BadInput, exit_status
from pretrain.readers.annotations import Labels, write_labels
from pretrain.runs import paths
from pretrain.train import driver
from pretrain.train.checkpoint import save_encoder

ROOT = Path(__file__).parent.parent
MAINS = {"prepare": prepare.main, "pretrain": pretraining.main, "finetune": tuning.main}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths mean this folder, and no Ray may be started: what is refused is refused before
    that."""
    monkeypatch.chdir(tmp_path)

    def started(*args: object, **more: object) -> None:
        pytest.fail("Ray was started before the input was checked")

    monkeypatch.setattr(clusters.ray, "init", started)
    monkeypatch.setattr(clusters.ray, "is_initialized", lambda: False)


@pytest.fixture
def ray_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is refused once the machines were found to be large enough, and before anything runs
    on them."""
    monkeypatch.setattr(clusters.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(clusters.ray, "cluster_resources", lambda: {"CPU": 8.0})


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read-only: a store of mice with labels `acts`, one of rats, encoder folders of both
    skeletons."""
    folder = tmp_path_factory.mktemp("given")
    whole = wander_store(folder / "plain", [300, 200])
    with StoreWriter(folder / "mice", MICE, origin="wandering animals") as writer:
        for name in ("video 0", "video 1"):
            writer.add(whole.read_video(name))
        labels = [
            Labels(
                video=name,
                task="acts",
                classes=("run", "other"),
                frames=np.arange(frames, dtype=np.int8) // 5 % 2,
                split=split,
            )
            for name, frames, split in (("video 0", 300, "train"), ("video 1", 200, "test"))
        ]
        write_labels(writer, labels)
    wander_store(folder / "rats", [300], RATS)
    for name, schema in (("mouse encoder", MICE), ("rat encoder", RATS)):
        save_encoder(folder / name, embedder_of(schema, "tcn", windows_of(schema).pose), made_by={})
    return folder


class Said(str):
    """What a refused command said."""


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Said]:
    """Runs a command in this process, which must refuse, and returns its one message."""

    def run(command: str, *words: object) -> Said:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        try:
            status: Any = exit_status(lambda: MAINS[command]([str(word) for word in words]))
        except SystemExit as ended:  # argparse
            status = ended.code
        found = capsys.readouterr()
        assert status == 2, found.err
        assert "Traceback" not in found.err + found.out
        assert found.err.count("error:") == 1, f"exactly one message, not: {found.err}"
        assert sorted(tmp_path.rglob("*")) == before, "something was left"
        return Said(found.err)

    return run


Refused = Callable[..., Said]


# -- prepare.py tracks -----------------------------------------------------------------------------

KEYPOINTS = ("nose", "neck", "tail_base")


def write_tracks(
    path: Path,
    *,
    frames: int = 30,
    animals: tuple[str, ...] = ("a", "b"),
    keypoints: tuple[str, ...] = KEYPOINTS,
) -> Path:
    """A multi-animal DeepLabCut CSV."""
    columns = [
        (animal, point, value)
        for animal in animals
        for point in keypoints
        for value in ("x", "y", "likelihood")
    ]
    rows = [["scorer", *["net"] * len(columns)]]
    rows += [
        [name, *(column[place] for column in columns)]
        for place, name in enumerate(("individuals", "bodyparts", "coords"))
    ]
    rows += [
        [
            str(t),
            *(
                f"{0.9 if value == 'likelihood' else 100 + t + n}"
                for n, (_, _, value) in enumerate(columns)
            ),
        ]
        for t in range(frames)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(",".join(row) for row in rows) + "\n", encoding="utf-8")
    return path


def tracks(*words: object) -> tuple[object, ...]:
    return ("prepare", "tracks", "--poses", "poses", "--fps", 30, "--out", "store", *words)


def test_the_world_would_be_taken(tmp_path: Path) -> None:
    write_tracks(tmp_path / "poses" / "one.csv")
    write_tracks(tmp_path / "poses" / "two.csv", frames=40)
    assert (
        exit_status(
            lambda: prepare.main(["tracks", "--poses", "poses", "--fps", "30", "--out", "store"])
        )
        == 0
    )
    assert Store(tmp_path / "store").frames == 70


def test_no_files_found(refused: Refused, tmp_path: Path) -> None:
    assert "poses" in refused(*tracks())
    (tmp_path / "poses").mkdir()
    assert "poses" in refused(*tracks())
    assert "nothing-*.csv" in refused(
        "prepare", "tracks", "--poses", "nothing-*.csv", "--fps", 30, "--out", "store"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        "dear diary\n",
        "\0\0\0\0",
        "scorer\n",
        '{"annotator": {}}',
        "scorer,x\nbodyparts,nose\n",
    ],
    ids=range(7),
)
def test_not_a_tracks_file(refused: Refused, tmp_path: Path, text: str) -> None:
    write_tracks(tmp_path / "poses" / "one.csv")
    (tmp_path / "poses" / "two.csv").write_text(text)
    assert "two.csv" in refused(*tracks())


def spoilt(path: Path, *, line: int, change: Callable[[str], str]) -> None:
    lines = path.read_text().split("\n")
    lines[line] = change(lines[line])
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row + ",7",
        lambda row: row.rpartition(",")[0],
        lambda row: row.replace("0.9", "sure", 1),
        lambda row: row.replace("0.9", "inf", 1),
    ],
    ids=["long", "short", "text", "infinite"],
)
def test_a_ragged_csv(refused: Refused, tmp_path: Path, change: Callable[[str], str]) -> None:
    write_tracks(tmp_path / "poses" / "one.csv")
    spoilt(write_tracks(tmp_path / "poses" / "two.csv"), line=20, change=change)
    said = refused(*tracks())
    assert "two.csv" in said
    assert any(place in said for place in ("line 21", "row 21", "frame 16")), (
        f"it does not say where: {said}"
    )


def test_a_truncated_csv(refused: Refused, tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "poses" / "one.csv")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    assert "one.csv" in refused(*tracks())
    path.write_bytes(whole[:100])
    assert "one.csv" in refused(*tracks())


def test_animals_or_keypoints_that_differ_between_videos(refused: Refused, tmp_path: Path) -> None:
    write_tracks(tmp_path / "poses" / "one.csv")
    write_tracks(tmp_path / "poses" / "two.csv", keypoints=("nose", "neck", "tail_tip"))
    write_tracks(tmp_path / "poses" / "three.csv", animals=("a", "b", "c"))
    said = refused(*tracks())
    for word in ("two.csv", "three.csv", "tail_tip", "tail_base", "a, b, c"):
        assert word in said


@pytest.mark.parametrize("fps", ["0", "-3", "nan", "fast"])
def test_a_frame_rate_that_cannot_be(refused: Refused, tmp_path: Path, fps: str) -> None:
    write_tracks(tmp_path / "poses" / "one.csv")
    assert "fps" in refused("prepare", "tracks", "--poses", "poses", "--fps", fps, "--out", "store")


BORIS = "Observation id,Media file name,Subject,Behavior,Behavior type,Start (s),Stop (s)\n"


def test_labels_for_no_known_video(refused: Refused, tmp_path: Path) -> None:
    write_tracks(tmp_path / "poses" / "one.csv")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "stranger.csv").write_text(
        BORIS + "stranger,stranger.mp4,a,chase,STATE,0.1,0.5\n"
    )
    said = refused(*tracks("--labels", "labels"))
    assert "stranger" in said
    assert "one" in said, "it does not say which videos there are"


def test_labels_that_are_none(refused: Refused, tmp_path: Path) -> None:
    write_tracks(tmp_path / "poses" / "one.csv")
    refused(*tracks("--labels", "nowhere"))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "one.csv").write_text("not,labels\n1,2\n")
    assert "one.csv" in refused(*tracks("--labels", "labels"))


def test_a_store_is_not_overwritten(refused: Refused, tmp_path: Path) -> None:
    write_tracks(tmp_path / "poses" / "one.csv")
    marked_store(tmp_path / "store", [9])
    before = (tmp_path / "store" / "store.json").read_bytes()
    for words in (tracks(), ("prepare", "arena", "--frames", 15_000, "--out", "store")):
        assert "already holds a store" in refused(*words)
    assert (tmp_path / "store" / "store.json").read_bytes() == before


@pytest.mark.parametrize(
    ("option", "value"), [("--frames", "0"), ("--frames", "-5"), ("--frames", "many")]
)
def test_an_arena_that_cannot_be(refused: Refused, option: str, value: str) -> None:
    assert "frames" in refused("prepare", "arena", "--out", "store", option, value)


def test_calms21_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    assert "nowhere" in refused("prepare", "calms21", "--source", "nowhere", "--out", "store")
    (tmp_path / "empty").mkdir()
    assert "empty" in refused("prepare", "calms21", "--source", "empty", "--out", "store")


# -- stores, in every command that reads one -------------------------------------------------------


def damaged(given: Path, out: Path, how: str) -> str:
    """A copy of the store of mice that is no longer whole; returns what must be said of it."""
    shutil.copytree(given / "mice", out)
    (part,) = (out / "poses").glob("*.parquet")
    data = bytearray(part.read_bytes())
    if how == "half-written":
        (out / "store.json").unlink()
        return "half-written"
    if how == "truncated":
        part.write_bytes(data[:-100])
    elif how == "gone":
        part.unlink()
    elif how == "flipped":
        data[len(data) // 2] ^= 1
        part.write_bytes(data)
    elif how == "not json":
        (out / "store.json").write_text("{")
        return "store.json is not JSON"
    return part.name


@pytest.mark.parametrize("how", ["half-written", "truncated", "gone", "flipped", "not json"])
@pytest.mark.parametrize("command", ["check", "pretrain", "finetune"])
def test_a_store_that_is_not_whole(
    refused: Refused, given: Path, tmp_path: Path, command: str, how: str
) -> None:
    must = damaged(given, tmp_path / "store", how)
    words = {
        "check": ("prepare", "check", "store"),
        "pretrain": ("pretrain", "--data", "store", "--out", "run"),
        "finetune": (
            "finetune",
            "--encoder",
            "none",
            "--task",
            "acts",
            "--data",
            "store",
            "--out",
            "run",
        ),
    }[command]
    said = refused(*words)
    assert must in said
    assert str(tmp_path / "store") in said or "store" in said


@pytest.mark.parametrize("command", ["check", "pretrain", "finetune"])
def test_a_store_that_is_not_there(refused: Refused, command: str) -> None:
    words = {
        "check": ("prepare", "check", "nowhere"),
        "pretrain": ("pretrain", "--data", "nowhere", "--out", "run"),
        "finetune": ("finetune", "--encoder", "none", "--task", "acts", "--data", "nowhere"),
    }[command]
    said = refused(*words)
    assert "there is no store at" in said
    assert "ethoray prepare arena" in said, "it does not say how to get one"


# -- pretrain/run.py -------------------------------------------------------------------------------


def pretrain(given: Path, *words: object) -> tuple[object, ...]:
    return ("pretrain", "--data", given / "mice", "--out", "run", *words)


@pytest.mark.parametrize(
    ("words", "must"),
    [
        (("--recipe", "nonsense"), ("there is no recipe 'nonsense'", "contrastive")),
        (("--recipe", "nowhere.yaml"), ("there is no recipe 'nowhere.yaml'",)),
        (("--scale", "nonsense"), ("there is no scale 'nonsense'", "laptop")),
        (("--set", "batsh=3"), ("unknown key 'batsh'", "batch", "workers")),
        (("--set", "batch"), ("write it as key=value",)),
        (("--set", "batch=3.5"), ("batch is 3.5",)),
        (("--set", "encoder.name=nonsense"), ("there is no 'nonsense'", "tcn")),
        (("--set", "encoder.widht=8"), ("unknown setting 'widht'", "width=")),
        (("--set", "objective.name=nonsense"), ("there is no 'nonsense'", "contrastive")),
        (("--set", "objective.temperature=-1"), ("temperature is -1",)),
        (("--set", "features.groups=[smell]"), ("'smell'", "posture")),
        (("--set", "augment.mirror=3"), ("mirror is 3",)),
        (
            ("--set", "batch=6", "--set", "workers=4"),
            ("6 windows cannot be divided among 4 workers", "[1, 2, 3, 6]"),
        ),
        (("--set", "workers=64"), ("64 workers want 0.5 CPUs each", "Lower scale key workers")),
        (
            ("--set", "workers=8", "--set", "cpus=2"),
            ("there is room for 4", "has 2 CPUs", "Lower scale key workers"),
        ),
        (("--set", "tracking=carrier pigeon"), ("tracking", "carrier pigeon")),
        (("--recipes", "contrastive"), ("unrecognized arguments",)),
    ],
)
def test_what_pretraining_refuses(
    refused: Refused, given: Path, words: tuple[object, ...], must: tuple[str, ...]
) -> None:
    said = refused(*pretrain(given, *words))
    for part in must:
        assert part in said


@pytest.mark.usefixtures("ray_is_up")
def test_a_run_is_not_overwritten(refused: Refused, given: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    assert "already holds something" in refused(*pretrain(given))
    (tmp_path / "run" / "run.json").write_text("{}")
    assert "already holds a run: pass --resume" in refused(*pretrain(given))
    assert "is damaged" in refused(*pretrain(given, "--resume"))
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


@pytest.mark.usefixtures("ray_is_up")
def test_resuming_nothing(refused: Refused, given: Path) -> None:
    for words in (pretrain(given, "--resume"), finetune(given, "--resume")):
        assert "there is no run at" in refused(*words)


@pytest.mark.usefixtures("ray_is_up")
def test_resuming_with_other_settings_shows_both(
    refused: Refused, given: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(
        json.dumps({"settings": {"recipe": {"batch": 8}, "fingerprint": "another"}})
    )
    said = refused(*pretrain(given, "--resume"))
    for part in (
        "begun with other settings",
        '"another" then',
        Store(given / "mice").fingerprint,
        "recipe",
    ):
        assert part in said


def test_a_dry_run_says_the_arithmetic_and_starts_nothing(
    given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = pretrain(
        given, "--dry-run", "--set", "workers=2", "--set", "batch=8", "--set", "window=100"
    )[1:]
    assert exit_status(lambda: pretraining.main([str(word) for word in words])) == 0
    told = json.loads(capsys.readouterr().out)
    sums = told["arithmetic"]
    assert (
        sums["frames"],
        sums["windows_per_epoch"],
        sums["batch_per_worker"],
        sums["steps_per_epoch"],
    ) == (500, 5, 4, 1)
    assert sums["cpus_wanted"] == 1, "half a CPU a worker at least"
    assert told["recipe"]["window"] == 100
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_does_not_answer(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*args: object, **more: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(clusters.ray, "init", nobody)
    with (
        pytest.raises(BadInput, match=r"no Ray answers at ray://nobody:1.*ray start --head"),
        clusters.cluster(Scale(address="ray://nobody:1"), cpus_wanted=2),
    ):
        pass


def test_a_ray_of_our_own_starts_while_other_work_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, ended = threading.Event(), []

    def start(*args: object, **more: object) -> None:
        assert asked.wait(30), "nothing was begun before Ray was up"

    def work() -> str:
        asked.set()
        return "opened"

    monkeypatch.setattr(clusters.ray, "init", start)
    monkeypatch.setattr(clusters, "cluster_machines", lambda: [Machine("here", 2.0)])
    monkeypatch.setattr(clusters.ray, "shutdown", lambda: ended.append(True))
    with clusters.cluster(Scale(cpus=2), cpus_wanted=2, meanwhile=work) as found:
        assert (found, ended) == ("opened", [])
    assert ended == [True]

    def fails() -> None:
        asked.set()
        raise BadInput("no such address")

    with (
        pytest.raises(BadInput, match="no such address"),
        clusters.cluster(Scale(cpus=2), cpus_wanted=2, meanwhile=fails),
    ):
        pytest.fail("the work began")
    assert ended == [True, True]


def test_where_the_machine_is_too_small_nothing_is_done(given: Path) -> None:
    with (
        pytest.raises(BadInput, match="this machine"),
        clusters.cluster(
            Scale(cpus=1), cpus_wanted=2, meanwhile=lambda: pytest.fail("it was begun")
        ),
    ):
        pass


def test_arithmetic_agrees_with_the_deal(given: Path) -> None:
    from pretrain.data.windows import BatchPlan

    store = Store(given / "mice")
    for window, batch in ((7, 4), (64, 3), (1000, 8)):
        recipe = Recipe(
            encoder={"name": "tcn"},
            objective={"name": "contrastive"},
            window=window,
            batch=batch,
            epochs=3,
        )
        sums = driver.arithmetic(recipe, Scale(), store)
        lanes = BatchPlan.from_chunks(store.chunks, window=window, batch=batch, seed=0)
        assert (sums["windows_per_epoch"], sums["steps_per_epoch"], sums["steps"]) == (
            len(lanes),
            lanes.steps,
            3 * lanes.steps,
        )


# -- finetune/run.py -------------------------------------------------------------------------------


def finetune(
    given: Path, *words: object, encoder: object = "none", task: str = "acts"
) -> tuple[object, ...]:
    return (
        "finetune",
        "--data",
        given / "mice",
        "--out",
        "run",
        "--encoder",
        encoder,
        "--task",
        task,
        *words,
    )


@pytest.mark.parametrize(
    ("words", "must"),
    [
        (("--task", "nonsense"), ("no labels for the task 'nonsense'", "acts")),
        (
            ("--task", "classic_classification"),
            ("no labels for the task 'classic_classification'", "acts"),
        ),
        (("--task", "../x"), ("--task",)),
        (("--scale", "nonsense"), ("there is no scale 'nonsense'",)),
        (("--set", "nonsense=1"), ("unknown key 'nonsense'", "frozen", "workers")),
        (("--set", "head.name=nonsense"), ("there is no 'nonsense'", "linear")),
        (("--set", "lr=0"), ("lr is 0; it must be above 0",)),
        (("--trials", "0"), ("trials is 0",)),
        (("--seeds", "0"), ("seeds is 0",)),
        (("--videos", "0"), ("--videos 0",)),
        (("--encoder", "nowhere"), ("there is no encoder at",)),
        (("--encoder", "handmade", "--set", "frozen=false"), ("handmade",)),
        (("--test-data", "nowhere"), ("there is no store at",)),
    ],
)
def test_what_finetuning_refuses(
    refused: Refused, given: Path, words: tuple[object, ...], must: tuple[str, ...]
) -> None:
    said = refused(*finetune(given, *words))
    for part in must:
        assert part in said


def test_an_encoder_of_another_skeleton_shows_both_keypoint_lists(
    refused: Refused, given: Path
) -> None:
    said = refused(*finetune(given, encoder=given / "rat encoder"))
    for name in (*MICE.keypoints, *RATS.keypoints, "rat encoder"):
        assert name in said


def test_a_damaged_encoder(refused: Refused, given: Path, tmp_path: Path) -> None:
    shutil.copytree(given / "mouse encoder", tmp_path / "encoder")
    weights = tmp_path / "encoder" / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "encoder.safetensors" in refused(*finetune(given, encoder="encoder"))


# -- the real processes ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "words", "status", "must"),
    [
        ("pretrain/prepare.py", ("check", "nowhere"), 2, "there is no store at"),
        ("pretrain/prepare.py", ("check", "MICE", "--json"), 0, ""),
        ("pretrain/run.py", ("--data", "MICE", "--set", "batsh=3"), 2, "unknown key 'batsh'"),
        (
            "finetune/run.py",
            ("--data", "MICE", "--encoder", "none", "--task", "nonsense"),
            2,
            "no labels for the task",
        ),
    ],
    ids=["prepare", "check", "pretrain", "finetune"],
)
def test_the_exit_status_of_the_real_process(
    given: Path, tmp_path: Path, script: str, words: tuple[str, ...], status: int, must: str
) -> None:
    command = [
        sys.executable,
        str(ROOT / script),
        *(str(given / "mice") if word == "MICE" else word for word in words),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert must in done.stderr
    assert done.stderr.count("error:") == (1 if status else 0)
    if "--json" in words:
        told = json.loads(done.stdout)
        assert (told["frames"], told["videos"]) == (500, 2)
        assert {"missing_share", "labels"} <= set(told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_default_store_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETHORAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(paths, "DEFAULT_FRAMES", 15_000)
    first = paths.default_store()
    assert Store(first).frames == 15_000
    made = (Path(first) / "store.json").stat().st_mtime_ns
    assert paths.default_store() == first
    assert (Path(first) / "store.json").stat().st_mtime_ns == made
    assert [path.name for path in Path(first).parent.iterdir()] == [Path(first).name], (
        "something was left beside it"
    )
