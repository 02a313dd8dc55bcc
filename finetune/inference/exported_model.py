"""A fitted model as one network that ``torch.export`` can follow: poses to probabilities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finetune.fit.fit import between, probabilities_of
from finetune.inference.model import BRIDGE_S, LoadedModel
from pretrain.share.exported import PosesToEmbeddings


class PosesToProbabilities(nn.Module):
    """The first network of a model: encoder, head, calibration.

    Args:
        model: Opened; its head is changed to tensor operations.
    """

    def __init__(self, model: LoadedModel) -> None:
        super().__init__()
        network = model.models[0]
        assert network.embedder is not None, "a saved model has its encoder"
        self.embed = PosesToEmbeddings(network.embedder)
        self.head = network.head
        self.head.make_traceable()
        self._model, self._bridge = model, round(BRIDGE_S * model.schema.fps)

    def forward(
        self, position_BTMKX: Tensor, confidence_BTMK: Tensor, extra_BTE: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Of one video, B = 1.

        Returns:
            Embeddings (B, T, D), and (B, T, C) probabilities for each problem, both float32; what
            :meth:`LoadedModel.predict` gives, but for an auto-context, which is left out; NaN where
            no pose supports a label.
        """
        z_BTD = self.embed(position_BTMKX, confidence_BTMK, extra_BTE)
        stride, problems = self.head.stride, self._model.all_problems
        z_BSD = z_BTD[:, ::stride]
        valid_BS = torch.ones(z_BSD.shape[:2], dtype=torch.bool)
        logits = [between(x[0], stride, z_BTD.shape[1]) for x in self.head(z_BSD, valid_BS)]
        each = probabilities_of(problems, logits)
        unseen_T1 = self._unseen(position_BTMKX)[:, None]
        outputs = [z_BTD]
        for p in self._model.selected:
            steps = self._model.postprocessing[0][p]
            # learned on what the auto-context makes of probabilities, which stays outside
            calibration = None if steps.context else steps.calibration
            p_TC = each[p] if calibration is None else calibration.rescale(each[p])
            outputs.append(p_TC.float().masked_fill(unseen_T1, torch.nan).unsqueeze(0))
        return tuple(outputs)

    def _unseen(self, position_BTMKX: Tensor) -> Tensor:
        """(T,): :func:`finetune.inference.model.without_pose`, by the least of every stretch longer
        than the bridge, and then the greatest."""
        seen_T = position_BTMKX[0].isfinite().all(-1).flatten(1).any(-1)
        gap_11T = F.pad((~seen_T).float()[None, None], (self._bridge, self._bridge))
        stretch = (1, self._bridge + 1)
        longer_11T = -F.max_pool2d(-gap_11T, stretch, stride=1)
        return F.max_pool2d(longer_11T, stretch, stride=1)[0, 0] > 0
