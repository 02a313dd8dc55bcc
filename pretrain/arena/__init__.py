"""Simulated mice."""
