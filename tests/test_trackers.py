from __future__ import annotations

import collections
import json
import os
import pickle
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reader_files import (
    ANIMALS,
    KEYPOINTS,
    SCORER,
    TRACKS,
    World,
    deeplabcut_rows,
    each_track_format,
    example,
    text_of,
    world,
    write_deeplabcut,
    write_deeplabcut_h5,
    write_jabs,
    write_mabe,
    write_movement,
    write_npz,
    write_nwb,
    write_simba,
    write_sleap_analysis,
    write_sleap_project,
)

from pretrain.data.schema import Schema
from pretrain.errors import BadInput
from pretrain.readers.detect import label_format, suffixes, track_format, track_formats
from pretrain.readers.find_tracks import find_tracks, read_all_names, read_tracks, unpacked
from pretrain.readers.recording_names import candidates, common_ending, recording_stem
from pretrain.readers.safe_files import npz as safe_npz
from pretrain.readers.tracks import (
    Tracks,
    check_agreement,
    conform,
    extent_px,
    rename,
    resample,
    scale,
    schema_of,
)

h5py = pytest.importorskip("h5py", reason="needs the extra: pip install 'ethoray[trackers]'")


def assert_is_world(tracks: Tracks, w: World) -> None:
    k = w.position.shape[2]
    np.testing.assert_array_equal(tracks.position_TMKX[:, :, :k], w.position.astype(np.float32))
    np.testing.assert_allclose(tracks.confidence_TMK[:, :, :k], w.confidence, atol=1e-7)


@each_track_format
def test_every_format_gives_back_the_world(form: str, file: str, tmp_path: Path) -> None:
    w = world()
    path = example(TRACKS, form, file)(tmp_path / file, w)
    tracks = read_tracks(path)
    assert (tracks.name, tracks.path, len(tracks.source_sha256)) == ("m1", path, 64)
    if form == "jabs":
        assert_is_world(tracks, w)
        assert tracks.animals == ("animal1", "animal2")
        assert tracks.keypoints[:3] == ("nose", "left_ear", "right_ear")
        assert np.isnan(tracks.position_TMKX[:, :, 3:]).all()
    elif form == "anipose":
        assert (tracks.animals, tracks.keypoints) == (("animal",), KEYPOINTS)
        height = tracks.position_TMKX[..., 2]
        seen = ~np.isnan(height)
        np.testing.assert_array_equal(seen, ~np.isnan(w.position[:, :1, :, 0]))
        np.testing.assert_array_equal(
            height[seen], np.broadcast_to(10 + np.arange(7)[:, None, None], seen.shape)[seen]
        )
        flat = replace(tracks, coordinates=("x", "y"), position_TMKX=tracks.position_TMKX[..., :2])
        assert_is_world(flat, World(w.position[:, :1], w.confidence[:, :1]))
    elif form == "mabe":  # which has no confidence, and keypoints as they appear
        assert tracks.animals == ("mouse1", "mouse2")
        w = replace(w, confidence=(w.confidence > 0).astype(float))
        assert_is_world(conform(tracks, animals=tracks.animals, keypoints=KEYPOINTS), w)
    elif form == "simba":
        assert_is_world(tracks, w)
        assert (tracks.animals, tracks.keypoints) == (("animal1", "animal2"), KEYPOINTS)
    else:
        # NWB, being HDF5 groups, keeps no order of animals.
        assert (tracks.animals, tracks.keypoints) == (
            ANIMALS[::-1] if form == "nwb" else ANIMALS,
            KEYPOINTS,
        )
        assert_is_world(conform(tracks, animals=ANIMALS, keypoints=KEYPOINTS), w)
    names = read_tracks(path, names_only=True)
    assert names.frames == 0
    assert (names.animals, names.keypoints, names.coordinates, names.fps) == (
        tracks.animals,
        tracks.keypoints,
        tracks.coordinates,
        tracks.fps,
    )


@each_track_format
def test_formats_are_recognised_by_content(form: str, file: str, tmp_path: Path) -> None:
    path = example(TRACKS, form, file)(tmp_path / file, world())
    recognised = track_format(path)
    assert type(recognised).__module__ == f"pretrain.readers.track_formats.{form}"
    assert path.suffix in recognised.suffixes
    assert label_format(path) is None
    assert find_tracks(str(tmp_path)) == [path]
    other = path.rename(tmp_path / "no_extension")
    assert type(track_format(other)) is type(recognised)
    assert read_tracks(other).frames == 7


def test_rows_of_mabe_that_say_two_things_are_refused(tmp_path: Path) -> None:
    path = write_mabe(tmp_path / "m1.parquet", world())
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table.slice(3, 1)]), path)
    with pytest.raises(BadInput, match=r"m1.parquet: frame \d, mouse\d, \w+ has several rows"):
        read_tracks(path)
    pq.write_table(table.drop_columns(["y"]), path)
    with pytest.raises(BadInput, match="is not a tracks file"):
        read_tracks(path)


def test_movement_with_steps_of_unlike_length_is_refused(tmp_path: Path) -> None:
    path = write_movement(tmp_path / "m1.nc", world())
    assert read_tracks(path).fps == 25
    with h5py.File(path, "a") as file:
        file["time"][3] = 0.2
    with pytest.raises(BadInput, match="time does not rise by one step throughout"):
        read_tracks(path)


