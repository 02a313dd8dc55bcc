"""A fitted model at work: labels for new recordings, and what to label next."""
