"""What a run leaves: model, predictions, scores, figures."""
