"""Smoothing against slow references, brute force over all sequences, and a simulated animal whose
bouts are known."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import average_precision_score

from finetune.labels.frame_labels import UNLABELLED, decide
from finetune.metrics.bouts import bouts, score_bouts
from finetune.metrics.frame_metrics import frame_f1
from finetune.postprocess.as_json import from_json
from finetune.postprocess.smoothers import AbstractSmoother, candidates, smoothers
from finetune.postprocess.smoothers.forward_backward import ForwardBackward, posteriors
from finetune.postprocess.smoothers.minimum_bout import MinimumBout
from finetune.postprocess.smoothers.moving import Moving
from finetune.postprocess.smoothers.viterbi import Viterbi, decode
from pretrain.components import names
from pretrain.errors import BadInput

MICE = ("attack", "investigation", "mount", "other")
STAY = np.array([0.95, 0.97, 0.98, 0.99])


def animal(
    seed: int, *, videos: int = 6, frames: int = 1_500, noise: float = 1.5
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A Markov chain of four classes, and the exact posteriors of a noisy observation of each frame
    alone."""
    draw = np.random.default_rng(seed)
    labels, probabilities = {}, {}
    onward = (1 - STAY)[:, None] * (1 - np.eye(4)) / 3
    onward = np.cumsum(onward + np.diag(STAY), axis=1)
    share = (1 / (1 - STAY)) / (
        1 / (1 - STAY)
    ).sum()  # a uniform next class: shares go with bout lengths
    for v in range(videos):
        state = np.empty(frames, np.int64)
        state[0] = draw.choice(4, p=share)
        for t, u in enumerate(draw.random(frames - 1)):
            state[t + 1] = min(int(np.searchsorted(onward[state[t]], u, side="right")), 3)
        seen = np.eye(4)[state] + noise * draw.normal(size=(frames, 4))
        labels[f"video {v}"] = state
        probabilities[f"video {v}"] = softmax(seen / noise**2 + np.log(share), axis=1)
    return probabilities, labels


def macro_f1(true: dict, chosen: dict) -> float:
    return frame_f1(labels=true, predicted=chosen, classes=MICE)


def slow_viterbi(
    emission_TNS: np.ndarray, initial_NS: np.ndarray, transition_NSS: np.ndarray
) -> np.ndarray:
    frames, chains, _ = emission_TNS.shape
    path = np.zeros((frames, chains), int)
    for n in range(chains):
        best, back = initial_NS[n] + emission_TNS[0, n], []
        for t in range(1, frames):
            options = best[:, None] + transition_NSS[n]
            back.append(options.argmax(axis=0))
            best = options.max(axis=0) + emission_TNS[t, n]
        path[-1, n] = best.argmax()
        for t in range(frames - 1, 0, -1):
            path[t - 1, n] = back[t - 1][path[t, n]]
    return path


def path_score(
    path: tuple[int, ...], emission: np.ndarray, initial: np.ndarray, transition: np.ndarray
) -> float:
    steps = sum(transition[a, b] for a, b in itertools.pairwise(path))
    return initial[path[0]] + steps + sum(emission[t, s] for t, s in enumerate(path))


@pytest.mark.parametrize("frames", range(1, 8))
@pytest.mark.parametrize("seed", range(3))
def test_viterbi_finds_the_best_of_all_sequences(frames: int, seed: int) -> None:
    draw = np.random.default_rng(100 * seed + frames)
    emission, initial, transition = (
        draw.normal(size=shape) for shape in ((frames, 2, 3), (2, 3), (2, 3, 3))
    )
    path = decode(emission_TNS=emission, initial_NS=initial, transition_NSS=transition)
    for n in range(2):
        every = itertools.product(range(3), repeat=frames)
        best = max(
            every,
            key=lambda states, n=n: path_score(states, emission[:, n], initial[n], transition[n]),
        )
        assert tuple(path[:, n]) == best


