"""What ``ethoray compare`` compares: pairs of recipe and network, or finished encoders."""
