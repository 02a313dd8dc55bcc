"""Labels in other toolboxes: what they open has the frames that were written, first and last."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_nasty_names import FRAMES, ethogram

import ethoray
from finetune.inference.ethograms import Ethogram
from finetune.inference.prediction_formats import prediction_formats
from pretrain.data.schema import Float
from pretrain.errors import BadInput
from pretrain.readers.find_labels import read_label_files
from pretrain.readers.find_tracks import read_tracks
from pretrain.readers.tracks import Tracks

CLASSES = ("attack", "sniff face", "other")
FORMS = pytest.mark.parametrize("overlapping", [False, True], ids=["exclusive", "overlapping"])


def poses(frames: int = FRAMES, width: int = 2) -> Tracks:
    rng = np.random.default_rng(1)
    position: Float = rng.uniform(0, 100, (frames, 2, 3, width)).astype(np.float32)
    confidence: Float = rng.uniform(0.1, 1, (frames, 2, 3)).astype(np.float32)
    position[3, 1, 2], confidence[3, 1, 2] = np.nan, 0
    return Tracks(
        name="m1",
        animals=("black", "white"),
        keypoints=("nose", "neck", "tail"),
        coordinates=("x", "y", "z")[:width],
        edges=(("nose", "neck"), ("neck", "tail")),
        position_TMKX=position,
        confidence_TMK=confidence,
    )


def shown(*, overlapping: bool, gap: bool = True) -> Ethogram:
    one = ethogram(CLASSES, overlapping=overlapping, gap=gap)
    return replace(one, tracks=poses)


def written(form: str, one: Ethogram, folder: Path) -> Path:
    try:
        (writer,) = prediction_formats([form]).values()
    except BadInput as error:
        pytest.skip(str(error))
    path = folder / f"m1{writer.ending}"
    writer.write(path, one)
    return path


# -- NWB -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overlapping", "gap", "width"), [(False, True, 2), (True, False, 3)])
def test_nwb_is_valid_and_poses_and_labels_come_back(
    overlapping: bool, gap: bool, width: int, tmp_path: Path
) -> None:
    one = replace(shown(overlapping=overlapping, gap=gap), tracks=lambda: poses(width=width))
    path = written("nwb", one, tmp_path)
    pynwb = pytest.importorskip("pynwb")
    assert pynwb.validate(path=str(path)) == []
    with pynwb.NWBHDF5IO(str(path), "r") as file:
        module = file.read().processing["behavior"]
        table = module["ethogram"]
        assert table.neurodata_type == "EthogramBouts"
        assert list(table.ethogram["behavior"][:]) == list(CLASSES)
        assert [
            (round(row.start_time * 25), round(row.stop_time * 25), row.label)
            for row in table.to_dataframe().itertuples()
        ] == one.events()
        assert (table.observation_intervals is not None) == gap
        assert module["black"].skeleton.nodes[:].tolist() == list(poses().keypoints)
    back, given = read_tracks(path), poses(width=width)
    assert (back.animals, back.keypoints, back.edges, back.fps) == (
        given.animals,
        given.keypoints,
        given.edges,
        25.0,
    )
    np.testing.assert_array_equal(back.position_TMKX, given.position_TMKX)
    np.testing.assert_array_equal(back.confidence_TMK, given.confidence_TMK)
    (labels,), _ = read_label_files(tmp_path, {"m1": FRAMES}, 25.0)
    known = labels.frames if labels.frames.ndim == 1 else labels.frames.max(1)
    assert np.array_equal(known >= 0, one.labelled_T)


def test_an_ethogram_of_another_tool_is_read(tmp_path: Path) -> None:
    """Two people's tables, without probabilities or a label set."""
    pynwb = pytest.importorskip("pynwb")
    ndx = pytest.importorskip("ndx_ethogram")
    from datetime import UTC, datetime

    file = pynwb.NWBFile("mice", "id", datetime.now(UTC))
    module = file.create_processing_module("behavior", "scored")
    for who, start in (("ann", 0.2), ("bob", 0.4)):
        table = ndx.EthogramBouts(
            name=f"by_{who}", description="", labeling_method="manual", annotator=who
        )
        table.add_row(start_time=start, stop_time=0.8, label="rear")
        module.add(table)
    with pynwb.NWBHDF5IO(str(tmp_path / "m1.nwb"), "w") as sink:
        sink.write(file)
    found, _ = read_label_files(tmp_path, {"m1": FRAMES}, 25.0)
    assert {(one.task, one.annotator): np.flatnonzero(one.frames)[0] for one in found} == {
        ("by_ann", "ann"): 5,
        ("by_bob", "bob"): 10,
    }