@pytest.mark.parametrize(
    "frames", [2, 3, 4, 5, 9, 10, 11, 24, 25, 26, 27, 99, 100, 101, 102, 517, 2_000]
)
def test_blocks_side_by_side_give_the_path_of_one_frame_after_the_other(frames: int) -> None:
    draw = np.random.default_rng(frames)
    emission = 0.3 * draw.normal(size=(frames, 3, 4))
    initial, transition = (
        draw.normal(size=(3, 4)),
        np.log(draw.dirichlet(np.ones(4), (3, 4)) * 0.2 + 0.8 * np.eye(4)),
    )
    path = decode(emission_TNS=emission, initial_NS=initial, transition_NSS=transition)
    assert np.array_equal(path, slow_viterbi(emission, initial, transition))


def test_viterbi_obeys_what_is_impossible_and_takes_no_frames() -> None:
    never_back = np.log(np.maximum([[[0.9, 0.1], [0.0, 1.0]]], 1e-300))
    never_back[0, 1, 0] = -np.inf
    emission = np.log(np.array([[0.9, 0.1]] * 30 + [[0.1, 0.9]] * 40 + [[0.6, 0.4]] * 30))[:, None]
    path = decode(emission_TNS=emission, initial_NS=np.log([[0.5, 0.5]]), transition_NSS=never_back)
    assert path[:, 0].tolist() == [0] * 30 + [1] * 70
    assert decode(
        emission_TNS=emission[:0], initial_NS=np.log([[0.5, 0.5]]), transition_NSS=never_back
    ).shape == (0, 1)
    # of equally likely sequences any one, but one that exists: ties must not be mixed
    tied = decode(
        emission_TNS=np.zeros((50, 1, 2)),
        initial_NS=np.zeros((1, 2)),
        transition_NSS=np.where(np.eye(2), 0.0, -np.inf)[None],
    )
    assert len(set(tied[:, 0])) == 1


def test_transitions_are_counted_from_whole_bouts() -> None:
    u = UNLABELLED
    labels = {"a": np.array([0, 0, 0, 1, 1, 0, 0, u, 1]), "b": np.array([1, 1])}
    probabilities = {name: np.full((len(values), 2), 0.5) for name, values in labels.items()}
    fitted = Viterbi.fit(probabilities=probabilities, labels=labels, classes=("chase", "other"))
    common = (2 + 1) / (10 + 1)  # two successions in ten labelled frames, and one more of each
    # chase: 3 steps that show something in the first bout, 1 in the second (cut short by u), 1 of
    # the 4 leaves
    assert fitted.transition[0][0][1] == pytest.approx((1 + common) / (4 + 1))
    # other: 2 in the first bout, none in the single frame, 1 in video b; 1 leaves
    assert fitted.transition[0][1][0] == pytest.approx((1 + common) / (3 + 1))
    np.testing.assert_allclose(np.sum(fitted.transition, axis=2), 1)
    assert fitted.initial[0] == pytest.approx(((5 + 1) / 12, (5 + 1) / 12))
    assert fitted.prior[0] == (0.5, 0.5)


def test_bout_rates_of_a_known_animal_are_recovered_and_decoding_beats_single_frames() -> None:
    probabilities, labels = animal(0)
    fitted = Viterbi.fit(probabilities=probabilities, labels=labels, classes=MICE)
    np.testing.assert_allclose(1 - np.diag(fitted.transition[0]), 1 - STAY, rtol=0.2)
    new_p, new_labels = animal(1)
    raw = {name: decide(probabilities_TC=p) for name, p in new_p.items()}
    decoded = {name: fitted.apply(p) for name, p in new_p.items()}
    assert macro_f1(new_labels, decoded) > macro_f1(new_labels, raw) + 0.3
    bout_f1 = [
        score_bouts(labels=new_labels, predicted=values, classes=MICE, fps=30).macro_f1["0.25"]
        for values in (raw, decoded)
    ]
    assert bout_f1[0] < 0.1
    assert bout_f1[1] > 0.5


def test_class_weights_in_training_leave_the_decoded_bouts_alone() -> None:
    """A network trained under another prior has posteriors moved by it; dividing by that prior
    undoes it exactly."""
    probabilities, labels = animal(2, videos=2)
    plain = replace(
        Viterbi.fit(probabilities=probabilities, labels=labels, classes=MICE), prior=((0.25,) * 4,)
    )
    weight = np.array([20.0, 1.0, 5.0, 0.5])
    weighted = replace(plain, prior=(tuple((weight / weight.sum()).tolist()),))
    for p in probabilities.values():
        moved = p * weight / (p * weight).sum(axis=1, keepdims=True)
        assert not np.array_equal(plain.apply(moved), plain.apply(p))
        assert np.array_equal(weighted.apply(moved), plain.apply(p))


