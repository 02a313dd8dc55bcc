"""Files that the tools themselves wrote, from public repositories, against readings that share
nothing with ours. They lie under ETHORAY_PUBLIC_FILES as OWNER+NAME/PATH and are never committed;
docs/own_recordings.md lists them."""

from __future__ import annotations

import json
import os
import pickle
from collections import defaultdict
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from pretrain.readers.find_labels import read_sheets
from pretrain.readers.find_tracks import read_tracks
from pretrain.readers.score_sheets import ScoreSheet
from pretrain.readers.track_formats.jabs import KEYPOINTS
from pretrain.readers.tracks import Tracks

Points = dict[tuple[str, str], np.ndarray]
"""x, y and confidence (T, 3) of each (animal, keypoint)."""
MICE, SINGLE = "mlfpm+deepof/tests/test_examples/test_", "talmolab+sleap-anipose/tests/data/"
EKS, JABS = "paninski-lab+eks/data/", "KumarLabJax+JABS-behavior-classifier/tests/data/"
BORIS, ETHOME = "olivierfriard+BORIS/tests/files/", "benlansdell+ethome/"
TWO_MICE = "tests/data/test_projects/two_c57/"
TESTS = ("test", "test2")
ZURICH = "ETHZ-INS+DLCAnalyzer/data/"


def public(path: str) -> Path:
    folder = os.environ.get("ETHORAY_PUBLIC_FILES")
    if not folder:
        pytest.skip("ETHORAY_PUBLIC_FILES names no folder of public files")
    return Path(folder) / path


def compare(tracks: Tracks, theirs: Points, frames: int | None = None) -> None:
    """Every number, and which are missing."""
    names = {(a, k) for a in tracks.animals for k in tracks.keypoints}
    assert names == set(theirs)
    for (animal, keypoint), points in theirs.items():
        at = np.s_[:frames, tracks.animals.index(animal), tracks.keypoints.index(keypoint)]
        xy, sure = points[:frames, :2], points[:frames, 2]
        seen = np.isfinite(xy).all(1) & ~(xy == 0).all(1) & ~(sure <= 0)
        np.testing.assert_array_equal(np.isfinite(tracks.position_TMKX[at]).all(1), seen)
        np.testing.assert_allclose(tracks.position_TMKX[at][seen], xy[seen], rtol=1e-6)
        sure = np.where(np.isnan(sure), 1, sure).clip(0, 1)
        np.testing.assert_allclose(tracks.confidence_TMK[at][seen], sure[seen], rtol=1e-5)


def deeplabcut(path: Path) -> Points:
    rows = 4 if "individuals" in path.read_text()[:9999] else 3
    table = pd.read_csv(path, header=list(range(rows)), index_col=0)
    points: dict[tuple[str, str], dict[str, np.ndarray]] = defaultdict(dict)
    for column in table:
        animal = column[1] if rows == 4 else "animal"
        points[animal, column[-2]][column[-1]] = table[column].to_numpy(np.float64)
    return {name: np.stack([c["x"], c["y"], c["likelihood"]], 1) for name, c in points.items()}


@pytest.mark.parametrize(
    "path",
    [
        f"{MICE}madlc_topview/Tables/testDLC_csv_table_madlc.csv",
        f"{MICE}single_topview/Tables/testDLC_csv_table.csv",
        f"{ETHOME}ethome/data/dlc/openfield/openfield_dlc_inference_example_three.csv",
        f"{EKS}ibl-paw/3f859b5c-e73a-4044-b49e-34bb81e96715.left.rng=0.csv",
        f"{EKS}mirror-mouse/180607_004.train_frames=75.rng=1.csv",
    ],
)
def test_deeplabcut_and_lightning_pose_csv(path: str) -> None:
    compare(read_tracks(public(path)), deeplabcut(public(path)))


