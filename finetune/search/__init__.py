"""The search over settings, with Ray Tune."""
