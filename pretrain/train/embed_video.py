"""Every frame of a video embedded once. Plain torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from pretrain.data.windows import Pose, cover
from pretrain.encoders import Embedder
from pretrain.runs.pose_table import Columns, TableModel
from pretrain.train.checkpoint import load_encoder

EMBED_FRAMES = 1024


def embed_video(
    embedder: Embedder, frames: Mapping[str, Tensor], *, device: str = "cpu", stride: int = 1
) -> Tensor:
    """Every frame of a video embedded once: what :func:`embed_parts` gives, in one tensor,
    (T / stride, D)."""
    total = len(frames["position"])
    z_TD = torch.empty((-(-total // stride), embedder.dim), device=device)
    begin = 0
    for part in embed_parts(embedder, frames, device=device, stride=stride):
        z_TD[begin : begin + len(part)] = part
        begin += len(part)
    return z_TD


@torch.no_grad()
def embed_parts(
    embedder: Embedder, frames: Mapping[str, Tensor], *, device: str = "cpu", stride: int = 1
) -> Iterator[Tensor]:
    """Every frame of a video embedded once, in one pass of overlapping windows.

    Args:
        embedder: In evaluation mode.
        frames: ``position`` (T, M, K, X) and ``confidence`` (T, M, K); ``extra`` (T, E) where the
            encoder reads it.
        device: Where to compute.
        stride: Of every so many frames one is kept, from the first on.

    Yields:
        Consecutive rows of (T / stride, D).
    """
    pose = as_pose({name: values.unsqueeze(0).to(device) for name, values in frames.items()})
    window = max(EMBED_FRAMES, 6 * embedder.overlap) + 2 * embedder.overlap
    for windows, part, inside in cover(pose, window=window, overlap=embedder.overlap):
        first = -part.start % stride  # of this part's frames, the first that is kept
        yield embedder.embed(windows)[0, inside][first::stride].float()


def as_pose(frames: Mapping[str, Tensor]) -> Pose:
    """Stretches of frames as an encoder takes them."""
    return Pose(frames["position"], frames["confidence"], frames.get("extra"))


class PrincipalComponents(nn.Module):
    """The first principal components of embeddings, each brought to unit spread.

    Args:
        dim: D of the embeddings.
        number: How many to keep.
    """

    mean_D: Tensor
    basis_DC: Tensor

    def __init__(self, dim: int, number: int) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(dim))
        self.register_buffer("basis_DC", torch.eye(dim, number))

    @torch.no_grad()
    def fit(self, z_ND: Tensor) -> float:
        """Fits them on a sample of embeddings; returns their share of the variance."""
        self.mean_D.copy_(z_ND.mean(0))
        _, singular, basis = torch.linalg.svd(z_ND - self.mean_D, full_matrices=False)
        number = min(self.basis_DC.shape[1], len(singular))
        deviation = singular[:number] / max(1, len(z_ND) - 1) ** 0.5
        self.basis_DC.zero_()
        self.basis_DC[:, :number] = basis[:number].T / deviation.clamp(min=1e-6)
        variance = singular.square()
        return float(variance[:number].sum() / variance.sum().clamp(min=1e-12))

    def forward(self, z_ND: Tensor) -> Tensor:
        """(N, D) to (N, C)."""
        return (z_ND - self.mean_D) @ self.basis_DC


def embed_table(folder: str) -> TableModel:
    """The encoder of a run for those who have tables: poses in, ``z_0``, ``z_1``… out."""
    embedder, _ = load_encoder(folder)

    def apply(frames: dict[str, Tensor]) -> Columns:
        z_TD = embed_video(embedder, frames).numpy()
        return {f"z_{d}": z_TD[:, d] for d in range(z_TD.shape[1])}

    return TableModel(schema=embedder.features.schema, external=embedder.external, apply=apply)
