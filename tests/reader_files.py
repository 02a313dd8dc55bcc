"""An example of every format that the readers take, laid out as the tools write it. The examples of
tracks hold one small world, whose truth is known."""

from __future__ import annotations

import csv
import io
import json
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import h5py
import numpy as np
import pytest

from pretrain.components import names

KEYPOINTS = ("nose", "left_ear", "tail")
ANIMALS = ("resident", "intruder")
SCORER = "DLC_resnet50_socialJan1shuffle1_1000"


@dataclass(frozen=True)
class World:
    position: np.ndarray  # (T, M, K, X), NaN = missing
    confidence: np.ndarray  # (T, M, K), 0 = missing


def world(frames: int = 7, animals: int = 2, keypoints: int = 3) -> World:
    """Points on straight lines, each at its own pace; a few are missing."""
    t = np.arange(frames)[:, None, None, None]
    m = np.arange(animals)[None, :, None, None]
    k = np.arange(keypoints)[None, None, :, None]
    x = np.arange(2)[None, None, None, :]
    position = (10.0 + 3 * t + 100 * m + 20 * k + 7 * x).astype(np.float64)
    confidence = np.broadcast_to(
        0.5 + 0.0625 * k[..., 0] + 0.125 * m[..., 0], position.shape[:3]
    ).copy()
    for at in ((1, 0, 1), (frames - 1, animals - 1, 0)):
        position[at], confidence[at] = np.nan, 0
    return World(position, confidence)


def deeplabcut_rows(
    w: World, *, animals: tuple[str, ...] = ANIMALS, likelihood: bool = True
) -> list[list[str]]:
    coords = ("x", "y", "likelihood") if likelihood else ("x", "y")
    columns = [(a, k, c) for a in animals for k in KEYPOINTS[: w.position.shape[2]] for c in coords]
    rows = [["scorer", *[SCORER] * len(columns)]]
    if len(animals) > 1:
        rows.append(["individuals", *(c[0] for c in columns)])
    rows += [["bodyparts", *(c[1] for c in columns)], ["coords", *(c[2] for c in columns)]]
    for t in range(len(w.position)):
        cells = []
        for m in range(len(animals)):
            for k in range(w.position.shape[2]):
                missing = np.isnan(w.position[t, m, k]).any()
                cells += ["", ""] if missing else [repr(float(v)) for v in w.position[t, m, k]]
                if likelihood:
                    cells.append("1.0" if missing else repr(float(w.confidence[t, m, k])))
        rows.append([str(t), *cells])
    return rows


def text_of(rows: list[list[str]], delimiter: str = ",", end: str = "\n") -> str:
    return "".join(delimiter.join(row) + end for row in rows)


def write_deeplabcut(path: Path, w: World, **options: object) -> Path:
    path.write_text(text_of(deeplabcut_rows(w, **options)), encoding="utf-8")  # type: ignore[arg-type]
    return path


def write_simba(
    path: Path, w: World, *, name: str = "{point}_{animal}", rows: int = 1, first: str = ""
) -> Path:
    """Poses as SimBA keeps them; its missing points lie at (0, 0)."""
    points = [(m, k) for m in range(len(ANIMALS)) for k in range(len(KEYPOINTS))]
    names = [name.format(animal=m + 1, name=ANIMALS[m], point=KEYPOINTS[k]) for m, k in points]
    heading = [["", *(f"{each}_{axis}" for each in names for axis in "xyp")]]
    if rows == 3:
        heading = [[first, *["IMPORTED_POSE"] * 3 * len(names)]] * 2 + heading
    cells = [
        [[*np.nan_to_num(w.position[t, m, k]).tolist(), w.confidence[t, m, k]] for m, k in points]
        for t in range(len(w.position))
    ]
    body = [
        [str(t), *(repr(float(v)) for point in row for v in point)] for t, row in enumerate(cells)
    ]
    path.write_text(text_of(heading + body))
    return path


def write_deeplabcut_h5(path: Path, w: World) -> Path:
    import h5py

    columns = [
        (SCORER, a, k, c) for a in ANIMALS for k in KEYPOINTS for c in ("x", "y", "likelihood")
    ]
    cells = np.concatenate([w.position, w.confidence[..., None]], axis=-1)
    cells[..., 2][np.isnan(cells[..., 0])] = 1.0
    table = np.zeros(
        len(cells), dtype=[("index", "<i8"), ("values_block_0", "<f8", (len(columns),))]
    )
    table["index"], table["values_block_0"] = np.arange(len(cells)), cells.reshape(len(cells), -1)
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs["pandas_type"] = np.bytes_(b"frame_table")
        data = group.create_dataset("table", data=table)
        data.attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(columns, protocol=0))
    return path