def test_formats_describe_themselves() -> None:
    for form in track_formats():
        assert re.fullmatch(r"\S.{3,60}", form.description)
        assert form.suffixes
        assert all(re.fullmatch(r"\.[a-z0-9]+", suffix) for suffix in form.suffixes)
    assert suffixes(track_formats()) >= {".csv", ".h5", ".hdf5", ".nwb", ".npz", ".slp"}


def test_what_files_say_beside_the_points(tmp_path: Path) -> None:
    w = world()
    nwb = read_tracks(write_nwb(tmp_path / "a.nwb", w, fps=25.0))
    assert (nwb.fps, nwb.image_px, nwb.edges) == (
        25.0,
        (640.0, 480.0),
        (("nose", "left_ear"), ("nose", "tail")),
    )
    stamped = read_tracks(write_nwb(tmp_path / "b.nwb", w, fps=25.0, timestamps=True))
    assert stamped.fps == pytest.approx(25.0)
    assert_is_world(conform(stamped, animals=ANIMALS, keypoints=KEYPOINTS), w)
    assert read_tracks(write_npz(tmp_path / "a.npz", w)).fps == 25.0
    # Nodes are listed in another order than the skeleton's, bones by the place in the list.
    slp = read_tracks(write_sleap_project(tmp_path / "a.slp", w))
    assert slp.edges == (("nose", "left_ear"), ("nose", "tail"))
    for dims in (False, True):
        assert_is_world(read_tracks(write_sleap_analysis(tmp_path / f"{dims}.h5", w, dims=dims)), w)
    assert_is_world(read_tracks(write_jabs(tmp_path / "m_pose_est_v3.h5", w, version=3)), w)


def test_deeplabcut_of_one_animal(tmp_path: Path) -> None:
    w = world(animals=1)
    one = read_tracks(write_deeplabcut(tmp_path / "one.csv", w, animals=("",)))
    assert (one.animals, one.keypoints) == (("animal",), KEYPOINTS)
    assert_is_world(one, w)
    sure = read_tracks(write_deeplabcut(tmp_path / "sure.csv", w, animals=("",), likelihood=False))
    np.testing.assert_array_equal(sure.confidence_TMK, ~np.isnan(w.position).any(-1))


@pytest.mark.parametrize(
    ("name", "animals"),
    [
        ("{point}_{animal}", ("animal1", "animal2")),
        ("{name}_{point}_{animal}", ANIMALS),
        ("Animal_{animal}_{point}", ("Animal_1", "Animal_2")),
        ("mouse{animal}_{point}", ("mouse1", "mouse2")),
    ],
)
@pytest.mark.parametrize(("rows", "first"), [(1, ""), (3, ""), (3, "scorer")])
def test_simba_names_animals_in_several_ways(
    tmp_path: Path, name: str, animals: tuple[str, ...], rows: int, first: str
) -> None:
    w = world()
    tracks = read_tracks(write_simba(tmp_path / "m1.csv", w, name=name, rows=rows, first=first))
    assert (tracks.animals, tracks.keypoints) == (animals, KEYPOINTS)
    assert_is_world(tracks, w)


def test_names_of_points_that_name_no_animal_are_of_one(tmp_path: Path) -> None:
    w = world(keypoints=2, animals=1)
    text = ",ear_left_x,ear_left_y,ear_left_p,ear_right_x,ear_right_y,ear_right_p\n" + text_of(
        [
            [str(t), *(f"{v}" for k in range(2) for v in (*np.nan_to_num(w.position[t, 0, k]), 1))]
            for t in range(7)
        ]
    )
    (tmp_path / "m1.csv").write_text(text)
    tracks = read_tracks(tmp_path / "m1.csv")
    assert (tracks.animals, tracks.keypoints) == (("animal",), ("ear_left", "ear_right"))
    np.testing.assert_array_equal(tracks.position_TMKX, w.position.astype(np.float32))


def test_deeplabcut_in_three_dimensions_and_from_a_spreadsheet(tmp_path: Path) -> None:
    rows = [
        ["scorer", *["s"] * 6],
        ["bodyparts", "a", "a", "a", "b", "b", "b"],
        ["coords", "x", "y", "z", "x", "y", "z"],
    ]
    rows += [["0", "1", "2", "3", "4", "5", "6"], ["1", "", "", "", "-4", "5", "6.5"]]
    path = tmp_path / "three.csv"
    path.write_text("\ufeff" + text_of(rows, end="\r\n"), encoding="utf-8", newline="")
    tracks = read_tracks(path)
    assert tracks.coordinates == ("x", "y", "z")
    np.testing.assert_array_equal(tracks.position_TMKX[1, 0], [[np.nan] * 3, [-4, 5, 6.5]])
    schema = schema_of(tracks, fps=30, extents=[extent_px(tracks)])
    assert schema.shape == (1, 2, 3)


def test_deeplabcut_columns_are_read_by_name_in_any_order(tmp_path: Path) -> None:
    w = world()
    rows = deeplabcut_rows(w)
    order = [0, *(1 + np.random.default_rng(3).permutation(len(rows[0]) - 1))]
    (tmp_path / "m.csv").write_text(text_of([[row[i] for i in order] for row in rows]))
    tracks = conform(read_tracks(tmp_path / "m.csv"), animals=ANIMALS, keypoints=KEYPOINTS)
    assert_is_world(tracks, w)


