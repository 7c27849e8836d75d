"""`trigger-gateway demo`: a storm of recorded alerts against a real Airflow, and what comes of it."""