def write_sleap_analysis(path: Path, w: World, *, dims: bool = False) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        file["track_names"] = np.array(ANIMALS, "S")
        file["node_names"] = np.array(KEYPOINTS, "S")
        file["edge_inds"] = np.array([[0, 1], [0, 2]])
        if dims:
            file["tracks"], file["point_scores"] = w.position, w.confidence
            file["tracks"].attrs["dims"] = json.dumps(["frame", "track", "node", "xy"])
            file["point_scores"].attrs["dims"] = json.dumps(["frame", "track", "node"])
        else:
            file.create_dataset("tracks", data=w.position.transpose(1, 3, 2, 0), compression="gzip")
            file["point_scores"] = w.confidence.transpose(1, 2, 0)
    return path


def write_sleap_project(path: Path, w: World) -> Path:
    import h5py

    instances, points, frames = [], [], []
    for t in range(len(w.position)):
        begun = len(instances)
        for m in range(len(ANIMALS)):
            instances.append(
                (
                    len(instances),
                    1,
                    t,
                    0,
                    m,
                    -1,
                    0.9,
                    len(points),
                    len(points) + len(KEYPOINTS),
                    0.0,
                )
            )
            for point, sure in zip(w.position[t, m], w.confidence[t, m], strict=True):
                points.append((*point, not np.isnan(point[0]), False, sure))
        frames.append((t, 0, t, begun, len(instances)))
    fields = [("x", "<f8"), ("y", "<f8"), ("visible", "?"), ("complete", "?")]
    skeleton = {
        "nodes": [{"id": 1}, {"id": 2}, {"id": 0}],
        "graph": {"name": "s"},
        "links": [
            {
                "source": 1,
                "target": 2,
                "type": {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [1]}]},
            },
            {"source": 1, "target": 0, "type": {"py/id": 1}},
        ],
    }
    metadata = {
        "version": "2.0.0",
        "skeletons": [skeleton],
        "nodes": [{"name": n, "weight": 1.0} for n in ("tail", "nose", "left_ear")],
    }
    instance = [
        ("instance_id", "<i8"),
        ("instance_type", "u1"),
        ("frame_id", "<u8"),
        ("skeleton", "<u4"),
        ("track", "<i4"),
    ]
    instance += [
        ("from_predicted", "<i8"),
        ("score", "<f4"),
        ("point_id_start", "<u8"),
        ("point_id_end", "<u8"),
        ("tracking_score", "<f4"),
    ]
    frame = [
        ("frame_id", "<u8"),
        ("video", "<u4"),
        ("frame_idx", "<u8"),
        ("instance_id_start", "<u8"),
        ("instance_id_end", "<u8"),
    ]
    with h5py.File(path, "w") as file:
        group = file.create_group("metadata")
        group.attrs["format_id"], group.attrs["json"] = 1.4, np.bytes_(json.dumps(metadata))
        file["frames"], file["instances"] = np.array(frames, frame), np.array(instances, instance)
        file["points"], file["pred_points"] = (
            np.array([], fields),
            np.array(points, [*fields, ("score", "<f8")]),
        )
        file["tracks_json"] = np.array([json.dumps([0, a]) for a in ANIMALS], "S")
        file["videos_json"] = np.array([json.dumps({"filename": "m1.mp4"})], "S")
    return path


def write_sleap_csv(path: Path, w: World) -> Path:
    """A row an instance, track after track."""
    nodes = [f"{k}.{axis}" for k in KEYPOINTS for axis in ("x", "y", "score")]
    rows = [["track", "frame_idx", "instance.score", *nodes]]
    for m, animal in enumerate(ANIMALS):
        for t in range(len(w.position)):
            values = np.concatenate([w.position[t, m], w.confidence[t, m, :, None]], 1)
            cells = ["" if np.isnan(v) else repr(float(v)) for v in values.flatten()]
            rows.append([animal, str(t), "0.9", *cells])
    path.write_text(text_of(rows))
    return path