def test_bodyparts_of_no_animal_are_left_out(tmp_path: Path) -> None:
    rows = deeplabcut_rows(world())
    for row, extra in zip(
        rows,
        (
            [SCORER] * 3,
            ["single"] * 3,
            ["corner"] * 3,
            ["x", "y", "likelihood"],
            *[["1", "1", "1"]] * 7,
        ),
        strict=True,
    ):
        row += extra
    (tmp_path / "m.csv").write_text(text_of(rows))
    assert read_tracks(tmp_path / "m.csv").animals == ANIMALS


def cell(rows: list[list[str]], row: int, column: int, value: str) -> list[list[str]]:
    rows[row][column] = value
    return rows


BROKEN = {
    "a word for a number": (
        lambda r: text_of(cell(r, 6, 4, "abc")),
        r"line 7, column 5|column 5.*line 7|line 7.*'abc'",
    ),
    "infinite": (
        lambda r: text_of(cell(r, 6, 4, "inf")),
        r"line 7, column 5 \(resident, left_ear, x\): inf is not a position",
    ),
    "huge": (
        lambda r: text_of(cell(r, 6, 5, "1e300")),
        r"line 7, column 6 \(resident, left_ear, y\): 1e\+300 is not a position",
    ),
    "another column as likelihood": (
        lambda r: text_of(cell(r, 6, 6, "431.5")),
        r"line 7, column 7 .*431\.5 is not a confidence",
    ),
    "ragged": (
        lambda r: text_of([*r[:8], r[8][:-1], *r[9:]]),
        r"line 9: Expected 19 columns, got 18",
    ),
    "cut in a row": (lambda r: text_of(r)[:-40], r"line 11.*(cut off|Expected)"),
    "a frame left out": (
        lambda r: text_of([*r[:6], *r[7:]]),
        r"line 7, column 1: frame index is 3, wanted 2",
    ),
    "labelled images": (
        lambda r: text_of(cell(r, 4, 0, "labeled-data/m1/img0001.png")),
        r"column 1: line 5: .*these are labelled images, no recording",
    ),
    "no frames": (lambda r: text_of(r[:4]), r"line 5: a header and no frames"),
    "blank line": (
        lambda r: text_of(r[:6]) + "\n" + text_of(r[6:]),
        r"line 7, column 1: frame index is empty, wanted 2",
    ),
    "semicolons": (lambda r: text_of(r, delimiter=";"), r"not a tracks file|separated by ';'"),
    "no coords row": (lambda r: text_of(r[:3] + r[4:]), r"line 4: no header row 'coords'"),
    "header rows in disorder": (
        lambda r: text_of([r[0], r[2], r[1], *r[3:]]),
        r"line 3: header row 'individuals' out of order",
    ),
    "header rows unequal": (
        lambda r: text_of([r[0], r[1][:-1], *r[2:]]),
        r"lines 1-4: header rows differ in their number of columns",
    ),
    "repeated column": (
        lambda r: text_of(cell(r, 3, 2, "x")),
        r"column 3 repeats column 2 \(resident, nose, x\)",
    ),
    "unknown coordinate": (
        lambda r: text_of(cell(r, 3, 2, "why")),
        r"column 3: 'why' is not a coordinate",
    ),
    "a bodypart of one animal alone": (
        lambda r: text_of(
            [*r[:2], [*r[2][:10], *("tip" if c == "tail" else c for c in r[2][10:])], *r[3:]]
        ),
        r"no column intruder, tail, x",
    ),
    "no line breaks": (
        lambda r: text_of(r[:4]) + ",".join(r[4]) * 90000 + "\n",
        r"line 5|far longer",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_deeplabcut_csv_is_refused_with_its_place(what: str, tmp_path: Path) -> None:
    spoil, message = BROKEN[what]
    path = tmp_path / "m1.csv"
    path.write_text(spoil(deeplabcut_rows(world())))
    with pytest.raises(BadInput, match=message) as caught:
        read_tracks(path)
    assert "m1.csv" in str(caught.value)


def test_foreign_encodings_and_empty_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m1.csv"
    text = text_of(deeplabcut_rows(world()))
    for raw in (
        b"",
        b"\n\n",
        text.encode("utf-16"),
        text.replace("nose", "Öhr").encode("latin-1"),
        text.encode("cp037"),
    ):
        path.write_bytes(raw)
        with pytest.raises(BadInput, match=r"m1\.csv"):
            read_tracks(path)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hdf5 = write_deeplabcut_h5(tmp_path / "a.h5", world())
    with h5py.File(hdf5, "a") as file:
        file["df_with_missing/table"].attrs["values_block_0_kind"] = np.bytes_(
            pickle.dumps([Bomb()], protocol=0)
        )
    npz = write_npz(tmp_path / "a.npz", world(), keypoints=np.array([Bomb()], dtype=object))
    for path in (hdf5, npz):
        with pytest.raises(BadInput, match="run code"):
            read_tracks(path)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(Bomb(), protocol=0))  # the charge is live
    assert (tmp_path / "exploded").exists()


def test_files_that_lead_elsewhere_or_state_too_much_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sleap_analysis(tmp_path / "whole.h5", world())
    path = write_sleap_analysis(tmp_path / "led.h5", world())
    with h5py.File(path, "a") as file:
        del file["tracks"]
        file["tracks"] = h5py.ExternalLink("whole.h5", "/tracks")
    with pytest.raises(BadInput, match="links to another file"):
        read_tracks(path)
    with h5py.File(path, "a") as file:
        del file["tracks"]
        file.create_dataset("tracks", shape=(2, 2, 3, 10**10), chunks=(1, 1, 1, 1000), dtype="f8")
    with pytest.raises(BadInput, match="damaged"):
        read_tracks(path)
    bomb = tmp_path / "bomb.npz"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("position.npy", bytes(2**22))
    monkeypatch.setattr(safe_npz, "_ROOM_BYTES", 2**20)
    with pytest.raises(BadInput, match="zip bomb"):
        read_tracks(bomb)


def test_hdf5_that_names_nothing_is_refused(tmp_path: Path) -> None:
    jabs = write_jabs(tmp_path / "m_pose_est_v4.h5", world())
    with h5py.File(jabs, "a") as file:
        file["poseest"].attrs["version"] = np.array([], "u2")
    deeplabcut = write_deeplabcut_h5(tmp_path / "m.h5", world())
    with h5py.File(deeplabcut, "a") as file:
        file["df_with_missing/table"].attrs["values_block_0_kind"] = np.bytes_(pickle.dumps([], 0))
    for path in (jabs, deeplabcut):
        with pytest.raises(BadInput, match=path.name):
            read_tracks(path)


def test_animals_without_identities_are_refused(tmp_path: Path) -> None:
    path = write_sleap_project(tmp_path / "m.slp", world())
    with h5py.File(path, "a") as file:
        rows = file["instances"][:]
        rows["track"] = -1
        file["instances"][:] = rows
    with pytest.raises(BadInput, match="track the animals in SLEAP first"):
        read_tracks(path)


def test_jabs_tracklets_take_free_animals(tmp_path: Path) -> None:
    path = write_jabs(tmp_path / "m_pose_est_v3.h5", world(frames=8), version=3)
    with h5py.File(
        path, "a"
    ) as file:  # animal 1's tracklet breaks off at frame 4 and goes on as tracklet 2
        ids = file["poseest/instance_track_id"][:]
        ids[4:][ids[4:] == 1] = 2
        file["poseest/instance_track_id"][:] = ids
    assert_is_world(read_tracks(path), world(frames=8))


def test_finding_tracks(tmp_path: Path) -> None:
    for name in ("10", "2", "1"):
        write_deeplabcut(tmp_path / f"{name}{SCORER}_filtered.csv", world())
    (tmp_path / "1_annot.txt").write_text("Caltech Behavior Annotator - Annotation File\n")
    (tmp_path / "2_boris.csv").write_text("Observation id,a\nTime,Behavior,Status\n")
    (tmp_path / "video.mp4").write_bytes(b"\0\0")
    paths = find_tracks(str(tmp_path))
    assert [t.name for t in read_all_names(paths)] == ["1", "2", "10"]
    assert find_tracks(str(tmp_path / "*filtered.csv")) == paths
    assert find_tracks(str(paths[0])) == paths[:1]
    (tmp_path / "3_DLC.csv").write_text("")
    with pytest.raises(BadInput, match=r"3_DLC\.csv is neither tracks nor labels \(it is empty\)"):
        find_tracks(str(tmp_path))


def test_finding_nothing_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "1_boris.csv").write_text("Observation id,a\nTime,Behavior,Status\n")
    with pytest.raises(
        BadInput,
        match=(
            r"found 0 track files.*DeepLabCut CSV.*2 other files: 1 \.csv, 1 \.mp4 \(1 of them "
            r"labels"
        ),
    ):
        find_tracks(str(tmp_path))
    with pytest.raises(BadInput, match=r"nothing matches .*nowhere; .* holds 1_boris\.csv, a\.mp4"):
        find_tracks(str(tmp_path / "nowhere"))


