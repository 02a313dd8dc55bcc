"""One head for several annotators: it learns whose style is like whose; a stranger is scored as the
mean; the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from finetune.fit.fit import Model, fit, initial_head, score_problems
from finetune.fit.frames import Frames
from finetune.heads import build_head, head_class
from finetune.labels.problems import Problem
from finetune.report.annotator_styles import annotators_figure, share_alike, similarity
from finetune.settings import Tuning
from pretrain.components import names
from pretrain.errors import BadInput

SHARED = {"name": "linear", "annotator": "embedding"}


def styles(thresholds: tuple[float, ...]) -> tuple[Frames, list[Problem]]:
    """Annotators who call it an attack from different distances on: the first of six numbers says
    how far."""
    draw = np.random.default_rng(0)
    z = draw.normal(size=(1200, 6)).astype(np.float32)
    spans = {f"v{i}": (i * 200, (i + 1) * 200) for i in range(6)}
    problems = []
    for number, threshold in enumerate(thresholds):
        labels = {
            name: (z[first:end, 0] > threshold).astype(np.int8)
            for name, (first, end) in spans.items()
        }
        test = {"v5": labels.pop("v5")}
        problems.append(
            Problem(
                name=f"annotator {number}",
                task="style",
                classes=("other", "attack"),
                annotator=str(number),
                overlapping=False,
                train=labels,
                test=test,
            )
        )
    return Frames(spans=spans, arrays={"z": z}), problems


def fitted(frames: Frames, problems: list[Problem], head: dict[str, object]) -> Model:
    tuning = Tuning(head=head, steps=150, window=50, batch=16, lr=0.03, class_weight=0.0)
    ((_, _, model),) = fit(frames, problems, tuning, embedder=None, seed=0, stops=[150])
    return model


@pytest.fixture(scope="module")
def two_schools() -> tuple[Frames, list[Problem], Model]:
    frames, problems = styles((-0.6, -0.6, 0.6, 0.6))
    return frames, problems, fitted(frames, problems, SHARED)


def test_annotators_of_one_school_are_alike_and_of_another_not(
    two_schools: tuple[Frames, list[Problem], Model],
) -> None:
    frames, problems, model = two_schools
    cosine = similarity(model.head)
    assert cosine is not None
    same, other = (
        [cosine[0, 1], cosine[2, 3]],
        [cosine[0, 2], cosine[0, 3], cosine[1, 2], cosine[1, 3]],
    )
    assert min(same) > 0.8
    assert max(other) < -0.5
    alike = share_alike(model, frames, problems, ["v5"])
    between = np.mean(problems[0].test["v5"] == problems[2].test["v5"])
    np.testing.assert_allclose(np.diag(alike), 1)
    assert alike[0, 1] > 0.95
    assert alike[0, 2] == pytest.approx(between, abs=0.07)


def test_a_shared_head_follows_each_annotator(
    two_schools: tuple[Frames, list[Problem], Model],
) -> None:
    frames, problems, model = two_schools
    found = model.predict(frames, problems, [problem.test for problem in problems])
    assert score_problems(problems, found, [problem.test for problem in problems]).macro_f1 > 0.93


def test_a_stranger_gets_the_mean_of_those_who_were_trained_on() -> None:
    frames, problems = styles((-0.6, 0.6, 0.0))
    stranger = replace(problems[2], train={})
    model = fitted(frames, [*problems[:2], stranger], SHARED)
    assert model.head.annotators is not None
    vector = model.head.annotators.vectors()
    torch.testing.assert_close(vector[2], vector[:2].mean(0))
    logits = model.logits(frames, "v5")
    share = [(out[:, 1] > out[:, 0]).float().mean().item() for out in logits]
    assert share[1] < share[2] < share[0], "between the two who were there"
    again = build_head(SHARED, 6, [2, 2, 2])
    again.load_state_dict(model.head.state_dict())
    torch.testing.assert_close(
        again.eval()(torch.ones(1, 4, 6), torch.ones(1, 4, dtype=torch.bool))[2],
        model.head(torch.ones(1, 4, 6), torch.ones(1, 4, dtype=torch.bool))[2],
    )


@pytest.mark.parametrize(
    "name", [name for name in names("finetune.heads") if head_class({"name": name}).by_gradient]
)
def test_any_head_can_be_shared_and_asking_about_one_is_asking_about_all(name: str) -> None:
    torch.manual_seed(0)
    head = build_head(
        {"name": name, "annotator": "embedding", "annotator_width": 3}, 5, [4, 4, 4]
    ).eval()
    assert head.annotators is not None
    torch.nn.init.normal_(head.annotators.vector_PA)
    z, valid = torch.randn(6, 30, 5), torch.ones(6, 30, dtype=torch.bool)
    asked = torch.tensor([0, 0, 1, 1, 2, 2])
    every, one = head(z, valid), head(z, valid, asked)
    for row, problem in enumerate(asked):
        torch.testing.assert_close(one[problem][row], every[problem][row])
    assert not torch.allclose(every[0], every[1])


def test_sharing_what_cannot_be_shared_is_refused() -> None:
    _, problems = styles((0.0, 0.5))
    with pytest.raises(BadInput, match="these problems have unlike classes"):
        build_head(SHARED, 4, [2, 3])
    with pytest.raises(BadInput, match="cannot learn annotators"):
        build_head({"name": "prototype", "annotator": "embedding"}, 4, [2, 2])
    with pytest.raises(BadInput, match=r"annotator is 'some'; it must be 'apart' or 'embedding'"):
        build_head({"name": "linear", "annotator": "some"}, 4, [2, 2])
    behaviours = [
        replace(problems[0], classes=("other", "groom")),
        replace(problems[1], classes=("other", "rear")),
    ]
    with pytest.raises(BadInput, match="the same classes labelled by several annotators"):
        initial_head(behaviours, Tuning(head=SHARED), 6)


def test_the_picture_has_both_panels_or_the_one_there_is(
    two_schools: tuple[Frames, list[Problem], Model],
) -> None:
    frames, problems, model = two_schools
    figure = annotators_figure(model, frames, problems)
    assert [axes.get_title() for axes in figure.axes] == [
        "cosine of what was learned of them",
        "frames labelled alike",
    ]
    apart = Model(build_head({"name": "linear"}, 6, [2, 2, 2, 2]), None)
    assert similarity(apart.head) is None
    assert len(annotators_figure(apart, frames, problems).axes) == 1
