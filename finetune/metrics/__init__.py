"""Scores of frames and bouts."""
