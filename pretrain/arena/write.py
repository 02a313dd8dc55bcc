"""The arena: simulated pairs of mice, for trying everything out where no recordings are at hand.

**These are not recordings, and scores on them are not CalMS21 scores.** A resident and an intruder
are drawn by chance in CalMS21's skeleton, image (1024 x 570 px), frame rate (30 frames/s) and class
names, after figures of the real data set: bout lengths, transitions, class shares, body shapes,
distances and steps. The tracks are as hard to label as real ones in kind (fuzzy boundaries, actions
that overlap in pose and are told apart by what came before, individual animals, a fallible
tracker), but a method that does well here has shown that it works, not how well it works on
animals.

Built in layers, each in a file of its own: ``plan`` (which recordings there are), ``timeline`` (who
does what when), ``motion`` (how it looks), ``noise`` (what the tracker sees), ``annotators`` (what
six people write down), ``statistics`` (the figures of the real data). A recording depends on its
own fields alone: it can be simulated in any order, on any machine, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from pretrain.arena.annotators import ANNOTATORS, annotate, annotate_behaviour
from pretrain.arena.motion import draw_scene
from pretrain.arena.noise import watch
from pretrain.arena.plan import Recording
from pretrain.arena.timeline import CUT_FROM_FRAMES, Timeline, draw_timeline
from pretrain.data.schema import CALMS21, Float, Video
from pretrain.data.store_writer import StoreWriter
from pretrain.readers.annotations import Labels, write_labels
from pretrain.readers.calms21.expected_counts import BEHAVIOR_FRAMES, CLASSES

MAX_TAKES = 8
"""How often a short scene is played until its annotator sees every class in it."""
ORIGIN = "simulated mice (arena): not recordings, scores on them are not CalMS21 scores"


def simulate(recording: Recording) -> tuple[Video, list[Labels]]:
    """The tracks of one recording, and the labels of its task; none where it has no task."""
    _, motion, tracker, annotator = _random_sources(recording)
    timeline = truth(recording)
    for _ in range(MAX_TAKES):
        scene = draw_scene(motion, timeline)
        labels = _labels(recording, timeline, scene.reach_T, annotator)
        # In a short recording an annotator may miss the only bout of a class; then the mice do it
        # again.
        if all(_nothing_missed(recording, timeline, each) for each in labels):
            break
    position, confidence, _ = watch(tracker, scene.keypoint_TMK, missing=recording.missing)
    return Video(
        name=recording.name, position_TMKX=position, confidence_TMK=confidence, source="simulated"
    ), labels


def _labels(
    recording: Recording, timeline: Timeline, reach_T: Float, rng: np.random.Generator
) -> list[Labels]:
    if not recording.task:
        return []
    if recording.behaviour:
        classes: tuple[str, ...] = ("other", recording.behaviour)
        frames = annotate_behaviour(rng, timeline.shows(recording.behaviour))
    else:
        classes = CLASSES
        frames = annotate(rng, ANNOTATORS[recording.annotator], timeline, reach_T)
    return [
        Labels(
            video=recording.name,
            task=recording.task,
            classes=classes,
            frames=frames,
            annotator=recording.annotator,
            split=recording.split,
        )
    ]


def _nothing_missed(recording: Recording, timeline: Timeline, labels: Labels) -> bool:
    if recording.frames >= CUT_FROM_FRAMES:
        return True
    behaviour = recording.behaviour
    shown_T = timeline.shows(behaviour).astype(np.int8) if behaviour else timeline.class_T
    return len(np.setdiff1d(shown_T, labels.frames)) == 0


def truth(recording: Recording) -> Timeline:
    """What happens in a recording, before any tracker or annotator; for tests and diagnosis, never
    for training."""
    shown, frames = BEHAVIOR_FRAMES.get((recording.behaviour, recording.split), (0, 1))
    return draw_timeline(
        _random_sources(recording)[0],
        recording.frames,
        split=recording.split,
        attack=recording.attack,
        mount=recording.mount,
        behaviour=recording.behaviour,
        behaviour_share=shown / frames,
    )


def arena(plan: Iterable[Recording]) -> Iterator[tuple[Video, list[Labels]]]:
    """Simulates the recordings of a plan, one in memory at a time."""
    for recording in plan:
        yield simulate(recording)


def write_arena(
    uri: str | Path, plan: Iterable[Recording], *, on_progress: Callable[[int], None] | None = None
) -> None:
    """Writes recordings of a plan as a pose store with labels; ``on_progress`` is told the frames
    of each after it.

    Raises:
        BadInput: If something is at ``uri`` already.
    """
    labels: list[Labels] = []
    with StoreWriter(uri, CALMS21, origin=ORIGIN) as writer:
        for video, scored in arena(plan):
            writer.add(video)
            labels += scored
            if on_progress is not None:
                on_progress(len(video.position_TMKX))
        write_labels(writer, labels)


def _random_sources(recording: Recording) -> list[np.random.Generator]:
    """Four sources of chance, so that what one layer draws does not shift the next."""
    return [
        np.random.Generator(np.random.SFC64(seed))
        for seed in np.random.SeedSequence(recording.seed).spawn(4)
    ]
