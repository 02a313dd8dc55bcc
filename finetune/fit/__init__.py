"""Fitting a head, with or without the encoder."""
