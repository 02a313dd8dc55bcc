"""The page of a run: what it counts is right on labels whose errors are known, and it needs nothing
but itself."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from test_model_card import result
from worlds import MICE, embedder_of, wander_store

from finetune.labels.frame_labels import UNLABELLED
from finetune.labels.problems import Problem
from finetune.make_report import main
from finetune.report.page.errors import boundary_errors, predicted_bouts
from finetune.report.predictions import read_predictions, write_predictions
from finetune.report.tables import write_csv
from pretrain.data.windows import Pose
from pretrain.errors import BadInput
from pretrain.train.checkpoint import save_encoder

CLASSES = ("attack", "mount", "other")


def problem(
    labels: dict[str, np.ndarray], *, overlapping: bool = False, name: str = "S1"
) -> Problem:
    return Problem(
        name=name,
        task="S1",
        classes=CLASSES,
        annotator="me",
        overlapping=overlapping,
        train={},
        test={video: np.asarray(values, np.int8) for video, values in labels.items()},
    )


def sure(decided: np.ndarray, p: float = 0.9) -> np.ndarray:
    """Probabilities that decide so."""
    rest = (1 - p) / (len(CLASSES) - 1)
    return np.where(np.eye(len(CLASSES))[decided] == 1, p, rest).astype(np.float32)


def test_predictions_read_back_as_they_were_written(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    one = problem({"a/1": draw.integers(-1, 3, 40), "b": draw.integers(0, 3, 20)})
    both = problem({"b": draw.integers(-1, 2, (20, 1)).repeat(3, 1)}, overlapping=True, name="S2")
    p = [{v: draw.random((len(x), 3), np.float32) for v, x in q.test.items()} for q in (one, both)]
    decided = [{v: np.maximum(x, 0) for v, x in q.test.items()} for q in (one, both)]
    path = write_predictions(tmp_path, [one, both], p, seed=1, decided=decided)
    problems, probabilities, read = read_predictions(path)
    for found, asked in zip(problems, (one, both), strict=True):
        assert replace(found, test={}) == replace(asked, test={})
        assert found.test.keys() == asked.test.keys()
    for ours, theirs in (
        (p, probabilities),
        (decided, read),
        ([q.test for q in (one, both)], [q.test for q in problems]),
    ):
        for a, b in zip(ours, theirs, strict=True):
            for video, values in a.items():
                np.testing.assert_array_equal(values, b[video])
    _, _, none = read_predictions(write_predictions(tmp_path, [one], p[:1], seed=2))
    assert none == [{}]
    path.write_bytes(b"damaged")
    with pytest.raises(BadInput, match="cannot be read"):
        read_predictions(path)


def test_errors_near_transitions_are_told_from_others() -> None:
    labels = np.repeat([2, 0], 50)
    labels[90:] = UNLABELLED
    decided = labels.copy()
    decided[decided == UNLABELLED] = 1
    decided[46:50] = 0  # four too early, just before the transition
    decided[10:14] = 1
    found = boundary_errors(problem({"v": labels}), {"v": sure(decided)}, near=5)
    assert found == pytest.approx(
        {"errors": 8, "share": 0.5, "frames_share": 10 / 90, "near_rate": 0.4, "far_rate": 4 / 80}
    )
    right = boundary_errors(problem({"v": labels[:50]}), {"v": sure(labels[:50])}, near=5)
    assert right["errors"] == 0
    assert np.isnan(right["share"])


def test_bouts_are_as_sure_and_as_right_as_they_are() -> None:
    labels = np.array([2] * 10 + [0] * 10 + [1] * 10 + [2] * 10)
    decided = np.array([2] * 10 + [0] * 15 + [1] * 5 + [2] * 8 + [0] * 2)
    (attack, mount) = predicted_bouts(problem({"v": labels}), {"v": sure(decided, 0.8)}, least=3)
    assert (attack.start, attack.stop, attack.behaviour) == (10, 25, "attack")
    assert attack.right == pytest.approx(10 / 15)
    assert attack.sure == pytest.approx(0.8)
    assert (mount.start, mount.stop, mount.right) == (25, 30, 1.0)
    labels[12] = UNLABELLED
    assert len(predicted_bouts(problem({"v": labels}), {"v": sure(decided)}, least=3)) == 1


class Page(HTMLParser):
    """What a page shows and what it would load."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.captions: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe")
        for name, value in attributes:
            if name in ("src", "href"):
                self.loads.append(value or "")
            if name == "alt":
                self.captions.append(value or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def check(self) -> None:
        """Every picture is in it."""
        for source in self.loads:
            match = re.fullmatch(r"data:image/png;base64,(.+)", source)
            assert match, f"it loads {source[:80]}"
            assert base64.b64decode(match[1]).startswith(b"\x89PNG")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run whose every decision is known, with the store it was scored on."""
    out = tmp_path / "run <1>"
    store = wander_store(tmp_path / "store", [120, 120], MICE)
    names = [video["name"] for video in store.videos]
    labels = np.array([2] * 30 + [0] * 30 + [1] * 30 + [2] * 30)
    wrong = labels.copy()
    wrong[30:60], wrong[60:90] = 1, 0
    one = problem(dict.fromkeys(names, labels))
    p = {names[0]: sure(labels), names[1]: sure(wrong, 0.7)}
    write_predictions(out / "predictions", [one], [p], seed=42)
    video = store.read_video(names[0])
    import torch

    pose = Pose(
        torch.from_numpy(video.position_TMKX)[None], torch.from_numpy(video.confidence_TMK)[None]
    )
    save_encoder(out / "model" / "seed-42", embedder_of(MICE, "tcn", pose), made_by={})
    values = result(data=str(tmp_path / "store"), test_data=str(tmp_path / "store"), bouts=None)
    (out / "result.json").write_text(json.dumps(values))
    return out


def test_the_page_of_a_run_is_whole_and_its_own(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(run)])
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    page = Page(run / "report.html")
    page.check()
    assert {"most confident, and right", "most confident, and wrong", "most uncertain"} <= set(
        page.captions
    )
    text = "\n".join(page.words)
    assert "run <1>" in text, "a name was taken for markup"
    assert "0.751 ± 0.012" in text
    assert "No control is in the same folder" in text
    assert "1.000 ± 0.000" in text, "the first video is labelled without an error"
    # no frame of the two bouts is further than half a second from an end
    assert "100% of the wrong frames lie within 0.5 s" in text


def test_without_the_store_there_are_no_skeletons_but_a_page(run: Path) -> None:
    values = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps(values | {"data": "/gone", "test_data": "/gone"}))
    main([str(run)])
    page = Page(run / "report.html")
    assert "No skeletons: there is no store" in "\n".join(page.words)
    assert not any("confident" in caption for caption in page.captions)


@pytest.mark.parametrize("behaviour", ["attack", "=attack", "-attack"])
def test_the_page_of_predictions_counts_what_the_tables_hold(
    behaviour: str, tmp_path: Path
) -> None:
    classes = [behaviour, *CLASSES[1:]]
    about = {"task": "S1", "annotator": "", "classes": classes, "overlapping": False}
    predict = {"model": "runs/mine", "problems": {"S1": about}}
    (tmp_path / "predict.json").write_text(json.dumps(predict))
    keys = ("video", "problem", "behaviour", "video_s", "unlabelled_s", "seconds", "share", "bouts")
    rows = [
        ("m1", "S1", b, 60, 10, s, s / 50, n)
        for b, s, n in ((behaviour, 30, 6), ("mount", 0, 0), ("other", 20, 5))
    ]
    bouts = [("m1", "S1", behaviour, t, t + 5) for t in range(0, 60, 10)]
    header = ("video", "problem", "behaviour", "start_s", "stop_s")
    for name, head, body in (("summary", keys, rows), ("bouts", header, bouts)):
        write_csv(tmp_path / f"{name}.csv", [dict(zip(head, row, strict=True)) for row in body])
    main([str(tmp_path)])
    page = Page(tmp_path / "report.html")
    page.check()
    assert len(page.loads) == 3
    row = page.words[page.words.index(behaviour) :][:5]
    assert row == [behaviour, "0.5", "0.600", "6", "5.000"]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no finished run"):
        main([str(tmp_path)])