# -- movement --------------------------------------------------------------------------------------


@FORMS
def test_movement_has_poses_and_labels_on_time(overlapping: bool, tmp_path: Path) -> None:
    one, given = shown(overlapping=overlapping), poses()
    path = written("movement", one, tmp_path)
    xarray = pytest.importorskip("xarray")
    with xarray.open_dataset(path, engine="h5netcdf") as data:
        assert data.position.dims == ("time", "space", "keypoints", "individuals")
        assert {"label", "probability"} <= set(data.coords)
        nose = data.position.sel(individuals="white", keypoints="nose", space="y").values
        assert np.array_equal(nose, given.position_TMKX[:, 1, 0, 1], equal_nan=True)
        if overlapping:
            assert np.array_equal(data.label.values, one.labels)
        else:
            attack = data.time.values[data.label.values == "attack"]
            assert np.array_equal(np.rint(attack * 25), np.flatnonzero(one.labels == 0))
            assert (data.label.values[~one.labelled_T] == "").all()
        sniff = data.probability.sel(behavior="sniff face").values
        assert np.array_equal(sniff, one.probabilities_TC[:, 1].astype(np.float32))
    back = read_tracks(path)
    assert (back.animals, back.keypoints, back.fps) == (given.animals, given.keypoints, 25.0)
    np.testing.assert_array_equal(back.position_TMKX, given.position_TMKX)


def test_movement_itself_takes_the_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("movement.validators.datasets")
    path = written("movement", shown(overlapping=False), tmp_path)
    with pytest.importorskip("xarray").open_dataset(path) as data:
        datasets.ValidPosesInputs.validate(data)


def test_to_dataset_of_arrays() -> None:
    pytest.importorskip("xarray")
    given, one = poses(), shown(overlapping=False)
    schema = ethoray.schema_of(replace(given, fps=25.0))
    data = ethoray.to_dataset(
        given.position_TMKX,
        given.confidence_TMK,
        schema=schema,
        labels=one.labels,
        probabilities_TC=one.probabilities_TC,
        classes=CLASSES,
    )
    assert data.groupby("label").groups.keys() == {"", *CLASSES}
    assert data.sel(time=0.2, method="nearest").label.item() == CLASSES[one.labels[5]]
    assert "label" not in ethoray.to_dataset(given.position_TMKX, schema=schema).coords
    with pytest.raises(BadInput, match=r"labels have shape \(3,\); .* \(24,\)"):
        ethoray.to_dataset(given.position_TMKX, schema=schema, labels=[0, 0, 0], classes=CLASSES)


# -- pynapple --------------------------------------------------------------------------------------


