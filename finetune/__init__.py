"""Tunes behaviour classifiers on a pretrained encoder with the few labels a lab has."""