def write_nwb(path: Path, w: World, *, fps: float = 30.0, timestamps: bool = False) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.9.0"
        file["general/subject/subject_id"] = "m1"
        video = file.create_group("acquisition/video")
        video.attrs["neurodata_type"] = "ImageSeries"
        video["external_file"], video["dimension"] = np.array(["m1.mp4"], "S"), [640, 480]
        module = file.create_group("processing/behavior")
        skeleton = module.create_group("Skeletons/mouse")
        skeleton.attrs["neurodata_type"] = "Skeleton"
        skeleton["nodes"], skeleton["edges"] = (
            np.array(KEYPOINTS, "S"),
            np.array([[0, 1], [0, 2]], "u1"),
        )
        for m, animal in enumerate(ANIMALS):
            pose = module.create_group(animal)
            pose.attrs["neurodata_type"] = "PoseEstimation"
            pose["skeleton"] = h5py.SoftLink("/processing/behavior/Skeletons/mouse")
            pose["source_video"] = h5py.SoftLink("/acquisition/video")
            for k, name in enumerate(KEYPOINTS):
                series = pose.create_group(name)
                series.attrs["neurodata_type"] = "PoseEstimationSeries"
                series.attrs["description"] = f"Keypoint {name} from individual {animal}."
                series["data"], series["confidence"] = (
                    w.position[:, m, k].astype("f4"),
                    w.confidence[:, m, k].astype("f4"),
                )
                if timestamps:
                    series["timestamps"] = 5.0 + np.arange(len(w.position)) / fps
                else:
                    series["starting_time"] = 0.0
                    series["starting_time"].attrs["rate"] = fps
    return path


def write_anipose(path: Path, w: World) -> Path:
    """The first animal, at a height of 10 + frame where the world is flat."""
    heights = 10.0 + np.arange(len(w.position))
    names = [
        f"{k}_{what}" for k in KEYPOINTS for what in ("x", "y", "error", "ncams", "score", "z")
    ]
    rows = [[*names, "M_00", "center_0", "fnum"]]
    for t, points in enumerate(w.position[:, 0]):
        cells = []
        for point, sure in zip(points, w.confidence[t, 0], strict=True):
            x, y, *z = ("" if np.isnan(v) else repr(float(v)) for v in point)
            height = z[0] if z else "" if not x else repr(float(heights[t]))
            cells += [x, y, "0.7" if x else "", "2", repr(float(sure)) if x else "", height]
        rows.append([*cells, "1.0", "0.0", str(t)])
    path.write_text(text_of(rows))
    return path


def write_movement(path: Path, w: World) -> Path:
    """As xarray lays out netCDF: scales for the axes, names as texts of any length."""
    import h5py

    names = {"space": ("x", "y"), "keypoints": KEYPOINTS, "individuals": ANIMALS}
    with h5py.File(path, "w") as file:
        file.attrs["fps"], file.attrs["ds_type"] = np.array([25.0]), "poses"
        file["time"] = np.arange(len(w.position)) / 25.0
        for name, texts in names.items():
            file[name] = np.array(texts, h5py.string_dtype())
        file["position"] = w.position.transpose(0, 3, 2, 1)
        file["confidence"] = w.confidence.transpose(0, 2, 1)
        for name in ("time", *names):
            file[name].make_scale(name)
        axes = ("time", "space", "keypoints", "individuals")
        for variable, own in (("position", axes), ("confidence", (axes[0], *axes[2:]))):
            for n, name in enumerate(own):
                file[variable].dims[n].attach_scale(file[name])
    return path


def write_mabe(path: Path, w: World) -> Path:
    """A row a point that was seen, in no order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    t, m, k = np.nonzero(~np.isnan(w.position).any(-1))
    order = np.random.default_rng(0).permutation(len(t))
    columns = {
        "video_frame": t.astype(np.int32),
        "mouse_id": (m + 1).astype(np.int8),
        "bodypart": np.array(KEYPOINTS)[k],
        "x": w.position[t, m, k, 0].astype(np.float32),
        "y": w.position[t, m, k, 1].astype(np.float32),
    }
    pq.write_table(pa.table({name: values[order] for name, values in columns.items()}), path)
    return path


def mabe_annotation() -> bytes:
    """Bouts of one mouse to another, stop exclusive."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "agent_id": pa.array([1, 2], pa.int8()),
        "target_id": pa.array([2, 2], pa.int8()),
        "action": ["sniff", "groom"],
        "start_frame": pa.array([1, 6], pa.int32()),
        "stop_frame": pa.array([4, 9], pa.int32()),
    }
    pq.write_table(pa.table(columns), sink := io.BytesIO())
    return sink.getvalue()


