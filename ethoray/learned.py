"""Encoders and models at work on arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.errors import BadInput

if TYPE_CHECKING:
    import numpy.typing as npt

    from finetune.inference.model import LoadedModel
    from finetune.labels.frame_labels import Ints, Reals
    from pretrain.data.schema import Float, Schema
    from pretrain.encoders import Embedder


@dataclass(frozen=True)
class Encoder:
    """A pretrained encoder; :func:`load_encoder` opens it."""

    embedder: Embedder
    """The torch module inside."""
    device: str

    @property
    def schema(self) -> Schema:
        """The animals, keypoints and frame rate that it was trained on."""
        return self.embedder.features.schema

    @property
    def dim(self) -> int:
        """D."""
        return self.embedder.dim

    @property
    def external(self) -> dict[str, int]:
        """The external features that it needs: name to dimension."""
        return self.embedder.external

    def embed(
        self,
        position_TMKX: npt.ArrayLike,
        confidence_TMK: npt.ArrayLike | None = None,
        *,
        external: Mapping[str, npt.ArrayLike] | None = None,
    ) -> Float:
        """Embeds every frame of a video, at the frame rate of :attr:`schema`.

        Args:
            position_TMKX: (T, M, K, X) in pixels, NaN = missing.
            confidence_TMK: (T, M, K) from 0 to 1; left out: 1 wherever there is a position.
            external: External features by name, each (T, D), as ``store.read_video`` gives them.

        Returns:
            (T, D) float32.

        Raises:
            BadInput: If the arrays do not fit :attr:`schema`, or external features are missing.
        """
        from pretrain.data.arrays import as_frames
        from pretrain.train.embed_video import embed_video

        frames = as_frames(
            position_TMKX, confidence_TMK, external, schema=self.schema, dims=self.external
        )
        return embed_video(self.embedder, frames, device=self.device).cpu().numpy()


def load_encoder(run: str | Path, *, device: str = "cpu") -> Encoder:
    """Opens a pretrained encoder.

    Args:
        run: The --out folder of a finished ``ethoray pretrain``, or an encoder folder.
        device: Where it computes: ``cpu``, ``cuda``.

    Raises:
        BadInput: If there is no encoder, or it is damaged.
    """
    from pretrain.train import checkpoint

    embedder, _ = checkpoint.load_encoder(Path(run).expanduser())
    return Encoder(embedder.to(device), device)


@dataclass(frozen=True)
class Model:
    """A fitted classifier; :func:`load_model` opens it."""

    loaded: LoadedModel
    """The networks inside, and what follows them."""

    @property
    def schema(self) -> Schema:
        """The animals, keypoints and frame rate that it was trained on."""
        return self.loaded.schema

    @property
    def classes(self) -> tuple[str, ...]:
        """Behaviours, in the order of axis C."""
        return self.loaded.problems[0].classes

    @property
    def external(self) -> dict[str, int]:
        """The external features that it needs: name to dimension."""
        return dict(self.loaded.external)

    def predict(
        self,
        position_TMKX: npt.ArrayLike,
        confidence_TMK: npt.ArrayLike | None = None,
        *,
        external: Mapping[str, npt.ArrayLike] | None = None,
    ) -> tuple[Ints, Reals]:
        """Labels every frame of a video, at the frame rate of :attr:`schema`.

        Args:
            position_TMKX: (T, M, K, X) in pixels, NaN = missing.
            confidence_TMK: (T, M, K) from 0 to 1; left out: 1 wherever there is a position.
            external: External features by name, each (T, D), as ``store.read_video`` gives them.

        Returns:
            Labels, (T,) indices into :attr:`classes`, or (T, C) of 0 and 1 where behaviours can
            overlap; and probabilities, (T, C). What the run learned on held-out videos is applied:
            temperature (to probabilities), thresholds and smoothing (to labels). In gaps of more
            than a second in which no animal is seen, labels are -1 and probabilities NaN.

        Raises:
            BadInput: If the arrays do not fit :attr:`schema`, or external features are missing.
        """
        from pretrain.data.arrays import as_frames

        frames = as_frames(
            position_TMKX, confidence_TMK, external, schema=self.schema, dims=self.external
        )
        (predicted,) = self.loaded.predict(frames)
        return predicted.labels, predicted.probabilities_TC


def load_model(
    run: str | Path,
    *,
    labels_of: str | None = None,
    seed: int | None = None,
    ensemble: bool = False,
) -> Model:
    """Opens a fitted classifier.

    Args:
        run: The --out folder of a finished ``ethoray finetune``, or one model folder in it.
        labels_of: Task, annotator or behaviour, of a model that was fitted on several.
        seed: Which of its networks; left out: the first.
        ensemble: Average the probabilities of all networks.

    Raises:
        BadInput: If there is no such model, or it is damaged, or it was fitted on several problems
            and ``labels_of`` does not choose one.
    """
    from finetune.inference.model import open_model

    loaded = open_model(str(run), seed=seed, ensemble=ensemble, labels_of=labels_of)
    if len(loaded.problems) > 1:
        names = ", ".join(problem.name for problem in loaded.problems)
        raise BadInput(f"{run} was fitted on several problems; choose one with labels_of: {names}")
    return Model(loaded)