@pytest.mark.parametrize(
    "path",
    [
        f"{MICE}madlc_topview/Tables/testDLC_h5_table_madlc.h5",
        f"{MICE}square_arena_topview/Tables/testDLC_square_arena.h5",
        "DeepLabCut+DLC2NWB/examples/m3v1mp4DLC_resnet50_openfieldAug20shuffle1_30000.h5",
    ],
)
def test_deeplabcut_h5(path: str) -> None:
    with h5py.File(public(path)) as file:
        group = next(iter(file.values()))
        if "table" in group:
            table = group["table"]
            # of a file that somebody chose to trust
            columns = pickle.loads(table.attrs["values_block_0_kind"])
            cells = table["values_block_0"]
        else:
            names = [group[f"block0_items_level{n}"][()] for n in range(4)]
            codes = np.stack([group[f"block0_items_label{n}"][()] for n in range(4)], 1)
            columns = [[str(n[c], "utf-8") for n, c in zip(names, r, strict=True)] for r in codes]
            cells = group["block0_values"][()]
    points: dict[tuple[str, str], np.ndarray] = {}
    for number, column in enumerate(columns):
        name = (column[1] if len(column) == 4 else "animal", column[-2])
        axis = ("x", "y", "likelihood").index(column[-1])
        points.setdefault(name, np.empty((len(cells), 3)))[:, axis] = cells[:, number]
    compare(read_tracks(public(path)), points)


def sleap_analysis(path: Path, animals: tuple[str, ...]) -> Points:
    with h5py.File(path) as file:
        xy = file["tracks"][()].T  # frame, node, xy, track
        stated = "point_scores" in file
        scores = file["point_scores"][()].T if stated else np.ones(xy[:, :, 0].shape)
        nodes = [name.decode() for name in file["node_names"][()]]
    scores = np.where(scores > 0, scores, np.where(scores <= 0, 1, scores))
    return {
        (animal, node): np.concatenate([xy[:, k, :, m], scores[:, k, m, None]], 1)
        for m, animal in enumerate(animals)
        for k, node in enumerate(nodes)
    }


@pytest.mark.parametrize(
    ("path", "scored"),
    [
        (f"{SINGLE}minimal_session/{view}/minimal_{view}_proofread.analysis.h5", True)
        for view in ("back", "side")
    ]
    + [(f"{MICE}single_topview/Tables/SLEAP/{name}DLC_sleap.analysis.h5", True) for name in TESTS]
    + [("talmolab+sleap/docs/notebooks/analysis_example/predictions.analysis.h5", False)],
)
def test_sleap(path: str, scored: bool) -> None:
    ours = read_tracks(public(path))
    theirs = sleap_analysis(public(path), ours.animals)
    compare(ours, theirs)
    slp = read_tracks(public(path.replace(".analysis.h5", ".slp")))
    if scored:
        compare(slp, theirs)
    np.testing.assert_allclose(slp.position_TMKX, ours.position_TMKX, rtol=1e-6)


def test_sleap_in_space() -> None:
    path = public(f"{SINGLE}minimal_session/points3d.h5")
    with h5py.File(path) as file:
        xyz = file["tracks"][()]  # frame, track, node, xyz
    ours = read_tracks(path)
    assert (ours.animals, len(ours.keypoints), ours.coordinates) == (("animal",), 15, tuple("xyz"))
    np.testing.assert_allclose(ours.position_TMKX, xyz, rtol=1e-6)


