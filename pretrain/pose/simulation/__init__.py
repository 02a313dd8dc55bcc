"""The simulated arena, part by part: who acts, where they go, what the tracker makes of it. `pose/arena.py` puts it together."""