def write_jabs(path: Path, w: World, *, version: int = 4) -> Path:
    """Two animals of the world's first keypoints; the other nine of JABS' twelve are missing. Slots
    are exchanged on odd frames."""
    import h5py

    frames = len(w.position)
    points, confidence = np.zeros((frames, 2, 12, 2), "u2"), np.zeros((frames, 2, 12), "f4")
    identity = np.zeros((frames, 2), "u4")
    for t in range(frames):
        for m in range(2):
            slot = (m + t) % 2
            points[t, slot, :3] = np.nan_to_num(w.position[t, m])[:, ::-1]
            confidence[t, slot, :3], identity[t, slot] = w.confidence[t, m], m + 1
    with h5py.File(path, "w") as file:
        pose = file.create_group("poseest")
        pose.attrs["version"] = np.array([version, 0], "u2")
        pose["points"], pose["confidence"] = points, confidence
        pose["instance_count"] = np.full(frames, 2, "u1")
        if version == 3:
            pose["instance_track_id"] = identity - 1
        else:
            pose["instance_embed_id"], pose["id_mask"] = identity, np.zeros((frames, 2), "u1")
    return path


def write_npz(path: Path, w: World, **more: object) -> Path:
    arrays = {
        "position": w.position.transpose(1, 2, 3, 0),
        "confidence": w.confidence.transpose(1, 2, 0),
        "axes": "MKXT",
        "keypoints": np.array(KEYPOINTS),
        "animals": np.array(ANIMALS),
        "fps": 25.0,
        "edges": [["nose", "tail"]],
        "mirror_pairs": np.empty((0, 2), str),
        "axis": ("tail", "nose"),
    } | more
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})  # type: ignore[arg-type]
    return path


CALTECH = (
    "Caltech Behavior Annotator - Annotation File\r\n\r\nConfiguration "
    "file:\r\nbase\tz\r\nattack\ta\r\nbite\tb\r\nsocial\ts\r\n\r\n"
    "S1:\tstart\tend\ttype\r\n-----------------------------\r\n   \t1\t3\tbase\r\n   "
    "\t4\t8\tsocial\r\n   \t9\t10\tattack\r\n\r\n"
    "S2:\tstart\tend\ttype\r\n-----------------------------\r\n   \t1\t9\tbase\r\n   "
    "\t10\t10\tbite\r\n"
)
BENTO = (
    "Bento annotation file\nMovie file(s):  C:\\videos\\m1.avi\n\nStimulus name: "
    "\nAnnotation start frame: 2\nAnnotation stop frame: 9\n"
    "Annotation framerate: 30.000000\n\nList of channels:\nCh1\n\nList of "
    "annotations:\nattack\nsniff face\n\n"
    "Ch1----------\n>attack\nStart\t Stop\t Duration \n3\t4\t1\n8\t9\t1\n\n>sniff "
    "face\nStart\t Stop\t Duration \n5\t5\t0\n\n"
)
_BORIS_BLOCK = (
    "Observation id,obs1,,,,,,,\r\n,,,,,,,,\r\nMedia "
    "file(s),,,,,,,,\r\n,,,,,,,,\r\nPlayer #1,/home/x/m1_small.avi,,,,,,,\r\n"
    "Time offset (s),0.0,,,,,,,\r\n,,,,,,,,\r\n"
)
BORIS = (
    _BORIS_BLOCK + "Time,Media file path,Total length,FPS,Subject,Behavior,"
    "Behavioral category,Comment,Status\r\n"
    "0.2,/home/x/m1_small.avi,1.0,10.0,adult,sniff,,,START\r\n0.5,/home/x/m1_small.avi,1.0,10.0,adult,sniff,,,STOP\r\n"
    "0.7,/home/x/m1_small.avi,1.0,10.0,adult,sniff,,,START\r\n0.9,/home/x/m1_small.avi,1.0,10.0,adult,sniff,,,STOP\r\n"
)