@pytest.mark.parametrize(
    "path",
    [
        f"{JABS}sample_pose_est_v2.h5",
        f"{JABS}sample_pose_est_v5.h5",
        "talmolab+sleap-io.js/tests/data/jabs/example_pose_est_v2.h5",
        "talmolab+sleap-io.js/tests/data/jabs/example_pose_est_v5.h5",
    ],
)
def test_jabs(path: str) -> None:
    ours = read_tracks(public(path))
    with h5py.File(public(path)) as file:
        pose = {name: dataset[()] for name, dataset in file["poseest"].items() if "/" not in name}
    theirs = {
        (animal, keypoint): np.full((ours.frames, 3), np.nan)
        for animal in ours.animals
        for keypoint in KEYPOINTS
    }
    points, sure = pose["points"], pose["confidence"]
    for t in range(len(points)):
        slots = [(0, points[t], sure[t])]
        if points.ndim == 4:
            slots = [
                (int(pose["instance_embed_id"][t, n]) - 1, points[t, n], sure[t, n])
                for n in range(points.shape[1])
                if not pose["id_mask"][t, n]
            ]
        for number, yx, scores in slots:
            for k, keypoint in enumerate(KEYPOINTS):
                row = (yx[k, 1], yx[k, 0], scores[k])
                theirs[ours.animals[number], keypoint][t] = row
    compare(ours, theirs)


@pytest.mark.parametrize(
    "path",
    [
        "rly+ndx-pose/src/pynwb/tests/back_compat/0.3.0_poseestimation_one_camera.nwb",
        "DeepLabCut+DLC2NWB/examples/m3v1mp4DLC_resnet50_openfieldAug20shuffle1_30000.nwb",
        f"{ETHOME}ethome/data/sample_nwb_.nwb",
    ],
)
def test_nwb(path: str) -> None:
    ours, theirs = read_tracks(public(path)), {}
    with h5py.File(public(path)) as file:
        for animal in ours.animals:
            pose = file[f"processing/behavior/{animal}"]
            for name in ours.keypoints:
                columns = (pose[name]["data"][()], pose[name]["confidence"][()][:, None])
                theirs[animal, name] = np.concatenate(columns, 1)
    compare(ours, theirs)


def of_sheets(sheets: list[ScoreSheet], recording: str) -> set[tuple[str, str, float, float]]:
    """(subject, behaviour, start, stop)."""
    return {
        (sheet.stream, bout.behaviour, round(bout.start, 3), round(bout.stop, 3))
        for sheet in sheets
        if recording in sheet.recording
        for bout in sheet.bouts
    }


def boris_tabular(path: Path) -> set[tuple[str, str, float, float]]:
    lines = path.read_text().splitlines()
    skip = next(i for i, line in enumerate(lines) if line.startswith("Time,"))
    table, found = pd.read_csv(path, skiprows=skip, keep_default_na=False), set()
    for (subject, behaviour), rows in table.groupby(["Subject", "Behavior"]):
        time = {s: rows.loc[rows["Status"] == s, "Time"] for s in ("START", "STOP", "POINT")}
        who = "" if subject == "No focal subject" else str(subject)
        for start, stop in zip(time["START"], time["STOP"], strict=True):
            found.add((who, str(behaviour), round(start, 3), round(stop, 3)))
        found |= {(who, str(behaviour), round(t, 3), round(t, 3)) for t in time["POINT"]}
    return found


@pytest.mark.parametrize(
    ("path", "recording", "project"),
    [
        (f"{BORIS}test_export_events_tabular.csv", "observation #1", f"{BORIS}test.boris"),
        (
            f"{ETHOME}tests/data/boris/simultaneous_events/test-simultaneous-events.csv",
            "testvid",
            f"{ETHOME}tests/data/boris/test-multi-behaviors.boris",
        ),
        (f"{ETHOME}ethome/data/boris/e3v813a-20210610T123521-124106_reencode.csv", "DLC5", ""),
    ],
)
def test_boris_tables_and_projects(path: str, recording: str, project: str) -> None:
    theirs = boris_tabular(public(path))
    assert of_sheets(read_sheets(public(path)), recording) == theirs
    if project:
        assert of_sheets(read_sheets(public(project)), recording) == theirs


