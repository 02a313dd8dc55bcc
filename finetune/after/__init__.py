"""What comes after the network, learned on held-out training videos: temperature, thresholds, smoothing."""
