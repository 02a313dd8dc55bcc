"""What earlier versions wrote is loaded, and says the same (tests/releases/make.py made it)."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

import ethoray

KEPT = Path(__file__).parent / "releases"
VERSIONS = sorted(path.name for path in KEPT.iterdir() if (path / "model").is_dir())


def test_this_release_is_kept_and_small() -> None:
    project = tomllib.loads((KEPT.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["version"] in VERSIONS
    sizes = [path.stat().st_size for path in KEPT.rglob("*") if path.is_file()]
    assert sum(sizes) < 500_000 * len(VERSIONS)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_encoder_and_a_model_of_a_release_say_what_they_said(version: str) -> None:
    kept = np.load(KEPT / version / "recording.npz")
    encoder = ethoray.load_encoder(KEPT / version / "encoder")
    np.testing.assert_allclose(encoder.embed(kept["position_TMKX"]), kept["z_TD"], atol=1e-4)
    model = ethoray.load_model(KEPT / version / "model")
    assert model.classes == ("attack", "investigation", "mount", "other")
    labels, probabilities = model.predict(kept["position_TMKX"])
    np.testing.assert_allclose(probabilities, kept["probabilities_TC"], atol=1e-4)
    assert np.isnan(probabilities[200:260]).all()
    assert np.nanstd(probabilities, axis=0).min() > 0.02, "a model that says nothing"
    assert np.mean(labels == kept["labels"]) > 0.99
    assert len(np.unique(labels)) > 2
