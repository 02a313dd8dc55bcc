"""A fitted model on new recordings."""