def test_two_files_of_one_recording_are_refused_and_folders_tell_recordings_apart(
    tmp_path: Path,
) -> None:
    for folder in ("monday", "tuesday"):
        (tmp_path / folder).mkdir()
        write_deeplabcut(tmp_path / folder / f"1{SCORER}.csv", world())
    assert [t.name for t in read_all_names(find_tracks(str(tmp_path)))] == ["monday/1", "tuesday/1"]
    write_deeplabcut(tmp_path / "monday" / f"1{SCORER}_filtered.csv", world())
    with pytest.raises(
        BadInput,
        match=r"both tracks of '1': choose with a pattern, such as '.*monday/\*_filtered\.csv'",
    ):
        read_all_names(find_tracks(str(tmp_path)))
    assert len(find_tracks(str(tmp_path / "monday" / "*_filtered.csv"))) == 1


def test_recordings_in_a_zip(tmp_path: Path) -> None:
    source = write_deeplabcut(tmp_path / "1.csv", world())
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as packed:
        packed.write(source, "tracks/1.csv")
    with unpacked(str(tmp_path / "all.zip")) as folder:
        (tracks,) = read_all_names(find_tracks(folder))
        assert "all.zip" in str(tracks.path)
    assert not Path(folder).exists()
    with unpacked(str(tmp_path)) as folder:
        assert folder == str(tmp_path)
    with zipfile.ZipFile(tmp_path / "slip.zip", "w") as packed:
        packed.writestr("../outside.csv", "x")
    with pytest.raises(BadInput, match="outside the folder"), unpacked(str(tmp_path / "slip.zip")):
        pass


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("1DLC_dlcrnetms5_DLC_ratJan24shuffle1_5000_el_filtered.csv", "1"),
        ("e3v813a-2021_DLC.csv", "e3v813a-2021"),
        ("m1.mp4.predictions.slp", "m1"),
        ("m1.analysis.h5", "m1"),
        ("m1_pose_est_v6.h5", "m1"),
        ("12_annot.txt", "12"),
        ("DLC.csv", "DLC"),
        ("cage 3_boris.csv", "cage 3"),
        ("C:\\videos\\m1.avi", "m1"),
        ("tracks.csv", "tracks"),
    ],
)
def test_recording_names(file: str, name: str) -> None:
    assert recording_stem(file) == name


