"""Trigger Gateway: the decision point of continuous training."""

__version__ = "0.1.0"
