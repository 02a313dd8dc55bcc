"""What comes after the network: calibration, thresholds, smoothing."""