def boris_project(*media: str, subjects: tuple[str, ...] = ("",)) -> dict[str, Any]:
    """One observation of media of 1 s each: what ``BORIS`` has, a jump beside it, of each
    subject; times begin at 0.3 s."""
    events = [
        [time, subject, behaviour, "", "", 0]
        for subject in subjects
        for time, behaviour in (
            *((0.5, "sniff"), (0.8, "sniff"), (1.0, "sniff"), (1.05, "jump"), (1.2, "sniff")),
        )
    ]
    paths = [f"/home/x/{name}.mp4" for name in media]
    return {
        "project_name": "p",
        "behaviors_conf": {
            "0": {"code": "sniff", "type": "State event"},
            "1": {"code": "jump", "type": "Point event"},
        },
        "observations": {
            "day": {
                "file": {"1": paths, "2": []},
                "type": "MEDIA",
                "time offset": 0.3,
                "events": events,
                "media_info": {
                    "length": dict.fromkeys(paths, 1.0),
                    "fps": dict.fromkeys(paths, 10.0),
                },
            },
            "not coded yet": {"file": {"1": ["z.mp4"]}, "time offset": 0, "events": []},
        },
    }


def jabs_annotations() -> dict[str, Any]:
    """Grooming seen in frames 1 to 3 and not in 6 to 7, of one mouse."""
    blocks = [{"start": 1, "end": 3, "present": True}, {"start": 6, "end": 7, "present": False}]
    return {"file": "m1.avi", "num_frames": 10, "labels": {"0": {"Grooming": blocks}}}


def write_workbook(path: Path, table: str) -> Path:
    """A CSV as Excel's, its numbers as numbers."""
    import openpyxl

    book = openpyxl.Workbook()
    for row in csv.reader(table.splitlines()):
        book.active.append([float(c) if re.fullmatch(r"[\d.]+", c) else c or None for c in row])
    book.save(path)
    return path


def workbook(table: str) -> dict[str, bytes]:
    """An example, where there is the package that writes it."""
    if not find_spec("openpyxl"):
        return {}
    with TemporaryDirectory() as folder:
        return {"m1.xlsx": write_workbook(Path(folder) / "m1.xlsx", table).read_bytes()}


BORIS_AGGREGATED = (
    "Observation id,Observation date,Description,Observation type,Source,Time offset (s),Coding "
    "duration,Media duration (s),FPS (frame/s),"
    "Subject,Observation duration by subject by observation,Behavior,Behavioral category,Behavior "
    "type,Start (s),Stop (s),Duration (s),"
    "Media file name,Image index start,Image index stop,Comment start,Comment stop\n"
    "m1,2025-09-06,,Media "
    "file(s),m1.mp4,0.0,0.8,0.8,10,rat,0.8,sniff,,STATE,0.2,0.5,0.3,videos/m1.mp4,2,5,,\n"
    "m1,2025-09-06,,Media "
    "file(s),m1.mp4,0.0,0.8,0.8,10,rat,0.8,groom,,STATE,0.4,0.6,0.2,videos/m1.mp4,4,6,,\n"
    "m1,2025-09-06,,Media "
    "file(s),m1.mp4,0.0,0.8,0.8,10,rat,0.8,jump,,POINT,0.75,0.75,NA,videos/m1.mp4,7,7,,\n"
)
INTERVALS = "video,start,stop,behaviour\nm1,0,1,attack\nm1,4,4,sniff\nm2,2,3,attack\n"
ONE_HOT = ",attack,sniff\n0,0,0\n1,1,0\n2,1,1\n3,,\n4,0,1\n"

PREDICTIONS = (
    "frame,time_s,label,p_attack,p_x,attack,x\n0,0.0000,none,0.100000,0.300000,0,0\n"
    "1,0.0333,attack,0.900000,0.000000,1,0\n2,0.0667,attack+x,1.000000,0.800000,1,1\n"
    "3,0.1000,,,,,\n4,0.1333,x,0.200000,0.700000,0,1\n"
)


def nwb_ethogram() -> bytes:
    """As ndx-ethogram lays it out."""
    file = io.BytesIO()
    with h5py.File(file, "w") as nwb:
        nwb.attrs["nwb_version"] = "2.9.0"
        module = nwb.create_group("processing/behavior")
        table, observed = module.create_group("ethogram"), module.create_group("observed")
        table.attrs["neurodata_type"], observed.attrs["neurodata_type"] = (
            "EthogramBouts",
            "TimeIntervals",
        )
        table.attrs["description"], table.attrs["annotator"] = "label set: S1", "ann"
        table["start_time"], table["stop_time"] = [0.1, 0.5], [0.3, 0.8]
        table["label"] = ["attack", "sniff"]
        table["observation_intervals"] = h5py.SoftLink("/processing/behavior/observed")
        observed["start_time"], observed["stop_time"] = [0.0], [0.8]
        series = module.create_group("probabilities")
        series["data"] = np.zeros((10, 2), np.float32)
        series["starting_time"] = 0.0
        series["starting_time"].attrs["rate"] = 10.0
    return file.getvalue()


