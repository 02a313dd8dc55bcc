"""Scores: frames by the protocol, bouts, agreement."""