def test_a_smaller_weight_asks_for_more_evidence() -> None:
    """Two exclusive classes, symmetric: n frames of log-odds l turn the path when 2 log(stay /
    leave) < weight * n * l."""
    stay = 0.99
    step = Viterbi(
        initial=((0.5, 0.5),),
        transition=(((stay, 1 - stay), (1 - stay, stay)),),
        prior=((0.5, 0.5),),
    )
    odds = 9.0
    for weight in (1.0, 0.5, 0.2):
        needed = 2 * np.log(stay / (1 - stay)) / (weight * np.log(odds))
        for n, turned in ((math.floor(needed), False), (math.ceil(needed), True)):
            p = np.repeat([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1]], [100, n, 100], axis=0)
            assert replace(step, weight=weight).apply(p).sum() == (n if turned else 0)


def test_viterbi_learns_the_prior_from_the_network() -> None:
    probabilities, labels = animal(2, videos=2)
    labels["video 0"][:500] = UNLABELLED
    seen = np.concatenate([probabilities[name][labels[name] != UNLABELLED] for name in labels])
    fitted = Viterbi.fit(probabilities=probabilities, labels=labels, classes=MICE)
    assert fitted.prior[0] == pytest.approx(seen.mean(axis=0).tolist())


def test_overlapping_behaviours_are_decoded_each_on_its_own() -> None:
    draw = np.random.default_rng(0)
    labels = {
        "v": np.stack(
            [np.repeat(draw.integers(0, 2, 40), 25), np.repeat(draw.integers(0, 2, 20), 50)], axis=1
        )
    }
    p = {
        "v": np.clip(
            0.5 + 0.2 * (labels["v"] - 0.5) + 0.2 * draw.normal(size=(1000, 2)), 0.01, 0.99
        )
    }
    both = Viterbi.fit(probabilities=p, labels=labels, classes=("sniff", "groom"), weight=0.5)
    for c, name in enumerate(("sniff", "groom")):
        single = Viterbi.fit(
            probabilities={"v": p["v"][:, [c]]},
            labels={"v": labels["v"][:, [c]]},
            classes=(name,),
            weight=0.5,
        )
        assert np.array_equal(both.apply(p["v"])[:, c], single.apply(p["v"][:, [c]])[:, 0])
    raw, decoded = decide(probabilities_TC=p["v"], overlapping=True), both.apply(p["v"])
    assert (decoded == labels["v"]).mean() > (raw == labels["v"]).mean() + 0.1


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 7])
def test_posteriors_are_those_of_summing_over_all_sequences(frames: int) -> None:
    draw = np.random.default_rng(frames)
    emission, initial = draw.normal(0, 2, (frames, 2, 3)), draw.dirichlet(np.ones(3), 2)
    transition = draw.dirichlet(np.ones(3), (2, 3))
    found = posteriors(emission_TNS=emission, initial_NS=initial, transition_NSS=transition)
    for n in range(2):
        exact = np.zeros((frames, 3))
        for path in itertools.product(range(3), repeat=frames):
            chance = np.exp(
                path_score(path, emission[:, n], np.log(initial[n]), np.log(transition[n]))
            )
            exact[np.arange(frames), path] += chance
        np.testing.assert_allclose(found[:, n], exact / exact.sum(1, keepdims=True), atol=1e-12)


def test_posteriors_of_a_long_video_do_not_depend_on_how_it_is_cut() -> None:
    """Far from its end a video does not know where it ends; near it the frames behind count."""
    draw = np.random.default_rng(0)
    emission, initial = draw.normal(0, 3, (4000, 1, 4)), np.full((1, 4), 0.25)
    transition = 0.6 * np.eye(4) + 0.1 * np.ones((1, 4, 4))
    whole, part = (
        posteriors(emission_TNS=e, initial_NS=initial, transition_NSS=transition)
        for e in (emission, emission[:3000])
    )
    np.testing.assert_allclose(part[:2800], whole[:2800], atol=1e-9)
    assert np.abs(part[2999] - whole[2999]).max() > 1e-3
    sure = posteriors(emission_TNS=1e3 * emission, initial_NS=initial, transition_NSS=transition)
    assert np.isfinite(sure).all()


