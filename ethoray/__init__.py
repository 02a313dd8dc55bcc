"""Ethoray in Python: stores, tracks, features, encoders and models, each one call, on arrays."""
