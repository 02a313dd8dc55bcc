"""Decision rules: what is done to the probabilities of a frame before its class is chosen. One file
each, found by being here; which is used, if any, is what does best on held-out videos."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

from finetune.labels.frame_labels import Ints, Reals, decide
from finetune.postprocess.as_json import AbstractStep
from pretrain.components import find, names


class AbstractDecisionRule(AbstractStep):
    """Probabilities to probabilities whose plain decision is the tuned one, frame by frame."""

    @classmethod
    @abstractmethod
    def candidates(
        cls, *, probabilities_TC: Reals, labels: Ints, classes: Sequence[str], rest: str | None
    ) -> dict[str, Self]:
        """Rules to try, fitted on labelled frames that the network was not fitted on.

        Args:
            probabilities_TC: Calibrated.
            labels: (T,) classes, or (T, C) of 0 and 1; UNLABELLED in both.
            classes: Names, in the order of axis C.
            rest: The class that scores leave out; see
                :func:`finetune.labels.frame_labels.rest_class`.

        Returns:
            A name that says what each is, to the rule; empty where none makes sense.
        """

    @abstractmethod
    def apply(self, probabilities_TC: Reals) -> Reals:
        """(T, C) probabilities whose plain decision is the tuned one."""

    def decide(self, probabilities_TC: Reals) -> Ints:
        """(T,) classes, or (T, C) of 0 and 1."""
        return decide(probabilities_TC=self.apply(probabilities_TC), overlapping=self.overlapping)


def decision_rules() -> list[type[AbstractDecisionRule]]:
    """Those there are."""
    return [find(__name__, name, AbstractDecisionRule) for name in names(__name__)]


def candidates(
    *, probabilities_TC: Reals, labels: Ints, classes: Sequence[str], rest: str | None = None
) -> dict[str, AbstractDecisionRule]:
    """The candidates of all rules."""
    offered: dict[str, AbstractDecisionRule] = {}
    for kind in decision_rules():
        offered |= kind.candidates(
            probabilities_TC=probabilities_TC, labels=labels, classes=classes, rest=rest
        )
    return offered
