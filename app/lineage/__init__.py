"""What became of it: metadata on its way to MLflow, and the chain from an alert to a model and back."""