@FORMS
def test_intervals_hold_just_the_frames_of_their_bouts(overlapping: bool, tmp_path: Path) -> None:
    one = shown(overlapping=overlapping)
    folder = written("pynapple", one, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["attack.npz", "sniff face.npz"]
    with np.load(folder / "sniff face.npz") as arrays:
        time = np.arange(FRAMES) / 25
        inside = (time[:, None] >= arrays["start"]) & (time[:, None] <= arrays["end"])
        assert np.array_equal(inside.any(1), one.shown_TC[:, 1] == 1)
        assert (arrays["type"].tolist(), arrays["behavior"].item()) == (
            ["IntervalSet"],
            "sniff face",
        )


@FORMS
def test_pynapple_itself_opens_them(overlapping: bool, tmp_path: Path) -> None:
    pynapple = pytest.importorskip("pynapple", reason="pynapple is not installed")
    one = shown(overlapping=overlapping)
    one.labels[one.labels == 1] = 0  # a behaviour without a bout
    folder = written("pynapple", one, tmp_path)
    frames = pynapple.Ts(np.arange(FRAMES) / 25)
    given = ethoray.to_intervals(one.labels, classes=CLASSES, fps=25.0)
    for c, name in enumerate(CLASSES[:2]):
        for spans in (pynapple.load_file(str(folder / f"{name}.npz")), given[name]):
            assert isinstance(spans, pynapple.IntervalSet)
            within = np.rint(frames.restrict(spans).t * 25).astype(int)
            assert np.array_equal(within, np.flatnonzero(one.shown_TC[:, c]))


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, call in (
        ("pynapple", lambda: ethoray.to_intervals([0], classes=["a"], fps=1)),
        ("h5netcdf", lambda: prediction_formats(["movement"])),
    ):
        monkeypatch.setitem(__import__("sys").modules, module, None)
        with pytest.raises(BadInput, match=r"needs .*: pip install"):
            call()


# -- SimBA and Bento, by the rules of their readers ------------------------------------------------


def simba(path: Path) -> dict[str, dict[str, list[int]]]:
    """Frames of each behaviour and video, as SimBA 5 takes them: a table with these headings; the
    frame is the image index; each start goes with the stop of the same rank, and both belong to
    the bout; the video is the file's name without its ending, which it must have."""
    table = pd.read_csv(path)
    assert {"Time", "Media file name", "Behavior", "Behavior type", "FPS"} <= set(table.columns)
    assert float(table["FPS"].iloc[0]) > 0
    found: dict[str, dict[str, list[int]]] = {}
    for medium, of_video in table.groupby("Media file name"):
        assert Path(str(medium)).suffix
        for name, rows in of_video.groupby("Behavior"):
            ends = [
                rows[rows["Behavior type"] == kind]["Image index"] for kind in ("START", "STOP")
            ]
            assert len(ends[0]) == len(ends[1])
            frames = [n for a, b in zip(*ends, strict=True) for n in range(int(a), int(b) + 1)]
            found.setdefault(Path(str(medium)).stem, {})[str(name)] = frames
    return found


@FORMS
@pytest.mark.parametrize("gap", [False, True])
def test_simba_takes_the_same_frames(overlapping: bool, gap: bool, tmp_path: Path) -> None:
    one = shown(overlapping=overlapping, gap=gap)
    (video, found), *others = simba(written("boris_events", one, tmp_path)).items()
    assert (video, others) == ("m1", [])
    for c, name in enumerate(CLASSES[:2]):
        assert found[name] == np.flatnonzero(one.shown_TC[:, c]).tolist()


def bento(path: Path) -> tuple[int, dict[str, list[int]]]:
    """The frames of an .annot, read anew from its format: the number of frames, and those of each
    behaviour, counted from 0."""
    head, _, body = path.read_text().partition("acts----------")
    listed = head.partition("List of annotations:")[2].split("\n")
    last = int(head.partition("Annotation stop frame:")[2].split()[0])
    found: dict[str, list[int]] = {}
    for part in body.split(">")[1:]:
        name, heading, *rows = part.strip().split("\n")
        assert heading.split() == ["Start", "Stop", "Duration"]
        found[name] = []
        for start, stop, duration in (map(int, row.split()) for row in rows):
            assert duration == stop - start + 1
            found[name] += range(start - 1, stop)
    assert [name for name in listed if name] == list(found)
    return last, found


@FORMS
def test_bento_takes_the_same_frames(overlapping: bool, tmp_path: Path) -> None:
    one = shown(overlapping=overlapping, gap=False)
    frames, found = bento(written("annot", one, tmp_path))
    assert frames == FRAMES
    for c, name in enumerate(CLASSES[:2]):
        assert sorted(found[name]) == np.flatnonzero(one.shown_TC[:, c]).tolist()