def test_boris_aggregated_events() -> None:
    path = public(f"{BORIS}test_export_aggregated_events_test_full_1.tsv")
    table = pd.read_csv(path, sep="\t", keep_default_na=False)
    for name, rows in table.groupby("Observation id"):
        theirs = {
            (
                "" if row["Subject"] == "No focal subject" else row["Subject"],
                row["Behavior"],
                round(row["Start (s)"], 3),
                round(row["Stop (s)"], 3),
            )
            for _, row in rows.iterrows()
        }
        assert of_sheets(read_sheets(path), str(name)) == theirs
        assert of_sheets(read_sheets(public(f"{BORIS}test.boris")), str(name)) == theirs


@pytest.mark.parametrize(
    "path",
    ["misc/bento_example.annot", f"{TWO_MICE}bento_annotations/Together_1.annot"],
)
def test_bento(path: str) -> None:
    """Times in seconds are frames of 30 a second, counted from 1, both ends held."""
    text, theirs = public(f"sgoldenlab+simba/{path}").read_text(), set()
    for block in text.split("Ch1----------")[1].split(">")[1:]:
        name, _, *rows = block.strip().splitlines()
        for row in rows:
            start, stop, _ = map(float, row.split())
            theirs.add((name, round(start * 30) - 1, round(stop * 30)))
    (sheet,) = read_sheets(public(f"sgoldenlab+simba/{path}"))
    assert {(bout.behaviour, bout.start, bout.stop) for bout in sheet.bouts} == theirs
    assert (sheet.observed, sheet.fps, len(sheet.bouts)) == ((0, 19_955), 30.0, len(theirs))


@pytest.mark.parametrize(
    "path",
    [
        "AlexEMG+DLC2action/tests/data/12_01_A_190507144429.csv",
        "AlexEMG+DLC2action/tests/data/8_01_A_190507134142.csv",
        f"{ZURICH}EPM/Labels/AllEPMLables.csv",
        f"{ZURICH}FST/Lables/AllFSTLables.csv",
        "mxngjxa+MABe-2025/submission/v0.0.0/submission.csv",
    ],
)
def test_interval_tables(path: str) -> None:
    table = pd.read_csv(public(path), sep=None, engine="python")
    start, stop, what = (
        ("start_frame", "stop_frame", "action") if "action" in table else ("from", "to", "type")
    )
    theirs = sorted(zip(table[start], table[stop], table[what], strict=True))
    sheets = read_sheets(public(path))
    assert sorted((b.start, b.stop, b.behaviour) for s in sheets for b in s.bouts) == theirs
    if "Experimenter" in table:
        assert {sheet.annotator for sheet in sheets} == set(table["Experimenter"])
    else:
        assert {sheet.recording for sheet in sheets} == {(str(v),) for v in table["video_id"]}


def test_sleap_csv() -> None:
    name = "minimal_instance.000_centered_pair_low_quality.analysis.csv"
    path = public(f"talmolab+sleap/tests/data/csv_format/{name}")
    table = pd.read_csv(path)
    ours = read_tracks(path)
    assert (ours.animals, ours.frames) == (("animal",), len(table))
    theirs = table[["A.x", "A.y", "B.x", "B.y"]].to_numpy().reshape(-1, 1, 2, 2)
    np.testing.assert_allclose(ours.position_TMKX, theirs, rtol=1e-6)
    assert (ours.confidence_TMK == 1).all()  # placed by a person


def test_sleap_of_other_writers() -> None:
    """Each analysis file of sleap-io.js, against what its Python sibling says that it holds."""
    folder = public("talmolab+sleap-io.js/tests/data/analysis-h5")
    for path in sorted(folder.glob("*.analysis.h5")):
        json.loads(path.with_name(path.name.replace(".analysis.h5", ".expected.json")).read_text())
        ours = read_tracks(path)
        with h5py.File(path) as file:
            tracks = file["tracks"]
            dims = json.loads(tracks.attrs.get("dims", '["track", "xy", "node", "frame"]'))
            order = [dims.index(axis) for axis in ("frame", "track", "node", "xy")]
            values = tracks[()].transpose(order)
        np.testing.assert_allclose(ours.position_TMKX, values, rtol=1e-6)