def test_which_recording_a_name_belongs_to() -> None:
    videos = dict.fromkeys(("1", "12", "m1_day1", "monday/7", "tuesday/7"), 5)
    assert candidates("1_annot.txt", videos) == ["1"]
    assert candidates("12_annot.txt", videos) == ["12"]
    assert candidates("m1_day1_scored by Ann.txt", videos) == []
    assert candidates("m1_day1_scored by Ann.txt", videos, ending="_scored by Ann") == ["m1_day1"]
    assert candidates("1_day2_annot.txt", videos) == []
    assert common_ending([Path("a/1_by_ann.txt"), Path("12_by_ann.txt")]) == "_by_ann"
    assert (
        common_ending([Path("a/1.txt"), Path("11.txt")]) == common_ending([Path("1_x.txt")]) == ""
    )
    assert candidates("123.txt", videos) == []
    assert candidates("7_annot.txt", videos) == ["monday/7", "tuesday/7"]
    assert candidates("7_annot.txt", videos, folder="tuesday") == ["tuesday/7"]


def line(fps: float | None = 10.0) -> Tracks:
    """One point at 30 px/s along x; frames 5 and 6 are missing."""
    position = np.zeros((11, 1, 1, 2), np.float32)
    position[:, 0, 0, 0] = 3 * np.arange(11)
    position[5:7] = np.nan
    return Tracks(
        name="l",
        animals=("a",),
        keypoints=("p",),
        position_TMKX=position,
        confidence_TMK=(~np.isnan(position[..., 0])).astype(np.float32),
        fps=fps,
    )


@pytest.mark.parametrize("fps", [5.0, 10.0, 20.0, 25.0, 30.0, 7.0])
def test_resampling_keeps_speed_and_bridges_nothing(fps: float) -> None:
    made = resample(line(), fps)
    times = np.arange(made.frames) / fps
    assert times[-1] <= 1.0 < times[-1] + 1 / fps
    gap = (times > 0.4 + 1e-9) & (times < 0.7 - 1e-9)
    np.testing.assert_allclose(
        made.position_TMKX[~gap, 0, 0, 0], 30 * times[~gap], rtol=1e-5, atol=1e-5
    )
    assert np.isnan(made.position_TMKX[gap]).all()
    np.testing.assert_array_equal(made.confidence_TMK[:, 0, 0] > 0, ~gap)


def test_resampling_of_an_unknown_rate_takes_the_stores() -> None:
    assert resample(line(fps=None), 25.0).fps == 25.0
    assert resample(line(fps=None), 25.0).frames == 11
    with pytest.raises(BadInput, match="positive number"):
        resample(line(), 0.0)


def test_names_order_scale(tmp_path: Path) -> None:
    tracks = read_tracks(write_npz(tmp_path / "m.npz", world()))
    renamed = rename(tracks, {"tail": "tail_base", "not there": "x"})
    assert renamed.keypoints == ("nose", "left_ear", "tail_base")
    assert rename(tracks, {"resident": "male"}, of="animals").animals == ("male", "intruder")
    with pytest.raises(BadInput, match="two keypoints bear one name"):
        rename(tracks, {"tail": "nose"})
    picked = conform(tracks, animals=["intruder"], keypoints=["tail", "nose"])
    np.testing.assert_array_equal(picked.position_TMKX, tracks.position_TMKX[:, [1]][:, :, [2, 0]])
    with pytest.raises(BadInput, match="no keypoint 'paw'; there are nose, left_ear, tail"):
        conform(tracks, animals=ANIMALS, keypoints=["paw"])
    np.testing.assert_array_equal(
        scale(tracks, 0.5).position_TMKX, tracks.position_TMKX * np.float32(0.5)
    )
    with pytest.raises(BadInput, match="positive"):
        scale(tracks, -1)


