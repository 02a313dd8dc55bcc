"""Gradient-boosted trees (LightGBM, Ke et al. 2017) on frames read a few times a second: on good
hand-made features the strongest single head there is, at any number of labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from finetune.heads import (
    AbstractHead,
    LabelledVideo,
    frame_weights,
    labelled_frames,
    many_are_labelled,
    with_time,
)
from finetune.heads._tree_tensors import TreeTensors
from pretrain.components import Count, Positive, ShareAbove0

_BINNED_FRAMES = 10_000  # whose quantiles are the thresholds that a tree may draw
_LEAST = 1e-6
_Reals = npt.NDArray[np.float32]


class Boosted(AbstractHead):
    """Boosted trees: multiclass, or, where behaviours overlap, behaviour by behaviour.

    Extremely randomised thresholds and few columns a tree, since most of the columns say nearly the
    same and there are few videos to learn from. Kept as LightGBM's own text, nothing is pickled.

    Args:
        hz: Frames a second that are read; scores of the frames between are interpolated.
        trees: Rounds of boosting.
        learning_rate: Shrinkage of each.
        leaves: Of a tree; 0: 6, and 31 from 20,000 labelled frames on.
        columns: Share of the columns a tree may use.
        class_weight: Power of the inverse class frequency that weighs a frame.
        seeds: Models whose probabilities are averaged.
        time: Whether seconds since the beginning and until the end of the recording are columns.
        device: ``cpu``, or ``gpu`` for a LightGBM built for it.
    """

    by_gradient = False
    differentiable = False
    timid = True

    def __init__(
        self,
        dim: int,
        classes: list[int],
        *,
        hz: Positive = 5.0,
        trees: Count = 200,
        learning_rate: float = 0.07,
        leaves: int = 0,
        columns: ShareAbove0 = 0.05,
        class_weight: float = 0.5,
        seeds: Count = 2,
        time: bool = True,
        device: str = "cpu",
    ) -> None:
        super().__init__(dim)
        self.hz, self._time, self._seeds, self._power = hz, time, seeds, class_weight
        self._leaves = leaves
        self._settings = {
            "num_iterations": trees,
            "learning_rate": learning_rate,
            "extra_trees": True,
            "feature_fraction": max(columns, min(1.0, 8 / (dim + 2 * time))),
            "bagging_fraction": 0.7,
            "bagging_freq": 1,
            "lambda_l2": 5.0,
            "max_bin": 63,
            "bin_construct_sample_cnt": _BINNED_FRAMES,
            "deterministic": True,
            "force_col_wise": True,
            "device_type": device,
            "verbose": -1,
        }
        self.out = nn.ModuleList(_Trees(number) for number in classes)

    def trunk(self, z_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """The embedding, and the time where it counts."""
        if not self._time:
            return z_BTD
        step = self.stride / self.fps
        return torch.stack([with_time(z_TD, step, self.stretch) for z_TD in z_BTD])

    def make_traceable(self) -> None:
        """Trees become tensors."""
        for trees in self.out:
            assert isinstance(trees, _Trees)
            trees.make_traceable()

    @torch.no_grad()
    def fit_videos(
        self, problem: int, videos: list[LabelledVideo], *, overlapping: bool, seed: int
    ) -> None:
        """Grows the trees of one problem."""
        trees = self.out[problem]
        assert isinstance(trees, _Trees)
        valid = torch.ones(1, dtype=torch.bool)  # not looked at
        read = [self.trunk(video.z_TD.cpu()[None], valid)[0] for video in videos]
        many = many_are_labelled(videos)
        x, shown_NC = (frames.numpy() for frames in labelled_frames(videos, read))
        settings = self._settings | {
            "num_leaves": self._leaves or (31 if many else 6),
            "min_data_in_leaf": 20 if many else 5,
            "num_threads": torch.get_num_threads(),
        }
        data = lightgbm.Dataset(x, params=settings)
        if overlapping:
            targets = [(shown_NC[:, c], [c]) for c in range(shown_NC.shape[1])]
        else:
            present, label_N = np.unique(shown_NC.argmax(1), return_inverse=True)
            targets = [(label_N, present.tolist())]
        fits = []
        for number in range(self._seeds):
            settings["seed"] = (1000 * seed + number) % 2**31
            for label_N, classes in targets:
                fits.append(_grow(data, label_N, classes, settings, self._power))
        trees.keep(fits, overlapping=overlapping)


def _grow(
    data: lightgbm.Dataset,
    label_N: npt.NDArray[Any],
    classes: list[int],
    settings: Mapping[str, Any],
    power: float,
) -> dict[str, Any]:
    """One model of the labelled frames: its classes and its text; none of labels that are all the
    same. The frames are binned once for all models."""
    known = np.flatnonzero(label_N >= 0)
    label_N = label_N[known]
    if len(np.unique(label_N)) < 2:
        return {"classes": classes, "always": int(label_N[0]) if len(label_N) else 0}
    several = {"objective": "multiclass", "num_class": len(classes)}
    kind = several if len(classes) > 2 else {"objective": "binary"}
    part = data.subset(known).construct()
    part.set_label(label_N)
    part.set_weight(frame_weights(label_N, power))
    booster = lightgbm.train({**settings, **kind}, part)
    return {"classes": classes, "text": booster.model_to_string()}


class _Trees(nn.Module):
    """(…, D) to (…, C) logits, by models kept as the bytes of a JSON text."""

    text: Tensor
    overlapping: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self._classes = classes
        self.register_buffer("text", torch.zeros(0, dtype=torch.uint8))
        self.register_buffer("overlapping", torch.zeros((), dtype=torch.bool))
        self._open: _Opened | None = None

    def keep(self, fits: list[dict[str, Any]], *, overlapping: bool) -> None:
        """Takes fitted models in place of those there were."""
        self.text = torch.frombuffer(
            bytearray(json.dumps(fits).encode()), dtype=torch.uint8
        ).clone()
        self.overlapping = torch.tensor(overlapping)
        self._open = None

    def _models(self) -> _Opened:
        if self._open is None:
            overlapping, models = bool(self.overlapping), list[tuple[list[int], _Model]]()
            for fit in json.loads(self.text.cpu().numpy().tobytes() or b"[]"):
                classes = fit["classes"]
                if "text" in fit:
                    booster = lightgbm.Booster(model_str=fit["text"])
                    models.append((classes, partial(_predict, booster)))
                elif overlapping:
                    models.append((classes, float(fit["always"])))
                else:
                    models.append(([classes[fit["always"]]], 1.0))
            self._open = overlapping, models
        return self._open

    def make_traceable(self) -> None:
        """From now on LightGBM computes nothing."""
        overlapping, models = self._models()
        traced = [
            (classes, TreeTensors(model.args[0]) if isinstance(model, partial) else model)
            for classes, model in models
        ]
        self.traced = nn.ModuleList(model for _, model in traced if isinstance(model, nn.Module))
        self._open = overlapping, traced

    def forward(self, z_BTD: Tensor) -> Tensor:
        x_ND = z_BTD.flatten(0, -2)
        overlapping, models = self._models()
        p_NC = x_ND.new_zeros((x_ND.shape[0], self._classes), dtype=torch.float64)
        number_C = p_NC.new_zeros(self._classes)
        for classes, model in models:
            if isinstance(model, float):
                q_NK = p_NC.new_full((x_ND.shape[0], 1), model)
            elif (q_NK := model(x_ND)).ndim == 1:
                q_NK = torch.stack([q_NK] if overlapping else [1 - q_NK, q_NK], 1)
            place_KC = torch.eye(self._classes, dtype=p_NC.dtype, device=p_NC.device)[classes]
            p_NC = p_NC + q_NK @ place_KC
            number_C = number_C + (place_KC.sum(0) if overlapping else 1)
        p_NC = (p_NC / number_C.clamp(min=1)).clamp(_LEAST, 1 - _LEAST)
        logits_NC = (p_NC.logit() if overlapping else p_NC.log()).float()
        return logits_NC.view(*z_BTD.shape[:-1], -1)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": None}  # opened again where it arrives

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *more: Any) -> None:
        if f"{prefix}text" in state_dict:
            self.text = torch.empty_like(state_dict[f"{prefix}text"])
        self._open = None
        super()._load_from_state_dict(state_dict, prefix, *more)


def _predict(booster: lightgbm.Booster, x_ND: Tensor) -> Tensor:
    p = booster.predict(x_ND.cpu().numpy(), num_threads=torch.get_num_threads())
    return torch.from_numpy(np.asarray(p)).to(x_ND.device)


_Model = Callable[[Tensor], Tensor] | float
"""(N, D) to (N,) or (N, K) probabilities; or what all frames get."""
_Opened = tuple[bool, list[tuple[list[int], _Model]]]
"""Whether behaviours overlap; of each model its classes, and the model."""
