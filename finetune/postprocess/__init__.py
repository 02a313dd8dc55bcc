"""From the probabilities of a network to labels: calibration, thresholds, smoothing."""
