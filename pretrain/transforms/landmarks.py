"""Which keypoints of any skeleton play the parts of a mouse: nose, neck, tail base."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from pretrain.data.schema import Schema

_NOSES, _NECKS = ("nose", "snout"), ("neck",)


@dataclass(frozen=True)
class Landmarks:
    """Indices on axis K."""

    nose: int
    neck: int
    """The same as ``nose`` where the skeleton has nothing between nose and tail base; head angles
    are then unknown."""
    tail_base: int

    @classmethod
    def of(cls, schema: Schema) -> Landmarks:
        """By name, else by the body's axis and bones.

        Tail base: the back end of the axis. Nose: the keypoint called nose or snout, else the front
        end of the axis. Neck: the keypoint called neck, else the front end of the axis where that
        is not the nose, else the first bone's end on the way from the nose to the tail base.
        CalMS21's mice: nose, neck, tail_base; rats tracked at top, body and tail: top, body, tail.
        """
        back, front = (
            schema.axis if all(schema.axis) else (schema.keypoints[-1], schema.keypoints[0])
        )
        nose = _keypoint_named(schema, _NOSES) or front
        neck = _keypoint_named(schema, _NECKS) or (
            front if front not in (nose, back) else _next_on_path(schema, nose, back)
        )
        return cls(*(schema.keypoint(name) for name in (nose, neck, back)))


def _keypoint_named(schema: Schema, words: tuple[str, ...]) -> str | None:
    return next((name for word in words for name in schema.keypoints if name.lower() == word), None)


def _next_on_path(schema: Schema, start: str, goal: str) -> str:
    """The keypoint after ``start`` on the shortest path along the bones to ``goal``; ``start``
    where nothing lies between."""
    towards_goal = {goal: goal}
    queue = deque([goal])
    while queue:
        keypoint = queue.popleft()
        for bone in schema.edges:
            if keypoint in bone:
                neighbour = bone[1] if bone[0] == keypoint else bone[0]
                if neighbour not in towards_goal:
                    towards_goal[neighbour] = keypoint
                    queue.append(neighbour)
    step = towards_goal.get(start, goal)
    return start if step == goal else step
