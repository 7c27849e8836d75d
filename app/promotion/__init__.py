"""The gate before the model registry: no model without its papers, one champion, and a history of every verdict."""