def test_disagreement_shows_both_lists(tmp_path: Path) -> None:
    one = read_tracks(write_npz(tmp_path / "a.npz", world()))
    check_agreement([one, conform(one, animals=ANIMALS[::-1], keypoints=KEYPOINTS[::-1])])
    with pytest.raises(
        BadInput,
        match=(
            r"keypoints differ: .*a\.npz has nose, left_ear, tail; .*has nose, left_ear, "
            r"tail_base.*--keypoints"
        ),
    ):
        check_agreement([one, rename(one, {"tail": "tail_base"})])
    with pytest.raises(BadInput, match="animals differ"):
        check_agreement([one, conform(one, animals=["resident"], keypoints=KEYPOINTS)])


def test_image_is_told_from_the_points() -> None:
    tracks = line()
    assert extent_px(tracks) == (30.0, 10.0)
    assert extent_px(replace(tracks, image_px=(640.0, 480.0))) == (640.0, 480.0)
    many = np.zeros((100_001, 1, 1, 2), np.float32) + 501
    many[7] = 90_000
    wild = Tracks(
        name="w",
        animals=("a",),
        keypoints=("p",),
        position_TMKX=many,
        confidence_TMK=np.ones(many.shape[:3], np.float32),
    )
    assert extent_px(wild) == (510.0, 510.0)


def test_schema_from_names() -> None:
    rats = Schema.from_names(
        animals=["a", "b"],
        keypoints=["top", "body", "tail", "tail-m", "tail-e"],
        fps=30,
        image_px=(9, 9),
    )
    assert rats.axis == ("tail", "top")
    for names in (
        ("earLeft", "earRight"),
        ("L_ear", "R_ear"),
        ("ear_l", "ear_r"),
        ("leftear", "rightear"),
        ("LEar", "REar"),
        ("EarL", "EarR"),
    ):
        assert Schema.from_names(
            animals=["a"], keypoints=["nose", *names], fps=30, image_px=(9, 9)
        ).mirror_pairs == (names,)
    assert (
        Schema.from_names(
            animals=["a"], keypoints=["barrel", "barren"], fps=30, image_px=(9, 9)
        ).mirror_pairs
        == ()
    )


def test_a_skeleton_in_the_file_goes_before_the_names(tmp_path: Path) -> None:
    stated = read_tracks(write_npz(tmp_path / "m1.npz", world(), name="day 1/m1"))
    assert (stated.name, stated.edges, stated.mirror_pairs, stated.axis) == (
        "day 1/m1",
        (("nose", "tail"),),
        (),
        ("tail", "nose"),
    )
    schema = schema_of(rename(stated, {"nose": "snout"}), fps=25, extents=[(9.0, 9.0)])
    assert (schema.edges, schema.mirror_pairs, schema.axis) == (
        (("snout", "tail"),),
        (),
        ("tail", "snout"),
    )
    fewer = conform(stated, animals=ANIMALS, keypoints=("left_ear", "tail"))
    assert (fewer.edges, fewer.axis) == ((), None)
    assert schema_of(fewer, fps=25, extents=[(9.0, 9.0)]).edges == (("left_ear", "tail"),)
    for what, wrong in (
        ("edges", [["nose", "elbow"]]),
        ("edges", ["nose", "tail"]),
        ("axis", ["nose"]),
        ("mirror_pairs", [[1, 2]]),
    ):
        with pytest.raises(
            BadInput, match=f"{what} holds .* wanted .* names of keypoints: nose, left_ear, tail"
        ):
            read_tracks(write_npz(tmp_path / "m1.npz", world(), **{what: wrong}))


# The trackers' own libraries write; we read.


def test_files_that_sleap_io_wrote(tmp_path: Path) -> None:
    sleap = pytest.importorskip("sleap_io", reason="sleap-io is not installed")
    w = world()
    skeleton = sleap.Skeleton(list(KEYPOINTS), edges=[("nose", "tail")])
    tracks = [sleap.Track(name) for name in ANIMALS]
    video = sleap.Video(filename="m1.mp4")
    frames = [
        sleap.LabeledFrame(
            video=video,
            frame_idx=t,
            instances=[
                sleap.PredictedInstance.from_numpy(
                    w.position[t, m],
                    skeleton=skeleton,
                    point_scores=w.confidence[t, m],
                    score=0.9,
                    track=tracks[m],
                )
                for m in range(2)
            ],
        )
        for t in range(len(w.position))
    ]
    labels = sleap.Labels(frames)
    for name in ("m1.slp", "m1.analysis.h5"):
        labels.save(str(tmp_path / name))
        found = read_tracks(tmp_path / name)
        assert found.edges == (("nose", "tail"),)
        assert_is_world(conform(found, animals=ANIMALS, keypoints=KEYPOINTS), w)