def test_posteriors_are_better_decisions_and_better_scores() -> None:
    probabilities, labels = animal(1)
    smoother = ForwardBackward.fit(probabilities=probabilities, labels=labels, classes=MICE)
    new_p, new_labels = animal(2)
    raw = {name: decide(probabilities_TC=p) for name, p in new_p.items()}
    chosen = {name: smoother.apply(p) for name, p in new_p.items()}
    assert macro_f1(new_labels, chosen) > macro_f1(new_labels, raw) + 0.2
    truth = np.concatenate(list(new_labels.values()))[:, None] == np.arange(4)
    before, after = (
        average_precision_score(truth, np.concatenate(scores))
        for scores in (list(new_p.values()), [smoother.scores(p) for p in new_p.values()])
    )
    assert after > before + 0.1


@pytest.mark.parametrize("width", [1, 3, 7, 101])
def test_moving_windows_agree_with_slow_ones(width: int) -> None:
    p = np.random.default_rng(width).dirichlet(np.ones(3), 60)
    half = width // 2
    mean = Moving(frames=width)
    slow = np.stack([p[max(0, t - half) : t + half + 1].mean(axis=0) for t in range(60)])
    np.testing.assert_allclose(mean.scores(p), slow, atol=1e-12)
    assert np.array_equal(mean.apply(p), slow.argmax(axis=1))
    padded = np.pad(p, ((half, half), (0, 0)), mode="edge")
    slow = np.stack([np.median(padded[t : t + width], axis=0) for t in range(60)])
    several = Moving(frames=width, kind="median", overlapping=True)
    np.testing.assert_allclose(several.scores(p), slow, atol=1e-12)
    assert np.array_equal(several.apply(p), (slow > 0.5).astype(int))
    np.testing.assert_allclose(
        Moving(frames=width, kind="median").scores(p),
        slow / slow.sum(axis=1, keepdims=True),
        atol=1e-12,
    )


def test_the_window_follows_the_shortest_counted_bouts() -> None:
    labels = {"v": np.repeat([3, 0, 3, 1, 3], [2, 21, 2, 80, 2])}
    p = {"v": np.full((107, 4), 0.25)}
    assert Moving.fit(probabilities=p, labels=labels, classes=MICE, share=0.5).frames == 11
    assert Moving.fit(probabilities=p, labels=labels, classes=MICE, share=1.0, rest="").frames == 3
    only_rest = {"v": np.full(107, 3)}
    assert Moving.fit(probabilities=p, labels=only_rest, classes=MICE).frames == 1


def test_medians_of_all_classes_may_vanish() -> None:
    p = np.eye(3)[np.arange(9) % 3]
    assert np.isfinite(Moving(frames=9, kind="median").scores(p)).all()


def test_short_bouts_dissolve_into_the_likelier_neighbour() -> None:
    labels = np.repeat([3, 1, 0, 3, 1], [6, 2, 6, 1, 5])
    p = np.eye(4)[labels] * 0.6 + 0.1
    p[6:8] = [
        0.3,
        0.4,
        0.1,
        0.2,
    ]  # the two frames of investigation look more like attack than like the rest
    p[14] = [0.1, 0.3, 0.0, 0.6]
    smoothed = MinimumBout(frames=(3, 3, 1, 2)).apply(p)
    assert bouts(smoothed).tolist() == [[0, 6, 3], [6, 14, 0], [14, 20, 1]]
    assert np.array_equal(MinimumBout(frames=(1, 1, 1, 1)).apply(p), labels)


def test_pieces_grow_together_before_they_are_too_short() -> None:
    chosen = np.tile([0, 0, 3], 10)  # attack in pieces of two with single gaps
    smoothed = MinimumBout(frames=(5, 1, 1, 3)).apply(np.eye(4)[chosen])
    assert bouts(smoothed).tolist() == [[0, 30, 0]]


