"""Objectives and encoders side by side, at equal time."""