@pytest.mark.parametrize("layout", ["table", "fixed"])
def test_files_that_pandas_wrote(layout: str, tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("tables", reason="PyTables is not installed")
    rows = deeplabcut_rows(world())
    columns = pd.MultiIndex.from_arrays(
        [row[1:] for row in rows[:4]], names=["scorer", "individuals", "bodyparts", "coords"]
    )
    frame = pd.DataFrame(
        [[float(c or "nan") for c in row[1:]] for row in rows[4:]], columns=columns
    )
    frame.to_hdf(tmp_path / f"1{SCORER}.h5", key="df_with_missing", format=layout, mode="w")
    found = read_tracks(tmp_path / f"1{SCORER}.h5")
    assert (found.name, found.animals, found.keypoints) == ("1", ANIMALS, KEYPOINTS)
    assert_is_world(found, world())


def test_files_that_pynwb_wrote(tmp_path: Path) -> None:
    pynwb = pytest.importorskip("pynwb", reason="pynwb is not installed")
    ndx = pytest.importorskip("ndx_pose", reason="ndx-pose is not installed")
    from datetime import UTC, datetime

    w = world()
    nwb = pynwb.NWBFile("mice", "id", datetime.now(UTC))
    skeleton = ndx.Skeleton(name="mouse", nodes=list(KEYPOINTS), edges=np.array([[0, 2]], "uint8"))
    behavior = nwb.create_processing_module("behavior", "poses")
    behavior.add(ndx.Skeletons(skeletons=[skeleton]))
    for m, animal in enumerate(ANIMALS):
        series = [
            ndx.PoseEstimationSeries(
                name=name,
                description="",
                data=w.position[:, m, k].astype("f4"),
                unit="pixels",
                rate=30.0,
                reference_frame="corner",
                confidence=w.confidence[:, m, k].astype("f4"),
            )
            for k, name in enumerate(KEYPOINTS)
        ]
        behavior.add(
            ndx.PoseEstimation(
                name=animal, pose_estimation_series=series, skeleton=skeleton, scorer="x"
            )
        )
    with pynwb.NWBHDF5IO(str(tmp_path / "m.nwb"), "w") as out:
        out.write(nwb)
    found = read_tracks(tmp_path / "m.nwb")
    assert (found.keypoints, found.edges, found.fps) == (KEYPOINTS, (("nose", "tail"),), 30.0)
    assert_is_world(conform(found, animals=ANIMALS, keypoints=KEYPOINTS), w)


# Real recordings.


def test_the_real_rats_and_mice_go_in(real_data: Path) -> None:
    zipped = real_data / "rats" / "rats_dlc.zip"
    with unpacked(str(zipped)) as folder:
        names = read_all_names(find_tracks(folder))
        check_agreement(names)
        frames = {}
        for each in names:
            # An independent count: lines of the file less its four header rows.
            wanted = each.path.read_bytes().count(b"\n") - 4
            tracks = read_tracks(each.path, name=each.name)
            assert tracks.frames == wanted
            frames[each.name] = tracks.frames
            missing = np.isnan(tracks.position_TMKX).any(-1)
            np.testing.assert_array_equal(missing, tracks.confidence_TMK == 0)
    assert len(frames) == 42
    assert sum(frames.values()) == 601_198
    assert (names[0].animals, names[0].keypoints) == (
        ("individual1", "individual2"),
        ("top", "body", "tail", "tail-m", "tail-e"),
    )
    (mouse,) = read_all_names(find_tracks(str(real_data / "mice")))
    assert (mouse.name, read_tracks(mouse.path).frames) == ("e3v813a-20210610T122332-122642", 5_700)
    first = (mouse.path.read_text().splitlines()[4]).split(",")
    row = read_tracks(mouse.path)
    np.testing.assert_allclose(
        row.position_TMKX[0, 0, 0], [float(first[1]), float(first[2])], rtol=1e-6
    )
    assert collections.Counter(mouse.keypoints) == collections.Counter(
        ("nose", "leftear", "rightear", "neck", "lefthip", "righthip", "tail")
    )


def test_variants_of_deeplabcuts_table_are_read(tmp_path: Path) -> None:
    """An index of floats, no line break at the end, and the columns of a Kalman smoother."""
    plain = "scorer,S,S,S\nbodyparts,nose,nose,nose\ncoords,x,y,likelihood\n"
    rows = [f"{t},{t}.5,{2 * t}.0,0.9" for t in range(1, 5)]
    numbered = [f"{t},{row.split(',', 1)[1]}" for t, row in enumerate(rows)]
    (tmp_path / "plain.csv").write_text(plain + "\n".join(numbered) + "\n")
    floats = [f"{t}.0,{row.split(',', 1)[1]}" for t, row in enumerate(rows)]
    (tmp_path / "floats.csv").write_text(plain + "\n".join(floats))
    eks = [
        line + ",S,S".replace("S", word)
        for line, word in zip(plain.splitlines(), ("S", "nose", "x_ens_median"), strict=True)
    ]
    eks[2] = eks[2].replace("x_ens_median,x_ens_median", "x_ens_median,y_ens_var")
    (tmp_path / "eks.csv").write_text("\n".join([*eks, *(f"{row},7,8" for row in numbered)]) + "\n")
    truth = read_tracks(tmp_path / "plain.csv")
    assert truth.position_TMKX[:, 0, 0].tolist() == [[t + 0.5, 2 * t] for t in range(1, 5)]
    for name in ("floats.csv", "eks.csv"):
        found = read_tracks(tmp_path / name)
        np.testing.assert_array_equal(found.position_TMKX, truth.position_TMKX)
        np.testing.assert_array_equal(found.confidence_TMK, truth.confidence_TMK)
    for side in ("a_temporal_norm.csv", "a_pca_singleview_error.csv"):
        (tmp_path / side).write_text(",nose\n0,0.1\n")
    assert [path.name for path in find_tracks(str(tmp_path))] == [
        "eks.csv",
        "floats.csv",
        "plain.csv",
    ]


@pytest.mark.parametrize(
    ("stamps", "fps", "frames"),
    [
        (np.round(np.arange(600) / 30, 3), 30.0, 600),
        (np.arange(60.0), None, 60),
        (np.delete(np.round(5 + np.arange(300) / 25, 3), np.s_[100:150]), 25.0, 300),
        (np.arange(500) / 29.97 + np.random.default_rng(0).normal(0, 0.002, 500), 29.97, 500),
    ],
)
def test_all_stamps_of_nwb_together_say_the_rate(
    tmp_path: Path, stamps: np.ndarray, fps: float | None, frames: int
) -> None:
    """Stamps rounded to milliseconds, frame numbers, a real gap, jitter."""
    path = write_nwb(tmp_path / "a.nwb", world(frames=len(stamps)), timestamps=True)
    with h5py.File(path, "a") as file:
        for series in [s for a in ANIMALS for s in file[f"processing/behavior/{a}"].values()]:
            if isinstance(series, h5py.Group) and "timestamps" in series:
                del series["timestamps"]
                series["timestamps"] = stamps
    found = read_tracks(path)
    assert len(found.position_TMKX) == frames
    assert found.fps == (fps if fps is None else pytest.approx(fps, rel=1e-3))


def test_jabs_without_a_version_and_with_heights_of_heat_maps(tmp_path: Path) -> None:
    path = write_jabs(tmp_path / "m_pose_est_v4.h5", world())
    with h5py.File(path, "a") as file:
        confidence = file["poseest/confidence"][()]
        file["poseest/confidence"][...] = np.where(confidence > 0, 3.0, 0.0)
    found = read_tracks(path).confidence_TMK
    assert set(np.unique(found)) <= {0.0, 1.0}
    old = tmp_path / "m_pose_est_v2.h5"
    with h5py.File(old, "w") as file:
        group = file.create_group("poseest")
        group["points"] = np.full((30, 12, 2), 7, "u2")
        group["confidence"] = np.full((30, 12), 0.5, "f4")
    assert read_tracks(old).position_TMKX.shape == (30, 1, 12, 2)


def test_sleap_writes_an_empty_list_of_tracks_as_numbers(tmp_path: Path) -> None:
    path = tmp_path / "m.analysis.h5"
    with h5py.File(path, "w") as file:
        file["tracks"] = np.random.default_rng(0).uniform(1, 9, (1, 2, 3, 40))
        file["track_names"] = np.array([])
        file["node_names"] = np.array(["a", "b", "c"], "S")
    found = read_tracks(path)
    assert (found.animals, found.position_TMKX.shape) == (("animal",), (40, 1, 3, 2))


def test_animals_of_an_nwb_lie_on_one_clock(tmp_path: Path) -> None:
    """Each begins when it was first seen; of one nothing but two frames is there."""
    w, path = world(), write_nwb(tmp_path / "m1.nwb", world(), timestamps=True)
    with h5py.File(path, "a") as file:
        for keypoint in KEYPOINTS:
            series = file[f"processing/behavior/{ANIMALS[1]}/{keypoint}"]
            cut = {name: series[name][2:4] for name in ("data", "confidence", "timestamps")}
            for name, values in cut.items():
                del series[name]
                series[name] = values
    found = conform(read_tracks(path), animals=ANIMALS, keypoints=KEYPOINTS)
    expected = w.position.astype(np.float32)
    expected[:2, 1] = expected[4:, 1] = np.nan
    np.testing.assert_array_equal(found.position_TMKX, expected)
    path = write_nwb(tmp_path / "m2.nwb", world())
    with h5py.File(path, "a") as file:
        for animal in ANIMALS:
            for keypoint in KEYPOINTS:
                start = file[f"processing/behavior/{animal}/{keypoint}/starting_time"]
                del start.attrs["rate"]
    assert read_tracks(path).fps is None  # it counts frames
    assert read_tracks(path).frames == len(w.position)


def test_sleap_projects_of_a_browser_are_plain_tables(tmp_path: Path) -> None:
    path = write_sleap_project(tmp_path / "m1.slp", world())
    whole = read_tracks(path)
    with h5py.File(path, "a") as file:
        for name in ("frames", "instances", "points", "pred_points"):
            records = file[name][()]
            fields = records.dtype.names
            plain = np.array([[row[f] for f in fields] for row in records], np.float64)
            del file[name]
            file[name] = plain.reshape(-1, len(fields))
            file[name].attrs["field_names"] = json.dumps(fields)
    found = read_tracks(path)
    np.testing.assert_array_equal(found.position_TMKX, whole.position_TMKX)
    np.testing.assert_allclose(found.confidence_TMK, whole.confidence_TMK)


def test_jabs_identities_count_whatever_the_version_says(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_jabs(tmp_path / "m1_pose_est_v5.h5", world())
    whole = read_tracks(path)
    with h5py.File(path, "a") as file:
        file["poseest"].attrs["version"] = np.array([3, 0], "u2")
    np.testing.assert_array_equal(read_tracks(path).position_TMKX, whole.position_TMKX)
    assert "tracklets were joined" not in caplog.text


def test_names_of_deepcut_end_where_deeplabcuts_do(tmp_path: Path) -> None:
    assert recording_stem("8_01_A_19DeepCut_resnet50_May9shuffle1_1030000.csv") == "8_01_A_19"
