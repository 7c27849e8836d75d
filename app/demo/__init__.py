"""`trigger-gateway demo`: a storm of recorded alerts against a real Airflow, and what comes of it."""

from app.demo.story import run_demo

__all__ = ["run_demo"]
