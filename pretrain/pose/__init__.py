"""Pose data: its vocabulary, its store, its readers. No Ray, no training."""