@pytest.mark.parametrize("seed", range(10))
def test_no_short_bout_remains_and_no_class_is_invented(seed: int) -> None:
    draw = np.random.default_rng(seed)
    p = draw.dirichlet(np.ones(4), 200)
    step = MinimumBout(frames=(4, 7, 1, 12))
    smoothed = step.apply(p)
    found = bouts(smoothed)
    assert len(found) == 1 or all(
        stop - start >= step.frames[c] for start, stop, c in found.tolist()
    )
    again = step.apply(np.eye(4)[smoothed])
    assert np.array_equal(again, smoothed)


def test_short_bouts_of_overlapping_behaviours_are_taken_out_and_gaps_stay() -> None:
    chosen = np.array([[0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1], [1] * 12]).T
    smoothed = MinimumBout(frames=(3, 3), overlapping=True).apply(chosen.astype(float))
    assert smoothed[:, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1]
    assert smoothed[:, 1].all()


def test_minimum_bouts_are_quantiles_of_the_labels() -> None:
    labels = {"a": np.repeat([0, 3, 0, 3], [4, 10, 8, 10]), "b": np.repeat([0, 1], [12, 30])}
    p = {name: np.full((len(values), 4), 0.25) for name, values in labels.items()}
    assert MinimumBout.fit(probabilities=p, labels=labels, classes=MICE, quantile=0.5).frames == (
        8,
        30,
        1,
        10,
    )
    assert MinimumBout.fit(probabilities=p, labels=labels, classes=MICE, quantile=0).frames == (
        4,
        30,
        1,
        10,
    )


def test_the_best_candidate_helps_on_other_videos() -> None:
    probabilities, labels = animal(3)
    offered = candidates(probabilities=probabilities, labels=labels, classes=MICE)
    best = max(
        offered.values(),
        key=lambda one: macro_f1(labels, {name: one.apply(p) for name, p in probabilities.items()}),
    )
    new_p, new_labels = animal(4)
    raw = {name: decide(probabilities_TC=p) for name, p in new_p.items()}
    chosen = {name: best.apply(p) for name, p in new_p.items()}
    assert macro_f1(new_labels, chosen) > macro_f1(new_labels, raw) + 0.2


def mice_or_pairs(overlap: bool) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], tuple]:
    """Probabilities, labels and classes of a small world, exclusive or overlapping."""
    probabilities, labels = animal(5, videos=2, frames=300)
    if not overlap:
        return probabilities, labels, MICE
    both = np.tile(np.repeat([[0, 1], [1, 0], [1, 1]], 25, axis=0), (4, 1))
    return {"v": probabilities["video 0"][:, :2]}, {"v": both}, ("sniff", "groom")


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("kind", smoothers(), ids=names("finetune.postprocess.smoothers"))
def test_a_smoother_decides_every_frame_of_any_video_and_is_read_back(
    kind: type[AbstractSmoother], overlap: bool
) -> None:
    probabilities, labels, classes = mice_or_pairs(overlap)
    offered = kind.candidates(
        probabilities=probabilities, labels=labels, classes=classes, rest=None
    )
    assert offered
    p = next(iter(probabilities.values()))
    for one in offered.values():
        assert one.overlapping == overlap
        assert one.numbers > 0
        again = from_json(json.loads(json.dumps(one.to_dict())), "smoother", smoothers())
        assert again == one
        assert hash(again) == hash(one)
        assert np.array_equal(again.apply(p), one.apply(p))
        for frames in (0, 1, 2, 300):
            found = one.apply(p[:frames])
            assert found.dtype.kind == "i"
            assert found.shape == ((frames, 2) if overlap else (frames,))
            assert ((found >= 0) & (found < (2 if overlap else 4))).all()


