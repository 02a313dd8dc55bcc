"""Run folders, MLflow, metrics, provenance."""
