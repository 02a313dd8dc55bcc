"""Another view of the same moment: what a behaviour should not depend on.

An augmentation is a function of this file. To add one, write it and mark it with
:func:`augmentation`: it is found by being here, and its keyword arguments are keys of a recipe's
``augment``, with the limits that their types have. With their defaults it changes nothing, and is
not called. Views pass through the functions in the order in which they stand here, those that stand
for a tracker's errors last. Every random draw belongs to its window.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch

from pretrain.components import Count, NotNegative, Share, setting_errors, settings_of
from pretrain.data.schema import Schema
from pretrain.data.window_rng import WindowRNG
from pretrain.data.windows import Pose
from pretrain.errors import refuse
from pretrain.transforms import geometry


@dataclass(frozen=True)
class Augmentation:
    """One augmentation, as :func:`augmentation` makes it."""

    apply: Callable[..., Pose]
    """(pose, schema, rng, *, its settings) to the changed pose."""
    tracker_error: bool
    """Whether it leaves the animals where they are and spoils what is seen of them."""

    @property
    def name(self) -> str:
        """Of the function."""
        return self.apply.__name__

    @cached_property
    def settings(self) -> Mapping[str, inspect.Parameter]:
        """Its keyword arguments."""
        return settings_of(self.apply)


def augmentation(*, tracker_error: bool = False) -> Callable[[Callable[..., Pose]], Augmentation]:
    """Makes a function an augmentation."""
    return partial(Augmentation, tracker_error=tracker_error)


@augmentation()
def mirror(pose: Pose, schema: Schema, rng: WindowRNG, *, mirror: Share = 0.0) -> Pose:
    """With probability ``mirror`` the mirror image, left and right keypoints exchanged."""
    position, confidence = pose.position_BTMKX, pose.confidence_BTMK
    flip = rng.chance("mirror", mirror, 1, 1, 1)
    partner = torch.tensor(schema.mirrored(), device=position.device)
    others = len(schema.coordinates) - 1
    image = position[:, :, :, partner] * position.new_tensor(
        [-1.0, *[1.0] * others]
    ) + position.new_tensor([schema.image_px[0], *[0.0] * others])
    return pose._replace(
        position_BTMKX=torch.where(flip.unsqueeze(-1), image, position),
        confidence_BTMK=torch.where(flip, confidence[:, :, :, partner], confidence),
    )


@augmentation()
def exchange(pose: Pose, schema: Schema, rng: WindowRNG, *, exchange: Share = 0.0) -> Pose:
    """With probability ``exchange`` animals trade rows; not for tasks that tell resident from
    intruder."""
    animals = len(schema.animals)
    if animals == 1:
        return pose
    # A rotation of the rows that leaves no animal in its own: of two, the exchange.
    by = 1 + (rng.uniform("order", 1) * (animals - 1)).long()
    row = torch.arange(animals, device=by.device)
    order = (row + by * rng.chance("exchange", exchange, 1)) % animals
    window = torch.arange(len(order), device=order.device)[:, None]
    return pose._replace(
        position_BTMKX=pose.position_BTMKX.transpose(1, 2)[window, order].transpose(1, 2),
        confidence_BTMK=pose.confidence_BTMK.transpose(1, 2)[window, order].transpose(1, 2),
    )


@augmentation()
def rotate_and_scale(
    pose: Pose, schema: Schema, rng: WindowRNG, *, rotate: bool = False, scale: NotNegative = 0.0
) -> Pose:
    """With ``rotate`` turns the scene about the centre of the image, upright, by any angle;
    ``scale`` is the spread of the logarithm of its size."""
    centre = pose.position_BTMKX.new_tensor(schema.image_px) / 2
    angle = rng.uniform("angle", 1, 1, 1) * 2 * math.pi * rotate
    size = (rng.normal("scale", 1, 1, 1) * scale).exp()
    heading = torch.stack([angle.cos() * size, angle.sin() * size], -1)
    turned = geometry.rotate(pose.position_BTMKX - centre, heading)
    turned[..., 2:] *= size.unsqueeze(-1)
    return pose._replace(position_BTMKX=turned + centre)


@augmentation(tracker_error=True)
def jitter(pose: Pose, schema: Schema, rng: WindowRNG, *, jitter_px: NotNegative = 0.0) -> Pose:
    """Noise on every point, of standard deviation ``jitter_px``."""
    noise = rng.normal("jitter", *pose.position_BTMKX.shape[1:]) * jitter_px
    return pose._replace(position_BTMKX=pose.position_BTMKX + noise)


@augmentation(tracker_error=True)
def drop(
    pose: Pose,
    schema: Schema,
    rng: WindowRNG,
    *,
    drop_points: Share = 0.0,
    drop_frames: Share = 0.0,
    drop_block: Count = 8,
) -> Pose:
    """A keypoint is missing for the whole window with probability ``drop_points``, an animal in a
    block of ``drop_block`` frames with probability ``drop_frames``."""
    _, frames, animals, keypoints = pose.confidence_BTMK.shape
    points = rng.chance("points", drop_points, 1, animals, keypoints)
    blocks = rng.chance("frames", drop_frames, -(-frames // drop_block), animals, 1)
    # Together: a frame that loses every point to the two of them loses external features too.
    return pose.hidden(points | blocks.repeat_interleave(drop_block, 1)[:, :frames])


class Augment:
    """All augmentations, one after the other.

    Args:
        settings: As the key ``augment`` of a recipe; what is left out has its default.

    Raises:
        BadInput: If a setting is unknown, has the wrong type or is out of range.
    """

    def __init__(self, **settings: Any) -> None:
        refuse(augment_errors(settings), about="augment")
        self.settings = {
            name: setting.default for name, setting in _all_settings().items()
        } | settings

    def __call__(self, pose: Pose, schema: Schema, rng: WindowRNG, *, view: str) -> Pose:
        """A view of every window; views of other names are drawn independently."""
        return self.with_tracker_errors(
            self.exact(pose, schema, rng, view=view), schema, rng, view=view
        )

    def exact(self, pose: Pose, schema: Schema, rng: WindowRNG, *, view: str) -> Pose:
        """The view before noise and dropped points."""
        return self._apply(pose, schema, rng.named(view), tracker_error=False)

    def with_tracker_errors(
        self, exact: Pose, schema: Schema, rng: WindowRNG, *, view: str
    ) -> Pose:
        """The view, from what :meth:`exact` returned: the same object where nothing is spoiled."""
        return self._apply(exact, schema, rng.named(view), tracker_error=True)

    def _apply(self, pose: Pose, schema: Schema, rng: WindowRNG, *, tracker_error: bool) -> Pose:
        for one in all_augmentations():
            settings = {name: self.settings[name] for name in one.settings}
            changes = any(value != one.settings[name].default for name, value in settings.items())
            if changes and one.tracker_error == tracker_error:
                pose = one.apply(pose, schema, rng, **settings)
        return pose


def all_augmentations() -> tuple[Augmentation, ...]:
    """Every augmentation of this file, in order."""
    return tuple(value for value in globals().values() if isinstance(value, Augmentation))


def augment_errors(settings: Mapping[str, Any]) -> list[str]:
    """What is wrong with the settings of ``augment``, a sentence each."""
    return setting_errors(_all_settings(), settings)


def _all_settings() -> dict[str, inspect.Parameter]:
    return {name: setting for one in all_augmentations() for name, setting in one.settings.items()}
