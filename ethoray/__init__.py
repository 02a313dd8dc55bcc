"""Ethoray in a notebook: each thing one call, numpy arrays in and out (torch tensors will do).

    store = ethoray.open_store("stores/mine")
    video = store.read_video("m1")                        # .position_TMKX, .confidence_TMK
    encoder = ethoray.load_encoder("runs/mine")
    z_TD = encoder.embed(video.position_TMKX, video.confidence_TMK)
    model = ethoray.load_model("runs/finetune-attack")
    labels, probabilities = model.predict(video.position_TMKX, video.confidence_TMK)

Arrays end in their axes: T frames, M animals, K keypoints, X coordinates (pixels, y down), F
features, D embedding, C classes. A missing point is NaN with confidence 0. What is wrong raises
:class:`BadInput`, a ValueError whose message says what is allowed. docs/python.md has examples.
"""

from ethoray.learned import Encoder, Model, load_encoder, load_model
from ethoray.poses import features, open_store, read_tracks, schema, schema_of
from ethoray.toolboxes import to_dataset, to_intervals
from pretrain.errors import BadInput

__all__ = [
    "BadInput",
    "Encoder",
    "Model",
    "features",
    "load_encoder",
    "load_model",
    "open_store",
    "read_tracks",
    "schema",
    "schema_of",
    "to_dataset",
    "to_intervals",
]
