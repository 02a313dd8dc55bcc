"""Behaviours of any name come back from every file that labels are read from."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from finetune.inference.ethograms import Ethogram
from finetune.inference.prediction_formats import prediction_formats
from finetune.labels.problems import Problem
from pretrain.errors import BadInput
from pretrain.readers.annotations import UNLABELLED
from pretrain.readers.find_labels import read_label_files
from pretrain.readers.score_sheets import CLIP

FORMATS = ("annot", "boris", "boris_events", "csv", "nwb")
NASTY = (
    *("frame", "time_s", "label", "p_x", "x", "p_", "start", "stop", "nose_x", "Behavior", "Time"),
    *("=x", "'=x", "''=x", "-1", "+", "@a", "#", "%", "%0A", "100%25", "50 % off", "null"),
    *('a "b", c', "a;b", "a\tb", "a\nb", "a\r\nb", "a\rb", "\n=x", "'", '"', "a\u2028b", "a\x0bb"),
    *(
        "攻撃",
        "嗅ぐ、舐める",
        "Ängstlich",
        "🐭",
        "a" * 300,
        "a-----",
        "-----",
        ">a",
        "Start",
        "0",
        "1",
    ),
    *("none", "POINT", "label set: x", "a+b", "Frame", "FRAME", "True", "nan", "Point event"),
)
# a zero byte ends text in HDF5, and is refused in text files
CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=("Cs",))
NAMES = st.text(CHARACTERS, min_size=1, max_size=12) | st.sampled_from(NASTY)
FRAMES = 24


def ethogram(classes: tuple[str, ...], *, overlapping: bool, gap: bool) -> Ethogram:
    """Every class from its first frame to its last; perhaps with frames that have no label."""
    rng = np.random.default_rng(len(classes))
    labels = np.repeat(np.arange(FRAMES // 4) % len(classes), 4).astype(np.int8)
    if overlapping:
        labels = (rng.random((FRAMES, len(classes))) < 0.5).astype(np.int8)
        labels[:2] = 1
    if gap:
        labels[9:13] = UNLABELLED
    problem = Problem(
        name="acts",
        task="acts",
        classes=classes,
        annotator="",
        overlapping=overlapping,
        train={},
        test={},
    )
    p_TC = np.full((FRAMES, len(classes)), 0.5, np.float32)
    return Ethogram(video="m1", problem=problem, labels=labels, probabilities_TC=p_TC, fps=25.0)


@pytest.mark.parametrize("overlapping", [False, True], ids=["exclusive", "overlapping"])
@pytest.mark.parametrize("name", FORMATS)
def test_behaviours_of_any_name_come_back(name: str, overlapping: bool) -> None:
    try:
        (form,) = prediction_formats([name]).values()
    except BadInput as error:
        pytest.skip(str(error))

    @settings(max_examples=10 if name == "nwb" else 30, deadline=None)
    @given(st.lists(NAMES, min_size=2, max_size=5, unique=True), st.booleans())
    @example(list(NASTY[:40]), False)
    @example(list(NASTY[40:]), True)
    def holds(classes: list[str], gap: bool) -> None:
        if name != "csv":  # readers take spaces around a name for layout
            classes = [one for one in dict.fromkeys(map(str.strip, classes)) if one]
        assume(len(classes) > 1 and CLIP not in classes)
        shown = ethogram(tuple(classes), overlapping=overlapping, gap=gap)
        with tempfile.TemporaryDirectory() as folder:
            form.write(Path(folder) / f"m1{form.ending}", shown)
            (found,), mismatches = read_label_files(folder, {"m1": FRAMES}, 25.0)
        assert not mismatches
        for c, behaviour in enumerate(classes):
            if behaviour not in found.classes:
                assert not shown.shown_TC[:, c].any() or behaviour == shown.problem.rest
                continue
            at = found.classes.index(behaviour)
            again = found.frames[:, at] == 1 if found.overlapping else found.frames == at
            assert np.array_equal(again, shown.shown_TC[:, c] == 1), behaviour
        known = found.frames if found.frames.ndim == 1 else found.frames.max(1)
        assert np.array_equal(known != UNLABELLED, shown.labelled_T)

    holds()
