"""Holding labels out: whole recordings, out of all problems at once.

Problems are fitted in one network, so a recording that two raters labelled must be fitted on by
both or by none: what one rater says of it gives away what the other says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from finetune.labels.frame_labels import UNLABELLED, Ints, looked_at
from finetune.labels.problems import Labelled, Problem, classes_seen

Recordings = Callable[[str], str]
"""From the name of a video to that of its recording."""


def hold_out(
    problems: Sequence[Problem],
    *,
    share: float,
    seed: int,
    recording: Recordings = lambda video: video,
) -> list[tuple[Problem, Labelled]]:
    """Holds part of the training labels out for validation: whole recordings, of all problems
    alike; of a recording that is all a problem has, the last part.

    Args:
        problems: Fitted together.
        share: Of each problem's videos, as nearly as can be.
        seed: Of the draw.
        recording: As :func:`finetune.fit.frames.recordings` gives it.

    Returns:
        For each problem, the problem to fit on, and labels to validate on; both of training videos.
    """
    videos_of = [_by_recording(problem, recording) for problem in problems]
    only = {name for videos in videos_of if len(videos) == 1 for name in videos}
    chosen = _chosen(problems, videos_of, only, share=share, seed=seed)
    cut_at = {
        name: _cut([p.train[v] for p in problems for v in p.train if recording(v) == name], share)
        for name in only
    }
    parts: list[tuple[Problem, Labelled]] = []
    for problem in problems:
        fitted, validation = {}, {}
        for video, labels in problem.train.items():
            if (name := recording(video)) in chosen:
                validation[video] = labels
            elif name in cut_at:
                before, after = labels.copy(), labels.copy()
                before[cut_at[name] :], after[: cut_at[name]] = UNLABELLED, UNLABELLED
                fitted[video], validation[video] = before, after
            else:
                fitted[video] = labels
        parts.append((replace(problem, train=fitted), validation))
    return parts


def in_training_and_test(problems: Sequence[Problem], recording: Recordings) -> list[str]:
    """Test videos of recordings that are in training, of any problem, under whatever name."""
    trained = {recording(video) for problem in problems for video in problem.train}
    tested = {video for problem in problems for video in problem.test}
    split_in_time = {v for problem in problems for v in problem.train if v in problem.test}
    return sorted(v for v in tested - split_in_time if recording(v) in trained)


def _by_recording(problem: Problem, recording: Recordings) -> dict[str, list[str]]:
    videos: dict[str, list[str]] = {}
    for video in sorted(problem.train):
        videos.setdefault(recording(video), []).append(video)
    return videos


def _cut(labels: Sequence[Ints], share: float) -> int:
    """The frame from which on a share of the frames that anybody labelled lies."""
    known = np.flatnonzero(np.logical_or.reduce([looked_at(one) for one in labels]))
    return int(known[min(round(len(known) * (1 - share)), len(known) - 1)]) if len(known) else 0


def _chosen(
    problems: Sequence[Problem],
    videos_of: Sequence[Mapping[str, Sequence[str]]],
    only: set[str],
    *,
    share: float,
    seed: int,
) -> set[str]:
    """The first recordings of a drawn order, until each problem has its share, that leave no
    problem a class without a recording to fit on, as far as that can be had."""
    names = sorted({name for videos in videos_of for name in videos}, key=_first_video(videos_of))
    order = np.random.default_rng([seed, 2]).permutation(len(names))
    drawn = [names[index] for index in order if names[index] not in only]
    shown = [
        {
            name: classes_seen(problem, {v: problem.train[v] for v in videos[name]})
            for name in videos
        }
        for problem, videos in zip(problems, videos_of, strict=True)
    ]
    number = [max(1, round(share * len(videos))) for videos in videos_of]
    chosen: set[str] = set()

    def wanted(p: int) -> bool:
        return len(videos_of[p]) > 1 and len(chosen & set(videos_of[p])) < number[p]

    def leaves(p: int, name: str) -> bool:
        """Whether what is left of a problem shows every class that the recording shows."""
        left = [other for other in videos_of[p] if other not in chosen and other != name]
        return bool(left) and all(any(c in shown[p][o] for o in left) for c in shown[p][name])

    for name in drawn:
        having = [p for p, videos in enumerate(videos_of) if name in videos]
        if any(wanted(p) for p in having) and all(leaves(p, name) for p in having):
            chosen.add(name)
    for p, videos in enumerate(videos_of):  # at the cost of a class, but never of all there is
        if wanted(p) and not chosen & set(videos) and not only & set(videos):
            possible = [
                name
                for name in drawn
                if name in videos
                and all(set(of) - chosen - {name} for of in videos_of if name in of)
            ]
            chosen |= set(possible[:1])
    return chosen


def _first_video(videos_of: Sequence[Mapping[str, Sequence[str]]]) -> Callable[[str], str]:
    """Orders recordings by the names of their videos: those made of contents would be drawn
    otherwise in every encoder."""
    first: dict[str, str] = {}
    for videos in videos_of:
        for name, of in videos.items():
            first[name] = min(of[0], first.get(name, of[0]))
    return lambda name: first[name]
