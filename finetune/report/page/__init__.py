"""``report.html``: all that a run shows, in one file that needs nothing else."""