def test_a_smoother_is_a_file(add_component: Callable[[str, str, str], None]) -> None:
    add_component(
        "finetune.postprocess.smoothers",
        "never_mount",
        """
from dataclasses import dataclass
from finetune.labels.frame_labels import decide
from finetune.postprocess.smoothers import AbstractSmoother

@dataclass(frozen=True, kw_only=True)
class NeverMount(AbstractSmoother):
    classes: int
    overlapping: bool = False

    @classmethod
    def candidates(cls, *, probabilities, labels, classes, rest):
        return {"never mount": cls(classes=len(classes))}

    def apply(self, probabilities_TC):
        return decide(probabilities_TC=probabilities_TC * [1, 1, 0, 1])
""",
    )
    probabilities, labels, classes = mice_or_pairs(False)
    offered = candidates(probabilities=probabilities, labels=labels, classes=classes)
    again = from_json(offered["never mount"].to_dict(), "smoother", smoothers())
    assert not (again.apply(probabilities["video 0"]) == 2).any()


@pytest.mark.parametrize("overlap", [False, True])
def test_the_simplest_candidates_come_first(overlap: bool) -> None:
    probabilities, labels, classes = mice_or_pairs(overlap)
    found = candidates(probabilities=probabilities, labels=labels, classes=classes)
    sizes = [one.numbers for one in found.values()]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1, "a moving window is one number"
    assert {type(one) for one in found.values()} >= {Moving, MinimumBout, Viterbi}


def test_smoothers_of_models_saved_before_are_read() -> None:
    for values, smoother in (
        (
            {"smoother": "Moving", "frames": 5, "kind": "median", "overlapping": False},
            Moving(frames=5, kind="median"),
        ),
        (
            {"smoother": "MinimumBout", "frames": [2, 3], "overlapping": True},
            MinimumBout(frames=(2, 3), overlapping=True),
        ),
        (
            {
                "smoother": "Viterbi",
                "initial": [[0.5, 0.5]],
                "transition": [[[0.9, 0.1], [0.2, 0.8]]],
                "prior": [[0.5, 0.5]],
                "weight": 0.3,
                "overlapping": False,
            },
            Viterbi(
                initial=((0.5, 0.5),),
                transition=(((0.9, 0.1), (0.2, 0.8)),),
                prior=((0.5, 0.5),),
                weight=0.3,
            ),
        ),
    ):
        assert from_json(values, "smoother", smoothers()) == smoother
        assert smoother.to_dict() == values


def test_labels_of_one_class_only_still_fit() -> None:
    labels = {"v": np.full(50, 3)}
    p = {"v": np.tile([0.05, 0.05, 0.1, 0.8], (50, 1))}
    for one in candidates(probabilities=p, labels=labels, classes=MICE).values():
        assert (one.apply(p["v"]) == 3).all()


@pytest.mark.parametrize("kind", [Moving, MinimumBout, Viterbi])
@pytest.mark.parametrize(
    ("labels", "p", "message"),
    [
        (
            {"v": np.full(4, UNLABELLED)},
            {"v": np.full((4, 4), 0.25)},
            "none of the 4 frames is labelled",
        ),
        ({}, {}, "labelled videos are []"),
        ({"v": np.zeros(4, int)}, {"w": np.full((4, 4), 0.25)}, "labelled videos are ['v']"),
        (
            {"v": np.zeros(4, int)},
            {"v": np.full((5, 4), 0.25)},
            "v: probabilities have shape (5, 4)",
        ),
        ({"v": np.zeros(2, int)}, {"v": np.full((2, 4), np.nan)}, "not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_words(
    kind: type, labels: dict, p: dict, message: str
) -> None:
    with pytest.raises(BadInput) as refused:
        kind.fit(probabilities=p, labels=labels, classes=MICE)
    assert message in str(refused.value)


def test_settings_and_videos_that_make_no_sense_are_refused() -> None:
    with pytest.raises(BadInput, match="odd number"):
        Moving(frames=4)
    with pytest.raises(BadInput, match="'mean' or 'median'"):
        Moving(frames=3, kind="mode")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="allowed: \\(T, 4\\)"):
        MinimumBout(frames=(1, 1, 1, 1)).apply(np.zeros((5, 3)))
    with pytest.raises(BadInput, match="first at frame 2"):
        Moving(frames=3).apply(np.where(np.arange(8).reshape(4, 2) == 5, np.inf, 0.5))
    for values in ({}, {"smoother": "Magic"}, {"smoother": "Moving", "width": 3}):
        with pytest.raises(
            BadInput, match="allowed: ForwardBackward, MinimumBout, Moving, Viterbi"
        ):
            from_json(values, "smoother", smoothers())