def nwb_labels() -> bytes:
    """As ``predict.py`` once wrote it."""
    file = io.BytesIO()
    with h5py.File(file, "w") as nwb:
        nwb.attrs["nwb_version"] = "2.8.0"
        table = nwb.create_group("processing/behavior/ethogram")
        table.attrs["description"] = "bouts of S1; label set: S1"
        table["start_time"], table["stop_time"] = [0.1, 0.5], [0.3, 0.8]
        table["behavior"] = ["attack", "sniff"]
        series = nwb.create_group("processing/behavior/probabilities")
        series["data"] = np.zeros((10, 2), np.float32)
        series["starting_time"] = 0.0
        series["starting_time"].attrs["rate"] = 10.0
        invalid = nwb.create_group("intervals/invalid_times")
        invalid["start_time"], invalid["stop_time"] = [0.8], [0.9]
    return file.getvalue()


def npz_labels() -> bytes:
    file = io.BytesIO()
    np.savez(
        file,
        labels=[0, 1, -1, 1, 0, 0],
        classes=["rest", "run"],
        annotator="ann",
        task="t",
        split="test",
    )
    return file.getvalue()


TRACKS: dict[str, dict[str, Callable[[Path, World], Path]]] = {
    "deeplabcut": {"m1_DLC.csv": write_deeplabcut},
    "deeplabcut_h5": {f"m1{SCORER}_el.h5": write_deeplabcut_h5},
    "anipose": {"m1.csv": write_anipose},
    "mabe": {"m1.parquet": write_mabe},
    "movement": {"m1.nc": write_movement},
    "jabs": {"m1_pose_est_v4.h5": write_jabs},
    "npz": {"m1_tracks.npz": write_npz},
    "nwb": {"m1.nwb": write_nwb},
    "simba": {"m1.csv": write_simba},
    "sleap": {"m1.analysis.h5": write_sleap_analysis},
    "sleap_csv": {"m1.analysis.csv": write_sleap_csv},
    "sleap_project": {"m1.mp4.predictions.slp": write_sleap_project},
}
"""By format (a file in ``pretrain/readers/track_formats/``) and name of the file: a function that
writes ``world()``."""

LABELS: dict[str, dict[str, bytes]] = {
    "bento": {"m1.annot": BENTO.encode()},
    "boris": {"m1_boris.csv": BORIS.encode(), "m1_events.csv": BORIS_AGGREGATED.encode()}
    | workbook(BORIS),
    "boris_project": {"m1.boris": json.dumps(boris_project("m1"), indent=0).encode()},
    "caltech": {"m1_annot.txt": CALTECH.encode()},
    "intervals": {"m1.csv": INTERVALS.encode(), "m1.parquet": mabe_annotation()},
    "jabs": {"m1.json": json.dumps(jabs_annotations(), indent=0).encode()},
    "npz": {"m1.npz": npz_labels()},
    "nwb": {"m1.nwb": nwb_ethogram(), "m1_labels.nwb": nwb_labels()},
    "one_hot": {"m1.csv": ONE_HOT.encode()},
    "predictions": {"m1.csv": PREDICTIONS.encode()},
}
"""By format (a file in ``pretrain/readers/label_formats/``) and name of the file, which belongs to
the recording m1: its content. No behaviour ends after frame 10."""

TRACK_FORMATS, LABEL_FORMATS = "pretrain.readers.track_formats", "pretrain.readers.label_formats"
T = TypeVar("T")


def cases(folder: str, examples: Mapping[str, Mapping[str, object]]) -> list[tuple[str, str]]:
    """(format, file name) of every example; the file name is empty where a format in the folder has
    none."""
    return [(form, file) for form in names(folder) for file in examples.get(form, {"": None})]


def example(examples: Mapping[str, Mapping[str, T]], form: str, file: str) -> T:
    if form not in examples:
        kind = "TRACKS" if examples is TRACKS else "LABELS"
        pytest.fail(
            f"the format {form!r} has no example: add one to {kind} in tests/reader_files.py, as "
            "the text below it says, and it is tested as the others are"
        )
    return examples[form][file]


each_track_format = pytest.mark.parametrize(("form", "file"), cases(TRACK_FORMATS, TRACKS))
each_label_format = pytest.mark.parametrize(("form", "file"), cases(LABEL_FORMATS, LABELS))
