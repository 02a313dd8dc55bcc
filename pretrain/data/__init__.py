"""Pose stores, windows, and the stream of frames."""
