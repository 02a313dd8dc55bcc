"""Tracker files: a format is a module. `pose/trackers.py` tells them apart."""
