"""The gate before the model registry: no model without its required metadata, one champion, a history of every verdict."""
